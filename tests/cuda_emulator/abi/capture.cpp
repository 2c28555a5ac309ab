#include "abi/capture.h"

#include <algorithm>
#include <unordered_set>

namespace emulator::abi {
namespace {

/// Captures that have begun and not ended. Guarded by device_mutex().
std::vector<std::shared_ptr<Capture>>& active() {
  static auto* captures = new std::vector<std::shared_ptr<Capture>>;
  return *captures;
}

thread_local cudaStreamCaptureMode thread_mode = cudaStreamCaptureModeGlobal;

/// Whether every end of a side branch leads back into the origin's stream.
bool is_joined(const Capture& capture) {
  std::vector<const GraphNode*> reached(capture.origin->capture_after.begin(),
                                        capture.origin->capture_after.end());
  std::unordered_set<const GraphNode*> seen(reached.begin(), reached.end());
  for (std::size_t i = 0; i < reached.size(); ++i) {
    for (const GraphNode* before : reached[i]->after) {
      if (seen.insert(before).second) reached.push_back(before);
    }
  }
  for (const Stream* stream : capture.streams) {
    if (stream->capture.get() != &capture) continue;
    for (const GraphNode* node : stream->capture_after) {
      if (!seen.count(node)) return false;
    }
  }
  return true;
}

cudaError_t begin(Stream& stream, std::shared_ptr<Graph> graph, bool callers, std::vector<GraphNode*> after,
                  cudaStreamCaptureMode mode) {
  static std::uint64_t next_id = 1;
  if (stream.is_legacy())
    return broken_rule(cudaErrorStreamCaptureUnsupported,
                       "cudaStreamBeginCapture: the legacy default stream cannot be captured");
  if (stream.capture)
    return broken_rule(cudaErrorIllegalState, "cudaStreamBeginCapture: the stream is being captured already");
  auto capture = std::make_shared<Capture>();
  capture->id = next_id++;
  capture->graph = std::move(graph);
  capture->graph_is_callers = callers;
  capture->origin = &stream;
  capture->streams = {&stream};
  capture->mode = mode;
  capture->thread = std::this_thread::get_id();
  stream.capture = capture;
  stream.capture_after = std::move(after);
  active().push_back(std::move(capture));
  return cudaSuccess;
}

cudaError_t end(Stream& stream, cudaGraph_t* graph) {
  if (!stream.capture)
    return broken_rule(cudaErrorIllegalState, "cudaStreamEndCapture: the stream is not being captured");
  const std::shared_ptr<Capture> capture = stream.capture;
  if (capture->origin != &stream) {
    invalidate(*capture);
    return broken_rule(cudaErrorStreamCaptureUnmatched,
                       "cudaStreamEndCapture: another stream began the capture");
  }
  if (capture->mode != cudaStreamCaptureModeRelaxed && capture->thread != std::this_thread::get_id()) {
    invalidate(*capture);
    return broken_rule(cudaErrorStreamCaptureWrongThread,
                       "cudaStreamEndCapture: another thread began the capture");
  }
  cudaError_t error = cudaSuccess;
  if (capture->invalid)
    error = cudaErrorStreamCaptureInvalidated;
  else if (!is_joined(*capture))
    error = broken_rule(cudaErrorStreamCaptureUnjoined,
                        "cudaStreamEndCapture: work of another stream was not joined to the origin stream");
  abandon(*capture);
  *graph = error == cudaSuccess ? reinterpret_cast<cudaGraph_t>(capture->graph.get()) : nullptr;
  if (error != cudaSuccess && !capture->graph_is_callers)
    destroy_graph(reinterpret_cast<cudaGraph_t>(capture->graph.get()));
  return error;
}

}  // namespace

cudaError_t capture(Stream& stream, Operation operation) {
  Capture& capture = *stream.capture;
  if (capture.invalid) return cudaErrorStreamCaptureInvalidated;
  if (is_tracing()) trace("captures " + title(operation));
  stream.capture_after = {add_node(*capture.graph, std::move(operation), stream.capture_after)};
  return cudaSuccess;
}

void invalidate(Capture& capture) { capture.invalid = true; }

void abandon(Capture& capture) {
  for (Stream* stream : capture.streams) {
    if (stream->capture.get() != &capture) continue;
    stream->capture_after.clear();
    stream->capture.reset();
  }
  std::erase_if(active(), [&](const auto& one) { return one.get() == &capture; });
}

cudaError_t check_implicit_capture(Stream& stream) {
  if (!stream.is_legacy()) return cudaSuccess;
  bool crossed = false;
  for (const auto& capture : active()) {
    const bool blocking = std::any_of(capture->streams.begin(), capture->streams.end(),
                                      [](const Stream* one) { return one->is_blocking(); });
    if (!blocking) continue;
    invalidate(*capture);
    crossed = true;
  }
  return crossed ? broken_rule(cudaErrorStreamCaptureImplicit,
                               "the legacy default stream is used while a stream that synchronises with it "
                               "is being captured")
                 : cudaSuccess;
}

cudaError_t check_unsafe_call(const char* call) {
  if (thread_mode == cudaStreamCaptureModeRelaxed) return cudaSuccess;
  bool forbidden = false;
  for (const auto& capture : active()) {
    const bool own = capture->thread == std::this_thread::get_id();
    const bool others =
        thread_mode == cudaStreamCaptureModeGlobal && capture->mode == cudaStreamCaptureModeGlobal;
    if (capture->mode == cudaStreamCaptureModeRelaxed || (!own && !others)) continue;
    invalidate(*capture);
    forbidden = true;
  }
  return forbidden ? broken_rule(cudaErrorStreamCaptureUnsupported,
                                 std::string(call) + ": not allowed while a stream is being captured")
                   : cudaSuccess;
}

cudaError_t check_not_capturing(Stream& stream, const char* call) {
  if (!stream.capture) return check_implicit_capture(stream);
  invalidate(*stream.capture);
  return broken_rule(cudaErrorStreamCaptureUnsupported, std::string(call) + ": the stream is being captured");
}

cudaError_t check_no_capture(const char* call) {
  if (active().empty()) return cudaSuccess;
  for (const auto& capture : active()) invalidate(*capture);
  return broken_rule(cudaErrorStreamCaptureUnsupported,
                     std::string(call) + ": not allowed while a stream is being captured");
}

cudaError_t join(Stream& stream, Event& event) {
  const std::shared_ptr<Capture> capture = event.capture;
  if (std::none_of(active().begin(), active().end(), [&](const auto& one) { return one == capture; })) {
    return broken_rule(cudaErrorInvalidValue,
                       "cudaStreamWaitEvent: the event was recorded in a capture that has ended");
  }
  if (capture->invalid) return cudaErrorStreamCaptureInvalidated;
  if (stream.is_legacy()) {
    invalidate(*capture);
    return broken_rule(cudaErrorStreamCaptureImplicit,
                       "cudaStreamWaitEvent: the legacy default stream cannot join a capture");
  }
  if (stream.capture && stream.capture != capture) {
    invalidate(*capture);
    invalidate(*stream.capture);
    return broken_rule(cudaErrorStreamCaptureMerge,
                       "cudaStreamWaitEvent: the event belongs to another capture");
  }
  if (!stream.capture) {
    stream.capture = capture;
    capture->streams.push_back(&stream);
  }
  for (GraphNode* node : event.capture_after) {
    if (std::find(stream.capture_after.begin(), stream.capture_after.end(), node) ==
        stream.capture_after.end())
      stream.capture_after.push_back(node);
  }
  return cudaSuccess;
}

}  // namespace emulator::abi

