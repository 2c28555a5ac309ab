#include <algorithm>
#include <cstdio>

#include "abi/capture.h"
#include "abi/graph_calls.h"

using namespace emulator::abi;

namespace {

cudaError_t instantiate(cudaGraphExec_t* exec, cudaGraph_t handle, unsigned long long flags) {
  EMULATOR_REQUIRE(exec);
  const Graph* graph = find_graph(handle);
  EMULATOR_REQUIRE(graph);
  if (flags & cudaGraphInstantiateFlagDeviceLaunch) return not_supported("a graph that the device launches");
  std::vector<GraphExec::Step> steps;
  if (const cudaError_t error = flatten(*graph, steps)) return error;
  *exec = reinterpret_cast<cudaGraphExec_t>(create_exec(std::move(steps), flags));
  return cudaSuccess;
}

/// Why an executable graph cannot take over another graph's operations; cudaGraphExecUpdateSuccess if it can.
cudaGraphExecUpdateResult compare(const std::vector<GraphExec::Step>& old_steps,
                                  const std::vector<GraphExec::Step>& new_steps, const GraphNode*& culprit) {
  culprit = nullptr;
  if (old_steps.size() != new_steps.size()) return cudaGraphExecUpdateErrorTopologyChanged;
  for (std::size_t i = 0; i < old_steps.size(); ++i) {
    culprit = new_steps[i].source;
    if (old_steps[i].after != new_steps[i].after) return cudaGraphExecUpdateErrorTopologyChanged;
    if (old_steps[i].operation->index() != new_steps[i].operation->index())
      return cudaGraphExecUpdateErrorNodeTypeChanged;
  }
  culprit = nullptr;
  return cudaGraphExecUpdateSuccess;
}

}  // namespace

cudaError_t cudaGraphInstantiate(cudaGraphExec_t* exec, cudaGraph_t graph, unsigned long long flags) {
  return api("cudaGraphInstantiate", [&](Lock&) { return instantiate(exec, graph, flags); });
}

cudaError_t cudaGraphInstantiateWithFlags(cudaGraphExec_t* exec, cudaGraph_t graph,
                                          unsigned long long flags) {
  return api("cudaGraphInstantiateWithFlags", [&](Lock&) { return instantiate(exec, graph, flags); });
}

cudaError_t cudaGraphInstantiateWithParams(cudaGraphExec_t* exec, cudaGraph_t graph,
                                           cudaGraphInstantiateParams* params) {
  return api("cudaGraphInstantiateWithParams", [&](Lock&) -> cudaError_t {
    EMULATOR_REQUIRE(params);
    const cudaError_t error = instantiate(exec, graph, params->flags);
    params->errNode_out = nullptr;
    params->result_out = error == cudaSuccess             ? cudaGraphInstantiateSuccess
                         : error == cudaErrorNotSupported ? cudaGraphInstantiateNodeOperationNotSupported
                                                          : cudaGraphInstantiateInvalidStructure;
    return error;
  });
}

cudaError_t cudaGraphLaunch(cudaGraphExec_t handle, cudaStream_t stream_handle) {
  return api("cudaGraphLaunch", [&](Lock& lock) -> cudaError_t {
    GraphExec* exec = find_exec(handle);
    EMULATOR_REQUIRE(exec);
    Stream* stream = find_stream(stream_handle);
    return stream ? launch(lock, *exec, *stream) : cudaErrorInvalidResourceHandle;
  });
}

cudaError_t cudaGraphUpload(cudaGraphExec_t handle, cudaStream_t stream) {
  return api("cudaGraphUpload", [&](Lock&) -> cudaError_t {
    EMULATOR_REQUIRE(find_exec(handle));
    return find_stream(stream) ? cudaSuccess : cudaErrorInvalidResourceHandle;
  });
}

cudaError_t cudaGraphExecDestroy(cudaGraphExec_t exec) {
  return api("cudaGraphExecDestroy", [&](Lock&) { return destroy_exec(exec); });
}

