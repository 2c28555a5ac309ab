#pragma once

#include <algorithm>
#include <cstdint>

namespace dino {

/// Rows per piece of a row-wise loop so that a piece is about 16 Ki elements: small enough to share out, large enough
/// that handing it out costs nothing. It depends on the shape only.
inline int64_t rows_per_piece(int64_t cols) { return std::max<int64_t>(1, 16384 / std::max<int64_t>(1, cols)); }

}  // namespace dino