using namespace emulator::abi;

cudaError_t cudaStreamBeginCapture(cudaStream_t handle, cudaStreamCaptureMode mode) {
  return api("cudaStreamBeginCapture", [&](Lock&) -> cudaError_t {
    Stream* stream = find_stream(handle);
    EMULATOR_REQUIRE(mode >= cudaStreamCaptureModeGlobal && mode <= cudaStreamCaptureModeRelaxed);
    return stream ? begin(*stream, create_graph(), false, {}, mode) : cudaErrorInvalidResourceHandle;
  });
}

cudaError_t cudaStreamBeginCaptureToGraph(cudaStream_t handle, cudaGraph_t graph,
                                          const cudaGraphNode_t* after, const cudaGraphEdgeData*,
                                          size_t count, cudaStreamCaptureMode mode) {
  return api("cudaStreamBeginCaptureToGraph", [&](Lock&) -> cudaError_t {
    Stream* stream = find_stream(handle);
    Graph* target = find_graph(graph);
    if (!stream) return cudaErrorInvalidResourceHandle;
    EMULATOR_REQUIRE(target && (after || count == 0));
    std::vector<GraphNode*> nodes;
    for (size_t i = 0; i < count; ++i) {
      nodes.push_back(find_node(after[i]));
      EMULATOR_REQUIRE(nodes.back() && nodes.back()->graph == target);
    }
    return begin(*stream, std::shared_ptr<Graph>(std::shared_ptr<Graph>(), target), true, std::move(nodes),
                 mode);
  });
}

