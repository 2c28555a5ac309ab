#pragma once

#include <cmath>
#include <cstdint>

#include "kernels/device.h"
#include "kernels/view.h"

/// How a stored grid of position embeddings is resampled, on any device.
namespace dino {

/// The four inputs of bicubic interpolation at one output coordinate.
struct BicubicTaps {
  int64_t index[4];
  double weight[4];
};

/// The taps with A = −0.75 for coordinate `out` of `out_size`, in a grid of `grid` positions, which is
/// repeated at its edges. The scale (out_size + 0.1) / grid is that of the reference implementation of DINO.
DINO_HOST_DEVICE inline BicubicTaps position_taps(int64_t out, int64_t out_size, int64_t grid) {
  const double a = -0.75, scale = (static_cast<double>(out_size) + 0.1) / static_cast<double>(grid);
  const double source = (static_cast<double>(out) + 0.5) / scale - 0.5;
  const double floor = std::floor(source), t = source - floor;
  const auto near = [a](double x) { return ((a + 2) * x - (a + 3)) * x * x + 1; };
  const auto far = [a](double x) { return ((a * x - 5 * a) * x + 8 * a) * x - 4 * a; };
  BicubicTaps taps{{}, {far(t + 1), near(t), near(1 - t), far(2 - t)}};
  for (int i = 0; i < 4; ++i) {
    const int64_t index = static_cast<int64_t>(floor) - 1 + i;
    taps.index[i] = index < 0 ? 0 : index < grid ? index : grid - 1;
  }
  return taps;
}

/// The side of the square grid behind the CLS entry in pos_embed [1, 1 + grid², dim].
inline int64_t grid_of_positions(const Spec& pos_embed) {
  return static_cast<int64_t>(std::lround(std::sqrt(static_cast<double>(pos_embed.shape[1] - 1))));
}

}  // namespace dino
