#include "engine/memory.h"

#include <sys/mman.h>

#include <algorithm>
#include <cstdlib>
#include <utility>

#include "kernels/cuda_memory.h"
#include "kernels/error.h"

namespace dino {
namespace {

constexpr size_t alignment(Device device) { return device == Device::cpu ? 64 : 256; }
constexpr size_t kHugePage = size_t{2} << 20;
constexpr size_t kSlab = size_t{64} << 20;  ///< least that is asked of the system

size_t round_up(size_t bytes, size_t unit) { return (bytes + unit - 1) / unit * unit; }

std::byte* from_system(Device device, size_t bytes) {
  if (device == Device::cuda) return cuda::allocate(bytes);
  if (device == Device::plan) {
    void* addresses = mmap(nullptr, bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    return addresses == MAP_FAILED ? nullptr : static_cast<std::byte*>(addresses);
  }
  auto* data = static_cast<std::byte*>(std::aligned_alloc(kHugePage, bytes));
  if (data) madvise(data, bytes, MADV_HUGEPAGE);  // fewer page faults in the first step; a refusal does not matter
  return data;
}

}  // namespace

Block::Block(Block&& other) noexcept
    : arena_(std::exchange(other.arena_, nullptr)), data_(other.data_), bytes_(other.bytes_) {}

Block& Block::operator=(Block&& other) noexcept {
  std::swap(arena_, other.arena_);
  std::swap(data_, other.data_);
  std::swap(bytes_, other.bytes_);
  return *this;
}

Block::~Block() {
  if (arena_) arena_->release(data_, bytes_);
}

Arena::~Arena() {
  for (const Slab& slab : slabs_) {
    if (device_ == Device::cuda) cuda::release(slab.data);
    if (device_ == Device::cpu) std::free(slab.data);
    if (device_ == Device::plan) munmap(slab.data, slab.bytes);
  }
}

Block Arena::allocate(size_t bytes) {
  bytes = round_up(std::max<size_t>(bytes, 1), alignment(device_));
  auto place = free_by_size_.lower_bound(bytes);
  if (place == free_by_size_.end()) {
    grow(bytes);
    place = free_by_size_.lower_bound(bytes);
  }
  std::byte* data = place->second;
  const size_t found = place->first;
  erase_free(free_.find(data));
  if (found > bytes) insert_free(data + bytes, found - bytes);
  used_ += bytes;
  peak_ = std::max(peak_, used_);
  return Block(this, data, bytes);
}

void Arena::grow(size_t bytes) {
  const size_t wanted = round_up(std::max(bytes, kSlab), kHugePage);
  std::byte* data = from_system(device_, wanted);
  check(data != nullptr, "memory: cannot get ", wanted >> 20, " MiB from the ", device_ == Device::cpu ? "system" : "GPU",
        ", with ", reserved_ >> 20, " MiB in use; a smaller --batch-size needs less");
  slabs_.push_back({data, wanted});
  reserved_ += wanted;
  insert_free(data, wanted);
}

bool Arena::starts_slab(const std::byte* data) const {
  return std::any_of(slabs_.begin(), slabs_.end(), [&](const Slab& slab) { return slab.data == data; });
}

void Arena::release(std::byte* data, size_t bytes) {
  used_ -= bytes;
  auto next = free_.lower_bound(data);
  if (next != free_.end() && data + bytes == next->first && !starts_slab(next->first)) {
    bytes += next->second;
    erase_free(next);
  }
  auto previous = free_.lower_bound(data);
  if (previous != free_.begin() && !starts_slab(data)) {
    --previous;
    if (previous->first + previous->second == data) {
      data = previous->first;
      bytes += previous->second;
      erase_free(previous);
    }
  }
  insert_free(data, bytes);
}

void Arena::insert_free(std::byte* data, size_t bytes) {
  free_.emplace(data, bytes);
  free_by_size_.emplace(bytes, data);
}

void Arena::erase_free(std::map<std::byte*, size_t>::iterator place) {
  auto [first, last] = free_by_size_.equal_range(place->second);
  free_by_size_.erase(std::find_if(first, last, [&](const auto& entry) { return entry.second == place->first; }));
  free_.erase(place);
}

}  // namespace dino
