#include <algorithm>
#include <type_traits>

#include "abi/graph_calls.h"

namespace emulator::abi {

cudaError_t nodes_of(const Graph& graph, const cudaGraphNode_t* handles, std::size_t count,
                     std::vector<GraphNode*>& nodes) {
  EMULATOR_REQUIRE(handles || count == 0);
  for (std::size_t i = 0; i < count; ++i) {
    GraphNode* node = find_node(handles[i]);
    EMULATOR_REQUIRE(node && node->graph == &graph);
    nodes.push_back(node);
  }
  return cudaSuccess;
}

cudaError_t add(cudaGraphNode_t* out, cudaGraph_t handle, const cudaGraphNode_t* after, std::size_t count,
                Operation operation) {
  EMULATOR_REQUIRE(out);
  Graph* graph = find_graph(handle);
  EMULATOR_REQUIRE(graph);
  std::vector<GraphNode*> nodes;
  if (const cudaError_t error = nodes_of(*graph, after, count, nodes)) return error;
  *out = reinterpret_cast<cudaGraphNode_t>(add_node(*graph, std::move(operation), std::move(nodes)));
  return cudaSuccess;
}

namespace {

template <class Body>
cudaError_t with_graph(const char* name, cudaGraph_t handle, Body body) {
  return api(name, [&](Lock&) -> cudaError_t {
    Graph* graph = find_graph(handle);
    EMULATOR_REQUIRE(graph);
    return body(*graph);
  });
}

template <class Body>
cudaError_t with_node(const char* name, cudaGraphNode_t handle, Body body) {
  return api(name, [&](Lock&) -> cudaError_t {
    GraphNode* node = find_node(handle);
    EMULATOR_REQUIRE(node);
    return body(*node);
  });
}

/// Edges carry data only for programmatic launches, which run in order here.
void clear(cudaGraphEdgeData* edges, const std::size_t* count) {
  if (edges && count) std::fill_n(edges, *count, cudaGraphEdgeData{});
}

}  // namespace
}  // namespace emulator::abi

using namespace emulator::abi;

cudaError_t cudaGraphCreate(cudaGraph_t* graph, unsigned flags) {
  return api("cudaGraphCreate", [&](Lock&) -> cudaError_t {
    EMULATOR_REQUIRE(graph && flags == 0);
    *graph = reinterpret_cast<cudaGraph_t>(create_graph().get());
    return cudaSuccess;
  });
}

cudaError_t cudaGraphDestroy(cudaGraph_t graph) {
  return api("cudaGraphDestroy", [&](Lock&) { return destroy_graph(graph); });
}

cudaError_t cudaGraphClone(cudaGraph_t* clone, cudaGraph_t original) {
  return with_graph("cudaGraphClone", original, [&](Graph& graph) -> cudaError_t {
    EMULATOR_REQUIRE(clone);
    *clone = reinterpret_cast<cudaGraph_t>(clone_graph(graph).get());
    return cudaSuccess;
  });
}

cudaError_t cudaGraphNodeFindInClone(cudaGraphNode_t* twin, cudaGraphNode_t original, cudaGraph_t clone) {
  return with_graph("cudaGraphNodeFindInClone", clone, [&](Graph& graph) -> cudaError_t {
    EMULATOR_REQUIRE(twin);
    for (const auto& node : graph.nodes) {
      if (node->cloned_from != reinterpret_cast<const GraphNode*>(original)) continue;
      *twin = reinterpret_cast<cudaGraphNode_t>(node.get());
      return cudaSuccess;
    }
    return cudaErrorInvalidValue;
  });
}

cudaError_t cudaGraphAddKernelNode(cudaGraphNode_t* node, cudaGraph_t graph, const cudaGraphNode_t* after,
                                   size_t count, const cudaKernelNodeParams* params) {
  return api("cudaGraphAddKernelNode", [&](Lock&) -> cudaError_t {
    KernelCall call;
    if (const cudaError_t error = kernel_of(params, call)) return error;
    return add(node, graph, after, count, std::move(call));
  });
}

cudaError_t cudaGraphAddMemcpyNode(cudaGraphNode_t* node, cudaGraph_t graph, const cudaGraphNode_t* after,
                                   size_t count, const cudaMemcpy3DParms* params) {
  return api("cudaGraphAddMemcpyNode", [&](Lock&) -> cudaError_t {
    Copy copy;
    if (const cudaError_t error = copy_of(params, "cudaGraphAddMemcpyNode", copy)) return error;
    return add(node, graph, after, count, std::move(copy));
  });
}

