#include "kernels/cuda_graph.h"

#include <vector>

#include "kernels/launch.cuh"

namespace dino {
inline namespace cuda_graph_cu {

struct Graph {
  cudaGraph_t handle = nullptr;
  ~Graph() {
    if (handle) cudaGraphDestroy(handle);
  }
};

std::vector<cudaGraphNode_t> nodes_of(cudaGraph_t graph) {
  size_t count = 0;
  cuda::check(cudaGraphGetNodes(graph, nullptr, &count), "cuda graph");
  std::vector<cudaGraphNode_t> nodes(count);
  cuda::check(cudaGraphGetNodes(graph, nodes.data(), &count), "cuda graph");
  return nodes;
}

}  // namespace cuda_graph_cu

CudaGraph::CudaGraph(CudaStream& stream, const std::function<void()>& work) {
  Graph graph;
  cuda::check(cudaStreamBeginCapture(stream.handle(), cudaStreamCaptureModeThreadLocal), "cuda graph");
  try {
    work();
  } catch (...) {
    cudaStreamEndCapture(stream.handle(), &graph.handle);
    cudaGetLastError();
    throw;
  }
  cuda::check(cudaStreamEndCapture(stream.handle(), &graph.handle), "cuda graph");
  for (const cudaGraphNode_t node : nodes_of(graph.handle)) {
    cudaGraphNodeType type{};
    cuda::check(cudaGraphNodeGetType(node, &type), "cuda graph");
    kernels_ += type == cudaGraphNodeTypeKernel;
    copies_ += type == cudaGraphNodeTypeMemcpy || type == cudaGraphNodeTypeMemset;
  }
  cuda::check(cudaGraphInstantiate(&executable_, graph.handle, 0), "cuda graph");
}

CudaGraph::~CudaGraph() { cudaGraphExecDestroy(executable_); }

void CudaGraph::launch(CudaStream& stream) const { cuda::check(cudaGraphLaunch(executable_, stream.handle()), "cuda graph"); }

}  // namespace dino
