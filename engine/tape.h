#pragma once

#include <memory>
#include <vector>

#include "engine/tensor.h"

namespace dino {

class Context;

/// One executed op that backward can undo.
class TapeNode {
 public:
  virtual ~TapeNode() = default;
  virtual void backward(Context& context) = 0;
};

/// Records the ops that run on a context while it is alive. Without a tape nothing is recorded and nothing is kept:
/// a teacher and an evaluation need no special mode.
class Tape {
 public:
  /// `forget` keeps nothing either, but gives tensors gradient slots: for ops that will run again to be undone.
  enum class Recording { keep, forget };

  explicit Tape(Context& context, Recording recording = Recording::keep);
  ~Tape();
  Tape(const Tape&) = delete;
  Tape& operator=(const Tape&) = delete;

  void record(std::unique_ptr<TapeNode> node) {
    if (recording_ == Recording::keep) nodes_.push_back(std::move(node));
  }

  /// Writes gradients into the slots of everything that `loss` [1] was computed from, as if loss had gradient `seed`.
  /// Ops are undone last to first and forgotten, so that their memory is free for the gradients of earlier ones.
  void backward(const Tensor& loss, double seed = 1);

  /// The same where the gradients to start from are in their slots already.
  void undo();

 private:
  Context& context_;
  Recording recording_;
  Tape* outer_;
  std::vector<std::unique_ptr<TapeNode>> nodes_;
};

}  // namespace dino
