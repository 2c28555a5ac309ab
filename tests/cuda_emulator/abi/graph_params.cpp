#include <algorithm>

#include "abi/graph_calls.h"

namespace emulator::abi {

cudaError_t kernel_of(const cudaKernelNodeParams* params, KernelCall& call) {
  EMULATOR_REQUIRE(params);
  if (params->extra) return not_supported("cudaKernelNodeParams::extra");
  return prepare(params->func, {params->gridDim, params->blockDim, params->sharedMemBytes, false},
                 params->kernelParams, call);
}

cudaError_t copy_of(const cudaMemcpy3DParms* params, const char* name, Copy& copy) {
  EMULATOR_REQUIRE(params);
  if (const cudaError_t error = read(*params, copy)) return error;
  return check(copy, name);
}

cudaError_t copy_of(void* to, const void* from, std::size_t bytes, cudaMemcpyKind kind, const char* name,
                    Copy& copy) {
  copy = {};
  copy.to = address_of(to);
  copy.from = address_of(from);
  copy.width = copy.to_pitch = copy.from_pitch = bytes;
  copy.kind = kind;
  return check(copy, name);
}

cudaError_t fill_of(const cudaMemsetParams* params, const char* name, Fill& fill) {
  EMULATOR_REQUIRE(params &&
                   (params->elementSize == 1 || params->elementSize == 2 || params->elementSize == 4));
  fill = {};
  fill.to = address_of(params->dst);
  fill.width = params->width;
  fill.height = params->height;
  fill.pitch = params->pitch;
  fill.value = params->value;
  fill.element_bytes = params->elementSize;
  return check(fill, name);
}

cudaError_t host_of(const cudaHostNodeParams* params, HostCall& call) {
  EMULATOR_REQUIRE(params && params->fn);
  call = {params->fn, params->userData, nullptr};
  return cudaSuccess;
}

namespace {

/// The step of an executable graph that came from a node, if it is of type Kind.
template <class Kind>
cudaError_t replace_step(cudaGraphExec_t exec_handle, cudaGraphNode_t node_handle, Kind operation) {
  GraphExec* exec = find_exec(exec_handle);
  const GraphNode* node = find_node(node_handle);
  EMULATOR_REQUIRE(exec && node);
  for (GraphExec::Step& step : exec->steps) {
    if (step.source != node) continue;
    EMULATOR_REQUIRE(std::holds_alternative<Kind>(*step.operation));
    step.operation = std::make_shared<const Operation>(std::move(operation));
    return cudaSuccess;
  }
  return broken_rule(cudaErrorInvalidValue, "the node is not of the graph that was instantiated");
}

template <class Kind>
cudaError_t replace(cudaGraphNode_t handle, Kind operation) {
  GraphNode* node = find_node(handle);
  EMULATOR_REQUIRE(node && std::holds_alternative<Kind>(node->operation));
  node->operation = std::move(operation);
  return cudaSuccess;
}

/// body(operation of type Kind) for a node.
template <class Kind, class Body>
cudaError_t look(const char* name, cudaGraphNode_t handle, Body body) {
  return api(name, [&](Lock&) -> cudaError_t {
    GraphNode* node = find_node(handle);
    EMULATOR_REQUIRE(node && std::holds_alternative<Kind>(node->operation));
    return body(*node, std::get<Kind>(node->operation));
  });
}

}  // namespace
}  // namespace emulator::abi

using namespace emulator::abi;

cudaError_t cudaGraphKernelNodeGetParams(cudaGraphNode_t node, cudaKernelNodeParams* params) {
  return look<KernelCall>("cudaGraphKernelNodeGetParams", node,
                          [&](GraphNode& found, KernelCall& call) -> cudaError_t {
                            EMULATOR_REQUIRE(params);
                            const auto& config = call.config;
                            found.argument_pointers.clear();
                            for (const auto& param : emulator::info(*call.function->kernel).params)
                              found.argument_pointers.push_back(call.params.data() + param.offset);
                            *params = {};
                            params->func = call.function;
                            params->gridDim = dim3(config.grid[0], config.grid[1], config.grid[2]);
                            params->blockDim = dim3(config.block[0], config.block[1], config.block[2]);
                            params->sharedMemBytes = static_cast<unsigned>(config.dynamic_shared);
                            params->kernelParams = found.argument_pointers.data();
                            return cudaSuccess;
                          });
}

