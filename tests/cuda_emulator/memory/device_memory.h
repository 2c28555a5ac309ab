#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

namespace emulator {

/// Where the windows of the generic address space lie. All of them are reserved without access rights, so
/// that host code which dereferences an address of the device gets SIGSEGV, as on a machine with a GPU.
struct AddressSpace {
  std::uint64_t device_begin, device_end;  // cudaMalloc, __device__ and __constant__ variables
  std::uint64_t shared_begin, shared_end;  // shared memory of the block that uses the address
  std::uint64_t local_begin, local_end;    // local memory of the thread that uses the address
  std::uint64_t param_begin, param_end;    // parameters of the running kernel
};

enum class MemoryKind : std::uint8_t { device, managed, pinned, registered, variable, constant, heap };

/// One live object: [begin, end) in the address space of the device.
struct Extent {
  std::uint64_t begin = 0, end = 0;
  std::ptrdiff_t to_host =
      0;  // add to an address of the device for the host address; 0 for pinned, managed and registered memory
  std::uint8_t* shadow = nullptr;  // bit i of shadow[(address >> 2) - (begin >> 2)]: byte 4n + i has been
                                   // written; null: not tracked. begin is a multiple of 4
  MemoryKind kind = MemoryKind::device;
  std::uint64_t id = 0;  // counts allocations from 1, for messages
  std::string name;      // of a variable
};

/// All memory of the emulated device. One per process. Changes take a lock; kernels look extents up through a
/// cache of their own (find).
class DeviceMemory {
 public:
  static DeviceMemory& instance();

  const AddressSpace& space() const { return space_; }

  /// A new object of `bytes` bytes (> 0) at a multiple of 256, with at least 256 unowned bytes before the
  /// next one; freed addresses are not used again until the address space is exhausted. Nothing is written:
  /// the shadow says "uninitialised". 0 if there is no memory left. pinned and managed: the address is valid
  /// on the host too.
  std::uint64_t allocate(std::uint64_t bytes, MemoryKind kind, std::string name = "");
  /// Makes host memory visible to kernels (cudaHostRegister). False if it overlaps an object.
  bool add_registered(void* host, std::uint64_t bytes);
  /// Ends an object that starts at `address`; its pages go back to the system. False if there is none.
  bool release(std::uint64_t address);

  /// The live object that contains `address`; nothing if there is none. The extent stays valid until it is
  /// released.
  const Extent* find(std::uint64_t address);
  /// Memory of the device beside all objects, as one piece that is not tracked; for runs without the memory
  /// check.
  const Extent& untracked() const { return untracked_; }
  /// The object next to `address` or the freed one that contained it, in words, for messages: "128 bytes past
  /// the end of the 1024-byte allocation 3".
  std::string describe(std::uint64_t address);
  /// Changes whenever an object ends: caches of find() are stale then.
  std::uint32_t generation() const { return generation_.load(std::memory_order_acquire); }

  /// Host address of a device range that lies in one object; null otherwise.
  std::uint8_t* host(std::uint64_t address, std::uint64_t bytes);
  bool is_initialized(std::uint64_t address, std::uint64_t bytes);
  void mark_initialized(std::uint64_t address, std::uint64_t bytes);
  /// Copies which bytes count as written, from one range to another (device-to-device copies).
  void copy_initialized(std::uint64_t to, std::uint64_t from, std::uint64_t bytes);
  /// Overwrites the bytes of a host buffer whose source bytes nobody wrote with 0xFF.
  void poison_uninitialized(std::uint8_t* copy, std::uint64_t from, std::uint64_t bytes);

  std::uint64_t capacity() const { return capacity_; }     // bytes that the device claims to have
  std::uint64_t in_use() const { return in_use_.load(); }  // bytes of live objects
  std::vector<Extent> live() const;                        // for leak reports

 private:
  DeviceMemory();
  AddressSpace space_{};
  Extent untracked_;
  std::atomic<std::uint32_t> generation_{1};
  std::uint64_t capacity_ = 0;
  std::atomic<std::uint64_t> in_use_{0};
  struct State;
  State* state_;  // never destroyed: programs free memory from static destructors
};

}  // namespace emulator
