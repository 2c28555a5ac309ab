#include "abi/graph.h"

#include <algorithm>
#include <unordered_map>

#include "abi/capture.h"
#include "count/activity.h"

namespace emulator::abi {
namespace {

/// Never destroyed. Destroyed objects keep their memory, so that no new handle equals an old one.
struct Graphs {
  std::unordered_map<const void*, std::shared_ptr<Graph>> graphs;
  std::unordered_map<const void*, Graph*> nodes;
  std::unordered_map<const void*, std::unique_ptr<GraphExec>> execs;
  std::vector<std::shared_ptr<void>> ended;
};

Graphs& all() {
  static Graphs* graphs = new Graphs;
  return *graphs;
}

std::vector<const GraphNode*> topological(const Graph& graph) {
  std::unordered_map<const GraphNode*, std::size_t> missing;
  std::unordered_map<const GraphNode*, std::vector<const GraphNode*>> followers;
  std::vector<const GraphNode*> sorted;
  for (const auto& node : graph.nodes) {
    missing[node.get()] = node->after.size();
    for (const GraphNode* before : node->after) followers[before].push_back(node.get());
    if (node->after.empty()) sorted.push_back(node.get());
  }
  for (std::size_t i = 0; i < sorted.size(); ++i) {
    for (const GraphNode* follower : followers[sorted[i]]) {
      if (--missing[follower] == 0) sorted.push_back(follower);
    }
  }
  return sorted;  // shorter than the graph if there is a cycle
}

cudaError_t append(const Graph& graph, const std::vector<std::size_t>& entry,
                   std::vector<GraphExec::Step>& steps, std::vector<std::size_t>& leaves) {
  const std::vector<const GraphNode*> sorted = topological(graph);
  if (sorted.size() != graph.nodes.size())
    return broken_rule(cudaErrorInvalidValue, "cudaGraphInstantiate: the graph has a cycle");
  std::unordered_map<const GraphNode*, std::size_t> index;
  std::vector<bool> followed(steps.size() + graph.nodes.size());
  for (const GraphNode* node : sorted) {
    std::vector<std::size_t> after = node->after.empty() ? entry : std::vector<std::size_t>{};
    for (const GraphNode* before : node->after) after.push_back(index[before]);
    if (const auto* child = std::get_if<ChildGraph>(&node->operation)) {
      std::vector<std::size_t> ends;
      if (const cudaError_t error = append(*child->graph, after, steps, ends)) return error;
      steps.push_back(
          {std::make_shared<const Operation>(Nothing{}), ends.empty() ? after : ends, node, true});
    } else {
      steps.push_back({std::make_shared<const Operation>(node->operation), after, node, true});
    }
    index[node] = steps.size() - 1;
  }
  for (const auto& node : graph.nodes) {
    for (const GraphNode* before : node->after) {
      const std::size_t at = index[before];
      if (followed.size() <= at) followed.resize(at + 1);
      followed[at] = true;
    }
  }
  for (const GraphNode* node : sorted) {
    const std::size_t at = index[node];
    if (at >= followed.size() || !followed[at]) leaves.push_back(at);
  }
  return cudaSuccess;
}

}  // namespace

Graph* find_graph(cudaGraph_t handle) {
  const auto found = all().graphs.find(handle);
  if (found != all().graphs.end()) return found->second.get();
  broken_rule(cudaErrorInvalidValue, hex(address_of(handle)) + " is no graph, or a destroyed one");
  return nullptr;
}

GraphNode* find_node(cudaGraphNode_t handle) {
  if (all().nodes.count(handle)) return reinterpret_cast<GraphNode*>(handle);
  broken_rule(cudaErrorInvalidValue, hex(address_of(handle)) + " is no node of a graph, or a destroyed one");
  return nullptr;
}

GraphExec* find_exec(cudaGraphExec_t handle) {
  const auto found = all().execs.find(handle);
  if (found != all().execs.end()) return found->second.get();
  broken_rule(cudaErrorInvalidValue, hex(address_of(handle)) + " is no executable graph, or a destroyed one");
  return nullptr;
}

std::shared_ptr<Graph> create_graph() {
  auto graph = std::make_shared<Graph>();
  all().graphs[graph.get()] = graph;
  return graph;
}

std::shared_ptr<Graph> clone_graph(const Graph& graph) {
  auto clone = create_graph();
  clone->cloned_from = &graph;
  std::unordered_map<const GraphNode*, GraphNode*> twin;
  for (const auto& node : graph.nodes) {
    Operation operation = node->operation;
    if (auto* child = std::get_if<ChildGraph>(&operation)) child->graph = clone_graph(*child->graph);
    GraphNode* made = add_node(*clone, std::move(operation), {});
    made->cloned_from = node.get();
    twin[node.get()] = made;
  }
  for (const auto& node : graph.nodes) {
    for (const GraphNode* before : node->after) twin[node.get()]->after.push_back(twin[before]);
  }
  return clone;
}

cudaError_t destroy_graph(cudaGraph_t handle) {
  Graph* graph = find_graph(handle);
  if (!graph) return cudaErrorInvalidValue;
  for (const auto& node : graph->nodes) all().nodes.erase(node.get());
  all().ended.push_back(all().graphs[graph]);
  all().graphs.erase(graph);
  return cudaSuccess;
}

cudaError_t destroy_node(GraphNode* node) {
  Graph& graph = *node->graph;
  for (const auto& other : graph.nodes) std::erase(other->after, node);
  all().nodes.erase(node);
  const auto at = std::find_if(graph.nodes.begin(), graph.nodes.end(),
                               [node](const auto& item) { return item.get() == node; });
  all().ended.push_back(std::shared_ptr<GraphNode>(std::move(*at)));
  graph.nodes.erase(at);
  return cudaSuccess;
}

GraphNode* add_node(Graph& graph, Operation operation, std::vector<GraphNode*> after) {
  auto node = std::make_unique<GraphNode>();
  node->graph = &graph;
  node->id = graph.next_id++;
  node->operation = std::move(operation);
  std::sort(after.begin(), after.end(), [](const GraphNode* a, const GraphNode* b) { return a->id < b->id; });
  after.erase(std::unique(after.begin(), after.end()), after.end());
  node->after = std::move(after);
  GraphNode* raw = node.get();
  all().nodes[raw] = &graph;
  graph.nodes.push_back(std::move(node));
  return raw;
}

cudaError_t flatten(const Graph& graph, std::vector<GraphExec::Step>& steps) {
  std::vector<std::size_t> leaves;
  return append(graph, {}, steps, leaves);
}

GraphExec* create_exec(std::vector<GraphExec::Step> steps, unsigned long long flags) {
  auto exec = std::make_unique<GraphExec>();
  exec->steps = std::move(steps);
  exec->flags = flags;
  GraphExec* raw = exec.get();
  all().execs[raw] = std::move(exec);
  return raw;
}

cudaError_t destroy_exec(cudaGraphExec_t handle) {
  if (!find_exec(handle)) return cudaErrorInvalidValue;
  const auto found = all().execs.find(handle);
  found->second->steps.clear();
  all().ended.push_back(std::shared_ptr<GraphExec>(std::move(found->second)));
  all().execs.erase(found);
  return cudaSuccess;
}

cudaError_t launch(Lock& lock, GraphExec& exec, Stream& stream) {
  if (stream.capture) return not_supported("cudaGraphLaunch into a stream that is being captured");
  if (const cudaError_t error = check_implicit_capture(stream)) return error;
  ++activity().graph_launches;
  std::vector<NodePtr> entry = predecessors(stream);
  if (exec.last_run) entry.push_back(exec.last_run);
  std::vector<NodePtr> nodes(exec.steps.size()), ends = entry;
  std::vector<bool> followed(exec.steps.size());
  for (std::size_t i = 0; i < exec.steps.size(); ++i) {
    const GraphExec::Step& step = exec.steps[i];
    std::vector<NodePtr> after = step.after.empty() ? entry : std::vector<NodePtr>{};
    for (const std::size_t before : step.after) {
      after.push_back(nodes[before]);
      followed[before] = true;
    }
    if (const auto* wait = std::get_if<EventWait>(step.operation.get())) after.push_back(wait->event->node);
    nodes[i] =
        queue(step.enabled ? step.operation : std::make_shared<const Operation>(Nothing{}), std::move(after));
    if (const auto* mark = std::get_if<EventMark>(step.operation.get())) {
      mark->event->node = nodes[i];
      mark->event->recorded = true;
    }
  }
  for (std::size_t i = 0; i < nodes.size(); ++i) {
    if (!followed[i]) ends.push_back(nodes[i]);
  }
  const cudaError_t error = submit(lock, stream, Nothing{}, std::move(ends));
  exec.last_run = stream.last;
  return error;
}

cudaGraphNodeType type_of(const Operation& operation) {
  struct {
    cudaGraphNodeType operator()(const Nothing&) const { return cudaGraphNodeTypeEmpty; }
    cudaGraphNodeType operator()(const KernelCall&) const { return cudaGraphNodeTypeKernel; }
    cudaGraphNodeType operator()(const Copy&) const { return cudaGraphNodeTypeMemcpy; }
    cudaGraphNodeType operator()(const Fill&) const { return cudaGraphNodeTypeMemset; }
    cudaGraphNodeType operator()(const HostCall&) const { return cudaGraphNodeTypeHost; }
    cudaGraphNodeType operator()(const LibraryCall&) const {
      return cudaGraphNodeTypeKernel;
    }  // real libraries launch kernels
    cudaGraphNodeType operator()(const Release&) const { return cudaGraphNodeTypeMemFree; }
    cudaGraphNodeType operator()(const EventMark&) const { return cudaGraphNodeTypeEventRecord; }
    cudaGraphNodeType operator()(const EventWait&) const { return cudaGraphNodeTypeWaitEvent; }
    cudaGraphNodeType operator()(const ChildGraph&) const { return cudaGraphNodeTypeGraph; }
  } types;
  return std::visit(types, operation);
}

}  // namespace emulator::abi