cudaError_t cudaGraphKernelNodeSetParams(cudaGraphNode_t node, const cudaKernelNodeParams* params) {
  return api("cudaGraphKernelNodeSetParams", [&](Lock&) -> cudaError_t {
    KernelCall call;
    if (const cudaError_t error = kernel_of(params, call)) return error;
    return replace(node, std::move(call));
  });
}

cudaError_t cudaGraphExecKernelNodeSetParams(cudaGraphExec_t exec, cudaGraphNode_t node,
                                             const cudaKernelNodeParams* params) {
  return api("cudaGraphExecKernelNodeSetParams", [&](Lock&) -> cudaError_t {
    KernelCall call;
    if (const cudaError_t error = kernel_of(params, call)) return error;
    return replace_step(exec, node, std::move(call));
  });
}

cudaError_t cudaGraphMemcpyNodeGetParams(cudaGraphNode_t node, cudaMemcpy3DParms* params) {
  return look<Copy>("cudaGraphMemcpyNodeGetParams", node, [&](GraphNode&, Copy& copy) -> cudaError_t {
    EMULATOR_REQUIRE(params);
    *params = {};
    const auto rows_of = [](std::uint64_t slice, std::uint64_t pitch, std::uint64_t height) {
      return pitch && slice ? slice / pitch : height;
    };
    params->dstPtr = {pointer_to(copy.to), copy.to_pitch, copy.width,
                      rows_of(copy.to_slice, copy.to_pitch, copy.height)};
    params->srcPtr = {pointer_to(copy.from), copy.from_pitch, copy.width,
                      rows_of(copy.from_slice, copy.from_pitch, copy.height)};
    params->extent = {copy.width, copy.height, copy.depth};
    params->kind = copy.kind;
    return cudaSuccess;
  });
}

cudaError_t cudaGraphMemcpyNodeSetParams(cudaGraphNode_t node, const cudaMemcpy3DParms* params) {
  return api("cudaGraphMemcpyNodeSetParams", [&](Lock&) -> cudaError_t {
    Copy copy;
    if (const cudaError_t error = copy_of(params, "cudaGraphMemcpyNodeSetParams", copy)) return error;
    return replace(node, std::move(copy));
  });
}

cudaError_t cudaGraphMemcpyNodeSetParams1D(cudaGraphNode_t node, void* to, const void* from, size_t bytes,
                                           cudaMemcpyKind kind) {
  return api("cudaGraphMemcpyNodeSetParams1D", [&](Lock&) -> cudaError_t {
    Copy copy;
    if (const cudaError_t error = copy_of(to, from, bytes, kind, "cudaGraphMemcpyNodeSetParams1D", copy))
      return error;
    return replace(node, std::move(copy));
  });
}

cudaError_t cudaGraphExecMemcpyNodeSetParams(cudaGraphExec_t exec, cudaGraphNode_t node,
                                             const cudaMemcpy3DParms* params) {
  return api("cudaGraphExecMemcpyNodeSetParams", [&](Lock&) -> cudaError_t {
    Copy copy;
    if (const cudaError_t error = copy_of(params, "cudaGraphExecMemcpyNodeSetParams", copy)) return error;
    return replace_step(exec, node, std::move(copy));
  });
}

cudaError_t cudaGraphExecMemcpyNodeSetParams1D(cudaGraphExec_t exec, cudaGraphNode_t node, void* to,
                                               const void* from, size_t bytes, cudaMemcpyKind kind) {
  return api("cudaGraphExecMemcpyNodeSetParams1D", [&](Lock&) -> cudaError_t {
    Copy copy;
    if (const cudaError_t error = copy_of(to, from, bytes, kind, "cudaGraphExecMemcpyNodeSetParams1D", copy))
      return error;
    return replace_step(exec, node, std::move(copy));
  });
}

