#include "abi/streams.h"

#include <algorithm>
#include <condition_variable>
#include <deque>
#include <unordered_map>
#include <unordered_set>

#include "abi/capture.h"

namespace emulator::abi {
namespace {

constexpr std::size_t kMostQueued =
    1024;  // as on the device: a full queue makes the host wait for the oldest operation

/// Handles are never reused, so that a use after destruction is found. Never destroyed.
struct Queue {
  std::unordered_map<const void*, std::unique_ptr<Stream>> streams;
  std::unordered_map<const void*, std::unique_ptr<Event>> events;
  std::deque<NodePtr> queued;  // by sequence; may begin with nodes that are done
  std::uint64_t next_stream = 1, next_node = 1;
  std::uint64_t random = 0;
  std::condition_variable host_function_ended;
  Stream* legacy = nullptr;
};

Queue& all() {
  static Queue* queue = [] {
    auto* made = new Queue;
    made->random = options().seed;
    return made;
  }();
  return *queue;
}

Stream* add_stream(unsigned flags, int priority) {
  auto stream = std::make_unique<Stream>();
  stream->id = all().next_stream++;
  stream->flags = flags;
  stream->priority = priority;
  Stream* raw = stream.get();
  all().streams.emplace(raw, std::move(stream));
  return raw;
}

Stream* legacy_stream() {
  if (!all().legacy) all().legacy = add_stream(0, 0);
  return all().legacy;
}

bool is_done(const NodePtr& node) { return !node || node->state == Node::State::done; }

void run_host_call(Lock& lock, const HostCall& call) {
  lock.unlock();
  inside_host_function() = true;
  if (call.callback)
    call.callback();
  else if (call.function)
    call.function(call.data);
  inside_host_function() = false;
  lock.lock();
}

/// Runs one operation whose predecessors are done.
void run_node(Lock& lock, const NodePtr& node) {
  node->state = Node::State::running;
  // After a sticky error the device does nothing more; host functions do not run either.
  if (sticky() == cudaSuccess) {
    if (const auto* host = std::get_if<HostCall>(node->operation.get())) {
      run_host_call(lock, *host);
    } else if (const cudaError_t error = execute(*node->operation)) {
      set_sticky(is_sticky(error) ? error : cudaErrorLaunchFailure);
    }
  }
  node->finished = std::chrono::steady_clock::now();
  node->state = Node::State::done;
  node->after.clear();
  node->operation.reset();
  all().host_function_ended.notify_all();
}

/// What of the queue must run before `target` is done, it included, as a set ordered by time of queueing.
std::vector<NodePtr> needed_for(const NodePtr& target) {
  std::vector<NodePtr> needed = {target};
  std::unordered_set<const Node*> seen = {target.get()};
  for (std::size_t i = 0; i < needed.size(); ++i) {
    const NodePtr node = needed[i];
    for (const NodePtr& before : node->after) {
      if (!is_done(before) && seen.insert(before.get()).second) needed.push_back(before);
    }
  }
  std::sort(needed.begin(), needed.end(),
            [](const NodePtr& a, const NodePtr& b) { return a->sequence < b->sequence; });
  return needed;
}

/// Takes the next of the operations that could run now.
NodePtr pick(std::vector<NodePtr>& ready) {
  std::size_t at = 0;
  if (options().order == Options::Order::reverse) at = ready.size() - 1;
  if (options().order == Options::Order::random) at = random_number() % ready.size();
  NodePtr node = ready[at];
  ready.erase(ready.begin() + static_cast<std::ptrdiff_t>(at));
  return node;
}

/// Runs operations in an order that respects their dependencies; independent ones in the order of
/// options().order. Another thread may be running some.
void run_all_of(Lock& lock, const std::vector<NodePtr>& nodes) {
  std::unordered_map<const Node*, std::vector<NodePtr>> followers;
  std::unordered_map<const Node*, std::size_t> missing;
  std::vector<NodePtr> ready;
  for (const NodePtr& node : nodes) {
    if (is_done(node)) continue;
    std::size_t count = 0;
    for (const NodePtr& before : node->after) {
      if (is_done(before)) continue;
      followers[before.get()].push_back(node);
      ++count;
    }
    missing[node.get()] = count;
    if (count == 0) ready.push_back(node);
  }
  while (!ready.empty()) {
    const NodePtr node = pick(ready);
    if (node->state == Node::State::queued) run_node(lock, node);
    while (node->state == Node::State::running) all().host_function_ended.wait(lock);
    for (const NodePtr& follower : followers[node.get()]) {
      if (--missing[follower.get()] == 0) ready.push_back(follower);
    }
  }
}

void trim_queue() {
  std::deque<NodePtr>& queued = all().queued;
  while (!queued.empty() && is_done(queued.front())) queued.pop_front();
}

/// After something was queued: run it now, or later.
void schedule(Lock& lock, const NodePtr& node) {
  switch (options().streams) {
    case Options::Streams::eager:
      wait_for(lock, node);
      break;
    case Options::Streams::late:
      break;
    case Options::Streams::random:
      while (random_number() % 2 == 0) {
        trim_queue();
        if (all().queued.empty()) break;
        const NodePtr lucky = all().queued[random_number() % all().queued.size()];
        wait_for(lock, lucky);
      }
      break;
  }
  trim_queue();
  if (all().queued.size() > kMostQueued) std::erase_if(all().queued, is_done);
  while (all().queued.size() > kMostQueued) wait_for(lock, all().queued.front());
}

}  // namespace

std::uint64_t random_number() {
  // splitmix64 (Steele, Lea, Flood 2014)
  std::uint64_t z = all().random += 0x9E3779B97F4A7C15ull;
  z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9ull;
  z = (z ^ (z >> 27)) * 0x94D049BB133111EBull;
  return z ^ (z >> 31);
}

Stream* find_stream(cudaStream_t handle) {
  if (handle == nullptr) handle = null_stream_is_per_thread() ? cudaStreamPerThread : cudaStreamLegacy;
  if (handle == cudaStreamLegacy) return legacy_stream();
  if (handle == cudaStreamPerThread) {
    thread_local Stream* own = nullptr;
    legacy_stream();  // takes id 1
    if (!own) own = add_stream(0, 0);
    return own;
  }
  const auto found = all().streams.find(handle);
  if (found == all().streams.end()) {
    broken_rule(cudaErrorInvalidResourceHandle, hex(address_of(handle)) + " is no stream");
    return nullptr;
  }
  if (!found->second->destroyed) return found->second.get();
  broken_rule(cudaErrorInvalidResourceHandle,
              "stream " + std::to_string(found->second->id) + " is used after cudaStreamDestroy");
  return nullptr;
}

Stream* create_stream(unsigned flags, int priority) {
  legacy_stream();
  return add_stream(flags, priority);
}

cudaError_t destroy_stream(cudaStream_t handle) {
  Stream* stream = find_stream(handle);
  if (!stream || stream->is_legacy() || handle == cudaStreamPerThread) return cudaErrorInvalidResourceHandle;
  if (stream->capture) {
    invalidate(*stream->capture);
    if (stream->capture->origin == stream)
      abandon(*std::shared_ptr<Capture>(stream->capture));  // nobody can end it any more
  }
  stream->destroyed = true;
  return cudaSuccess;  // what it still holds runs as before
}

Event* create_event(unsigned flags) {
  auto event = std::make_unique<Event>();
  event->flags = flags;
  Event* raw = event.get();
  all().events.emplace(raw, std::move(event));
  return raw;
}

Event* find_event(cudaEvent_t handle) {
  const auto found = all().events.find(handle);
  if (found != all().events.end() && !found->second->destroyed) return found->second.get();
  broken_rule(cudaErrorInvalidResourceHandle, found == all().events.end()
                                                  ? hex(address_of(handle)) + " is no event"
                                                  : "an event is used after cudaEventDestroy");
  return nullptr;
}

std::vector<NodePtr> predecessors(Stream& stream) {
  std::vector<NodePtr> before;
  if (!is_done(stream.last)) before.push_back(stream.last);
  if (stream.is_blocking() && !is_done(legacy_stream()->last)) before.push_back(legacy_stream()->last);
  if (!stream.is_legacy()) return before;
  for (const auto& [handle, other] : all().streams) {
    if (other->is_blocking() && !is_done(other->last)) before.push_back(other->last);
  }
  return before;
}

NodePtr queue(std::shared_ptr<const Operation> operation, std::vector<NodePtr> after) {
  auto node = std::make_shared<Node>();
  node->sequence = all().next_node++;
  node->operation = std::move(operation);
  std::erase_if(after, is_done);
  node->after = std::move(after);
  all().queued.push_back(node);
  return node;
}

cudaError_t submit(Lock& lock, Stream& stream, Operation operation, std::vector<NodePtr> extra) {
  if (stream.capture) return capture(stream, std::move(operation));
  if (const cudaError_t error = check_implicit_capture(stream)) return error;
  std::vector<NodePtr> after = predecessors(stream);
  after.insert(after.end(), extra.begin(), extra.end());
  stream.last = queue(std::make_shared<const Operation>(std::move(operation)), std::move(after));
  schedule(lock, stream.last);
  return cudaSuccess;
}

void wait_for(Lock& lock, NodePtr node) {
  if (is_done(node)) return;
  const bool can_run_now =
      node->state == Node::State::queued && std::all_of(node->after.begin(), node->after.end(), is_done);
  if (can_run_now)
    run_node(lock, node);
  else
    run_all_of(lock, needed_for(node));
  trim_queue();
}

void wait_for_stream(Lock& lock, Stream& stream) {
  if (!stream.is_legacy()) return wait_for(lock, stream.last);
  for (const NodePtr& node : predecessors(stream)) wait_for(lock, node);
}

void wait_for_all(Lock& lock) {
  while (true) {
    std::vector<NodePtr> nodes(all().queued.begin(), all().queued.end());
    std::erase_if(nodes, is_done);
    if (nodes.empty()) break;
    run_all_of(lock, nodes);
  }
  trim_queue();
}

cudaError_t query(Lock& lock, const NodePtr& node, NodePtr& refused) {
  if (is_done(node)) return cudaSuccess;
  if (refused != node) {
    refused = node;
    return cudaErrorNotReady;
  }
  wait_for(lock, node);
  return cudaSuccess;
}

void forget_queue() {
  for (const NodePtr& node : all().queued) node->after.clear();
  all().queued.clear();
  for (auto& [handle, stream] : all().streams) {
    stream->last.reset();
    stream->refused.reset();
    if (stream->capture) abandon(*std::shared_ptr<Capture>(stream->capture));
  }
}

}  // namespace emulator::abi
