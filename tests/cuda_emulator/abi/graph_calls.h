#pragma once

#include "abi/graph.h"
#include "abi/launch.h"
#include "abi/memory_calls.h"

/// Between the parameter structs of the graph functions and operations.
namespace emulator::abi {

cudaError_t kernel_of(const cudaKernelNodeParams* params, KernelCall& call);
cudaError_t copy_of(const cudaMemcpy3DParms* params, const char* name, Copy& copy);
cudaError_t copy_of(void* to, const void* from, std::size_t bytes, cudaMemcpyKind kind, const char* name,
                    Copy& copy);
cudaError_t fill_of(const cudaMemsetParams* params, const char* name, Fill& fill);
cudaError_t host_of(const cudaHostNodeParams* params, HostCall& call);

/// The nodes of a dependency list; cudaErrorInvalidValue if one is not of the graph.
cudaError_t nodes_of(const Graph& graph, const cudaGraphNode_t* handles, std::size_t count,
                     std::vector<GraphNode*>& nodes);
/// Adds a node behind others and hands its handle out.
cudaError_t add(cudaGraphNode_t* out, cudaGraph_t graph, const cudaGraphNode_t* after, std::size_t count,
                Operation operation);

/// The CUDA convention for lists: without an array the count, else at most *count elements, the rest null.
template <class T, class Handle>
cudaError_t hand_out(const std::vector<T*>& items, Handle* handles, std::size_t* count) {
  EMULATOR_REQUIRE(count);
  if (handles) {
    for (std::size_t i = 0; i < *count; ++i)
      handles[i] = i < items.size() ? reinterpret_cast<Handle>(const_cast<std::remove_const_t<T>*>(items[i]))
                                    : nullptr;
    *count = std::min(*count, items.size());
  } else {
    *count = items.size();
  }
  return cudaSuccess;
}

}  // namespace emulator::abi