cudaError_t cudaGraphMemsetNodeGetParams(cudaGraphNode_t node, cudaMemsetParams* params) {
  return look<Fill>("cudaGraphMemsetNodeGetParams", node, [&](GraphNode&, Fill& fill) -> cudaError_t {
    EMULATOR_REQUIRE(params);
    *params = {pointer_to(fill.to), fill.pitch, fill.value, fill.element_bytes, fill.width, fill.height};
    return cudaSuccess;
  });
}

cudaError_t cudaGraphMemsetNodeSetParams(cudaGraphNode_t node, const cudaMemsetParams* params) {
  return api("cudaGraphMemsetNodeSetParams", [&](Lock&) -> cudaError_t {
    Fill fill;
    if (const cudaError_t error = fill_of(params, "cudaGraphMemsetNodeSetParams", fill)) return error;
    return replace(node, fill);
  });
}

cudaError_t cudaGraphExecMemsetNodeSetParams(cudaGraphExec_t exec, cudaGraphNode_t node,
                                             const cudaMemsetParams* params) {
  return api("cudaGraphExecMemsetNodeSetParams", [&](Lock&) -> cudaError_t {
    Fill fill;
    if (const cudaError_t error = fill_of(params, "cudaGraphExecMemsetNodeSetParams", fill)) return error;
    return replace_step(exec, node, fill);
  });
}

cudaError_t cudaGraphHostNodeGetParams(cudaGraphNode_t node, cudaHostNodeParams* params) {
  return look<HostCall>("cudaGraphHostNodeGetParams", node, [&](GraphNode&, HostCall& call) -> cudaError_t {
    EMULATOR_REQUIRE(params);
    *params = {call.function, call.data};
    return cudaSuccess;
  });
}

cudaError_t cudaGraphHostNodeSetParams(cudaGraphNode_t node, const cudaHostNodeParams* params) {
  return api("cudaGraphHostNodeSetParams", [&](Lock&) -> cudaError_t {
    HostCall call;
    if (const cudaError_t error = host_of(params, call)) return error;
    return replace(node, std::move(call));
  });
}

cudaError_t cudaGraphExecHostNodeSetParams(cudaGraphExec_t exec, cudaGraphNode_t node,
                                           const cudaHostNodeParams* params) {
  return api("cudaGraphExecHostNodeSetParams", [&](Lock&) -> cudaError_t {
    HostCall call;
    if (const cudaError_t error = host_of(params, call)) return error;
    return replace_step(exec, node, std::move(call));
  });
}

cudaError_t cudaGraphChildGraphNodeGetGraph(cudaGraphNode_t node, cudaGraph_t* graph) {
  return look<ChildGraph>("cudaGraphChildGraphNodeGetGraph", node,
                          [&](GraphNode&, ChildGraph& child) -> cudaError_t {
                            EMULATOR_REQUIRE(graph);
                            *graph = reinterpret_cast<cudaGraph_t>(child.graph.get());
                            return cudaSuccess;
                          });
}

cudaError_t cudaGraphEventRecordNodeGetEvent(cudaGraphNode_t node, cudaEvent_t* event) {
  return look<EventMark>("cudaGraphEventRecordNodeGetEvent", node,
                         [&](GraphNode&, EventMark& mark) -> cudaError_t {
                           EMULATOR_REQUIRE(event);
                           *event = reinterpret_cast<cudaEvent_t>(mark.event);
                           return cudaSuccess;
                         });
}

cudaError_t cudaGraphEventWaitNodeGetEvent(cudaGraphNode_t node, cudaEvent_t* event) {
  return look<EventWait>("cudaGraphEventWaitNodeGetEvent", node,
                         [&](GraphNode&, EventWait& wait) -> cudaError_t {
                           EMULATOR_REQUIRE(event);
                           *event = reinterpret_cast<cudaEvent_t>(wait.event);
                           return cudaSuccess;
                         });
}
