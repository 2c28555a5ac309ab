#pragma once

#include <cstddef>
#include <map>
#include <memory>
#include <vector>

#include "kernels/device.h"

namespace dino {

class Arena;

/// One block of an arena; gives it back when destroyed.
class Block {
 public:
  Block() = default;
  Block(Arena* arena, std::byte* data, size_t bytes) : arena_(arena), data_(data), bytes_(bytes) {}
  Block(Block&& other) noexcept;
  Block& operator=(Block&& other) noexcept;
  ~Block();

  std::byte* data() const { return data_; }
  size_t bytes() const { return bytes_; }

 private:
  Arena* arena_ = nullptr;
  std::byte* data_ = nullptr;
  size_t bytes_ = 0;
};

/// Memory for tensors on one device. Blocks that were given back are used again, best fit first and merged with free neighbours,
/// and what no block has reached yet comes last. Every training step asks for the same sizes in the same order, so the arena
/// grows in the first step and then never again. Host memory is the system's until a block reaches it.
class Arena {
 public:
  /// `expected`: how many bytes it will need, if that is known: then they are one piece.
  explicit Arena(Device device = Device::cpu, size_t expected = 0) : device_(device), expected_(expected) {}
  Arena(const Arena&) = delete;
  Arena& operator=(const Arena&) = delete;
  ~Arena();

  Device device() const { return device_; }

  /// At least `bytes`, aligned to 256 bytes, contents undefined. Throws Error if there is no more memory.
  Block allocate(size_t bytes);

  size_t used_bytes() const { return used_; }  ///< in blocks that are alive
  size_t peak_bytes() const { return peak_; }  ///< most that was used at one time
  size_t extent_bytes() const;                 ///< that blocks have ever reached: the peak and the gaps between blocks
  void reset_peak() { peak_ = used_; }

 private:
  friend class Block;
  struct Slab {
    std::byte* data;
    size_t bytes;
    size_t extent;  ///< that blocks have ever reached
  };
  void release(std::byte* data, size_t bytes);
  void insert_free(std::byte* data, size_t bytes);
  void erase_free(std::map<std::byte*, size_t>::iterator place);
  bool starts_slab(const std::byte* data) const;
  size_t rank(const std::byte* data, size_t bytes) const;
  std::multimap<size_t, std::byte*>::iterator best_fit(size_t bytes);
  void grow(size_t bytes);

  Device device_;
  size_t expected_;
  std::vector<Slab> slabs_;
  std::map<std::byte*, size_t> free_;               // by address, for merging
  std::multimap<size_t, std::byte*> free_by_size_;  // for best fit; the ends of slabs are last, whatever their size
  size_t reserved_ = 0, used_ = 0, peak_ = 0;
};

}  // namespace dino
