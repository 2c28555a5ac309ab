#pragma once

#include <vector>

#include "engine/parameters.h"

namespace dino {

/// What the learning rate of each entry of a network is multiplied with under layer-wise decay, as when BEiT (Bao et al., 2022)
/// and MAE (He et al., 2022) are fine-tuned: block l of L has decay^(L + 1 − l), counted from 1; patch and position embeddings or
/// the stem, as block 0, have the least; the last norm, the head and the predictor have 1. The stages of a convolutional network
/// are its blocks. With a decay of 1 all are exactly 1.
std::vector<double> layer_rates(const ParameterStore& parameters, double decay);

}  // namespace dino
