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

/// Memory for tensors on one device. Blocks that were given back are used again, best fit first and merged with free neighbours. Every
/// training step asks for the same sizes in the same order, so the arena grows in the first step and then never again.
class Arena {
 public:
  explicit Arena(Device device = Device::cpu) : device_(device) {}
  Arena(const Arena&) = delete;
  Arena& operator=(const Arena&) = delete;
  ~Arena();

  Device device() const { return device_; }

  /// At least `bytes`, aligned to 64 bytes (256 but for the CPU), contents undefined. Throws Error if there is no more memory.
  Block allocate(size_t bytes);

  size_t reserved_bytes() const { return reserved_; }  ///< from the system
  size_t used_bytes() const { return used_; }          ///< in blocks that are alive
  size_t peak_bytes() const { return peak_; }          ///< most that was used at one time
  void reset_peak() { peak_ = used_; }

 private:
  friend class Block;
  struct Slab {
    std::byte* data;
    size_t bytes;
  };
  void release(std::byte* data, size_t bytes);
  void insert_free(std::byte* data, size_t bytes);
  void erase_free(std::map<std::byte*, size_t>::iterator place);
  bool starts_slab(const std::byte* data) const;
  void grow(size_t bytes);

  Device device_;
  std::vector<Slab> slabs_;
  std::map<std::byte*, size_t> free_;                  // by address, for merging
  std::multimap<size_t, std::byte*> free_by_size_;     // for best fit
  size_t reserved_ = 0, used_ = 0, peak_ = 0;
};

}  // namespace dino
