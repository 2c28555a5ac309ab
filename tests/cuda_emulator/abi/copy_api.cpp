#include <cstring>

#include "abi/capture.h"
#include "abi/memory_calls.h"
#include "count/activity.h"

namespace emulator::abi {
namespace {

/// Takes the source rows of a copy now: what the run-time does with pageable memory.
void stage(Copy& copy) {
  auto rows = std::make_shared<std::vector<std::uint8_t>>(copy.width * copy.height * copy.depth);
  std::uint8_t* out = rows->data();
  for (std::uint64_t z = 0; z < copy.depth; ++z) {
    for (std::uint64_t y = 0; y < copy.height; ++y, out += copy.width) {
      std::memcpy(out, pointer_to(copy.from + z * copy.from_slice + y * copy.from_pitch), copy.width);
    }
  }
  copy.staged = std::move(rows);
}

Copy row(void* to, const void* from, std::size_t bytes, cudaMemcpyKind kind) {
  Copy copy;
  copy.to = address_of(to);
  copy.from = address_of(from);
  copy.width = copy.to_pitch = copy.from_pitch = bytes;
  copy.kind = kind;
  return copy;
}

cudaError_t rows(void* to, std::size_t to_pitch, const void* from, std::size_t from_pitch, std::size_t width,
                 std::size_t height, cudaMemcpyKind kind, Copy& copy) {
  if (width > to_pitch || width > from_pitch) return cudaErrorInvalidPitchValue;
  copy = row(to, from, width, kind);
  copy.height = height;
  copy.to_pitch = to_pitch;
  copy.from_pitch = from_pitch;
  return cudaSuccess;
}

/// Address of `count` bytes at `offset` of a symbol.
cudaError_t inside_symbol(const void* symbol, std::size_t count, std::size_t offset, const char* call,
                          void*& pointer) {
  std::uint64_t address = 0;
  std::size_t bytes = 0;
  if (const cudaError_t error = find_symbol(symbol, address, bytes)) return error;
  pointer = pointer_to(address + offset);
  if (offset <= bytes && count <= bytes - offset) return cudaSuccess;
  return broken_rule(cudaErrorInvalidValue, std::string(call) + ": " + std::to_string(count) +
                                                " bytes at offset " + std::to_string(offset) +
                                                " of a variable of " + std::to_string(bytes) + " bytes");
}

cudaError_t copy_to_symbol(Lock& lock, const void* symbol, const void* from, std::size_t count,
                           std::size_t offset, cudaMemcpyKind kind, cudaStream_t stream, bool asynchronous,
                           const char* call) {
  if (kind != cudaMemcpyHostToDevice && kind != cudaMemcpyDeviceToDevice && kind != cudaMemcpyDefault)
    return cudaErrorInvalidMemcpyDirection;
  void* to = nullptr;
  if (const cudaError_t error = inside_symbol(symbol, count, offset, call, to)) return error;
  return copy(lock, row(to, from, count, kind), stream, asynchronous, call);
}

cudaError_t copy_from_symbol(Lock& lock, void* to, const void* symbol, std::size_t count, std::size_t offset,
                             cudaMemcpyKind kind, cudaStream_t stream, bool asynchronous, const char* call) {
  if (kind != cudaMemcpyDeviceToHost && kind != cudaMemcpyDeviceToDevice && kind != cudaMemcpyDefault)
    return cudaErrorInvalidMemcpyDirection;
  void* from = nullptr;
  if (const cudaError_t error = inside_symbol(symbol, count, offset, call, from)) return error;
  return copy(lock, row(to, from, count, kind), stream, asynchronous, call);
}

}  // namespace

cudaError_t copy(Lock& lock, Copy what, cudaStream_t handle, bool asynchronous, const char* call) {
  if (!asynchronous) {
    if (const cudaError_t error = check_unsafe_call(call)) return error;
  }
  Stream* stream = find_stream(handle);
  if (!stream) return cudaErrorInvalidResourceHandle;
  if (const cudaError_t error = check(what, call)) return error;
  if (what.width == 0 || what.height == 0 || what.depth == 0) return cudaSuccess;
  if (stream->capture) return submit(lock, *stream, std::move(what));

  const Place to = place_of(what.to), from = place_of(what.from);
  const bool between_devices = to == Place::device && from == Place::device;
  // The programming guide, "API synchronization behavior": copies between devices do not make the host wait;
  // a copy from pageable memory returns when the source has been taken, not when the target is written;
  // everything else that is synchronous, or touches pageable memory, waits.
  const bool takes_source = from == Place::pageable && to != Place::pageable;
  const bool waits = asynchronous ? to == Place::pageable : !between_devices && !takes_source;
  if (takes_source && options().streams != Options::Streams::eager) {
    if (!asynchronous) wait_for_stream(lock, *stream);
    stage(what);
  }
  if (const cudaError_t error = submit(lock, *stream, std::move(what))) return error;
  if (waits) wait_for(lock, stream->last);
  if (!asynchronous) ++activity().synchronizations;
  return asynchronous ? cudaSuccess : sticky();
}

cudaError_t fill(Lock& lock, Fill what, cudaStream_t handle, bool asynchronous, const char* call) {
  if (!asynchronous) {
    if (const cudaError_t error = check_unsafe_call(call)) return error;
  }
  Stream* stream = find_stream(handle);
  if (!stream) return cudaErrorInvalidResourceHandle;
  if (const cudaError_t error = check(what, call)) return error;
  if (what.width == 0 || what.height == 0 || what.depth == 0) return cudaSuccess;
  const bool on_host =
      place_of(what.to) == Place::pinned;  // "memset is asynchronous unless the target is pinned host memory"
  if (const cudaError_t error = submit(lock, *stream, std::move(what))) return error;
  if (!asynchronous && on_host) wait_for(lock, stream->last);
  return asynchronous ? cudaSuccess : sticky();
}

cudaError_t read(const cudaMemcpy3DParms& params, Copy& copy) {
  if (params.srcArray || params.dstArray) return not_supported("a copy with a CUDA array");
  const cudaPitchedPtr& to = params.dstPtr;
  const cudaPitchedPtr& from = params.srcPtr;
  if (params.extent.width > to.pitch || params.extent.width > from.pitch) return cudaErrorInvalidPitchValue;
  copy = {};
  copy.to = address_of(to.ptr) + params.dstPos.x + params.dstPos.y * to.pitch +
            params.dstPos.z * to.pitch * to.ysize;
  copy.from = address_of(from.ptr) + params.srcPos.x + params.srcPos.y * from.pitch +
              params.srcPos.z * from.pitch * from.ysize;
  copy.width = params.extent.width;
  copy.height = params.extent.height;
  copy.depth = params.extent.depth;
  copy.to_pitch = to.pitch;
  copy.from_pitch = from.pitch;
  copy.to_slice = to.pitch * to.ysize;
  copy.from_slice = from.pitch * from.ysize;
  copy.kind = params.kind;
  return cudaSuccess;
}

}  // namespace emulator::abi

