#include "cublas/tests/mock_runtime.h"

#include <cuda_runtime_api.h>
#include <sys/mman.h>

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <functional>
#include <map>
#include <utility>

#include "abi/host_work.h"

namespace mock {
namespace {

struct Object {
  std::size_t bytes;
  std::vector<unsigned char> content, written;
};

struct Device {
  std::map<std::uintptr_t, Object> objects;
  std::vector<std::function<void()>> queue;
  std::vector<std::string> reports;
  std::uintptr_t begin, next;
  static constexpr std::size_t kWindow = std::size_t{1} << 36;

  Device() {
    void* window = mmap(nullptr, kWindow, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    begin = next = reinterpret_cast<std::uintptr_t>(window);
  }
};

Device& device() {
  static Device device;
  return device;
}

/// The object that contains the range and its place in there.
Object* find(const void* address, std::size_t bytes, std::size_t& offset) {
  const auto at = reinterpret_cast<std::uintptr_t>(address);
  auto next = device().objects.upper_bound(at);
  if (next == device().objects.begin()) return nullptr;
  auto& [base, object] = *--next;
  offset = at - base;
  return offset + bytes <= object.bytes ? &object : nullptr;
}

}  // namespace

void* allocate(std::size_t bytes) {
  const std::uintptr_t address = device().next;
  device().next += (bytes + 511) / 256 * 256;
  device().objects[address] = {bytes, std::vector<unsigned char>(bytes + 64, 0xFF),
                               std::vector<unsigned char>(bytes)};
  return reinterpret_cast<void*>(address);
}

void release(void* address) { device().objects.erase(reinterpret_cast<std::uintptr_t>(address)); }

void* host(const void* address, std::size_t bytes) {
  std::size_t offset = 0;
  Object* object = find(address, bytes, offset);
  return object == nullptr ? nullptr : object->content.data() + offset;
}

void mark(const void* address, std::size_t bytes) {
  std::size_t offset = 0;
  if (Object* object = find(address, bytes, offset)) std::memset(object->written.data() + offset, 1, bytes);
}

bool written(const void* address, std::size_t bytes) {
  std::size_t offset = 0;
  const Object* object = find(address, bytes, offset);
  if (object == nullptr) return true;
  const auto begin = object->written.begin() + static_cast<std::ptrdiff_t>(offset);
  return std::all_of(begin, begin + static_cast<std::ptrdiff_t>(bytes),
                     [](unsigned char byte) { return byte == 1; });
}

void synchronize() {
  for (const auto& work : std::exchange(device().queue, {})) work();
}

std::vector<std::string> take_reports() { return std::exchange(device().reports, {}); }

}  // namespace mock

namespace emulator::host {

int enqueue(void* stream, const char*, std::function<void()> work) {
  if (stream != nullptr) return cudaErrorInvalidResourceHandle;  // the mock has only the default stream
  mock::device().queue.push_back(std::move(work));
  return cudaSuccess;
}
void* device_range(const void* address, std::size_t bytes) { return mock::host(address, bytes); }
bool is_initialized(const void* address, std::size_t bytes) { return mock::written(address, bytes); }
void poison_unwritten(const void* address, std::size_t bytes) {
  auto* memory = static_cast<std::uint8_t*>(device_range(address, bytes));
  for (std::size_t i = 0; i < bytes; ++i)
    if (!mock::written(static_cast<const char*>(address) + i, 1)) memory[i] = 0xff;
}
void mark_initialized(const void* address, std::size_t bytes) { mock::mark(address, bytes); }
void report_api(const std::string& message) { mock::device().reports.push_back(message); }
bool is_device_pointer(const void* address) {
  const auto at = reinterpret_cast<std::uintptr_t>(address);
  return at >= mock::device().begin && at < mock::device().begin + mock::Device::kWindow;
}

}  // namespace emulator::host

extern "C" {

cudaError_t cudaStreamSynchronize(cudaStream_t) {
  mock::synchronize();
  return cudaSuccess;
}

cudaError_t cudaMemcpy2DAsync(void* to, size_t to_pitch, const void* from, size_t from_pitch, size_t bytes,
                              size_t lines, cudaMemcpyKind, cudaStream_t) {
  mock::synchronize();
  for (size_t i = 0; i < lines; ++i) {
    char* target = static_cast<char*>(to) + i * to_pitch;
    const char* source = static_cast<const char*>(from) + i * from_pitch;
    void* target_host = mock::host(target, bytes);
    const void* source_host = mock::host(source, bytes);
    std::memcpy(target_host == nullptr ? target : target_host, source_host == nullptr ? source : source_host,
                bytes);
    mock::mark(target, bytes);
  }
  return cudaSuccess;
}

}  // extern "C"
