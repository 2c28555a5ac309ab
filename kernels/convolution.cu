#include "kernels/convolution.cuh"

#include <cudnn.h>

#include <array>
#include <limits>
#include <map>
#include <memory>

#include "kernels/launch.cuh"

// cuDNN's classic interface. Its heuristic names algorithms; of those the first is taken that is deterministic, does
// with the stream's workspace, and keeps f32 inputs whole. This has run on the tests' stand-in only, never on a GPU:
// whatever cuDNN refuses there is computed by convolve_by_columns().
namespace dino::cuda {
inline namespace convolution_cu {

void check(cudnnStatus_t status, const char* what) {
  if (status != CUDNN_STATUS_SUCCESS) throw Error(str("conv2d: ", what, ": ", cudnnGetErrorString(status)));
}

bool is_refusal(cudnnStatus_t status) { return CUDNN_STATUS_CATEGORY(status) == CUDNN_STATUS_NOT_SUPPORTED; }

/// A descriptor of cuDNN that is destroyed with its owner.
template <auto create, auto destroy, class Handle>
class Descriptor {
 public:
  Descriptor() {
    Handle handle = nullptr;
    check(create(&handle), "descriptor");
    handle_.reset(handle);
  }
  Handle get() const { return handle_.get(); }

 private:
  struct Destroy {
    void operator()(Handle handle) const { destroy(handle); }
  };
  std::unique_ptr<std::remove_pointer_t<Handle>, Destroy> handle_;
};
using Tensor = Descriptor<cudnnCreateTensorDescriptor, cudnnDestroyTensorDescriptor, cudnnTensorDescriptor_t>;
using Filters = Descriptor<cudnnCreateFilterDescriptor, cudnnDestroyFilterDescriptor, cudnnFilterDescriptor_t>;
using Convolution =
    Descriptor<cudnnCreateConvolutionDescriptor, cudnnDestroyConvolutionDescriptor, cudnnConvolutionDescriptor_t>;

/// Descriptors of one pass and the algorithm for it, if there is one.
struct Plan {
  Tensor x, y;
  Filters filters;
  Convolution convolution;
  bool found = false;
  int algorithm = 0;
  size_t workspace = 0;
};

void describe(const ConvolutionShape& s, Dtype dtype, Plan& plan) {
  const auto type = dtype == Dtype::bf16 ? CUDNN_DATA_BFLOAT16 : CUDNN_DATA_FLOAT;
  const auto narrow = [](int64_t extent) { return static_cast<int>(extent); };
  const int kernel = narrow(s.kernel), pad = narrow(s.pad), stride = narrow(s.stride);
  check(cudnnSetTensor4dDescriptor(plan.x.get(), CUDNN_TENSOR_NHWC, type, narrow(s.images), narrow(s.in_channels),
                                   narrow(s.height), narrow(s.width)),
        "descriptor of x");
  check(cudnnSetTensor4dDescriptor(plan.y.get(), CUDNN_TENSOR_NHWC, type, narrow(s.images), narrow(s.out_channels),
                                   narrow(s.out_height), narrow(s.out_width)),
        "descriptor of y");
  check(cudnnSetFilter4dDescriptor(plan.filters.get(), type, CUDNN_TENSOR_NHWC, narrow(s.out_channels),
                                   narrow(s.in_channels), kernel, kernel),
        "descriptor of the filters");
  check(cudnnSetConvolution2dDescriptor(plan.convolution.get(), pad, pad, stride, stride, 1, 1, CUDNN_CROSS_CORRELATION,
                                        CUDNN_DATA_FLOAT),
        "descriptor of the convolution");
  // FMA_MATH: no TF32.
  check(
      cudnnSetConvolutionMathType(plan.convolution.get(), dtype == Dtype::bf16 ? CUDNN_TENSOR_OP_MATH : CUDNN_FMA_MATH),
      "math type");
}

/// Takes the first of the heuristic's answers that will do.
template <class Answer>
void take(const std::array<Answer, 8>& answers, int count, Dtype dtype, Plan& plan) {
  for (int i = 0; i < count && !plan.found; ++i) {
    const Answer& answer = answers[i];
    const bool is_whole = dtype == Dtype::bf16 || answer.mathType == CUDNN_FMA_MATH;
    if (answer.status != CUDNN_STATUS_SUCCESS || answer.determinism != CUDNN_DETERMINISTIC || !is_whole ||
        answer.memory > CudaStream::kWorkspaceBytes)
      continue;
    plan.found = true;
    plan.algorithm = answer.algo;
    plan.workspace = answer.memory;
  }
}

/// cuDNN on one stream.
class Library {
 public:
  Library() { check(cudnnCreate(&handle_), "cudnnCreate"); }
  ~Library() { cudnnDestroy(handle_); }
  Library(const Library&) = delete;
  Library& operator=(const Library&) = delete;

  Plan& plan(ConvolutionPass pass, const ConvolutionShape& s, Dtype dtype) {
    const Key key{static_cast<int64_t>(pass),
                  static_cast<int64_t>(dtype),
                  s.images,
                  s.height,
                  s.width,
                  s.in_channels,
                  s.out_channels,
                  s.kernel,
                  s.stride,
                  s.pad};
    std::unique_ptr<Plan>& plan = plans_[key];
    if (!plan) plan = make(pass, s, dtype);
    return *plan;
  }

  cudnnStatus_t run(CudaStream& stream, ConvolutionPass pass, const Plan& plan, float beta,
                    const ConvolutionArrays& arrays) {
    if (stream_ != stream.handle()) check(cudnnSetStream(handle_, stream.handle()), "cudnnSetStream");
    stream_ = stream.handle();
    const float alpha = 1;
    std::byte* workspace = plan.workspace ? stream.workspace() : nullptr;
    const auto x = plan.x.get(), y = plan.y.get();
    const auto filters = plan.filters.get();
    const auto convolution = plan.convolution.get();
    switch (pass) {
      case ConvolutionPass::output:
        return cudnnConvolutionForward(handle_, &alpha, x, arrays.x, filters, arrays.filters, convolution,
                                       static_cast<cudnnConvolutionFwdAlgo_t>(plan.algorithm), workspace,
                                       plan.workspace, &beta, y, arrays.y);
      case ConvolutionPass::input:
        return cudnnConvolutionBackwardData(handle_, &alpha, filters, arrays.filters, y, arrays.y, convolution,
                                            static_cast<cudnnConvolutionBwdDataAlgo_t>(plan.algorithm), workspace,
                                            plan.workspace, &beta, x, arrays.x);
      default:
        return cudnnConvolutionBackwardFilter(handle_, &alpha, x, arrays.x, y, arrays.y, convolution,
                                              static_cast<cudnnConvolutionBwdFilterAlgo_t>(plan.algorithm), workspace,
                                              plan.workspace, &beta, filters, arrays.filters);
    }
  }

 private:
  using Key = std::array<int64_t, 10>;

  std::unique_ptr<Plan> make(ConvolutionPass pass, const ConvolutionShape& s, Dtype dtype) {
    auto plan = std::make_unique<Plan>();
    // cuDNN counts in 32 bits.
    constexpr int64_t kMost = std::numeric_limits<int32_t>::max();
    if (s.images * s.height * s.width * s.in_channels > kMost || s.pixels() * s.out_channels > kMost) return plan;
    describe(s, dtype, *plan);
    const cudnnStatus_t status = ask(pass, dtype, *plan);
    if (!is_refusal(status)) check(status, "choice of an algorithm");
    return plan;
  }

  cudnnStatus_t ask(ConvolutionPass pass, Dtype dtype, Plan& plan) {
    const auto x = plan.x.get(), y = plan.y.get();
    const auto filters = plan.filters.get();
    const auto convolution = plan.convolution.get();
    int count = 0;
    cudnnStatus_t status{};
    if (pass == ConvolutionPass::output) {
      std::array<cudnnConvolutionFwdAlgoPerf_t, 8> answers;
      status = cudnnGetConvolutionForwardAlgorithm_v7(handle_, x, filters, convolution, y, 8, &count, answers.data());
      if (status == CUDNN_STATUS_SUCCESS) take(answers, count, dtype, plan);
    } else if (pass == ConvolutionPass::input) {
      std::array<cudnnConvolutionBwdDataAlgoPerf_t, 8> answers;
      status =
          cudnnGetConvolutionBackwardDataAlgorithm_v7(handle_, filters, y, convolution, x, 8, &count, answers.data());
      if (status == CUDNN_STATUS_SUCCESS) take(answers, count, dtype, plan);
    } else {
      std::array<cudnnConvolutionBwdFilterAlgoPerf_t, 8> answers;
      status =
          cudnnGetConvolutionBackwardFilterAlgorithm_v7(handle_, x, y, convolution, filters, 8, &count, answers.data());
      if (status == CUDNN_STATUS_SUCCESS) take(answers, count, dtype, plan);
    }
    return status;
  }

  cudnnHandle_t handle_ = nullptr;
  cudaStream_t stream_ = nullptr;
  std::map<Key, std::unique_ptr<Plan>> plans_;
};

bool is_aligned(const void* address) { return reinterpret_cast<uintptr_t>(address) % 16 == 0; }

}  // namespace convolution_cu

bool library_convolves(CudaStream& stream, ConvolutionPass pass, const ConvolutionShape& shape,
                       const ConvolutionArrays& arrays) {
  if (!is_aligned(arrays.x) || !is_aligned(arrays.y)) return false;
  return stream.cache<Library>().plan(pass, shape, arrays.dtype).found;
}

bool convolve_by_library(CudaStream& stream, ConvolutionPass pass, const ConvolutionShape& shape, float beta,
                         const ConvolutionArrays& arrays) {
  Library& library = stream.cache<Library>();
  Plan& plan = library.plan(pass, shape, arrays.dtype);
  if (!plan.found) return false;
  const cudnnStatus_t status = library.run(stream, pass, plan, beta, arrays);
  if (is_refusal(status)) {
    plan.found = false;
    return false;
  }
  check(status, "convolution");
  check_launch(stream, "conv2d");
  return true;
}

}  // namespace dino::cuda
