#include <algorithm>

#include "abi/capture.h"
#include "count/activity.h"

using namespace emulator::abi;
using emulator::activity;

namespace {

constexpr int kLeastPriority = 0, kGreatestPriority = -5;

cudaStream_t handle_of(Stream* stream) { return reinterpret_cast<cudaStream_t>(stream); }

/// Runs body(stream) for a valid stream.
template <class Body>
cudaError_t with_stream(const char* name, cudaStream_t handle, Body body) {
  return api(name, [&](Lock& lock) -> cudaError_t {
    Stream* stream = find_stream(handle);
    return stream ? body(lock, *stream) : cudaErrorInvalidResourceHandle;
  });
}

cudaError_t create(const char* name, cudaStream_t* stream, unsigned flags, int priority) {
  return api(name, [&](Lock&) -> cudaError_t {
    EMULATOR_REQUIRE(stream && (flags & ~static_cast<unsigned>(cudaStreamNonBlocking)) == 0);
    *stream =
        handle_of(create_stream(flags, std::max(kGreatestPriority, std::min(kLeastPriority, priority))));
    return cudaSuccess;
  });
}

/// Where an attribute of a stream is kept; null: unknown.
cudaLaunchAttributeValue* attribute_of(Stream& stream, cudaLaunchAttributeID id) {
  switch (id) {
    case cudaLaunchAttributeAccessPolicyWindow:
      return &stream.policy_window;
    case cudaLaunchAttributeSynchronizationPolicy:
      return &stream.sync_policy;
    case cudaLaunchAttributeMemSyncDomain:
      return &stream.memory_domain;
    case cudaLaunchAttributeMemSyncDomainMap:
      return &stream.memory_domain_map;
    default:
      return nullptr;
  }
}

}  // namespace

cudaError_t cudaStreamCreate(cudaStream_t* stream) {
  return create("cudaStreamCreate", stream, cudaStreamDefault, 0);
}
cudaError_t cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned flags) {
  return create("cudaStreamCreateWithFlags", stream, flags, 0);
}
cudaError_t cudaStreamCreateWithPriority(cudaStream_t* stream, unsigned flags, int priority) {
  return create("cudaStreamCreateWithPriority", stream, flags, priority);
}

cudaError_t cudaStreamDestroy(cudaStream_t stream) {
  return api("cudaStreamDestroy", [&](Lock&) { return destroy_stream(stream); });
}

cudaError_t cudaStreamSynchronize(cudaStream_t handle) {
  return with_stream("cudaStreamSynchronize", handle, [](Lock& lock, Stream& stream) -> cudaError_t {
    if (const cudaError_t error = check_not_capturing(stream, "cudaStreamSynchronize")) return error;
    ++activity().synchronizations;
    wait_for_stream(lock, stream);
    return sticky();
  });
}

cudaError_t cudaStreamQuery(cudaStream_t handle) {
  return with_stream("cudaStreamQuery", handle, [](Lock& lock, Stream& stream) -> cudaError_t {
    if (const cudaError_t error = check_not_capturing(stream, "cudaStreamQuery")) return error;
    std::vector<NodePtr> before =
        stream.is_legacy() ? predecessors(stream) : std::vector<NodePtr>{stream.last};
    cudaError_t answer = cudaSuccess;
    if (!before.empty()) answer = query(lock, before.back(), stream.refused);
    if (answer == cudaSuccess && stream.is_legacy()) wait_for_stream(lock, stream);
    return sticky() != cudaSuccess ? sticky() : answer;
  });
}

cudaError_t cudaStreamWaitEvent(cudaStream_t handle, cudaEvent_t event_handle, unsigned flags) {
  return with_stream("cudaStreamWaitEvent", handle, [&](Lock& lock, Stream& stream) -> cudaError_t {
    Event* event = find_event(event_handle);
    if (!event) return cudaErrorInvalidResourceHandle;
    EMULATOR_REQUIRE((flags & ~static_cast<unsigned>(cudaEventWaitExternal)) == 0);
    if (event->capture) return join(stream, *event);
    if (stream.capture && flags == cudaEventWaitExternal) return capture(stream, EventWait{event});
    if (stream.capture) {
      if (!event->recorded) return cudaSuccess;
      invalidate(*stream.capture);
      return broken_rule(cudaErrorStreamCaptureIsolation,
                         "cudaStreamWaitEvent: a captured stream waits for an event that was recorded "
                         "outside of the capture");
    }
    if (!event->recorded || !event->node) return cudaSuccess;
    return submit(lock, stream, Nothing{}, {event->node});
  });
}