cudaError_t cudaGraphAddMemcpyNode1D(cudaGraphNode_t* node, cudaGraph_t graph, const cudaGraphNode_t* after,
                                     size_t count, void* to, const void* from, size_t bytes,
                                     cudaMemcpyKind kind) {
  return api("cudaGraphAddMemcpyNode1D", [&](Lock&) -> cudaError_t {
    Copy copy;
    if (const cudaError_t error = copy_of(to, from, bytes, kind, "cudaGraphAddMemcpyNode1D", copy))
      return error;
    return add(node, graph, after, count, std::move(copy));
  });
}

cudaError_t cudaGraphAddMemcpyNodeToSymbol(cudaGraphNode_t* node, cudaGraph_t graph,
                                           const cudaGraphNode_t* after, size_t count, const void* symbol,
                                           const void* from, size_t bytes, size_t offset,
                                           cudaMemcpyKind kind) {
  return api("cudaGraphAddMemcpyNodeToSymbol", [&](Lock&) -> cudaError_t {
    std::uint64_t address = 0;
    std::size_t size = 0;
    if (const cudaError_t error = find_symbol(symbol, address, size)) return error;
    Copy copy;
    if (const cudaError_t error =
            copy_of(pointer_to(address + offset), from, bytes, kind, "cudaGraphAddMemcpyNodeToSymbol", copy))
      return error;
    return add(node, graph, after, count, std::move(copy));
  });
}

cudaError_t cudaGraphAddMemcpyNodeFromSymbol(cudaGraphNode_t* node, cudaGraph_t graph,
                                             const cudaGraphNode_t* after, size_t count, void* to,
                                             const void* symbol, size_t bytes, size_t offset,
                                             cudaMemcpyKind kind) {
  return api("cudaGraphAddMemcpyNodeFromSymbol", [&](Lock&) -> cudaError_t {
    std::uint64_t address = 0;
    std::size_t size = 0;
    if (const cudaError_t error = find_symbol(symbol, address, size)) return error;
    Copy copy;
    if (const cudaError_t error =
            copy_of(to, pointer_to(address + offset), bytes, kind, "cudaGraphAddMemcpyNodeFromSymbol", copy))
      return error;
    return add(node, graph, after, count, std::move(copy));
  });
}

cudaError_t cudaGraphAddMemsetNode(cudaGraphNode_t* node, cudaGraph_t graph, const cudaGraphNode_t* after,
                                   size_t count, const cudaMemsetParams* params) {
  return api("cudaGraphAddMemsetNode", [&](Lock&) -> cudaError_t {
    Fill fill;
    if (const cudaError_t error = fill_of(params, "cudaGraphAddMemsetNode", fill)) return error;
    return add(node, graph, after, count, fill);
  });
}

cudaError_t cudaGraphAddHostNode(cudaGraphNode_t* node, cudaGraph_t graph, const cudaGraphNode_t* after,
                                 size_t count, const cudaHostNodeParams* params) {
  return api("cudaGraphAddHostNode", [&](Lock&) -> cudaError_t {
    HostCall call;
    if (const cudaError_t error = host_of(params, call)) return error;
    return add(node, graph, after, count, std::move(call));
  });
}

cudaError_t cudaGraphAddChildGraphNode(cudaGraphNode_t* node, cudaGraph_t graph, const cudaGraphNode_t* after,
                                       size_t count, cudaGraph_t child) {
  return api("cudaGraphAddChildGraphNode", [&](Lock&) -> cudaError_t {
    const Graph* original = find_graph(child);
    EMULATOR_REQUIRE(original);
    return add(node, graph, after, count, ChildGraph{clone_graph(*original)});
  });
}

cudaError_t cudaGraphAddEmptyNode(cudaGraphNode_t* node, cudaGraph_t graph, const cudaGraphNode_t* after,
                                  size_t count) {
  return api("cudaGraphAddEmptyNode", [&](Lock&) { return add(node, graph, after, count, Nothing{}); });
}

cudaError_t cudaGraphAddEventRecordNode(cudaGraphNode_t* node, cudaGraph_t graph,
                                        const cudaGraphNode_t* after, size_t count, cudaEvent_t handle) {
  return api("cudaGraphAddEventRecordNode", [&](Lock&) -> cudaError_t {
    Event* event = find_event(handle);
    EMULATOR_REQUIRE(event);
    return add(node, graph, after, count, EventMark{event});
  });
}

cudaError_t cudaGraphAddEventWaitNode(cudaGraphNode_t* node, cudaGraph_t graph, const cudaGraphNode_t* after,
                                      size_t count, cudaEvent_t handle) {
  return api("cudaGraphAddEventWaitNode", [&](Lock&) -> cudaError_t {
    Event* event = find_event(handle);
    EMULATOR_REQUIRE(event);
    return add(node, graph, after, count, EventWait{event});
  });
}

