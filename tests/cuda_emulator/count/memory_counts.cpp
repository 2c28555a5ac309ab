#include "count/memory_counts.h"

#include <algorithm>
#include <bit>

namespace emulator {
namespace {

/// A set of up to 32 numbers that forgets everything at no cost; with a count per number.
class SmallSet {
 public:
  /// How often `key` has been added, this time included.
  unsigned add(std::uint64_t key) {
    std::size_t slot = (key * 0x9e3779b97f4a7c15ull) >> 58;
    while ((used_ >> slot & 1u) != 0 && keys_[slot] != key) slot = (slot + 1) & 63u;
    if ((used_ >> slot & 1u) == 0) {
      used_ |= 1ull << slot;
      keys_[slot] = key;
      counts_[slot] = 0;
      ++size_;
    }
    return ++counts_[slot];
  }
  unsigned size() const { return size_; }

 private:
  std::uint64_t used_ = 0;
  unsigned size_ = 0;
  std::array<std::uint64_t, 64> keys_;
  std::array<std::uint8_t, 64> counts_;
};

/// address[i] == address[0] + i * bytes for all lanes.
bool is_consecutive(const std::uint64_t* address, std::uint64_t bytes) {
  std::uint64_t differs = 0;
  for (std::uint64_t i = 0; i < kLanes; ++i) differs |= address[i] ^ (address[0] + i * bytes);
  return differs == 0;
}

bool is_uniform(const std::uint64_t* address, Mask active) {
  const std::uint64_t first = address[std::countr_zero(active)];
  std::uint64_t differs = 0;
  for (std::uint32_t i = 0; i < kLanes; ++i)
    differs |= (address[i] ^ first) & (0 - static_cast<std::uint64_t>(active >> i & 1u));
  return differs == 0;
}

std::uint64_t sectors_between(std::uint64_t first, std::uint64_t end) {
  return (end - 1) / 32 - first / 32 + 1;
}

struct Distinct {
  std::uint64_t addresses = 0, sectors = 0;
};

Distinct distinct(const Access& access) {
  std::uint64_t last = 0;
  Distinct count;
  bool ascending = true;
  each_lane(access.active, [&](int lane) {
    const std::uint64_t address = access.address[lane];
    const bool first = count.addresses == 0;
    ascending = ascending && (first || address >= last);
    count.addresses += first || address != last;
    count.sectors += first || address / 32 != last / 32;
    last = address;
  });
  if (ascending) return count;
  SmallSet addresses, sectors;
  each_lane(access.active, [&](int lane) {
    addresses.add(access.address[lane]);
    sectors.add(access.address[lane] / 32);
  });
  return {addresses.size(), sectors.size()};
}

void count_global(LaunchCounts::Memory& memory, const Access& access) {
  const bool write = access.kind == Access::Kind::write;
  Traffic& traffic = write ? memory.counts.global_stores : memory.counts.global_loads;
  const auto touch = [&](std::uint64_t address, std::uint64_t bytes) {
    if (write)
      memory.touched.write(address, bytes);
    else
      memory.touched.read(address, bytes);
  };
  ++traffic.requests;
  const std::uint64_t first = access.address[std::countr_zero(access.active)];
  if (access.active == ~0u && is_consecutive(access.address, access.bytes)) {
    const std::uint64_t bytes = std::uint64_t{access.bytes} * kLanes;
    traffic.sectors += sectors_between(first, first + bytes);
    traffic.useful_bytes += bytes;
    touch(first, bytes);
  } else if (is_uniform(access.address, access.active)) {
    traffic.sectors += sectors_between(first, first + access.bytes);
    traffic.useful_bytes += access.bytes;
    touch(first, access.bytes);
  } else {
    const Distinct count = distinct(access);
    traffic.sectors += count.sectors;
    traffic.useful_bytes += count.addresses * access.bytes;
    each_lane(access.active, [&](int lane) { touch(access.address[lane], access.bytes); });
  }
}

/// The words of a thread lie 128 bytes apart, next to the same words of its neighbours: lanes that use one
/// offset share 4 sectors.
void count_local(MemoryCounts& counts, const Access& access) {
  Traffic& traffic = access.kind == Access::Kind::write ? counts.local_stores : counts.local_loads;
  SmallSet sectors;
  each_lane(access.active, [&](int lane) {
    sectors.add(access.address[lane] / 4 * 4 + static_cast<std::uint64_t>(lane) / 8);
  });
  ++traffic.requests;
  traffic.sectors += sectors.size() * std::uint64_t{std::max(1u, access.bytes / 4)};
  traffic.useful_bytes += static_cast<std::uint64_t>(std::popcount(access.active)) * access.bytes;
}

/// Lanes per phase, which is also the number of bank groups that serve one lane each.
std::uint32_t lanes_per_phase(std::uint32_t bytes) { return bytes <= 4 ? 32 : 128 / bytes; }

std::uint64_t phases(Mask active, std::uint32_t bytes) {
  const std::uint32_t lanes = lanes_per_phase(bytes);
  std::uint64_t count = 0;
  for (std::uint32_t first = 0; first < kLanes; first += lanes)
    count += ((active >> first) & (~0u >> (32 - lanes))) != 0;
  return count;
}

/// The most distinct chunks in one bank group.
template <class ChunkOf>
std::uint64_t phase_wavefronts(Mask lanes, std::uint32_t groups, ChunkOf chunk_of) {
  std::array<std::uint64_t, 32> first;
  std::uint32_t used = 0;
  bool conflict = false;
  each_lane(lanes, [&](int lane) {
    const std::uint64_t chunk = chunk_of(lane);
    const std::uint32_t group = static_cast<std::uint32_t>(chunk) & (groups - 1);
    if ((used >> group & 1u) == 0) {
      used |= 1u << group;
      first[group] = chunk;
    } else {
      conflict = conflict || first[group] != chunk;
    }
  });
  if (!conflict) return 1;
  SmallSet chunks;
  std::array<std::uint8_t, 32> count{};
  each_lane(lanes, [&](int lane) {
    const std::uint64_t chunk = chunk_of(lane);
    if (chunks.add(chunk) == 1) ++count[chunk & (groups - 1)];
  });
  return *std::max_element(count.begin(), count.end());
}

void count_shared(MemoryCounts& counts, const Access& access) {
  if (access.asynchronous) {
    counts.async_copy_bytes += static_cast<std::uint64_t>(std::popcount(access.active)) * access.bytes;
    return;
  }
  SharedTraffic& traffic = access.kind == Access::Kind::write ? counts.shared_stores : counts.shared_loads;
  ++traffic.requests;
  traffic.wavefronts += shared_wavefronts(access.address, access.active, access.bytes);
  traffic.ideal_wavefronts += phases(access.active, access.bytes);
}

void count_atomic(MemoryCounts& counts, const Access& access) {
  AtomicTraffic& traffic =
      access.where == Access::Where::shared ? counts.shared_atomics : counts.global_atomics;
  SmallSet addresses;
  unsigned most = 0;
  each_lane(access.active, [&](int lane) { most = std::max(most, addresses.add(access.address[lane])); });
  ++traffic.requests;
  traffic.serialized += most;
  traffic.most_serialized = std::max<std::uint64_t>(traffic.most_serialized, most);
  traffic.sectors += distinct(access).sectors;
}

void count_constant(MemoryCounts& counts, const Access& access) {
  ++counts.constant_requests;
  if (is_uniform(access.address, access.active)) {
    ++counts.constant_words;
    return;
  }
  SmallSet words;
  each_lane(access.active, [&](int lane) { words.add(access.address[lane] / 4); });
  counts.constant_words += words.size();
}

}  // namespace

std::uint64_t shared_wavefronts(const std::uint64_t* address, Mask active, std::uint32_t bytes) {
  if (bytes >= 4 && active == ~0u && is_consecutive(address, bytes))
    return bytes / 4;  // aligned to their size: no two phases' chunks collide
  if (is_uniform(address, active)) return phases(active, bytes);
  const std::uint32_t lanes = lanes_per_phase(bytes), chunk = std::max(bytes, 4u);
  std::uint64_t sum = 0;
  for (std::uint32_t first = 0; first < kLanes; first += lanes) {
    const Mask phase = active & ((~0u >> (32 - lanes)) << first);
    if (phase != 0) sum += phase_wavefronts(phase, lanes, [&](int lane) { return address[lane] / chunk; });
  }
  return sum;
}

void count_access(LaunchCounts& counts, const Access& access) {
  if (access.active == 0) return;
  LaunchCounts::Memory& memory = *counts.memory;
  if (access.kind == Access::Kind::atomic) {
    count_atomic(memory.counts, access);
    if (access.where == Access::Where::global) {
      each_lane(access.active, [&](int lane) {
        memory.touched.read(access.address[lane], access.bytes);
        memory.touched.write(access.address[lane], access.bytes);
      });
    }
    return;
  }
  switch (access.where) {
    case Access::Where::global:
      return count_global(memory, access);
    case Access::Where::shared:
      return count_shared(memory.counts, access);
    case Access::Where::local:
      return count_local(memory.counts, access);
    case Access::Where::constant:
      return count_constant(memory.counts, access);
  }
}

void count_matrix_rows(LaunchCounts& counts, const std::uint32_t* offsets, int matrices, bool store) {
  SharedTraffic& traffic = store ? counts.memory->counts.matrix_stores : counts.memory->counts.matrix_loads;
  ++traffic.requests;
  traffic.ideal_wavefronts += static_cast<std::uint64_t>(matrices);
  for (int matrix = 0; matrix < matrices; ++matrix) {
    traffic.wavefronts +=
        phase_wavefronts(0xffu, 8, [&](int row) { return std::uint64_t{offsets[matrix * 8 + row] / 16}; });
  }
}

TouchedBytes::Page& TouchedBytes::page(std::uint64_t index) {
  if (index != last_index_) {
    std::unique_ptr<Page>& found = pages_[index];
    if (!found) found = std::make_unique<Page>();
    last_ = found.get();
    last_index_ = index;
  }
  return *last_;
}

template <bool Write>
void TouchedBytes::touch(std::uint64_t address, std::uint64_t bytes) {
  const std::uint64_t end = address + bytes;
  for (std::uint64_t at = address; at < end;) {
    const std::uint64_t bit = at % 64, count = std::min(64 - bit, end - at);
    const std::uint64_t mask = (~0ull >> (64 - count)) << bit;
    Page& here = page(at / kPage);
    const std::size_t word = at % kPage / 64;
    if constexpr (Write)
      here.written[word] |= mask;
    else
      here.read[word] |= mask & ~here.written[word];
    at += count;
  }
}

void TouchedBytes::add(const TouchedBytes& other) {
  for (const auto& [index, from] : other.pages_) {
    Page& to = page(index);
    for (std::size_t i = 0; i < to.read.size(); ++i) {
      to.read[i] |= from->read[i];
      to.written[i] |= from->written[i];
    }
  }
}

std::uint64_t TouchedBytes::read_bytes() const {
  std::uint64_t sum = 0;
  for (const auto& [index, page] : pages_) {
    for (const std::uint64_t word : page->read) sum += static_cast<std::uint64_t>(std::popcount(word));
  }
  return sum;
}

std::uint64_t TouchedBytes::written_bytes() const {
  std::uint64_t sum = 0;
  for (const auto& [index, page] : pages_) {
    for (const std::uint64_t word : page->written) sum += static_cast<std::uint64_t>(std::popcount(word));
  }
  return sum;
}

void Traffic::add(const Traffic& other) {
  requests += other.requests;
  sectors += other.sectors;
  useful_bytes += other.useful_bytes;
}

void SharedTraffic::add(const SharedTraffic& other) {
  requests += other.requests;
  wavefronts += other.wavefronts;
  ideal_wavefronts += other.ideal_wavefronts;
}

void AtomicTraffic::add(const AtomicTraffic& other) {
  requests += other.requests;
  sectors += other.sectors;
  serialized += other.serialized;
  most_serialized = std::max(most_serialized, other.most_serialized);
}

void MemoryCounts::add(const MemoryCounts& other) {
  global_loads.add(other.global_loads);
  global_stores.add(other.global_stores);
  local_loads.add(other.local_loads);
  local_stores.add(other.local_stores);
  shared_loads.add(other.shared_loads);
  shared_stores.add(other.shared_stores);
  matrix_loads.add(other.matrix_loads);
  matrix_stores.add(other.matrix_stores);
  global_atomics.add(other.global_atomics);
  shared_atomics.add(other.shared_atomics);
  constant_requests += other.constant_requests;
  constant_words += other.constant_words;
  async_copy_bytes += other.async_copy_bytes;
  read_bytes += other.read_bytes;
  written_bytes += other.written_bytes;
}

}  // namespace emulator
