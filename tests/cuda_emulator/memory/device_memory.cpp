#include "memory/device_memory.h"

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <fstream>
#include <map>
#include <memory>
#include <mutex>
#include <shared_mutex>

#include "exec/launch.h"

namespace emulator {
namespace {

constexpr std::uint64_t kPage = 4096;
constexpr std::uint64_t kAlign = 256;  // what cudaMalloc guarantees
constexpr std::uint64_t kGap = 256;    // unowned bytes behind every object
constexpr std::size_t kRememberedFrees = 1u << 16;

std::uint64_t round_up(std::uint64_t value, std::uint64_t unit) { return (value + unit - 1) / unit * unit; }
std::uint64_t round_down(std::uint64_t value, std::uint64_t unit) { return value / unit * unit; }

/// Address space without memory behind it; 0 if the system refuses.
std::uint64_t reserve(std::uint64_t bytes, int protection) {
  void* at = mmap(nullptr, bytes, protection, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  return at == MAP_FAILED ? 0 : reinterpret_cast<std::uint64_t>(at);
}

std::uint8_t* as_pointer(std::uint64_t address) { return reinterpret_cast<std::uint8_t*>(address); }

/// Makes whole pages inside of [begin, end) read as zero again and clears the rest by hand.
void clear(std::uint64_t begin, std::uint64_t end) {
  const std::uint64_t first = round_up(begin, kPage), last = round_down(end, kPage);
  if (first >= last) {
    std::memset(as_pointer(begin), 0, end - begin);
    return;
  }
  std::memset(as_pointer(begin), 0, first - begin);
  std::memset(as_pointer(last), 0, end - last);
  madvise(as_pointer(first), last - first, MADV_DONTNEED);
}

/// RAM that this process may use: a container's limit counts.
std::uint64_t machine_bytes() {
  std::uint64_t bytes =
      static_cast<std::uint64_t>(sysconf(_SC_PHYS_PAGES)) * static_cast<std::uint64_t>(sysconf(_SC_PAGESIZE));
  for (const char* path : {"/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"}) {
    std::uint64_t limit = 0;
    if (std::ifstream(path) >> limit && limit > 0) bytes = std::min(bytes, limit);
  }
  return bytes;
}

bool is_host_visible(MemoryKind kind) {
  return kind == MemoryKind::pinned || kind == MemoryKind::managed || kind == MemoryKind::registered;
}

std::string title(const Extent& extent) {
  const std::string size = std::to_string(extent.end - extent.begin) + "-byte ";
  if (!extent.name.empty())
    return size + (extent.kind == MemoryKind::constant ? "constant " : "variable ") + extent.name;
  constexpr std::array kinds = {
      "allocation ", "managed allocation ", "pinned allocation ",     "registered host memory ",
      "variable ",   "constant ",           "device-heap allocation "};
  return size + kinds[static_cast<std::size_t>(extent.kind)] + std::to_string(extent.id);
}

/// A bump allocator over a reserved window. Holes are searched only when the end is reached, so that freed
/// addresses stay invalid for long.
struct Window {
  std::uint64_t begin = 0, end = 0, next = 0;
};

}  // namespace

struct DeviceMemory::State {
  mutable std::shared_mutex mutex;
  std::map<std::uint64_t, std::unique_ptr<Extent>> live;  // by begin
  std::map<std::uint64_t, Extent> freed;                  // by begin; newest object at an address
  std::deque<std::uint64_t> freed_order;
  Window device, host;  // host: pinned and managed memory
  std::ptrdiff_t to_backing = 0;
  std::uint64_t shadow = 0;
  std::uint64_t next_id = 1;

  const Extent* containing(std::uint64_t address) const {
    auto after = live.upper_bound(address);
    if (after == live.begin()) return nullptr;
    const Extent& extent = *std::prev(after)->second;
    return address < extent.end ? &extent : nullptr;
  }
  const Extent* containing(std::uint64_t address, std::uint64_t bytes) const {
    const Extent* extent = containing(address);
    return extent && bytes <= extent->end - address ? extent : nullptr;
  }

