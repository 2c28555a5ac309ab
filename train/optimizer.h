#pragma once

#include <string>
#include <vector>

#include "engine/ops.h"
#include "engine/parameters.h"
#include "engine/run.h"

namespace dino {

struct OptimizerConfig {
  enum class Kind { adamw, sgd, lars };
  Kind kind = Kind::adamw;
  double clip_grad = 3;    ///< L2 norm that each tensor's gradient is clipped to; 0: off
  double layer_decay = 1;  ///< of the learning rate from block to block; see train/layer_decay.h
};

/// Updates the trainable parameters of one store. Learning rate and decay come from the step scalars.
class Optimizer {
 public:
  Optimizer(Context& context, const OptimizerConfig& config, const ParameterStore& parameters);

  const OptimizerConfig& config() const { return config_; }

  /// Gradient norms of all tensors that got a gradient in this step (without the last layer if that is frozen), and
  /// whether they and `loss` [1] are all finite: 1 or 0, [1].
  Tensor check_health(Context& context, const ParameterStore& parameters, const Tensor& loss, bool last_layer_frozen);

  /// One update, unless `healthy` [1] is 0. Call after `check_health` of the same step. `average`, if not null, becomes the
  /// exponential moving average of the updated parameters: those that both have lie at the same places.
  void update(Context& context, const ParameterStore& parameters, const Tensor& healthy, const ParameterStore* average);

  /// One line of the optimizer's state: a vector [elements] in the parameters' layout, or one number per tensor.
  struct State {
    std::string name;  ///< exp_avg, exp_avg_sq, momentum_buffer
    Tensor values;
  };
  const std::vector<State>& states() const { return states_; }
  /// Updates that each tensor has had, [tensors] in the order of `tensors()`; only AdamW counts.
  const Tensor& steps() const { return steps_; }
  /// Index in the store of each tensor that is optimized.
  const std::vector<int>& tensors() const { return tensors_; }
  /// Gradient norms before clipping of the last step, [tensors].
  const Tensor& norms() const { return norms_; }

 private:
  OptimizerConfig config_;
  std::vector<int> tensors_;
  std::vector<State> states_;
  Tensor steps_, norms_, segments_;
  std::vector<int64_t> table_;  ///< of segments, on the host
  std::vector<double> rates_;   ///< of the store's entries
};

}  // namespace dino
