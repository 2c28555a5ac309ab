#include "abi/operation.h"

#include <algorithm>
#include <cstring>

#include "abi/memory_calls.h"
#include "count/activity.h"
#include "memory/device_memory.h"

namespace emulator::abi {
namespace {

DeviceMemory& memory() { return DeviceMemory::instance(); }

/// A box without gaps is one row.
Copy flattened(Copy copy) {
  const bool rows_touch =
      copy.height == 1 || (copy.to_pitch == copy.width && (copy.staged || copy.from_pitch == copy.width));
  if (!rows_touch) return copy;
  const std::uint64_t slice = copy.width * copy.height;
  copy.width = slice;
  copy.height = 1;
  if (copy.depth == 1 || (copy.to_slice == slice && (copy.staged || copy.from_slice == slice))) {
    copy.width *= copy.depth;
    copy.depth = 1;
  }
  return copy;
}

/// Bytes from the first to the last byte of a box.
std::uint64_t span_of(std::uint64_t width, std::uint64_t height, std::uint64_t depth, std::uint64_t pitch,
                      std::uint64_t slice) {
  if (width == 0 || height == 0 || depth == 0) return 0;
  return width + (height - 1) * pitch + (depth - 1) * slice;
}

/// Host view of a row; device memory must contain all of it.
std::uint8_t* row_pointer(std::uint64_t address, std::uint64_t bytes, bool& is_device, const char* role) {
  is_device = memory().find(address) != nullptr;
  const AddressSpace& space = memory().space();
  if (!is_device && !(address >= space.device_begin && address < space.device_end))
    return static_cast<std::uint8_t*>(pointer_to(address));
  std::uint8_t* host = memory().host(address, bytes);
  if (!host) {
    broken_rule(cudaErrorIllegalAddress,
                std::string("an asynchronous copy of ") + std::to_string(bytes) + " bytes " + role + " " +
                    hex(address) + " reaches memory that is no longer there: " + memory().describe(address));
  }
  return host;
}

cudaError_t copy_row(std::uint64_t to, std::uint64_t from, const std::uint8_t* staged, std::uint64_t bytes) {
  bool to_device = false, from_device = false;
  std::uint8_t* target = row_pointer(to, bytes, to_device, "to");
  const std::uint8_t* source = staged ? staged : row_pointer(from, bytes, from_device, "from");
  if (!target || !source) return cudaErrorIllegalAddress;
  // Which bytes count as written goes first: ranges that overlap change it.
  const Extent* object = to_device ? memory().find(to) : nullptr;
  std::memmove(target, source, bytes);
  if (object && object->shadow) {
    if (from_device)
      memory().copy_initialized(to, from, bytes);
    else
      memory().mark_initialized(to, bytes);
  } else if (from_device && options().init_check) {
    memory().poison_uninitialized(target, from, bytes);
  }
  return cudaSuccess;
}

cudaError_t run(const Copy& original) {
  const Copy copy = flattened(original);
  ++activity().copies;
  activity().copied_bytes += copy.width * copy.height * copy.depth;
  for (std::uint64_t z = 0; z < copy.depth; ++z) {
    for (std::uint64_t y = 0; y < copy.height; ++y) {
      const std::uint8_t* staged =
          copy.staged ? copy.staged->data() + (z * copy.height + y) * copy.width : nullptr;
      const std::uint64_t to = copy.to + z * copy.to_slice + y * copy.to_pitch,
                          from = copy.from + z * copy.from_slice + y * copy.from_pitch;
      if (const cudaError_t error = copy_row(to, from, staged, copy.width)) return error;
    }
  }
  return cudaSuccess;
}

cudaError_t run(const Fill& fill) {
  ++activity().memsets;
  const std::uint64_t bytes = fill.width * fill.element_bytes;
  for (std::uint64_t z = 0; z < fill.depth; ++z) {
    for (std::uint64_t y = 0; y < fill.height; ++y) {
      const std::uint64_t at = fill.to + z * fill.slice + y * fill.pitch;
      std::uint8_t* row = memory().host(at, bytes);
      if (!row)
        return broken_rule(
            cudaErrorIllegalAddress,
            "an asynchronous memset reaches memory that is no longer there: " + memory().describe(at));
      if (fill.element_bytes == 1) {
        std::memset(row, static_cast<int>(fill.value), bytes);
      } else {
        for (std::uint64_t i = 0; i < bytes; i += fill.element_bytes)
          std::memcpy(row + i, &fill.value, fill.element_bytes);
      }
      memory().mark_initialized(at, bytes);
    }
  }
  return cudaSuccess;
}

cudaError_t run(const KernelCall& call) {
  ++activity().launches;
  Function* function = call.function;
  if (!function->kernel) {
    if (const cudaError_t error = loaded_function(function, function)) return error;
  }
  return static_cast<cudaError_t>(run_kernel(*function->kernel, call.config, call.params).error);
}

cudaError_t run(const LibraryCall& call) {
  call.work();
  return cudaSuccess;
}

cudaError_t run(const Release& release) {
  memory().release(release.address);
  end_scheduled_free(release.address);
  return cudaSuccess;
}

template <class Other>
cudaError_t run(const Other&) {
  return cudaSuccess;
}

std::string triple(const std::uint32_t (&size)[3]) {
  return "(" + std::to_string(size[0]) + "," + std::to_string(size[1]) + "," + std::to_string(size[2]) + ")";
}

struct Title {
  std::string operator()(const Nothing&) const { return "nothing"; }
  std::string operator()(const KernelCall& call) const {
    const std::string name =
        call.function->kernel ? info(*call.function->kernel).demangled : call.function->name;
    return "kernel " + name + " <<<" + triple(call.config.grid) + ", " + triple(call.config.block) + ", " +
           std::to_string(call.config.dynamic_shared) + ">>>";
  }
  std::string operator()(const Copy& copy) const {
    return "copy of " + std::to_string(copy.width * copy.height * copy.depth) + " bytes to " + hex(copy.to);
  }
  std::string operator()(const Fill& fill) const {
    return "memset of " + std::to_string(fill.width * fill.element_bytes * fill.height * fill.depth) +
           " bytes at " + hex(fill.to);
  }
  std::string operator()(const HostCall&) const { return "host function"; }
  std::string operator()(const LibraryCall& call) const { return call.name; }
  std::string operator()(const Release& release) const { return "free of " + hex(release.address); }
  std::string operator()(const EventMark&) const { return "event record"; }
  std::string operator()(const EventWait&) const { return "event wait"; }
  std::string operator()(const ChildGraph&) const { return "child graph"; }
};

bool host_side(Place place) { return place == Place::pageable || place == Place::pinned; }

const char* name_of(cudaMemcpyKind kind) {
  switch (kind) {
    case cudaMemcpyHostToHost:
      return "cudaMemcpyHostToHost";
    case cudaMemcpyHostToDevice:
      return "cudaMemcpyHostToDevice";
    case cudaMemcpyDeviceToHost:
      return "cudaMemcpyDeviceToHost";
    case cudaMemcpyDeviceToDevice:
      return "cudaMemcpyDeviceToDevice";
    default:
      return "cudaMemcpyDefault";
  }
}

/// One side of a copy or a fill: [address, address + bytes) must lie in one object unless it is pageable
/// memory.
cudaError_t check_range(std::uint64_t address, std::uint64_t bytes, const char* call, const char* role) {
  if (bytes == 0) return cudaSuccess;
  if (address == 0)
    return broken_rule(cudaErrorInvalidValue, std::string(call) + ": the " + role + " is a null pointer");
  if (place_of(address) == Place::pageable || memory().host(address, bytes)) return cudaSuccess;
  const Extent* object = memory().find(address);
  const std::string where = object ? memory().describe(address) + ", " +
                                         std::to_string(address + bytes - object->end) + " bytes too many"
                                   : memory().describe(address);
  return broken_rule(cudaErrorInvalidValue, std::string(call) + ": the " + role + ", " +
                                                std::to_string(bytes) + " bytes at " + hex(address) +
                                                ", is not in one object: " + where);
}

}  // namespace

std::string title(const Operation& operation) { return std::visit(Title{}, operation); }

cudaError_t execute(const Operation& operation) {
  if (is_tracing()) trace("runs " + title(operation));
  try {
    return std::visit([](const auto& what) { return run(what); }, operation);
  } catch (...) {
    return error_of_exception(title(operation).c_str());
  }
}

Place place_of(std::uint64_t address) {
  const Extent* object = memory().find(address);
  if (!object) {
    const AddressSpace& space = memory().space();
    return address >= space.device_begin && address < space.device_end ? Place::device : Place::pageable;
  }
  switch (object->kind) {
    case MemoryKind::managed:
      return Place::managed;
    case MemoryKind::pinned:
    case MemoryKind::registered:
      return Place::pinned;
    default:
      return Place::device;
  }
}

cudaError_t check(const Copy& copy, const char* call) {
  if (copy.width == 0 || copy.height == 0 || copy.depth == 0) return cudaSuccess;
  if (copy.kind < cudaMemcpyHostToHost || copy.kind > cudaMemcpyDefault)
    return cudaErrorInvalidMemcpyDirection;
  if ((copy.height > 1 && (copy.to_pitch < copy.width || copy.from_pitch < copy.width)))
    return cudaErrorInvalidPitchValue;
  const std::uint64_t to_bytes = span_of(copy.width, copy.height, copy.depth, copy.to_pitch, copy.to_slice);
  const std::uint64_t from_bytes =
      span_of(copy.width, copy.height, copy.depth, copy.from_pitch, copy.from_slice);
  if (const cudaError_t error = check_range(copy.to, to_bytes, call, "destination")) return error;
  if (const cudaError_t error = check_range(copy.from, from_bytes, call, "source")) return error;

  const Place to = place_of(copy.to), from = place_of(copy.from);
  const bool to_device = copy.kind == cudaMemcpyHostToDevice || copy.kind == cudaMemcpyDeviceToDevice;
  const bool from_device = copy.kind == cudaMemcpyDeviceToHost || copy.kind == cudaMemcpyDeviceToDevice;
  // Pinned memory is mapped into the device, so it passes for either side of a copy between devices.
  const auto fits = [](Place place, bool device) {
    return place == Place::managed || (device ? place != Place::pageable : host_side(place));
  };
  if (copy.kind != cudaMemcpyDefault && (!fits(to, to_device) || !fits(from, from_device))) {
    const bool wrong_target = !fits(to, to_device);
    return broken_rule(cudaErrorInvalidValue, std::string(call) + ": " + name_of(copy.kind) + ", but the " +
                                                  (wrong_target ? "destination" : "source") + " is " +
                                                  (host_side(wrong_target ? to : from) ? "host" : "device") +
                                                  " memory");
  }
  const bool overlaps = copy.height == 1 && copy.depth == 1 && copy.to != copy.from &&
                        copy.to < copy.from + copy.width && copy.from < copy.to + copy.width;
  if (overlaps)
    broken_rule(cudaSuccess, std::string(call) + ": source and destination overlap; the result is undefined");
  return cudaSuccess;
}

cudaError_t check(const Fill& fill, const char* call) {
  const std::uint64_t width = fill.width * fill.element_bytes;
  if (width == 0 || fill.height == 0 || fill.depth == 0) return cudaSuccess;
  if (fill.height > 1 && fill.pitch < width) return cudaErrorInvalidValue;
  if (place_of(fill.to) == Place::pageable) {
    return broken_rule(cudaErrorInvalidValue, std::string(call) + ": " + hex(fill.to) +
                                                  " is no device memory: " + memory().describe(fill.to));
  }
  return check_range(fill.to, span_of(width, fill.height, fill.depth, fill.pitch, fill.slice), call,
                     "destination");
}

}  // namespace emulator::abi
