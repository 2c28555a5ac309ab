#pragma once

#include <functional>
#include <vector>

#include "engine/tensor.h"

namespace dino {

class Context;

/// A part of a network: tensors in, new tensors out. It owns its inputs, so that it may let go of them as soon as they are used.
using Part = std::function<std::vector<Tensor>(Context&, std::vector<Tensor>)>;

/// part(context, inputs), but a tape keeps only `inputs` of it: backward runs the part once more to have what it needs
/// (Chen et al., 2016). Less memory, more time, the same bits: whatever the part does must follow from its inputs and from
/// parameters, so it may draw random numbers as functions of the step but not collect running statistics. What it refers
/// to must live until backward. Throws Error if it hands out an input as an output.
std::vector<Tensor> recompute(Context& context, std::vector<Tensor> inputs, Part part);

}  // namespace dino
