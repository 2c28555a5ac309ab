#include "kernels/cuda_transfer.h"

#include "kernels/cuda_memory.h"
#include "kernels/launch.cuh"

namespace dino {
inline namespace cuda_transfer_cu {

cudaEvent_t make_event() {
  cudaEvent_t event = nullptr;
  cuda::check(cudaEventCreateWithFlags(&event, cudaEventDisableTiming), "cuda transfer");
  return event;
}

}  // namespace cuda_transfer_cu

CudaUploader::CudaUploader(CudaStream& stream) : stream_(stream) {
  cuda::check(cudaStreamCreateWithFlags(&copies_, cudaStreamNonBlocking), "upload");
  for (Lane& lane : lanes_) {
    lane.sent = make_event();
    lane.read = make_event();
  }
}

CudaUploader::~CudaUploader() {
  cudaStreamSynchronize(copies_);
  for (Lane& lane : lanes_) {
    cuda::release_pinned(lane.host);
    cuda::release(lane.device);
    cudaEventDestroy(lane.sent);
    cudaEventDestroy(lane.read);
  }
  cudaStreamDestroy(copies_);
}

std::byte* CudaUploader::begin(size_t bytes) {
  // Whoever reads the transfer before has been started by now.
  cuda::check(cudaEventRecord(lanes_[current_].read, stream_.handle()), "upload");
  current_ = (current_ + 1) % lanes_.size();
  Lane& lane = lanes_[current_];
  cuda::check(cudaEventSynchronize(lane.sent), "upload");
  if (bytes <= lane.bytes) return lane.host;
  cuda::check(cudaEventSynchronize(lane.read), "upload");
  cuda::release_pinned(lane.host);
  cuda::release(lane.device);
  lane = {.sent = lane.sent, .read = lane.read};
  lane.host = cuda::allocate_pinned(bytes);
  lane.device = cuda::allocate(bytes);
  check(lane.host && lane.device, "upload: no ", bytes >> 20, " MiB of memory; a smaller --batch-size needs less");
  lane.bytes = bytes;
  return lane.host;
}

std::byte* CudaUploader::send(size_t bytes) {
  const Lane& lane = lanes_[current_];
  check(bytes <= lane.bytes, "upload: more bytes than were asked for");
  cuda::check(cudaStreamWaitEvent(copies_, lane.read), "upload");
  cuda::check(cudaMemcpyAsync(lane.device, lane.host, bytes, cudaMemcpyHostToDevice, copies_), "upload");
  cuda::check(cudaEventRecord(lane.sent, copies_), "upload");
  cuda::check(cudaStreamWaitEvent(stream_.handle(), lane.sent), "upload");
  return lane.device;
}

CudaReadback::CudaReadback(size_t bytes) : bytes_(bytes), host_(cuda::allocate_pinned(bytes)), done_(make_event()) {
  check(host_ != nullptr, "readback: no pinned host memory");
}

CudaReadback::~CudaReadback() {
  cudaEventSynchronize(done_);
  cudaEventDestroy(done_);
  cuda::release_pinned(host_);
}

void CudaReadback::start(CudaStream& stream, const void* from) {
  cuda::check(cudaMemcpyAsync(host_, from, bytes_, cudaMemcpyDeviceToHost, stream.handle()), "readback");
  cuda::check(cudaEventRecord(done_, stream.handle()), "readback");
}

const std::byte* CudaReadback::wait() {
  cuda::check(cudaEventSynchronize(done_), "the GPU");
  return host_;
}

}  // namespace dino