  /// Address for `bytes` bytes plus the gap; 0 if the window is full.
  std::uint64_t place(Window& window, std::uint64_t bytes, std::uint64_t align) {
    if (bytes >= window.end - window.begin) return 0;
    const std::uint64_t need = round_up(bytes + kGap, align);
    if (need <= window.end - window.next) {
      const std::uint64_t at = window.next;
      window.next += need;
      return at;
    }
    std::uint64_t at = window.begin;
    for (auto it = live.lower_bound(window.begin); it != live.end() && it->first < window.end; ++it) {
      if (it->first >= at && it->first - at >= need) break;
      at = round_up(it->second->end + kGap, align);
    }
    return at < window.end && window.end - at >= need ? at : 0;
  }

  void forget_freed(std::uint64_t begin, std::uint64_t end) {
    auto it = freed.upper_bound(begin);
    if (it != freed.begin() && std::prev(it)->second.end > begin) --it;
    while (it != freed.end() && it->first < end) it = freed.erase(it);
  }
};

DeviceMemory& DeviceMemory::instance() {
  static DeviceMemory* memory = new DeviceMemory;
  return *memory;
}

DeviceMemory::DeviceMemory() : state_(new State) {
  for (std::uint64_t bytes = 1ull << 40; bytes >= 1ull << 32 && state_->device.begin == 0; bytes /= 2) {
    const std::uint64_t window = reserve(bytes, PROT_NONE), backing = reserve(bytes, PROT_READ | PROT_WRITE);
    const std::uint64_t shadow = reserve(bytes / 4, PROT_READ | PROT_WRITE), host = reserve(bytes, PROT_NONE);
    if (window && backing && shadow && host) {
      state_->device = {window, window + bytes, window + kAlign};
      state_->host = {host, host + bytes, host + kPage};
      state_->to_backing = static_cast<std::ptrdiff_t>(backing - window);
      state_->shadow = shadow;
      untracked_.begin = window;
      untracked_.end = window + bytes;
      untracked_.to_host = state_->to_backing;
      madvise(as_pointer(backing), bytes, MADV_DONTDUMP);
      break;
    }
    if (window) munmap(as_pointer(window), bytes);
    if (backing) munmap(as_pointer(backing), bytes);
    if (shadow) munmap(as_pointer(shadow), bytes / 4);
    if (host) munmap(as_pointer(host), bytes);
  }
  const auto fixed = [](std::uint64_t& begin, std::uint64_t& end, std::uint64_t bytes) {
    begin = reserve(bytes, PROT_NONE);
    end = begin + bytes;
    return begin != 0;
  };
  if (state_->device.begin == 0 || !fixed(space_.shared_begin, space_.shared_end, 16ull << 20) ||
      !fixed(space_.local_begin, space_.local_end, 64ull << 30) ||
      !fixed(space_.param_begin, space_.param_end, 64ull << 10)) {
    std::fprintf(stderr,
                 "cuda_emulator: the system gives no address space for device memory; raise the limit of "
                 "virtual memory (ulimit -v)\n");
    std::exit(2);
  }
  space_.device_begin = state_->device.begin;
  space_.device_end = state_->device.end;
  capacity_ =
      std::min<std::uint64_t>(options().arch >= 90 ? 80'000'000'000ull : 40'000'000'000ull, machine_bytes());
}

std::uint64_t DeviceMemory::allocate(std::uint64_t bytes, MemoryKind kind, std::string name) {
  const std::unique_lock lock(state_->mutex);
  if (bytes == 0 || kind == MemoryKind::registered) return 0;
  if (bytes > capacity_ || in_use_.load() > capacity_ - bytes) return 0;
  const bool on_host = is_host_visible(kind);
  // Host-visible objects own whole pages: their protection is switched with the object.
  const std::uint64_t begin = on_host ? state_->place(state_->host, round_up(bytes, kPage), kPage)
                                      : state_->place(state_->device, bytes, kAlign);
  if (begin == 0) return 0;
  if (on_host && mprotect(as_pointer(begin), round_up(bytes, kPage), PROT_READ | PROT_WRITE) != 0) return 0;

  auto extent = std::make_unique<Extent>();
  extent->begin = begin;
  extent->end = begin + bytes;
  extent->kind = kind;
  extent->id = state_->next_id++;
  extent->name = std::move(name);
  if (!on_host) {
    extent->to_host = state_->to_backing;
    extent->shadow = as_pointer(state_->shadow + (begin - state_->device.begin) / 4);
  }
  state_->forget_freed(begin, begin + bytes);
  state_->live.emplace(begin, std::move(extent));
  if (kind != MemoryKind::pinned) in_use_ += bytes;
  return begin;
}

bool DeviceMemory::add_registered(void* host, std::uint64_t bytes) {
  const std::unique_lock lock(state_->mutex);
  const auto begin = reinterpret_cast<std::uint64_t>(host);
  const auto next = state_->live.lower_bound(begin);
  if (bytes == 0 || state_->containing(begin) || (next != state_->live.end() && next->first < begin + bytes))
    return false;
  auto extent = std::make_unique<Extent>();
  extent->begin = begin;
  extent->end = begin + bytes;
  extent->kind = MemoryKind::registered;
  extent->id = state_->next_id++;
  state_->forget_freed(begin, begin + bytes);
  state_->live.emplace(begin, std::move(extent));
  return true;
}

bool DeviceMemory::release(std::uint64_t address) {
  const std::unique_lock lock(state_->mutex);
  const auto found = state_->live.find(address);
  if (found == state_->live.end()) return false;
  const Extent extent = *found->second;
  generation_.fetch_add(1, std::memory_order_acq_rel);
  state_->live.erase(found);
  if (extent.kind != MemoryKind::pinned && extent.kind != MemoryKind::registered)
    in_use_ -= extent.end - extent.begin;
  if (extent.shadow) {
    const auto offset = static_cast<std::uint64_t>(extent.to_host);
    clear(extent.begin + offset, extent.end + offset);
    const auto shadow = reinterpret_cast<std::uint64_t>(extent.shadow);
    clear(shadow, shadow + (extent.end - extent.begin + 3) / 4);
  } else if (extent.kind != MemoryKind::registered) {
    const std::uint64_t bytes = round_up(extent.end - extent.begin, kPage);
    madvise(as_pointer(extent.begin), bytes, MADV_DONTNEED);
    mprotect(as_pointer(extent.begin), bytes, PROT_NONE);
  }
  state_->freed.insert_or_assign(address, extent);
  state_->freed_order.push_back(address);
  if (state_->freed_order.size() > kRememberedFrees) {
    state_->freed.erase(state_->freed_order.front());
    state_->freed_order.pop_front();
  }
  return true;
}

const Extent* DeviceMemory::find(std::uint64_t address) {
  const std::shared_lock lock(state_->mutex);
  return state_->containing(address);
}

std::string DeviceMemory::describe(std::uint64_t address) {
  const std::shared_lock lock(state_->mutex);
  if (const Extent* inside = state_->containing(address)) {
    return std::to_string(address - inside->begin) + " bytes into the " + title(*inside);
  }
  if (address < kPage) return "near the null pointer";
  auto gone = state_->freed.upper_bound(address);
  if (gone != state_->freed.begin() && address < std::prev(gone)->second.end)
    return "inside the freed " + title(std::prev(gone)->second);

  const auto after = state_->live.upper_bound(address);
  const Extent* above = after == state_->live.end() ? nullptr : after->second.get();
  const Extent* below = after == state_->live.begin() ? nullptr : std::prev(after)->second.get();
  // The first byte behind an object is 0 bytes past its end.
  const std::uint64_t past = below ? address - below->end : ~0ull,
                      before = above ? above->begin - address : ~0ull;
  constexpr std::uint64_t near = 1ull << 30;
  if (below && past <= before && past < near)
    return std::to_string(past) + " bytes past the end of the " + title(*below);
  if (above && before < near) return std::to_string(before) + " bytes before the " + title(*above);
  const bool on_device = address >= space_.device_begin && address < space_.device_end;
  return on_device ? "in device memory that nobody allocated" : "outside of device memory (a host pointer?)";
}

std::uint8_t* DeviceMemory::host(std::uint64_t address, std::uint64_t bytes) {
  const std::shared_lock lock(state_->mutex);
  const Extent* extent = state_->containing(address, bytes);
  return extent ? as_pointer(address + static_cast<std::uint64_t>(extent->to_host)) : nullptr;
}

namespace {

/// Calls partial(shadow byte, bits) for words that the range covers in part and whole(first, count) for the
/// run between them. False ends early.
template <class Partial, class Whole>
bool for_shadow(const Extent& extent, std::uint64_t address, std::uint64_t bytes, Partial partial,
                Whole whole) {
  std::uint64_t at = address - extent.begin;
  const std::uint64_t end = at + bytes;
  if (at % 4 != 0 || bytes < 4) {
    const std::uint64_t word = at / 4, stop = std::min(end, word * 4 + 4);
    const unsigned bits = (0xFu << (at % 4)) & (0xFu >> (word * 4 + 4 - stop));
    if (stop > at && !partial(extent.shadow + word, static_cast<std::uint8_t>(bits & 0xF))) return false;
    at = stop;
  }
  if (end / 4 > at / 4) {
    if (!whole(extent.shadow + at / 4, end / 4 - at / 4)) return false;
    at = end / 4 * 4;
  }
  return at >= end || partial(extent.shadow + at / 4, static_cast<std::uint8_t>(0xFu >> (4 - (end - at))));
}

bool all_written(const std::uint8_t* shadow, std::uint64_t words) {
  std::uint64_t i = 0;
  constexpr std::uint64_t full = 0x0F0F0F0F0F0F0F0Full;
  for (; i + 8 <= words; i += 8) {
    std::uint64_t eight;
    std::memcpy(&eight, shadow + i, 8);
    if ((eight & full) != full) return false;
  }
  for (; i < words; ++i) {
    if ((shadow[i] & 0xF) != 0xF) return false;
  }
  return true;
}

bool written(const Extent& extent, std::uint64_t address) {
  const std::uint64_t offset = address - extent.begin;
  return (extent.shadow[offset / 4] >> (offset % 4)) & 1;
}

}  // namespace

bool DeviceMemory::is_initialized(std::uint64_t address, std::uint64_t bytes) {
  const std::shared_lock lock(state_->mutex);
  const Extent* extent = state_->containing(address, bytes);
  if (!extent || !extent->shadow || bytes == 0) return true;
  return for_shadow(
      *extent, address, bytes,
      [](const std::uint8_t* byte, std::uint8_t bits) { return (*byte & bits) == bits; }, all_written);
}

void DeviceMemory::mark_initialized(std::uint64_t address, std::uint64_t bytes) {
  const std::shared_lock lock(state_->mutex);
  const Extent* extent = state_->containing(address, bytes);
  if (!extent || !extent->shadow || bytes == 0) return;
  // Other bytes of a partial word may be marked by another thread at the same time.
  const auto partial = [](std::uint8_t* byte, std::uint8_t bits) {
    std::atomic_ref(*byte).fetch_or(bits, std::memory_order_relaxed);
    return true;
  };
  for_shadow(*extent, address, bytes, partial, [](std::uint8_t* first, std::uint64_t count) {
    std::memset(first, 0x0F, count);
    return true;
  });
}

void DeviceMemory::copy_initialized(std::uint64_t to, std::uint64_t from, std::uint64_t bytes) {
  const Extent *target, *source;
  {
    const std::shared_lock lock(state_->mutex);
    target = state_->containing(to, bytes);
    source = state_->containing(from, bytes);
  }
  if (!target || !target->shadow || bytes == 0) return;
  if (!source || !source->shadow || is_initialized(from, bytes)) {
    mark_initialized(to, bytes);
    return;
  }
  if (to % 4 == 0 && from % 4 == 0 && bytes % 4 == 0) {
    std::memmove(target->shadow + (to - target->begin) / 4, source->shadow + (from - source->begin) / 4,
                 bytes / 4);
    return;
  }
  std::vector<bool> bits(bytes);  // read first: the ranges may overlap
  for (std::uint64_t i = 0; i < bytes; ++i) bits[i] = written(*source, from + i);
  for (std::uint64_t i = 0; i < bytes; ++i) {
    const std::uint64_t offset = to + i - target->begin;
    const auto bit = static_cast<std::uint8_t>(1u << (offset % 4));
    std::atomic_ref byte(target->shadow[offset / 4]);
    if (bits[i])
      byte.fetch_or(bit, std::memory_order_relaxed);
    else
      byte.fetch_and(static_cast<std::uint8_t>(~bit), std::memory_order_relaxed);
  }
}

void DeviceMemory::poison_uninitialized(std::uint8_t* copy, std::uint64_t from, std::uint64_t bytes) {
  if (is_initialized(from, bytes)) return;
  const Extent* source = find(from);
  if (!source) return;
  for (std::uint64_t i = 0; i < bytes; ++i) {
    if (!written(*source, from + i)) copy[i] = 0xFF;
  }
}

std::vector<Extent> DeviceMemory::live() const {
  const std::shared_lock lock(state_->mutex);
  std::vector<Extent> extents;
  for (const auto& [begin, extent] : state_->live) extents.push_back(*extent);
  return extents;
}

}  // namespace emulator