using namespace emulator::abi;
using emulator::abi::row;

cudaError_t cudaMemcpy(void* to, const void* from, size_t bytes, cudaMemcpyKind kind) {
  return api("cudaMemcpy", [&](Lock& lock) {
    return copy(lock, row(to, from, bytes, kind), nullptr, false, "cudaMemcpy");
  });
}

cudaError_t cudaMemcpyAsync(void* to, const void* from, size_t bytes, cudaMemcpyKind kind,
                            cudaStream_t stream) {
  return api("cudaMemcpyAsync", [&](Lock& lock) {
    return copy(lock, row(to, from, bytes, kind), stream, true, "cudaMemcpyAsync");
  });
}

cudaError_t cudaMemcpyPeer(void* to, int to_device, const void* from, int from_device, size_t bytes) {
  if (to_device != 0 || from_device != 0) return leave("cudaMemcpyPeer", cudaErrorInvalidDevice);
  return api("cudaMemcpyPeer", [&](Lock& lock) {
    return copy(lock, row(to, from, bytes, cudaMemcpyDeviceToDevice), nullptr, false, "cudaMemcpyPeer");
  });
}

cudaError_t cudaMemcpyPeerAsync(void* to, int to_device, const void* from, int from_device, size_t bytes,
                                cudaStream_t stream) {
  if (to_device != 0 || from_device != 0) return leave("cudaMemcpyPeerAsync", cudaErrorInvalidDevice);
  return api("cudaMemcpyPeerAsync", [&](Lock& lock) {
    return copy(lock, row(to, from, bytes, cudaMemcpyDeviceToDevice), stream, true, "cudaMemcpyPeerAsync");
  });
}

cudaError_t cudaMemcpy2D(void* to, size_t to_pitch, const void* from, size_t from_pitch, size_t width,
                         size_t height, cudaMemcpyKind kind) {
  return api("cudaMemcpy2D", [&](Lock& lock) -> cudaError_t {
    Copy what;
    if (const cudaError_t error = rows(to, to_pitch, from, from_pitch, width, height, kind, what))
      return error;
    return copy(lock, std::move(what), nullptr, false, "cudaMemcpy2D");
  });
}

cudaError_t cudaMemcpy2DAsync(void* to, size_t to_pitch, const void* from, size_t from_pitch, size_t width,
                              size_t height, cudaMemcpyKind kind, cudaStream_t stream) {
  return api("cudaMemcpy2DAsync", [&](Lock& lock) -> cudaError_t {
    Copy what;
    if (const cudaError_t error = rows(to, to_pitch, from, from_pitch, width, height, kind, what))
      return error;
    return copy(lock, std::move(what), stream, true, "cudaMemcpy2DAsync");
  });
}

cudaError_t cudaMemcpy3D(const cudaMemcpy3DParms* params) {
  return api("cudaMemcpy3D", [&](Lock& lock) -> cudaError_t {
    EMULATOR_REQUIRE(params);
    Copy what;
    if (const cudaError_t error = read(*params, what)) return error;
    return copy(lock, std::move(what), nullptr, false, "cudaMemcpy3D");
  });
}

