#pragma once

#include <cstdint>
#include <limits>
#include <string>
#include <string_view>

namespace dino {

/// What a logged step tells about the health of a run. NaN stands for what is not known, and is never held against a run.
struct Signs {
  static constexpr double kUnknown = std::numeric_limits<double>::quiet_NaN();
  int64_t step = 0;
  double teacher_entropy = kUnknown;   ///< mean entropy of the targets, nats
  double marginal_entropy = kUnknown;  ///< entropy of the mean target, nats
  double teacher_temp = kUnknown;
  double feature_std = kUnknown;       ///< see FeatureStatistics
  double half_life = kUnknown;         ///< of the teacher's weights, steps
};

/// What the doctor must know of a run to read its signs.
struct Patient {
  int64_t prototypes = 0;
  int64_t images = 0;        ///< of a batch
  int64_t feature_dim = 0;
  int64_t warmup_steps = 0;  ///< of the learning rate
  double student_temp = 0;
  bool centering = false, sinkhorn = false, predictor = false;
};

enum class Verdict { none, healthy, watch, collapsing };
std::string_view name_of(Verdict verdict);

struct Diagnosis {
  Verdict verdict = Verdict::none;  ///< none: too early to tell
  std::string reason;               ///< of watch and collapsing: in words, with the option that would help
};

/// Reads the signs of logged steps, in their order, and tells whether the run collapses: a function of the signs so far.
/// docs/how_a_healthy_run_looks.md shows the runs that its thresholds were chosen on, and others that they were tried on.
class Doctor {
 public:
  /// No verdict before this step: until then random networks give any numbers, and the center, with its momentum of 0.9, is
  /// still moving away from 0 (it has 99.5 % of a constant mean by then).
  static constexpr int64_t kFirstStep = 50;
  /// A finding counts once every logged step had it over so many steps, and at least so many of them.
  static constexpr int64_t kPatienceSteps = 30;
  static constexpr int kPatienceLines = 3;

  explicit Doctor(const Patient& patient) : patient_(patient) {}

  /// The verdict after one more logged step. A step without signs changes nothing.
  Diagnosis examine(const Signs& signs);

 private:
  /// How long findings have been there.
  struct Streak {
    int64_t since = 0;
    int lines = 0;
    bool lasts(bool found, int64_t step);
  };
  double log_prototypes() const;
  /// What a target can tell about an image of a batch at most, nats. Below 1 there are too few images to judge by.
  double most_nats() const;
  /// Words if the teacher is hardly steadier than the student and no predictor makes up for it (Caron et al., 2021, figure
  /// 6; Chen and He, 2021).
  std::string too_fast(const Signs& signs) const;
  Diagnosis same_targets(const Signs& signs) const;
  Diagnosis empty_targets(const Signs& signs) const;
  Diagnosis same_features(const Signs& signs) const;

  Patient patient_;
  Streak worrying_, bad_;
  int swings_ = 0;  ///< lines with a finding, of a teacher that is too fast
  Diagnosis last_;
};

}  // namespace dino
