#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "augment/dataset.h"
#include "kernels/thread_pool.h"

namespace dino {

/// How images are brought to a network's input for evaluation.
struct EvaluationConfig {
  int size = 224;  ///< pixels of a side of the result
  int channels = 3;
  std::vector<float> mean{}, deviation{};  ///< as in AugmentConfig
  SampleType samples = SampleType::uint8;

  ImageKind kind() const { return {channels, samples}; }
};

/// An image that could not be read.
struct LoadFailure {
  size_t row;           ///< into the indices that were asked for
  std::string message;  ///< one line: name, cause
};

/// Loads images by the evaluation transform: short side to round(size * 8 / 7), bicubic, centre crop,
/// normalisation; images that are size x size already are only normalised. `out` is [indices, size, size,
/// channels]; rows of unreadable images are zero and listed in `failures` (replaced, in order of rows).
/// Throws UsageError if `config` cannot be.
void load_evaluation_images(const Dataset& dataset, std::span<const size_t> indices,
                            const EvaluationConfig& config, ThreadPool& pool, float* out,
                            std::vector<LoadFailure>& failures);

/// Loads images by the training transform of the linear probe: a random box of 8 to 100 % of the area,
/// resized (bilinear), mirrored with probability 1/2, normalised. The draws depend on (seed, epoch, index)
/// only. `out` and `failures` as above.
void load_probe_images(const Dataset& dataset, std::span<const size_t> indices,
                       const EvaluationConfig& config, uint64_t seed, int64_t epoch, ThreadPool& pool,
                       float* out, std::vector<LoadFailure>& failures);

}  // namespace dino
