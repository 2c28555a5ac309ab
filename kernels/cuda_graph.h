#pragma once

#include <cstdint>
#include <functional>

#include "kernels/cuda_stream.h"

struct CUgraphExec_st;

namespace dino {

/// Work of a CUDA stream that was recorded once and is started again as a whole, with the same kernels, sizes and addresses.
class CudaGraph {
 public:
  /// Records what `work` starts on `stream`; nothing runs yet. Throws Error if it does what cannot be recorded, such as
  /// waiting for the device; the stream can be used on.
  CudaGraph(CudaStream& stream, const std::function<void()>& work);
  ~CudaGraph();
  CudaGraph(const CudaGraph&) = delete;
  CudaGraph& operator=(const CudaGraph&) = delete;

  void launch(CudaStream& stream) const;

  int64_t kernels() const { return kernels_; }  ///< in the graph
  int64_t copies() const { return copies_; }    ///< copies and fills in the graph

 private:
  CUgraphExec_st* executable_ = nullptr;
  int64_t kernels_ = 0, copies_ = 0;
};

}  // namespace dino
