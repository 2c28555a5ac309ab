#include "kernels/cuda_stream.h"

#include <cstdlib>
#include <cstring>
#include <utility>

#include "kernels/cuda_memory.h"
#include "kernels/launch.cuh"

namespace dino {
inline namespace cuda_stream_cu {

/// Blocks of scratch memory are multiples of this, so that they seldom grow.
constexpr size_t kScratchUnit = size_t{2} << 20;

bool is_capturing(cudaStream_t stream) {
  cudaStreamCaptureStatus status{};
  cuda::check(cudaStreamIsCapturing(stream, &status), "cuda stream");
  return status == cudaStreamCaptureStatusActive;
}

}  // namespace cuda_stream_cu

/// Uploads go through a ring of pinned memory, whose parts are used again once the copies that read them are done. Uploads
/// that are part of a recorded graph keep theirs; nothing can be allocated during a recording, so there is a stock of it.
struct CudaStream::Pinned {
  static constexpr size_t kRing = size_t{1} << 20;
  static constexpr size_t kParts = 4;
  static constexpr size_t kStock = size_t{1} << 20;

  std::byte* ring = nullptr;
  size_t used = 0;  ///< of the current part
  size_t part = 0;
  cudaEvent_t done[kParts] = {};
  std::byte* stock = nullptr;
  size_t recorded = 0;  ///< bytes of the stock that graphs have

  ~Pinned() {
    cuda::release_pinned(ring);
    cuda::release_pinned(stock);
    for (cudaEvent_t event : done)
      if (event) cudaEventDestroy(event);
  }
};

CudaStream::CudaStream() {
  const std::string problem = cuda::problem();
  dino::check<UsageError>(problem.empty(), problem);
  int device = 0;
  cuda::check(cudaGetDevice(&device), "cuda stream");
  cuda::check(cudaDeviceGetAttribute(&multiprocessors_, cudaDevAttrMultiProcessorCount, device), "cuda stream");
  cuda::check(cudaStreamCreate(&handle_), "cuda stream");
  pinned_ = std::make_unique<Pinned>();
  pinned_->ring = cuda::allocate_pinned(Pinned::kRing);
  pinned_->stock = cuda::allocate_pinned(Pinned::kStock);
  dino::check(pinned_->ring && pinned_->stock, "cuda stream: no pinned host memory");
  for (cudaEvent_t& event : pinned_->done) cuda::check(cudaEventCreateWithFlags(&event, cudaEventDisableTiming), "cuda stream");
  workspace_ = cuda::allocate(kWorkspaceBytes);
  step_ = reinterpret_cast<StepScalars*>(cuda::allocate(sizeof(StepScalars)));
  dino::check(workspace_ && step_, "cuda stream: the GPU has no memory left; is another program using it?");
  set_step({});
}

CudaStream::~CudaStream() {
  cudaStreamSynchronize(handle_);
  caches_.clear();
  cuda::release(scratch_);
  for (std::byte* memory : outgrown_) cuda::release(memory);
  cuda::release(workspace_);
  cuda::release(reinterpret_cast<std::byte*>(step_));
  pinned_.reset();
  cudaStreamDestroy(handle_);
}

std::byte* CudaStream::scratch(size_t bytes) {
  if (bytes <= scratch_bytes_) return scratch_;
  dino::check(!is_capturing(handle_), "cuda stream: scratch memory must not grow while a graph is recorded");
  // Recorded graphs hold the address, so the memory stays.
  if (scratch_) outgrown_.push_back(scratch_);
  scratch_bytes_ = std::max(2 * scratch_bytes_, (bytes + kScratchUnit - 1) / kScratchUnit * kScratchUnit);
  scratch_ = cuda::allocate(scratch_bytes_);
  if (!scratch_) {
    scratch_bytes_ = 0;
    throw Error(str("cuda stream: the GPU has no ", bytes >> 20, " MiB left; a smaller --batch-size needs less"));
  }
  return scratch_;
}

void CudaStream::set_step(const StepScalars& step) { upload(step_, &step, sizeof step); }

std::byte* CudaStream::staging(size_t bytes) {
  Pinned& pinned = *pinned_;
  constexpr size_t kPart = Pinned::kRing / Pinned::kParts;
  const size_t rounded = (bytes + 63) / 64 * 64;
  if (is_capturing(handle_)) {
    dino::check(pinned.recorded + rounded <= Pinned::kStock, "cuda stream: recorded graphs upload more than ", Pinned::kStock, " bytes");
    return pinned.stock + std::exchange(pinned.recorded, pinned.recorded + rounded);
  }
  if (bytes > kPart) return nullptr;
  if (pinned.used + bytes > kPart) {
    cuda::check(cudaEventRecord(pinned.done[pinned.part], handle_), "cuda stream");
    pinned.part = (pinned.part + 1) % Pinned::kParts;
    pinned.used = 0;
    cuda::check(cudaEventSynchronize(pinned.done[pinned.part]), "cuda stream");
  }
  std::byte* memory = pinned.ring + pinned.part * kPart + pinned.used;
  pinned.used += rounded;
  return memory;
}

void CudaStream::upload(void* to, const void* from, size_t bytes) {
  // From memory that is not pinned, CUDA takes the bytes over before it returns.
  if (std::byte* memory = staging(bytes)) from = std::memcpy(memory, from, bytes);
  cuda::check(cudaMemcpyAsync(to, from, bytes, cudaMemcpyHostToDevice, handle_), "upload");
}

void CudaStream::copy(void* to, const void* from, size_t bytes) {
  cuda::check(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToDevice, handle_), "copy");
}

void CudaStream::synchronize() { cuda::check(cudaStreamSynchronize(handle_), "cuda stream"); }

namespace cuda {

void check(cudaError_t status, const char* what) {
  if (status == cudaSuccess) return;
  cudaGetLastError();
  if (status == cudaErrorMemoryAllocation)
    throw Error(str(what, ": the GPU has no memory left; a smaller --batch-size needs less"));
  throw Error(str(what, ": ", cudaGetErrorString(status), " (", cudaGetErrorName(status), ")"));
}

void check_launch(const CudaStream& stream, const char* kernel) {
  check(cudaGetLastError(), kernel);
  static const bool synchronous = [] {
    const char* value = std::getenv("DINO_CUDA_SYNC");
    return value && std::strcmp(value, "0") != 0;
  }();
  if (synchronous) check(cudaStreamSynchronize(stream.handle()), kernel);
}

}  // namespace cuda
}  // namespace dino
