#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "abi/streams.h"

namespace emulator::abi {

struct GraphNode {
  Graph* graph = nullptr;
  std::uint64_t id = 0;  // within the graph, from 0
  Operation operation;
  std::vector<GraphNode*> after;
  const GraphNode* cloned_from = nullptr;
  std::vector<void*> argument_pointers;  // into the parameters of a kernel, for cudaGraphKernelNodeGetParams
};

struct Graph {
  std::vector<std::unique_ptr<GraphNode>> nodes;
  const Graph* cloned_from = nullptr;
  std::uint64_t next_id = 0;
};

/// An instantiated graph: child graphs are merged in, nodes are in a topological order.
struct GraphExec {
  struct Step {
    std::shared_ptr<const Operation> operation;
    std::vector<std::size_t> after;     // earlier steps
    const GraphNode* source = nullptr;  // null: the end of a child graph
    bool enabled = true;
  };
  std::vector<Step> steps;
  unsigned long long flags = 0;
  NodePtr last_run;  // launches of one executable graph run one after the other
};

/// Handles are checked and never reused.
Graph* find_graph(cudaGraph_t handle);
GraphNode* find_node(cudaGraphNode_t handle);
GraphExec* find_exec(cudaGraphExec_t handle);
std::shared_ptr<Graph> create_graph();
std::shared_ptr<Graph> clone_graph(const Graph& graph);
cudaError_t destroy_graph(cudaGraph_t handle);
cudaError_t destroy_node(GraphNode* node);
GraphNode* add_node(Graph& graph, Operation operation, std::vector<GraphNode*> after);

/// Throws nothing; cudaErrorInvalidValue if the graph has a cycle.
cudaError_t flatten(const Graph& graph, std::vector<GraphExec::Step>& steps);
GraphExec* create_exec(std::vector<GraphExec::Step> steps, unsigned long long flags);
cudaError_t destroy_exec(cudaGraphExec_t handle);
cudaError_t launch(Lock& lock, GraphExec& exec, Stream& stream);
cudaGraphNodeType type_of(const Operation& operation);

}  // namespace emulator::abi
