#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <unordered_map>

#include "count/counters.h"

/// What counts about memory: requests of warps, the 32-byte sectors and shared-memory wavefronts that they
/// need, the bytes that they touch.
namespace emulator {

/// Requests of one kind to global or local memory.
struct Traffic {
  std::uint64_t requests = 0;
  std::uint64_t sectors = 0;       // distinct 32-byte sectors, summed over requests
  std::uint64_t useful_bytes = 0;  // distinct bytes that lanes asked for, summed over requests
  void add(const Traffic& other);
};

/// Requests of one kind to shared memory.
struct SharedTraffic {
  std::uint64_t requests = 0;
  std::uint64_t wavefronts = 0;        // passes over the 32 banks
  std::uint64_t ideal_wavefronts = 0;  // the same without bank conflicts
  void add(const SharedTraffic& other);
};

struct AtomicTraffic {
  std::uint64_t requests = 0, sectors = 0;
  std::uint64_t serialized = 0;       // per request the most lanes with one address, summed
  std::uint64_t most_serialized = 0;  // the largest of them
  void add(const AtomicTraffic& other);
};

struct MemoryCounts {
  Traffic global_loads, global_stores, local_loads, local_stores;
  SharedTraffic shared_loads, shared_stores, matrix_loads, matrix_stores;
  AtomicTraffic global_atomics, shared_atomics;
  std::uint64_t constant_requests = 0,
                constant_words = 0;  // words: distinct ones per request, which are served one after the other
  std::uint64_t async_copy_bytes = 0;               // that arrived in shared memory
  std::uint64_t read_bytes = 0, written_bytes = 0;  // distinct bytes of global memory; read: without those
                                                    // that the launch had written before
  void add(const MemoryCounts& other);
};

/// Which bytes of global memory a launch has read before it wrote them, and which it has written. One bit per
/// byte.
class TouchedBytes {
 public:
  void read(std::uint64_t address, std::uint64_t bytes) { touch<false>(address, bytes); }
  void write(std::uint64_t address, std::uint64_t bytes) { touch<true>(address, bytes); }
  void add(const TouchedBytes& other);
  std::uint64_t read_bytes() const;
  std::uint64_t written_bytes() const;

 private:
  static constexpr std::uint64_t kPage = 4096;
  struct Page {
    std::array<std::uint64_t, kPage / 64> read{}, written{};
  };
  Page& page(std::uint64_t index);
  template <bool Write>
  void touch(std::uint64_t address, std::uint64_t bytes);

  std::unordered_map<std::uint64_t, std::unique_ptr<Page>> pages_;
  std::uint64_t last_index_ = ~0ull;
  Page* last_ = nullptr;
};

struct LaunchCounts::Memory {
  MemoryCounts counts;
  TouchedBytes touched;
};

/// Wavefronts of a request to shared memory. The banks serve 128 bytes at a time: all lanes of 4-byte
/// accesses, half warps of 8-byte ones, quarter warps of 16-byte ones. Within such a phase every bank
/// delivers one word per wavefront, to any number of lanes (CUDA C++ Programming Guide, "Shared Memory").
std::uint64_t shared_wavefronts(const std::uint64_t* address, Mask active, std::uint32_t bytes);

}  // namespace emulator
