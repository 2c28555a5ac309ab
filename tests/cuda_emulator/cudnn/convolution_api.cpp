#include <algorithm>

#include "cudnn/algorithms.h"

namespace emulator::dnn {
namespace {

constexpr auto kNull = CUDNN_STATUS_BAD_PARAM_NULL_POINTER;

/// As guarded(), but that something is not supported is an answer here, not a broken rule.
template <class Body>
cudnnStatus_t answered(const char* call, Body body) {
  try {
    body();
    return CUDNN_STATUS_SUCCESS;
  } catch (const Rejected& rejected) {
    if (rejected.status != CUDNN_STATUS_NOT_SUPPORTED) report(call, rejected.sentence);
    return rejected.status;
  }
}

cudnnStatus_t count(const char* call, cudnnHandle_t handle, Pass pass, int* place) {
  return guarded(call, [&] {
    live(handle);
    require(place != nullptr, kNull, "the place for the count is null");
    *place = algorithm_count(pass);
  });
}

/// Fills in results for algorithms that take the problem, then for those that do not.
template <class Performance>
cudnnStatus_t choose(const char* call, cudnnHandle_t handle, Pass pass, const cudnnTensorStruct* x,
                     const cudnnFilterStruct* w, const cudnnConvolutionStruct* conv, const cudnnTensorStruct* y,
                     int requested, int* returned, Performance* results) {
  return answered(call, [&] {
    live(handle);
    require_valid(requested > 0, "the requested number of algorithms is ", requested);
    require(returned != nullptr && results != nullptr, kNull, "the place for the results or their count is null");
    *returned = 0;
    const Convolution convolution = convolution_of(call, pass, x, w, conv, y);
    const bool is_half = convolution.x.type != blas::Type::f32;
    std::vector<Algorithm> algorithms = algorithms_for(convolution);
    const std::size_t present = algorithms.size();
    for (int id = 0; id < algorithm_count(pass); ++id)
      if (std::none_of(algorithms.begin(), algorithms.end(), [&](const Algorithm& a) { return a.id == id; }))
        algorithms.push_back({id, true});
    for (std::size_t i = 0; i < algorithms.size() && *returned < requested; ++i) {
      Performance& result = results[(*returned)++];
      result = {};
      result.algo = static_cast<decltype(result.algo)>(algorithms[i].id);
      result.status = i < present ? CUDNN_STATUS_SUCCESS : CUDNN_STATUS_NOT_SUPPORTED;
      result.time = -1;
      result.memory = i < present ? workspace_of(convolution, algorithms[i].id) : 0;
      result.determinism = algorithms[i].deterministic ? CUDNN_DETERMINISTIC : CUDNN_NON_DETERMINISTIC;
      result.mathType = is_half                        ? CUDNN_TENSOR_OP_MATH
                        : conv->math == CUDNN_FMA_MATH ? CUDNN_FMA_MATH
                                                       : CUDNN_DEFAULT_MATH;
    }
  });
}

cudnnStatus_t size_workspace(const char* call, cudnnHandle_t handle, Pass pass, const cudnnTensorStruct* x,
                             const cudnnFilterStruct* w, const cudnnConvolutionStruct* conv, const cudnnTensorStruct* y,
                             int id, size_t* bytes) {
  return answered(call, [&] {
    live(handle);
    require(bytes != nullptr, kNull, "the place for the size is null");
    *bytes = workspace_of(convolution_of(call, pass, x, w, conv, y), id);
  });
}

/// The scalars of data in f32 or less are floats in host memory.
float scalar(const char* name, const void* pointer) {
  require(pointer != nullptr, kNull, name, ": the pointer is null");
  require_valid(!host::is_device_pointer(pointer), name, ": ", pointer, " is an address of the device");
  return *static_cast<const float*>(pointer);
}

struct Addresses {
  const void *x, *w, *y;
};

cudnnStatus_t start(const char* call, cudnnHandle_t handle, Pass pass, const void* alpha, const cudnnTensorStruct* x,
                    const cudnnFilterStruct* w, const cudnnConvolutionStruct* conv, const cudnnTensorStruct* y,
                    const Addresses& addresses, int id, void* workspace, size_t workspace_bytes, const void* beta) {
  return guarded(call, [&] {
    cudaStream_t stream = live(handle).stream;
    Convolution convolution = convolution_of(call, pass, x, w, conv, y);
    convolution.alpha = scalar("alpha", alpha);
    convolution.beta = scalar("beta", beta);
    convolution.x.address = const_cast<void*>(addresses.x);
    convolution.w.address = const_cast<void*>(addresses.w);
    convolution.y.address = const_cast<void*>(addresses.y);
    const size_t needed = workspace_of(convolution, id);
    require_valid(workspace_bytes >= needed, "the algorithm needs ", needed, " bytes of workspace, the call gives ",
                  workspace_bytes);
    require(workspace != nullptr || needed == 0, kNull, "the workspace is null, the algorithm needs ", needed,
            " bytes");
    convolution.workspace = workspace;
    convolution.workspace_bytes = workspace == nullptr ? 0 : workspace_bytes;
    require_memory(convolution);
    const int error = host::enqueue(stream, call, [convolution] { run(convolution); });
    require(error == 0, CUDNN_STATUS_EXECUTION_FAILED, "the stream refused the work with cudaError ", error);
  });
}

}  // namespace
}  // namespace emulator::dnn

