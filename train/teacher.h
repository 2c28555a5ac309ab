#pragma once

#include <string>

#include "models/network.h"
#include "train/schedule.h"

namespace dino {

/// Where the teacher's weights come from (Caron et al., 2021, section 5.2 and figure 6).
enum class TeacherKind {
  momentum,        ///< exponential moving average of the student
  copy,            ///< the student itself
  previous_step,   ///< the student of the step before
  previous_epoch,  ///< the student at the end of the epoch before
};

/// Steps after which half of the teacher's weights came from later students: ln 0.5 / ln momentum. 0 for a copy of the
/// student, infinite for a momentum of 1, NaN for the other kinds, which do not average.
double teacher_half_life(TeacherKind kind, double momentum);

/// A network without gradients that follows the student. Every kind is an EMA with its own momentum at its own moment.
class Teacher {
 public:
  Teacher(const NetworkConfig& config, TeacherKind kind, const Placement& placement, uint64_t seed);

  Network& network() { return network_; }
  const Network& network() const { return network_; }

  /// Takes over all of the student's parameters and statistics, but for its predictor.
  void copy_from(const Network& student);

  /// Features [2 · batch, dim] of the global crops. Nothing is recorded, so no gradient flows.
  Tensor features(Context& context, const Tensor& global_crops) const;
  /// Logits [2 · batch, prototypes] of features.
  Tensor logits(Context& context, const Tensor& features) const;

  TeacherKind kind() const { return kind_; }
  /// The parameters that the optimizer averages into in the pass that updates the student: a momentum teacher's, else null.
  const ParameterStore* averaged() const { return kind_ == TeacherKind::momentum ? &network_.parameters() : nullptr; }

  /// Call before and after the optimizer's update; does nothing if `healthy` [1] is 0. `last_of_epoch` says whether this
  /// step ends an epoch. Nothing is left to do for a teacher that the optimizer averaged.
  void before_update(Context& context, const Network& student, const Tensor& healthy);
  void after_update(Context& context, const Network& student, const Tensor& healthy, bool last_of_epoch);

 private:
  void follow(Context& context, const Network& student, const Tensor& healthy, bool copy);

  Network network_;
  TeacherKind kind_;
};

}  // namespace dino
