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
  explicit Tape(Context& context);
  ~Tape();
  Tape(const Tape&) = delete;
  Tape& operator=(const Tape&) = delete;

  void record(std::unique_ptr<TapeNode> node) { nodes_.push_back(std::move(node)); }

  /// Writes gradients into the slots of everything that `loss` [1] was computed from, as if loss had gradient `seed`.
  /// Ops are undone last to first and forgotten, so that their memory is free for the gradients of earlier ones.
  void backward(const Tensor& loss, double seed = 1);

 private:
  Context& context_;
  Tape* outer_;
  std::vector<std::unique_ptr<TapeNode>> nodes_;
};

}  // namespace dino