using namespace emulator::dnn;

extern "C" {

cudnnStatus_t cudnnGetConvolution2dForwardOutputDim(const cudnnConvolutionDescriptor_t conv,
                                                    const cudnnTensorDescriptor_t x, const cudnnFilterDescriptor_t w,
                                                    int* n, int* c, int* h, int* width) {
  return guarded(__func__, [&] {
    const cudnnConvolutionStruct& how = filled(conv);
    const cudnnTensorStruct& from = filled(x);
    const cudnnFilterStruct& filter = filled(w);
    require(n && c && h && width, kNull, "a place for a result is null");
    require_valid(from.extent[1] == filter.extent[1] * how.groups, "x has ", from.extent[1], " channels, the filter ",
                  filter.extent[1], " in ", how.groups, " groups");
    *n = from.extent[0];
    *c = filter.extent[0];
    *h = output_extent(how, from.extent[2], filter.extent[2], 0);
    *width = output_extent(how, from.extent[3], filter.extent[3], 1);
  });
}

cudnnStatus_t cudnnGetConvolutionForwardAlgorithmMaxCount(cudnnHandle_t handle, int* place) {
  return count(__func__, handle, Pass::forward, place);
}
cudnnStatus_t cudnnGetConvolutionBackwardDataAlgorithmMaxCount(cudnnHandle_t handle, int* place) {
  return count(__func__, handle, Pass::data, place);
}
cudnnStatus_t cudnnGetConvolutionBackwardFilterAlgorithmMaxCount(cudnnHandle_t handle, int* place) {
  return count(__func__, handle, Pass::filter, place);
}

cudnnStatus_t cudnnGetConvolutionForwardAlgorithm_v7(cudnnHandle_t handle, const cudnnTensorDescriptor_t x,
                                                     const cudnnFilterDescriptor_t w,
                                                     const cudnnConvolutionDescriptor_t conv,
                                                     const cudnnTensorDescriptor_t y, const int requested,
                                                     int* returned, cudnnConvolutionFwdAlgoPerf_t* results) {
  return choose(__func__, handle, Pass::forward, x, w, conv, y, requested, returned, results);
}
cudnnStatus_t cudnnGetConvolutionBackwardDataAlgorithm_v7(cudnnHandle_t handle, const cudnnFilterDescriptor_t w,
                                                          const cudnnTensorDescriptor_t dy,
                                                          const cudnnConvolutionDescriptor_t conv,
                                                          const cudnnTensorDescriptor_t dx, const int requested,
                                                          int* returned, cudnnConvolutionBwdDataAlgoPerf_t* results) {
  return choose(__func__, handle, Pass::data, dx, w, conv, dy, requested, returned, results);
}
cudnnStatus_t cudnnGetConvolutionBackwardFilterAlgorithm_v7(cudnnHandle_t handle, const cudnnTensorDescriptor_t x,
                                                            const cudnnTensorDescriptor_t dy,
                                                            const cudnnConvolutionDescriptor_t conv,
                                                            const cudnnFilterDescriptor_t dw, const int requested,
                                                            int* returned,
                                                            cudnnConvolutionBwdFilterAlgoPerf_t* results) {
  return choose(__func__, handle, Pass::filter, x, dw, conv, dy, requested, returned, results);
}

cudnnStatus_t cudnnGetConvolutionForwardWorkspaceSize(cudnnHandle_t handle, const cudnnTensorDescriptor_t x,
                                                      const cudnnFilterDescriptor_t w,
                                                      const cudnnConvolutionDescriptor_t conv,
                                                      const cudnnTensorDescriptor_t y, cudnnConvolutionFwdAlgo_t algo,
                                                      size_t* bytes) {
  return size_workspace(__func__, handle, Pass::forward, x, w, conv, y, algo, bytes);
}
cudnnStatus_t cudnnGetConvolutionBackwardDataWorkspaceSize(cudnnHandle_t handle, const cudnnFilterDescriptor_t w,
                                                           const cudnnTensorDescriptor_t dy,
                                                           const cudnnConvolutionDescriptor_t conv,
                                                           const cudnnTensorDescriptor_t dx,
                                                           cudnnConvolutionBwdDataAlgo_t algo, size_t* bytes) {
  return size_workspace(__func__, handle, Pass::data, dx, w, conv, dy, algo, bytes);
}
cudnnStatus_t cudnnGetConvolutionBackwardFilterWorkspaceSize(cudnnHandle_t handle, const cudnnTensorDescriptor_t x,
                                                             const cudnnTensorDescriptor_t dy,
                                                             const cudnnConvolutionDescriptor_t conv,
                                                             const cudnnFilterDescriptor_t dw,
                                                             cudnnConvolutionBwdFilterAlgo_t algo, size_t* bytes) {
  return size_workspace(__func__, handle, Pass::filter, x, dw, conv, dy, algo, bytes);
}

cudnnStatus_t cudnnConvolutionForward(cudnnHandle_t handle, const void* alpha, const cudnnTensorDescriptor_t x_desc,
                                      const void* x, const cudnnFilterDescriptor_t w_desc, const void* w,
                                      const cudnnConvolutionDescriptor_t conv, cudnnConvolutionFwdAlgo_t algo,
                                      void* workspace, size_t bytes, const void* beta,
                                      const cudnnTensorDescriptor_t y_desc, void* y) {
  return start(__func__, handle, Pass::forward, alpha, x_desc, w_desc, conv, y_desc, {x, w, y}, algo, workspace, bytes,
               beta);
}
cudnnStatus_t cudnnConvolutionBackwardData(cudnnHandle_t handle, const void* alpha,
                                           const cudnnFilterDescriptor_t w_desc, const void* w,
                                           const cudnnTensorDescriptor_t dy_desc, const void* dy,
                                           const cudnnConvolutionDescriptor_t conv, cudnnConvolutionBwdDataAlgo_t algo,
                                           void* workspace, size_t bytes, const void* beta,
                                           const cudnnTensorDescriptor_t dx_desc, void* dx) {
  return start(__func__, handle, Pass::data, alpha, dx_desc, w_desc, conv, dy_desc, {dx, w, dy}, algo, workspace, bytes,
               beta);
}
cudnnStatus_t cudnnConvolutionBackwardFilter(cudnnHandle_t handle, const void* alpha,
                                             const cudnnTensorDescriptor_t x_desc, const void* x,
                                             const cudnnTensorDescriptor_t dy_desc, const void* dy,
                                             const cudnnConvolutionDescriptor_t conv,
                                             cudnnConvolutionBwdFilterAlgo_t algo, void* workspace, size_t bytes,
                                             const void* beta, const cudnnFilterDescriptor_t dw_desc, void* dw) {
  return start(__func__, handle, Pass::filter, alpha, x_desc, dw_desc, conv, dy_desc, {x, dw, dy}, algo, workspace,
               bytes, beta);
}

}  // extern "C"