cudaError_t cudaGraphAddDependencies(cudaGraph_t handle, const cudaGraphNode_t* from,
                                     const cudaGraphNode_t* to, const cudaGraphEdgeData*, size_t count) {
  return with_graph("cudaGraphAddDependencies", handle, [&](Graph& graph) -> cudaError_t {
    std::vector<GraphNode*> before, behind;
    if (const cudaError_t error = nodes_of(graph, from, count, before)) return error;
    if (const cudaError_t error = nodes_of(graph, to, count, behind)) return error;
    for (std::size_t i = 0; i < count; ++i) {
      std::vector<GraphNode*>& after = behind[i]->after;
      EMULATOR_REQUIRE(before[i] != behind[i] &&
                       std::find(after.begin(), after.end(), before[i]) == after.end());
      after.push_back(before[i]);
    }
    return cudaSuccess;
  });
}

cudaError_t cudaGraphRemoveDependencies(cudaGraph_t handle, const cudaGraphNode_t* from,
                                        const cudaGraphNode_t* to, const cudaGraphEdgeData*, size_t count) {
  return with_graph("cudaGraphRemoveDependencies", handle, [&](Graph& graph) -> cudaError_t {
    std::vector<GraphNode*> before, behind;
    if (const cudaError_t error = nodes_of(graph, from, count, before)) return error;
    if (const cudaError_t error = nodes_of(graph, to, count, behind)) return error;
    for (std::size_t i = 0; i < count; ++i) EMULATOR_REQUIRE(std::erase(behind[i]->after, before[i]) == 1);
    return cudaSuccess;
  });
}

cudaError_t cudaGraphDestroyNode(cudaGraphNode_t handle) {
  return with_node("cudaGraphDestroyNode", handle, [](GraphNode& node) { return destroy_node(&node); });
}

cudaError_t cudaGraphNodeGetType(cudaGraphNode_t handle, cudaGraphNodeType* type) {
  return with_node("cudaGraphNodeGetType", handle, [&](GraphNode& node) -> cudaError_t {
    EMULATOR_REQUIRE(type);
    *type = type_of(node.operation);
    return cudaSuccess;
  });
}

cudaError_t cudaGraphGetNodes(cudaGraph_t handle, cudaGraphNode_t* nodes, size_t* count) {
  return with_graph("cudaGraphGetNodes", handle, [&](Graph& graph) {
    std::vector<GraphNode*> all;
    for (const auto& node : graph.nodes) all.push_back(node.get());
    return hand_out(all, nodes, count);
  });
}

cudaError_t cudaGraphGetRootNodes(cudaGraph_t handle, cudaGraphNode_t* nodes, size_t* count) {
  return with_graph("cudaGraphGetRootNodes", handle, [&](Graph& graph) {
    std::vector<GraphNode*> roots;
    for (const auto& node : graph.nodes) {
      if (node->after.empty()) roots.push_back(node.get());
    }
    return hand_out(roots, nodes, count);
  });
}

cudaError_t cudaGraphGetEdges(cudaGraph_t handle, cudaGraphNode_t* from, cudaGraphNode_t* to,
                              cudaGraphEdgeData* edges, size_t* count) {
  return with_graph("cudaGraphGetEdges", handle, [&](Graph& graph) -> cudaError_t {
    EMULATOR_REQUIRE(count && (from == nullptr) == (to == nullptr));
    std::vector<GraphNode*> starts, ends;
    for (const auto& node : graph.nodes) {
      for (GraphNode* before : node->after) {
        starts.push_back(before);
        ends.push_back(node.get());
      }
    }
    std::size_t room = *count;
    clear(from ? edges : nullptr, count);
    hand_out(starts, from, count);
    return hand_out(ends, to, &room);
  });
}

cudaError_t cudaGraphNodeGetDependencies(cudaGraphNode_t handle, cudaGraphNode_t* nodes,
                                         cudaGraphEdgeData* edges, size_t* count) {
  return with_node("cudaGraphNodeGetDependencies", handle, [&](GraphNode& node) {
    clear(nodes ? edges : nullptr, count);
    return hand_out(node.after, nodes, count);
  });
}

cudaError_t cudaGraphNodeGetDependentNodes(cudaGraphNode_t handle, cudaGraphNode_t* nodes,
                                           cudaGraphEdgeData* edges, size_t* count) {
  return with_node("cudaGraphNodeGetDependentNodes", handle, [&](GraphNode& node) {
    std::vector<GraphNode*> behind;
    for (const auto& other : node.graph->nodes) {
      if (std::find(other->after.begin(), other->after.end(), &node) != other->after.end())
        behind.push_back(other.get());
    }
    clear(nodes ? edges : nullptr, count);
    return hand_out(behind, nodes, count);
  });
}