cudaError_t cudaStreamAddCallback(cudaStream_t handle, cudaStreamCallback_t callback, void* data,
                                  unsigned flags) {
  return with_stream("cudaStreamAddCallback", handle, [&](Lock& lock, Stream& stream) -> cudaError_t {
    EMULATOR_REQUIRE(callback && flags == 0);
    if (const cudaError_t error = check_not_capturing(stream, "cudaStreamAddCallback")) return error;
    HostCall call;
    call.callback = [=] { callback(handle, cudaSuccess, data); };
    return submit(lock, stream, std::move(call));
  });
}

cudaError_t cudaLaunchHostFunc(cudaStream_t handle, cudaHostFn_t function, void* data) {
  return with_stream("cudaLaunchHostFunc", handle, [&](Lock& lock, Stream& stream) -> cudaError_t {
    EMULATOR_REQUIRE(function);
    return submit(lock, stream, HostCall{function, data, nullptr});
  });
}

cudaError_t cudaStreamGetPriority(cudaStream_t handle, int* priority) {
  return with_stream("cudaStreamGetPriority", handle, [&](Lock&, Stream& stream) -> cudaError_t {
    EMULATOR_REQUIRE(priority);
    *priority = stream.priority;
    return cudaSuccess;
  });
}

cudaError_t cudaStreamGetFlags(cudaStream_t handle, unsigned* flags) {
  return with_stream("cudaStreamGetFlags", handle, [&](Lock&, Stream& stream) -> cudaError_t {
    EMULATOR_REQUIRE(flags);
    *flags = stream.flags;
    return cudaSuccess;
  });
}

cudaError_t cudaStreamGetId(cudaStream_t handle, unsigned long long* id) {
  return with_stream("cudaStreamGetId", handle, [&](Lock&, Stream& stream) -> cudaError_t {
    EMULATOR_REQUIRE(id);
    *id = stream.id;
    return cudaSuccess;
  });
}

cudaError_t cudaStreamGetDevice(cudaStream_t handle, int* device) {
  return with_stream("cudaStreamGetDevice", handle, [&](Lock&, Stream&) -> cudaError_t {
    EMULATOR_REQUIRE(device);
    *device = 0;
    return cudaSuccess;
  });
}

cudaError_t cudaStreamAttachMemAsync(cudaStream_t handle, void* pointer, size_t, unsigned) {
  return with_stream("cudaStreamAttachMemAsync", handle, [&](Lock&, Stream&) -> cudaError_t {
    EMULATOR_REQUIRE(place_of(address_of(pointer)) == Place::managed);
    return cudaSuccess;  // managed memory is visible to every stream here
  });
}

cudaError_t cudaStreamSetAttribute(cudaStream_t handle, cudaLaunchAttributeID id,
                                   const cudaLaunchAttributeValue* value) {
  return with_stream("cudaStreamSetAttribute", handle, [&](Lock&, Stream& stream) -> cudaError_t {
    EMULATOR_REQUIRE(value);
    if (id == cudaLaunchAttributePriority)
      stream.priority = value->priority;
    else if (cudaLaunchAttributeValue* kept = attribute_of(stream, id))
      *kept = *value;
    else
      return cudaErrorInvalidValue;
    return cudaSuccess;
  });
}

cudaError_t cudaStreamGetAttribute(cudaStream_t handle, cudaLaunchAttributeID id,
                                   cudaLaunchAttributeValue* value) {
  return with_stream("cudaStreamGetAttribute", handle, [&](Lock&, Stream& stream) -> cudaError_t {
    EMULATOR_REQUIRE(value);
    if (id == cudaLaunchAttributePriority)
      value->priority = stream.priority;
    else if (const cudaLaunchAttributeValue* kept = attribute_of(stream, id))
      *value = *kept;
    else
      return cudaErrorInvalidValue;
    return cudaSuccess;
  });
}

cudaError_t cudaStreamCopyAttributes(cudaStream_t to, cudaStream_t from) {
  return with_stream("cudaStreamCopyAttributes", to, [&](Lock&, Stream& target) -> cudaError_t {
    Stream* source = find_stream(from);
    if (!source) return cudaErrorInvalidResourceHandle;
    target.priority = source->priority;
    target.policy_window = source->policy_window;
    target.sync_policy = source->sync_policy;
    target.memory_domain = source->memory_domain;
    target.memory_domain_map = source->memory_domain_map;
    return cudaSuccess;
  });
}

cudaError_t cudaDeviceGetStreamPriorityRange(int* least, int* greatest) {
  return api("cudaDeviceGetStreamPriorityRange", [&](Lock&) {
    if (least) *least = kLeastPriority;
    if (greatest) *greatest = kGreatestPriority;
    return cudaSuccess;
  });
}

cudaError_t cudaCtxResetPersistingL2Cache() {
  return api("cudaCtxResetPersistingL2Cache", [](Lock&) { return cudaSuccess; });
}
