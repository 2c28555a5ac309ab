#include "exec/memory.h"

#include <algorithm>

#include "check/race.h"
#include "count/counters.h"
#include "exec/context.h"

namespace emulator {
namespace {

const char* where_name(Access::Where where) {
  switch (where) {
    case Access::Where::shared:
      return "shared memory";
    case Access::Where::local:
      return "local memory";
    case Access::Where::constant:
      return "constant memory";
    default:
      return "global memory";
  }
}

std::string verb(const Access& access) {
  const char* kind = access.kind == Access::Kind::read    ? "read of "
                     : access.kind == Access::Kind::write ? "write of "
                                                          : "atomic operation on ";
  return kind + std::to_string(access.bytes) + (access.bytes == 1 ? " byte" : " bytes");
}

bool reads(const Access& access) { return access.kind != Access::Kind::write; }

// Bits of a shadow byte that `bytes` (1, 2 or 4) bytes at `address` occupy.
std::uint8_t shadow_bits(std::uint64_t address, std::uint32_t bytes) {
  return static_cast<std::uint8_t>(bytes >= 4 ? 0x0f : ((1u << bytes) - 1u) << (address & 3u));
}

[[noreturn]] void misaligned(Warp& warp, const Access& access) {
  int lane = __builtin_ctz(access.active);
  each_lane(access.active, [&](int l) { lane = (access.address[l] & (access.bytes - 1)) != 0 ? l : lane; });
  report(warp, FindingKind::misaligned, lane, access.address[lane],
         verb(access) + " in " + where_name(access.where) + " at an address that is no multiple of " +
             std::to_string(access.bytes),
         716);
  throw KernelFault{716};
}

// What 32 addresses have in common. Lanes that are not active are given the address of one that is, so that
// no loop below needs the mask.
struct Pattern {
  std::uint64_t address[kLanes];
  std::uint64_t low, high;  // smallest and largest
  std::uint64_t bits;       // of all of them, or-ed
  bool uniform;             // all alike
  bool consecutive;         // all lanes active, side by side in lane order
};

void find_pattern(const Access& access, Pattern& pattern) {
  const std::uint64_t first = access.address[__builtin_ctz(access.active)];
  if (access.active == ~0u) {
    std::memcpy(pattern.address, access.address, sizeof pattern.address);
  } else {
    for (int lane = 0; lane < kLanes; ++lane)
      pattern.address[lane] = (access.active >> lane & 1u) != 0 ? access.address[lane] : first;
  }
  const int shift = __builtin_ctz(access.bytes);
  std::uint64_t low = first, high = first, unlike = 0, apart = 0, bits = 0;
  for (int lane = 0; lane < kLanes; ++lane) {
    const std::uint64_t a = pattern.address[lane];
    low = std::min(low, a);
    high = std::max(high, a);
    unlike |= a ^ first;
    bits |= a;
    apart |= a - first - (static_cast<std::uint64_t>(lane) << shift);
  }
  pattern.low = low;
  pattern.high = high;
  pattern.bits = bits;
  pattern.uniform = unlike == 0;
  pattern.consecutive = apart == 0 && access.active == ~0u;
}

// All shadow bytes of a run of whole words say "written".
bool all_written(const std::uint8_t* shadow, std::size_t words) {
  std::uint64_t all = 0x0f0f0f0f0f0f0f0f;
  std::size_t i = 0;
  for (; i + 8 <= words; i += 8) {
    std::uint64_t eight;
    std::memcpy(&eight, shadow + i, 8);
    all &= eight;
  }
  std::uint8_t rest = 0x0f;
  for (; i < words; ++i) rest &= shadow[i];
  return all == 0x0f0f0f0f0f0f0f0f && rest == 0x0f;
}

// Copies memory of one lane to its scratch, unwritten bytes as 0xFF; returns how many bytes were written.
std::uint32_t poisoned_copy(const std::uint8_t* memory, const std::uint8_t* shadow, std::uint64_t address,
                            std::uint32_t bytes, std::uint8_t* scratch) {
  std::uint32_t written = 0;
  for (std::uint32_t i = 0; i < bytes; ++i) {
    const bool known = (shadow[((address & 3) + i) >> 2] >> ((address + i) & 3) & 1) != 0;
    scratch[i] = known ? memory[i] : 0xff;
    written += known ? 1 : 0;
  }
  return written;
}

// One lane of a read: pointer to memory, or to a poisoned copy if some byte was never written. Whether a read
// that finds only a part written is a mistake cannot be told (padding of structures is copied too), so only
// reads of nothing but unwritten bytes are reported.
void resolve_read(Warp& warp, const Access& access, int lane, std::uint8_t* memory,
                  const std::uint8_t* shadow, Resolved& resolved) {
  const std::uint64_t address = access.address[lane];
  resolved.pointer[lane] = memory;
  if (shadow == nullptr) return;
  bool written;
  if (access.bytes >= 4)
    written = all_written(shadow, access.bytes / 4);
  else
    written = (*shadow & shadow_bits(address, access.bytes)) == shadow_bits(address, access.bytes);
  if (written) return;
  const std::uint32_t known = poisoned_copy(memory, shadow, address, access.bytes, resolved.scratch[lane]);
  if (access.kind == Access::Kind::read)
    resolved.pointer[lane] = resolved.scratch[lane];
  else
    std::memcpy(memory, resolved.scratch[lane], access.bytes);
  if (known == 0 && options().init_check && !access.speculative)
    report(warp, FindingKind::uninitialized, lane, address,
           verb(access) + " in " + where_name(access.where) + " that nobody has written");
}

void mark_written(std::uint8_t* shadow, std::uint64_t address, std::uint32_t bytes) {
  if (bytes >= 4)
    std::memset(shadow, 0x0f, bytes / 4);
  else
    __atomic_fetch_or(shadow, shadow_bits(address, bytes),
                      __ATOMIC_RELAXED);  // neighbours in the word may be written by another worker
}

void resolve_lane(Warp& warp, const Access& access, int lane, std::uint8_t* memory, std::uint8_t* shadow,
                  Resolved& resolved) {
  if (reads(access)) resolve_read(warp, access, lane, memory, shadow, resolved);
  resolved.pointer[lane] = access.kind == Access::Kind::read ? resolved.pointer[lane] : memory;
  if (access.kind != Access::Kind::read && shadow != nullptr)
    mark_written(shadow, access.address[lane], access.bytes);
}

// Memory that is one piece on the host: what it takes to turn addresses into pointers. `shadow` belongs to
// address 0, word by word; null: not tracked.
struct Piece {
  std::uint8_t* memory;
  std::uint8_t* shadow;
};

template <std::uint32_t Words>
bool lanes_written(const std::uint8_t* shadow, const Pattern& pattern) {
  std::uint8_t all = 0x0f;
  for (int lane = 0; lane < kLanes; ++lane)
    for (std::uint32_t w = 0; w < Words; ++w) all &= shadow[(pattern.address[lane] >> 2) + w];
  return all == 0x0f;
}

bool all_lanes_written(const Access& access, const std::uint8_t* shadow, const Pattern& pattern) {
  // Reads of one or two bytes of words that are written as a whole pass here too; the others are looked at
  // one by one.
  if (pattern.uniform) return all_written(shadow + (pattern.low >> 2), std::max(access.bytes / 4, 1u));
  if (pattern.consecutive && (pattern.low & 3) == 0)
    return all_written(shadow + (pattern.low >> 2), access.bytes * kLanes / 4);
  switch (access.bytes) {
    case 16:
      return lanes_written<4>(shadow, pattern);
    case 8:
      return lanes_written<2>(shadow, pattern);
    default:
      return lanes_written<1>(shadow, pattern);
  }
}

// All lanes are inside of the piece.
void resolve_in(Warp& warp, const Access& access, const Pattern& pattern, const Piece& piece,
                Resolved& resolved) {
  const bool read = access.kind == Access::Kind::read;
  if (read && (piece.shadow == nullptr || all_lanes_written(access, piece.shadow, pattern))) {
    resolved.uniform = pattern.uniform;
    if (pattern.consecutive) {
      resolved.contiguous = piece.memory + pattern.low;
      return;
    }
    for (int lane = 0; lane < kLanes; ++lane) resolved.pointer[lane] = piece.memory + pattern.address[lane];
    return;
  }
  if (access.kind == Access::Kind::write && pattern.consecutive && (pattern.low & 3) == 0) {
    if (piece.shadow != nullptr)
      std::memset(piece.shadow + (pattern.low >> 2), 0x0f, access.bytes * kLanes / 4);
    resolved.contiguous = piece.memory + pattern.low;
    return;
  }
  const int first = __builtin_ctz(access.active);
  each_lane(access.active, [&](int lane) {
    const std::uint64_t a = access.address[lane];
    resolve_lane(warp, access, lane, piece.memory + a,
                 piece.shadow == nullptr ? nullptr : piece.shadow + (a >> 2), resolved);
  });
  for (int lane = 0; lane < kLanes; ++lane)
    if ((access.active >> lane & 1u) == 0) resolved.pointer[lane] = resolved.pointer[first];
}

[[noreturn]] void out_of_bounds(Warp& warp, const Access& access, int lane, const std::string& where) {
  report(warp, FindingKind::out_of_bounds, lane, access.address[lane],
         verb(access) + " in " + where_name(access.where) + " is " + where, 700);
  throw KernelFault{700};
}

// The object that [low, high) lies in, if it is one, from the warp's cache or from the table of all.
const Extent* object_of(Warp& warp, std::uint64_t low, std::uint64_t high) {
  DeviceMemory& memory = DeviceMemory::instance();
  auto& cached = warp.cached;
  const std::uint32_t generation = memory.generation();
  if (warp.cached_generation != generation) {
    for (Extent& extent : cached) extent.begin = extent.end = 0;
    warp.cached_generation = generation;
  }
  for (std::size_t i = 0; i < cached.size(); ++i)
    if (low >= cached[i].begin && high <= cached[i].end) return &cached[i];
  const Extent* found = memory.find(low);
  if (found == nullptr || high > found->end) return nullptr;
  Extent& place = cached[warp.next_cached++ % cached.size()];
  place = *found;
  place.name.clear();  // not needed here
  return &place;
}

Piece piece_of(const Extent& extent) {
  // Pointers that stand for address 0 are never used as such.
  return {reinterpret_cast<std::uint8_t*>(extent.to_host),
          extent.shadow == nullptr ? nullptr : extent.shadow - (extent.begin >> 2)};
}

// The object of [low, high), if it is one that may be accessed so; everything else is reported. Without the
// memory check any memory of the device will do, as on hardware inside of mapped pages.
const Extent& checked(Warp& warp, const Access& access, int lane, const Extent* object, std::uint64_t low,
                      std::uint64_t high) {
  const Extent& untracked = DeviceMemory::instance().untracked();
  if (object == nullptr && !options().memory_check && low >= untracked.begin && high <= untracked.end)
    object = &untracked;
  if (object == nullptr) out_of_bounds(warp, access, lane, DeviceMemory::instance().describe(low));
  if (access.kind != Access::Kind::read && object->kind == MemoryKind::constant)
    out_of_bounds(warp, access, lane, "in a __constant__ variable");
  return *object;
}

void resolve_global(Warp& warp, const Access& access, const Pattern& pattern, Resolved& resolved) {
  const int first = __builtin_ctz(access.active);
  const bool wraps = pattern.high > ~std::uint64_t{0} - access.bytes;
  const std::uint64_t end = pattern.high + access.bytes;
  if (const Extent* object = wraps ? nullptr : object_of(warp, pattern.low, end); object != nullptr)
    return resolve_in(warp, access, pattern, piece_of(checked(warp, access, first, object, pattern.low, end)),
                      resolved);
  each_lane(access.active, [&](int lane) {
    const std::uint64_t a = access.address[lane];
    const Piece piece =
        piece_of(checked(warp, access, lane, object_of(warp, a, a + access.bytes), a, a + access.bytes));
    resolve_lane(warp, access, lane, piece.memory + a,
                 piece.shadow == nullptr ? nullptr : piece.shadow + (a >> 2), resolved);
  });
  for (int lane = 0; lane < kLanes; ++lane)
    if ((access.active >> lane & 1u) == 0) resolved.pointer[lane] = resolved.pointer[first];
}

void resolve_shared(Warp& warp, const Access& access, const Pattern& pattern, Resolved& resolved) {
  Block& block = *warp.block;
  const std::uint64_t size = block.shared.size();
  if (pattern.high > size || pattern.high + access.bytes > size)
    each_lane(access.active, [&](int lane) {
      const std::uint64_t a = access.address[lane];
      if (a > size || a + access.bytes > size)
        out_of_bounds(warp, access, lane,
                      std::to_string(a > size ? a - size : 0) + " bytes past the end of the block's " +
                          std::to_string(size - kReservedShared) + " bytes");
    });
  resolve_in(warp, access, pattern, {block.shared.data(), block.shared_shadow.data()}, resolved);
}

void resolve_local(Warp& warp, const Access& access, const Pattern& pattern, Resolved& resolved) {
  const std::uint64_t stride = warp.local_stride;
  if (pattern.high > stride || pattern.high + access.bytes > stride)
    each_lane(access.active, [&](int lane) {
      const std::uint64_t a = access.address[lane];
      if (a > stride || a + access.bytes > stride)
        out_of_bounds(warp, access, lane, "outside of the thread's " + std::to_string(stride) + " bytes");
    });
  // Each lane has a piece of its own: as addresses in all of them together, no two are alike.
  Access own = access;
  Pattern apart = pattern;
  for (int lane = 0; lane < kLanes; ++lane)
    apart.address[lane] = pattern.address[lane] + static_cast<std::uint64_t>(lane) * stride;
  std::uint64_t address[kLanes];
  std::memcpy(address, apart.address, sizeof address);
  own.address = address;
  apart.uniform = false;
  apart.consecutive = pattern.uniform && stride == access.bytes && access.active == ~0u;
  apart.low = apart.address[0];
  resolve_in(warp, own, apart, {warp.local.data(), warp.local_shadow.data()}, resolved);
}

}  // namespace

void resolve(Warp& warp, const Access& access, Resolved& resolved) {
  resolved.contiguous = nullptr;
  resolved.uniform = false;
  Pattern pattern;
  find_pattern(access, pattern);
  if ((pattern.bits & (access.bytes - 1)) != 0) misaligned(warp, access);
  switch (access.where) {
    case Access::Where::shared:
      return resolve_shared(warp, access, pattern, resolved);
    case Access::Where::local:
      return resolve_local(warp, access, pattern, resolved);
    default:
      return resolve_global(warp, access, pattern, resolved);
  }
}

void observe(Warp& warp, const Access& access) {
  if (warp.counts != nullptr) count_access(*warp.counts, access);
  if (warp.race != nullptr &&
      (access.where == Access::Where::shared || access.where == Access::Where::global))
    warp.race->access(warp, access);
}

void lane_addresses(const Warp& warp, const Ins& ins, std::uint64_t* address) {
  if ((ins.aux2 & kWideAddress) != 0) {
    const std::uint64_t* base = warp.lanes<std::uint64_t>(ins.a);
    for (int lane = 0; lane < kLanes; ++lane)
      address[lane] = base[lane] + static_cast<std::uint64_t>(ins.imm);
  } else {
    const std::uint32_t* base = warp.lanes<std::uint32_t>(ins.a);
    for (int lane = 0; lane < kLanes; ++lane)
      address[lane] = base[lane] + static_cast<std::uint32_t>(ins.imm);
  }
}

namespace {

std::uint8_t* one_lane(Warp& warp, int lane, Access::Where where, std::uint64_t address, std::uint32_t bytes,
                       bool write) {
  // Requests of more than 16 bytes or of odd sizes are made in pieces that resolve() knows.
  std::uint64_t addresses[kLanes];
  addresses[lane] = address;
  Access access;
  access.where = where;
  access.kind = write ? Access::Kind::write : Access::Kind::read;
  access.active = Mask{1} << lane;
  access.address = addresses;
  Resolved resolved;
  std::uint8_t* first = nullptr;
  bool poisoned = false;
  for (std::uint32_t done = 0; done < bytes;) {
    std::uint32_t piece = 16;
    while (piece > bytes - done || ((address + done) & (piece - 1)) != 0) piece /= 2;
    access.bytes = piece;
    addresses[lane] = address + done;
    resolve(warp, access, resolved);
    poisoned = poisoned || resolved.pointer[lane] == resolved.scratch[lane];
    if (poisoned && !write) {
      // The caller reads memory itself: let it see the poison.
      std::uint8_t* memory = where == Access::Where::shared
                                 ? &warp.block->shared[address + done]
                                 : reinterpret_cast<std::uint8_t*>(address + done) +
                                       object_of(warp, address + done, address + done + piece)->to_host;
      if (resolved.pointer[lane] == resolved.scratch[lane])
        std::memcpy(memory, resolved.scratch[lane], piece);
      if (done == 0) first = memory;
    } else if (done == 0) {
      first = resolved.pointer[lane];
    }
    done += piece;
  }
  return first;
}

}  // namespace

std::uint8_t* shared_at(Warp& warp, int lane, std::uint64_t offset, std::uint32_t bytes, bool write) {
  return one_lane(warp, lane, Access::Where::shared, offset, bytes, write);
}

std::uint32_t shared_offset(Warp& warp, int lane, std::uint64_t generic) {
  const AddressSpace& space = DeviceMemory::instance().space();
  if (generic < space.shared_begin || generic >= space.shared_end) {
    report(warp, FindingKind::out_of_bounds, lane, generic, "a shared address is expected", 700);
    throw KernelFault{700};
  }
  return static_cast<std::uint32_t>(generic - space.shared_begin);
}

std::uint8_t* generic_at(Warp& warp, int lane, std::uint64_t address, std::uint32_t bytes, bool write) {
  const AddressSpace& space = DeviceMemory::instance().space();
  if (address >= space.shared_begin && address < space.shared_end)
    return shared_at(warp, lane, address - space.shared_begin, bytes, write);
  if (address >= space.local_begin && address < space.local_end) {
    const std::uint64_t a = address - space.local_begin;
    if (a + bytes > warp.local_stride) {
      report(warp, FindingKind::out_of_bounds, lane, address, "outside of the thread's local memory", 700);
      throw KernelFault{700};
    }
    return &warp.local[static_cast<std::uint64_t>(lane) * warp.local_stride + a];
  }
  return one_lane(warp, lane, Access::Where::global, address, bytes, write);
}

}  // namespace emulator
