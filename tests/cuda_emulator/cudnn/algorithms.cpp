#include "cudnn/algorithms.h"

#include <algorithm>

namespace emulator::dnn {

int algorithm_count(Pass pass) {
  if (pass == Pass::forward) return CUDNN_CONVOLUTION_FWD_ALGO_COUNT;
  if (pass == Pass::data) return CUDNN_CONVOLUTION_BWD_DATA_ALGO_COUNT;
  return CUDNN_CONVOLUTION_BWD_FILTER_ALGO_COUNT;
}

std::vector<Algorithm> algorithms_for(const Convolution& convolution) {
  // Kernels for tensor cores move 8 channels at once. Newer versions of the library may pad others by themselves; a
  // program must be able to do without.
  const bool channels_last = convolution.w.stride[1] == 1 && !convolution.w.is_nchw();
  const bool fits = convolution.w.extent[0] % 8 == 0 && convolution.w.extent[1] % 8 == 0;
  const bool is_half = convolution.x.type != blas::Type::f32;
  if (is_half && (channels_last || convolution.x.is_nhwc()) && !fits) return {};
  switch (convolution.pass) {
    case Pass::forward:
      return {{CUDNN_CONVOLUTION_FWD_ALGO_IMPLICIT_PRECOMP_GEMM, true},
              {CUDNN_CONVOLUTION_FWD_ALGO_IMPLICIT_GEMM, true}};
    case Pass::data:
      return {{CUDNN_CONVOLUTION_BWD_DATA_ALGO_0, false}, {CUDNN_CONVOLUTION_BWD_DATA_ALGO_1, true}};
    case Pass::filter:
      return {{CUDNN_CONVOLUTION_BWD_FILTER_ALGO_3, false},
              {CUDNN_CONVOLUTION_BWD_FILTER_ALGO_1, true},
              {CUDNN_CONVOLUTION_BWD_FILTER_ALGO_0, false}};
  }
  return {};
}

std::size_t workspace_of(const Convolution& convolution, int id) {
  require_valid(id >= 0 && id < algorithm_count(convolution.pass), "there is no algorithm ", id);
  const std::vector<Algorithm> algorithms = algorithms_for(convolution);
  require_supported(std::any_of(algorithms.begin(), algorithms.end(), [&](const Algorithm& a) { return a.id == id; }),
                    "algorithm ", id, " does not take this problem");
  const auto bytes = [](std::int64_t floats) { return 4 * static_cast<std::size_t>(floats); };
  const std::int64_t weights = convolution.w.count();
  switch (convolution.pass) {
    case Pass::forward:
      return id == CUDNN_CONVOLUTION_FWD_ALGO_IMPLICIT_PRECOMP_GEMM ? bytes(convolution.rows() + convolution.patch())
                                                                    : 0;
    case Pass::data:
      return id == CUDNN_CONVOLUTION_BWD_DATA_ALGO_1 ? bytes(weights) : 0;
    case Pass::filter:
      return id == CUDNN_CONVOLUTION_BWD_FILTER_ALGO_1 ? bytes(4 * weights) : 0;
  }
  return 0;
}

}  // namespace emulator::dnn
