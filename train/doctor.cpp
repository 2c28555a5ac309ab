#include "train/doctor.h"

#include <algorithm>
#include <cmath>
#include <iomanip>
#include <sstream>

#include "kernels/error.h"

namespace dino {
namespace {

/// Below the first a run is watched, below the second it collapses. NaN is below nothing.
struct Limits {
  double watch, collapse;
  Verdict operator()(double value) const {
    return value < collapse ? Verdict::collapsing : value < watch ? Verdict::watch : Verdict::healthy;
  }
};

// Measured on conv_small and a small ViT; each lies well between the healthy runs and the collapsed ones.
constexpr Limits kMarginal{0.5, 0.3};       // entropy of the mean target, over ln of what a batch could tell apart
constexpr Limits kInformation{0.07, 0.05};  // marginal entropy less teacher entropy, over the same
constexpr Limits kFeatures{0.15, 0.05};     // standard deviation of features, over 1/√dim
constexpr double kShortestHalfLife = 2;     // steps
constexpr double kShortHalfLife = 20;

constexpr double kUniform = 0.9;            // teacher entropy over ln(prototypes): what makes targets uniform in words

/// A measurement with two or three digits behind the point.
std::string text(double value) {
  std::ostringstream out;
  out << std::fixed << std::setprecision(value < 0.1 ? 3 : 2) << value;
  return out.str();
}

/// Help where no option stands out as the cause.
std::string steadier(const Signs& signs) {
  return signs.half_life < kShortHalfLife ? str("the teacher's half-life is only ", text(signs.half_life), " steps: a higher --momentum-teacher may help, or a smaller --lr")
                                          : "a smaller --lr may help";
}

}  // namespace

std::string_view name_of(Verdict verdict) {
  constexpr std::string_view names[] = {"", "healthy", "watch", "collapsing"};
  return names[static_cast<size_t>(verdict)];
}

bool Doctor::Streak::lasts(bool found, int64_t step) {
  if (!found) {
    lines = 0;
    return false;
  }
  if (lines++ == 0) since = step;
  return lines >= kPatienceLines && step - since >= kPatienceSteps;
}

Diagnosis Doctor::examine(const Signs& signs) {
  const bool silent = std::isnan(signs.marginal_entropy) && std::isnan(signs.feature_std);
  if (silent || signs.step < kFirstStep) return last_;
  Diagnosis worst{Verdict::healthy, ""};
  for (const Diagnosis& finding : {same_targets(signs), empty_targets(signs), same_features(signs)})
    if (finding.verdict > worst.verdict) worst = finding;
  if (const std::string cause = too_fast(signs); !cause.empty()) {
    // Such a run swings from one kind of collapse to the other, past numbers that would pass for healthy: all findings count.
    swings_ += worst.verdict > Verdict::healthy;
    worst = {swings_ >= kPatienceLines ? Verdict::collapsing : Verdict::watch, worst.reason.empty() ? cause : worst.reason};
  }
  const bool watched = worrying_.lasts(worst.verdict >= Verdict::watch, signs.step);
  const bool collapsing = bad_.lasts(worst.verdict == Verdict::collapsing, signs.step);
  if (!watched) return last_ = {Verdict::healthy, ""};
  worst.verdict = collapsing ? Verdict::collapsing : Verdict::watch;
  return last_ = worst;
}

double Doctor::log_prototypes() const { return std::log(static_cast<double>(patient_.prototypes)); }

double Doctor::most_nats() const { return std::log(static_cast<double>(std::min(patient_.prototypes, patient_.images))); }

std::string Doctor::too_fast(const Signs& signs) const {
  if (patient_.predictor || !(signs.half_life < kShortestHalfLife)) return "";
  return str("the teacher follows the student with a half-life of ", text(signs.half_life), " steps: --teacher momentum with a --momentum-teacher of ",
             "0.9 or more (0.996 for long runs) makes it steadier than the student");
}

Diagnosis Doctor::same_targets(const Signs& signs) const {
  if (most_nats() < 1) return {Verdict::healthy, ""};
  std::string help = too_fast(signs);
  if (help.empty() && !patient_.centering && !patient_.sinkhorn) help = "--centering on (or --sinkhorn 3) prevents that";
  if (help.empty() && !patient_.sinkhorn) help = str(steadier(signs), ", or --sinkhorn 3, which shares out the prototypes in each batch");
  if (help.empty()) help = steadier(signs);
  return {kMarginal(signs.marginal_entropy / most_nats()),
          str("marginal entropy ", text(signs.marginal_entropy), " of ", text(log_prototypes()), " nats: nearly all images get the same target; ", help)};
}

Diagnosis Doctor::empty_targets(const Signs& signs) const {
  if (most_nats() < 1 || signs.step < patient_.warmup_steps) return {Verdict::healthy, ""};
  const double information = signs.marginal_entropy - signs.teacher_entropy;
  const bool uniform = signs.teacher_entropy > kUniform * log_prototypes();
  const bool hot = signs.teacher_temp >= patient_.student_temp;
  std::string help = too_fast(signs);
  if (help.empty() && (uniform || hot))
    help = str("a lower --teacher-temp (and --warmup-teacher-temp) than ", signs.teacher_temp, " sharpens them",
               hot ? str("; it must be below the student's ", patient_.student_temp) : "");
  if (help.empty()) help = steadier(signs);
  return {kInformation(information / most_nats()),
          str("teacher entropy ", text(signs.teacher_entropy), " of ", text(log_prototypes()), " nats, and that of the mean target is only ",
              text(information), " more: targets ", uniform ? "are uniform and " : "", "tell nothing about the image; ", help)};
}

Diagnosis Doctor::same_features(const Signs& signs) const {
  if (signs.step < patient_.warmup_steps) return {Verdict::healthy, ""};
  const double scattered = 1 / std::sqrt(static_cast<double>(patient_.feature_dim));
  std::string help = too_fast(signs);
  if (help.empty() && !patient_.centering && !patient_.sinkhorn && !patient_.predictor) help = "--centering on or --predictor prevents that";
  if (help.empty()) help = steadier(signs);
  return {kFeatures(signs.feature_std / scattered),
          str("standard deviation of the features ", text(signs.feature_std), ", healthy is near ", text(scattered), ": all images look the same to the teacher; ", help)};
}

}  // namespace dino