cudaError_t cudaStreamEndCapture(cudaStream_t handle, cudaGraph_t* graph) {
  return api("cudaStreamEndCapture", [&](Lock&) -> cudaError_t {
    EMULATOR_REQUIRE(graph);
    Stream* stream = find_stream(handle);
    return stream ? end(*stream, graph) : cudaErrorInvalidResourceHandle;
  });
}

cudaError_t cudaStreamIsCapturing(cudaStream_t handle, cudaStreamCaptureStatus* status) {
  return cudaStreamGetCaptureInfo(handle, status, nullptr, nullptr, nullptr, nullptr, nullptr);
}

cudaError_t cudaStreamGetCaptureInfo(cudaStream_t handle, cudaStreamCaptureStatus* status,
                                     unsigned long long* id, cudaGraph_t* graph,
                                     const cudaGraphNode_t** after, const cudaGraphEdgeData** edges,
                                     size_t* count) {
  return api("cudaStreamGetCaptureInfo", [&](Lock&) -> cudaError_t {
    EMULATOR_REQUIRE(status);
    Stream* stream = find_stream(handle);
    if (!stream) return cudaErrorInvalidResourceHandle;
    const Capture* capture = stream->capture.get();
    *status = !capture           ? cudaStreamCaptureStatusNone
              : capture->invalid ? cudaStreamCaptureStatusInvalidated
                                 : cudaStreamCaptureStatusActive;
    if (!capture || capture->invalid) return cudaSuccess;
    if (id) *id = capture->id;
    if (graph) *graph = reinterpret_cast<cudaGraph_t>(capture->graph.get());
    if (after) *after = reinterpret_cast<const cudaGraphNode_t*>(stream->capture_after.data());
    if (edges) *edges = nullptr;
    if (count) *count = stream->capture_after.size();
    return cudaSuccess;
  });
}

cudaError_t cudaStreamUpdateCaptureDependencies(cudaStream_t handle, cudaGraphNode_t* nodes,
                                                const cudaGraphEdgeData*, size_t count, unsigned flags) {
  return api("cudaStreamUpdateCaptureDependencies", [&](Lock&) -> cudaError_t {
    Stream* stream = find_stream(handle);
    if (!stream) return cudaErrorInvalidResourceHandle;
    if (!stream->capture) return cudaErrorIllegalState;
    EMULATOR_REQUIRE(nodes || count == 0);
    std::vector<GraphNode*> after;
    if (flags == cudaStreamAddCaptureDependencies) after = stream->capture_after;
    for (size_t i = 0; i < count; ++i) {
      after.push_back(find_node(nodes[i]));
      EMULATOR_REQUIRE(after.back());
    }
    stream->capture_after = std::move(after);
    return cudaSuccess;
  });
}

cudaError_t cudaThreadExchangeStreamCaptureMode(cudaStreamCaptureMode* mode) {
  return api("cudaThreadExchangeStreamCaptureMode", [&](Lock&) -> cudaError_t {
    EMULATOR_REQUIRE(mode && *mode >= cudaStreamCaptureModeGlobal && *mode <= cudaStreamCaptureModeRelaxed);
    std::swap(*mode, thread_mode);
    return cudaSuccess;
  });
}