cudaError_t cudaGraphExecGetFlags(cudaGraphExec_t handle, unsigned long long* flags) {
  return api("cudaGraphExecGetFlags", [&](Lock&) -> cudaError_t {
    const GraphExec* exec = find_exec(handle);
    EMULATOR_REQUIRE(exec && flags);
    *flags = exec->flags;
    return cudaSuccess;
  });
}

cudaError_t cudaGraphExecUpdate(cudaGraphExec_t handle, cudaGraph_t graph_handle,
                                cudaGraphExecUpdateResultInfo* result) {
  return api("cudaGraphExecUpdate", [&](Lock&) -> cudaError_t {
    GraphExec* exec = find_exec(handle);
    const Graph* graph = find_graph(graph_handle);
    EMULATOR_REQUIRE(exec && graph);
    std::vector<GraphExec::Step> steps;
    if (const cudaError_t error = flatten(*graph, steps)) return error;
    const GraphNode* culprit = nullptr;
    const cudaGraphExecUpdateResult verdict = compare(exec->steps, steps, culprit);
    if (result) {
      *result = {};
      result->result = verdict;
      result->errorNode = reinterpret_cast<cudaGraphNode_t>(const_cast<GraphNode*>(culprit));
    }
    if (verdict != cudaGraphExecUpdateSuccess) return cudaErrorGraphExecUpdateFailure;
    // Nodes of the original graph stay the names of the steps.
    for (std::size_t i = 0; i < steps.size(); ++i) exec->steps[i].operation = steps[i].operation;
    return cudaSuccess;
  });
}

cudaError_t cudaGraphNodeSetEnabled(cudaGraphExec_t handle, cudaGraphNode_t node, unsigned enabled) {
  return api("cudaGraphNodeSetEnabled", [&](Lock&) -> cudaError_t {
    GraphExec* exec = find_exec(handle);
    EMULATOR_REQUIRE(exec);
    for (GraphExec::Step& step : exec->steps) {
      if (step.source != reinterpret_cast<const GraphNode*>(node)) continue;
      const cudaGraphNodeType type = type_of(*step.operation);
      EMULATOR_REQUIRE(type == cudaGraphNodeTypeKernel || type == cudaGraphNodeTypeMemcpy ||
                       type == cudaGraphNodeTypeMemset);
      step.enabled = enabled != 0;
      return cudaSuccess;
    }
    return cudaErrorInvalidValue;
  });
}

cudaError_t cudaGraphNodeGetEnabled(cudaGraphExec_t handle, cudaGraphNode_t node, unsigned* enabled) {
  return api("cudaGraphNodeGetEnabled", [&](Lock&) -> cudaError_t {
    const GraphExec* exec = find_exec(handle);
    EMULATOR_REQUIRE(exec && enabled);
    for (const GraphExec::Step& step : exec->steps) {
      if (step.source != reinterpret_cast<const GraphNode*>(node)) continue;
      *enabled = step.enabled;
      return cudaSuccess;
    }
    return cudaErrorInvalidValue;
  });
}

cudaError_t cudaGraphDebugDotPrint(cudaGraph_t handle, const char* path, unsigned) {
  return api("cudaGraphDebugDotPrint", [&](Lock&) -> cudaError_t {
    const Graph* graph = find_graph(handle);
    EMULATOR_REQUIRE(graph && path);
    std::string dot = "digraph graph_0 {\n";
    for (const auto& node : graph->nodes) {
      const std::string name = "node_" + std::to_string(node->id);
      dot += "  " + name + " [label=\"" + title(node->operation) + "\"];\n";
      for (const GraphNode* before : node->after)
        dot += "  node_" + std::to_string(before->id) + " -> " + name + ";\n";
    }
    dot += "}\n";
    std::FILE* file = std::fopen(path, "w");
    if (!file) return cudaErrorOperatingSystem;
    const bool written = std::fputs(dot.c_str(), file) >= 0;
    return std::fclose(file) == 0 && written ? cudaSuccess : cudaErrorOperatingSystem;
  });
}
