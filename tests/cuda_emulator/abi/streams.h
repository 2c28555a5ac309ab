#pragma once

#include <chrono>
#include <cstdint>
#include <memory>
#include <vector>

#include "abi/operation.h"

/// The queue of the device: operations with their dependencies, and when they run. Everything here expects
/// device_mutex() to be held.
///
/// CUDA_EMULATOR_STREAMS=eager runs an operation when it is queued. `late` runs it only when the host waits
/// for something that depends on it, so that a missing synchronisation shows as stale data. `random` mixes
/// both, seeded.
namespace emulator::abi {

struct Node {
  std::uint64_t sequence = 0;  // order of queueing: a topological order
  std::shared_ptr<const Operation> operation;
  std::vector<std::shared_ptr<Node>> after;  // empty once done
  enum class State : std::uint8_t { queued, running, done } state = State::queued;
  std::chrono::steady_clock::time_point finished;
};
using NodePtr = std::shared_ptr<Node>;

struct Capture;
struct GraphNode;

struct Stream {
  std::uint64_t id = 0;
  unsigned flags = 0;  // cudaStreamNonBlocking
  int priority = 0;
  bool destroyed = false;
  NodePtr last;
  NodePtr refused;  // what cudaStreamQuery has once called not ready
  std::shared_ptr<Capture> capture;
  std::vector<GraphNode*> capture_after;  // what the next captured operation depends on
  cudaLaunchAttributeValue policy_window{}, sync_policy{}, memory_domain{}, memory_domain_map{};
  bool is_legacy() const { return id == 1; }
  bool is_blocking() const { return !is_legacy() && (flags & cudaStreamNonBlocking) == 0; }
};

struct Event {
  unsigned flags = 0;
  bool destroyed = false;
  bool recorded = false;
  NodePtr node;  // of the latest record
  NodePtr refused;
  std::shared_ptr<Capture> capture;  // recorded in a stream under capture
  std::vector<GraphNode*> capture_after;
};

/// The stream that a handle means (null and cudaStreamLegacy, cudaStreamPerThread, created ones); null and a
/// finding if it is none.
Stream* find_stream(cudaStream_t handle);
Event* find_event(cudaEvent_t handle);
Stream* create_stream(unsigned flags, int priority);
cudaError_t destroy_stream(cudaStream_t handle);
Event* create_event(unsigned flags);

/// Queues an operation behind what the stream holds and behind `extra`, or adds it to the graph that is being
/// captured.
cudaError_t submit(Lock& lock, Stream& stream, Operation operation, std::vector<NodePtr> extra = {});
/// Queues an operation whose dependencies are given; the stream's order is left alone.
NodePtr queue(std::shared_ptr<const Operation> operation, std::vector<NodePtr> after);
/// What a new operation of the stream waits for: its own last one, and those of the streams that it
/// synchronises with implicitly.
std::vector<NodePtr> predecessors(Stream& stream);

/// Runs what `node` needs, and it. Nothing to do for null.
void wait_for(Lock& lock, NodePtr node);
void wait_for_stream(Lock& lock, Stream& stream);
void wait_for_all(Lock& lock);
/// cudaStreamQuery and cudaEventQuery: in late mode the first question about an operation is answered with
/// cudaErrorNotReady.
cudaError_t query(Lock& lock, const NodePtr& node, NodePtr& refused);
/// Drops queued work and all streams' memory of it (cudaDeviceReset).
void forget_queue();

/// Seeded; for orders of independent operations.
std::uint64_t random_number();

}  // namespace emulator::abi
