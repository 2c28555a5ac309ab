#include <chrono>

#include "abi/capture.h"
#include "count/activity.h"

using namespace emulator::abi;
using emulator::activity;

namespace {

template <class Body>
cudaError_t with_event(const char* name, cudaEvent_t handle, Body body) {
  return api(name, [&](Lock& lock) -> cudaError_t {
    Event* event = find_event(handle);
    return event ? body(lock, *event) : cudaErrorInvalidResourceHandle;
  });
}

/// Events of a capture mark a place in a graph, not a time: nothing to wait for or ask.
cudaError_t check_not_captured(Event& event, const char* call) {
  if (!event.capture) return cudaSuccess;
  invalidate(*event.capture);
  return broken_rule(cudaErrorCapturedEvent,
                     std::string(call) + ": the event was recorded in a stream that is being captured");
}

bool is_done(const Event& event) { return event.node && event.node->state == Node::State::done; }

}  // namespace

cudaError_t cudaEventCreate(cudaEvent_t* event) { return cudaEventCreateWithFlags(event, cudaEventDefault); }

cudaError_t cudaEventCreateWithFlags(cudaEvent_t* event, unsigned flags) {
  return api("cudaEventCreateWithFlags", [&](Lock&) -> cudaError_t {
    EMULATOR_REQUIRE(event && (flags & ~7u) == 0 &&
                     (!(flags & cudaEventInterprocess) || (flags & cudaEventDisableTiming)));
    *event = reinterpret_cast<cudaEvent_t>(create_event(flags));
    return cudaSuccess;
  });
}

cudaError_t cudaEventDestroy(cudaEvent_t handle) {
  return with_event("cudaEventDestroy", handle, [](Lock&, Event& event) {
    event.destroyed = true;
    event.node.reset();
    return cudaSuccess;
  });
}

cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream) {
  return cudaEventRecordWithFlags(event, stream, cudaEventRecordDefault);
}

cudaError_t cudaEventRecordWithFlags(cudaEvent_t handle, cudaStream_t stream_handle, unsigned flags) {
  return with_event("cudaEventRecord", handle, [&](Lock& lock, Event& event) -> cudaError_t {
    EMULATOR_REQUIRE((flags & ~static_cast<unsigned>(cudaEventRecordExternal)) == 0);
    Stream* stream = find_stream(stream_handle);
    if (!stream) return cudaErrorInvalidResourceHandle;
    if (stream->capture && flags == cudaEventRecordExternal) return capture(*stream, EventMark{&event});
    if (stream->capture) {
      if (stream->capture->invalid) return cudaErrorStreamCaptureInvalidated;
      event.capture = stream->capture;
      event.capture_after = stream->capture_after;
      event.node.reset();
      event.recorded = true;
      return cudaSuccess;
    }
    if (const cudaError_t error = submit(lock, *stream, Nothing{})) return error;
    event.capture.reset();
    event.capture_after.clear();
    event.node = stream->last;
    event.recorded = true;
    return cudaSuccess;
  });
}

cudaError_t cudaEventQuery(cudaEvent_t handle) {
  return with_event("cudaEventQuery", handle, [](Lock& lock, Event& event) -> cudaError_t {
    if (const cudaError_t error = check_not_captured(event, "cudaEventQuery")) return error;
    const cudaError_t answer = query(lock, event.node, event.refused);
    return sticky() != cudaSuccess ? sticky() : answer;
  });
}

cudaError_t cudaEventSynchronize(cudaEvent_t handle) {
  return with_event("cudaEventSynchronize", handle, [](Lock& lock, Event& event) -> cudaError_t {
    if (const cudaError_t error = check_not_captured(event, "cudaEventSynchronize")) return error;
    ++activity().synchronizations;
    wait_for(lock, event.node);
    return sticky();
  });
}

cudaError_t cudaEventElapsedTime(float* ms, cudaEvent_t start_handle, cudaEvent_t end_handle) {
  return with_event("cudaEventElapsedTime", start_handle, [&](Lock&, Event& start) -> cudaError_t {
    EMULATOR_REQUIRE(ms);
    Event* end = find_event(end_handle);
    if (!end) return cudaErrorInvalidResourceHandle;
    if (!start.recorded || !end->recorded || !start.node || !end->node ||
        ((start.flags | end->flags) & cudaEventDisableTiming)) {
      return broken_rule(cudaErrorInvalidResourceHandle,
                         "cudaEventElapsedTime: an event was not recorded, or was created without timing");
    }
    if (!is_done(start) || !is_done(*end)) return cudaErrorNotReady;
    *ms = std::chrono::duration<float, std::milli>(end->node->finished - start.node->finished).count();
    return cudaSuccess;
  });
}