cudaError_t cudaMemcpy3DAsync(const cudaMemcpy3DParms* params, cudaStream_t stream) {
  return api("cudaMemcpy3DAsync", [&](Lock& lock) -> cudaError_t {
    EMULATOR_REQUIRE(params);
    Copy what;
    if (const cudaError_t error = read(*params, what)) return error;
    return copy(lock, std::move(what), stream, true, "cudaMemcpy3DAsync");
  });
}

cudaError_t cudaMemcpyToSymbol(const void* symbol, const void* from, size_t count, size_t offset,
                               cudaMemcpyKind kind) {
  return api("cudaMemcpyToSymbol", [&](Lock& lock) {
    return copy_to_symbol(lock, symbol, from, count, offset, kind, nullptr, false, "cudaMemcpyToSymbol");
  });
}

cudaError_t cudaMemcpyToSymbolAsync(const void* symbol, const void* from, size_t count, size_t offset,
                                    cudaMemcpyKind kind, cudaStream_t stream) {
  return api("cudaMemcpyToSymbolAsync", [&](Lock& lock) {
    return copy_to_symbol(lock, symbol, from, count, offset, kind, stream, true, "cudaMemcpyToSymbolAsync");
  });
}

cudaError_t cudaMemcpyFromSymbol(void* to, const void* symbol, size_t count, size_t offset,
                                 cudaMemcpyKind kind) {
  return api("cudaMemcpyFromSymbol", [&](Lock& lock) {
    return copy_from_symbol(lock, to, symbol, count, offset, kind, nullptr, false, "cudaMemcpyFromSymbol");
  });
}

cudaError_t cudaMemcpyFromSymbolAsync(void* to, const void* symbol, size_t count, size_t offset,
                                      cudaMemcpyKind kind, cudaStream_t stream) {
  return api("cudaMemcpyFromSymbolAsync", [&](Lock& lock) {
    return copy_from_symbol(lock, to, symbol, count, offset, kind, stream, true, "cudaMemcpyFromSymbolAsync");
  });
}

cudaError_t cudaGetSymbolAddress(void** pointer, const void* symbol) {
  return api("cudaGetSymbolAddress", [&](Lock&) -> cudaError_t {
    EMULATOR_REQUIRE(pointer);
    std::uint64_t address = 0;
    std::size_t bytes = 0;
    const cudaError_t error = find_symbol(symbol, address, bytes);
    if (error == cudaSuccess) *pointer = pointer_to(address);
    return error;
  });
}

cudaError_t cudaGetSymbolSize(size_t* bytes, const void* symbol) {
  return api("cudaGetSymbolSize", [&](Lock&) -> cudaError_t {
    EMULATOR_REQUIRE(bytes);
    std::uint64_t address = 0;
    return find_symbol(symbol, address, *bytes);
  });
}

namespace {

Fill bytes_of(void* to, int value, std::size_t width, std::size_t height, std::size_t pitch) {
  Fill fill;
  fill.to = address_of(to);
  fill.width = width;
  fill.height = height;
  fill.pitch = pitch;
  fill.value = static_cast<std::uint8_t>(value);
  return fill;
}

Fill box_of(const cudaPitchedPtr& to, int value, const cudaExtent& extent) {
  Fill fill = bytes_of(to.ptr, value, extent.width, extent.height, to.pitch);
  fill.depth = extent.depth;
  fill.slice = to.pitch * to.ysize;
  return fill;
}

}  // namespace

cudaError_t cudaMemset(void* to, int value, size_t bytes) {
  return api("cudaMemset", [&](Lock& lock) {
    return fill(lock, bytes_of(to, value, bytes, 1, bytes), nullptr, false, "cudaMemset");
  });
}

cudaError_t cudaMemsetAsync(void* to, int value, size_t bytes, cudaStream_t stream) {
  return api("cudaMemsetAsync", [&](Lock& lock) {
    return fill(lock, bytes_of(to, value, bytes, 1, bytes), stream, true, "cudaMemsetAsync");
  });
}

cudaError_t cudaMemset2D(void* to, size_t pitch, int value, size_t width, size_t height) {
  return api("cudaMemset2D", [&](Lock& lock) {
    return fill(lock, bytes_of(to, value, width, height, pitch), nullptr, false, "cudaMemset2D");
  });
}

cudaError_t cudaMemset2DAsync(void* to, size_t pitch, int value, size_t width, size_t height,
                              cudaStream_t stream) {
  return api("cudaMemset2DAsync", [&](Lock& lock) {
    return fill(lock, bytes_of(to, value, width, height, pitch), stream, true, "cudaMemset2DAsync");
  });
}

cudaError_t cudaMemset3D(cudaPitchedPtr to, int value, cudaExtent extent) {
  return api("cudaMemset3D", [&](Lock& lock) {
    return fill(lock, box_of(to, value, extent), nullptr, false, "cudaMemset3D");
  });
}

cudaError_t cudaMemset3DAsync(cudaPitchedPtr to, int value, cudaExtent extent, cudaStream_t stream) {
  return api("cudaMemset3DAsync", [&](Lock& lock) {
    return fill(lock, box_of(to, value, extent), stream, true, "cudaMemset3DAsync");
  });
}
