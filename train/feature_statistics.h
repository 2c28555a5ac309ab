#pragma once

#include <cstdint>
#include <limits>
#include <span>

namespace dino {

/// How much features differ from image to image; NaN if unknown.
struct FeatureStatistics {
  /// Mean over the dimensions of the standard deviation over rows of length 1 (Chen and He, 2021): 0 if all rows point the
  /// same way, 1/√dim if they point everywhere.
  double deviation = std::numeric_limits<double>::quiet_NaN();
  /// RankMe (Garrido et al., 2023): exp of the entropy of the singular values divided by their sum, in [1, min(rows, dim)].
  double effective_rank = std::numeric_limits<double>::quiet_NaN();
};

/// Statistics of the row-major matrix `features` [rows, dim], in time proportional to rows · dim · min(rows, dim). Both are
/// NaN for fewer than two rows, for values that are not finite and for a matrix of zeros.
FeatureStatistics feature_statistics(std::span<const double> features, int64_t rows);

}  // namespace dino
