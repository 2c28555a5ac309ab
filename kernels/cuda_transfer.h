#pragma once

#include <array>
#include <cstddef>

#include "kernels/cuda_stream.h"

struct CUevent_st;

namespace dino {

/// Carries the input of steps to the device on a stream of its own, while the step before still runs. Two transfers are in
/// flight at most.
class CudaUploader {
 public:
  explicit CudaUploader(CudaStream& stream);
  ~CudaUploader();
  CudaUploader(const CudaUploader&) = delete;
  CudaUploader& operator=(const CudaUploader&) = delete;

  /// Pinned host memory of at least `bytes` to be filled. Waits for the transfer before the last.
  std::byte* begin(size_t bytes);
  /// Starts to carry over the first `bytes` of it. The result is device memory that ops may read which are started between
  /// now and the next but one `begin`; they wait for the transfer, the host does not.
  std::byte* send(size_t bytes);

 private:
  struct Lane {
    std::byte *host = nullptr, *device = nullptr;
    size_t bytes = 0;
    CUevent_st *sent = nullptr, *read = nullptr;  ///< host memory is free again, device memory is free again
  };
  CudaStream& stream_;
  CUstream_st* copies_ = nullptr;
  std::array<Lane, 2> lanes_;
  size_t current_ = 0;
};

/// Brings a few numbers back without stopping the device: they are asked for after a step and read a step later.
class CudaReadback {
 public:
  explicit CudaReadback(size_t bytes);
  ~CudaReadback();
  CudaReadback(const CudaReadback&) = delete;
  CudaReadback& operator=(const CudaReadback&) = delete;

  /// Starts to copy from device memory, after all that was started on `stream`.
  void start(CudaStream& stream, const void* from);
  /// Waits for the copy that was started last. Throws Error if the work before it failed.
  const std::byte* wait();

 private:
  size_t bytes_;
  std::byte* host_ = nullptr;
  CUevent_st* done_ = nullptr;
};

}  // namespace dino
