#include "engine/memory.h"

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <limits>
#include <utility>

#include "kernels/cuda_memory.h"
#include "kernels/error.h"

namespace dino {
namespace {

constexpr size_t kAlignment = 256;
constexpr size_t kHugePage = size_t{2} << 20;
constexpr size_t kUsualSlab = size_t{64} << 20;

size_t round_up(size_t bytes, size_t unit) { return (bytes + unit - 1) / unit * unit; }

/// Least that is asked of the system. Addresses cost nothing until they are touched, so the host's slab is as large as its
/// memory: then no slab ever ends just where the next tensor would have fitted.
size_t least_slab(Device device) {
  if (device == Device::cuda) return kUsualSlab;
  if (device == Device::plan) return size_t{1} << 42;
  return static_cast<size_t>(sysconf(_SC_PHYS_PAGES)) * static_cast<size_t>(sysconf(_SC_PAGESIZE));
}

/// Most that an arena may ask for. The system would grant the host more than it has, and end the program later.
size_t most(Device device) { return device == Device::cpu ? least_slab(device) : std::numeric_limits<size_t>::max(); }

/// Null if there is not so much.
std::byte* from_system(Device device, size_t bytes) {
  if (device == Device::cuda) return cuda::allocate(bytes);
  const int access = device == Device::plan ? PROT_NONE : PROT_READ | PROT_WRITE;
  void* addresses = mmap(nullptr, bytes, access, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (addresses == MAP_FAILED) return nullptr;
  if (device == Device::cpu) madvise(addresses, bytes, MADV_HUGEPAGE);  // fewer page faults in the first step; a refusal does not matter
  return static_cast<std::byte*>(addresses);
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
    else munmap(slab.data, slab.bytes);
  }
}

Block Arena::allocate(size_t bytes) {
  bytes = round_up(std::max<size_t>(bytes, 1), kAlignment);
  auto place = best_fit(bytes);
  if (place == free_by_size_.end()) {
    grow(bytes);
    place = best_fit(bytes);
  }
  std::byte* data = place->second;
  const auto hole = free_.find(data);
  const size_t found = hole->second;
  erase_free(hole);
  if (found > bytes) insert_free(data + bytes, found - bytes);
  used_ += bytes;
  peak_ = std::max(peak_, used_);
  Slab& slab = *std::find_if(slabs_.begin(), slabs_.end(), [&](const Slab& s) { return data >= s.data && data < s.data + s.bytes; });
  slab.extent = std::max(slab.extent, static_cast<size_t>(data + bytes - slab.data));
  return Block(this, data, bytes);
}

std::multimap<size_t, std::byte*>::iterator Arena::best_fit(size_t bytes) {
  auto place = free_by_size_.lower_bound(bytes);
  while (place != free_by_size_.end() && free_.find(place->second)->second < bytes) ++place;
  return place;
}

/// Its place in the order in which free memory is used. Were the end of a slab used as if it were as small as it is, blocks
/// would lie elsewhere in a slab of just the expected size than in the one that the expectation comes from.
size_t Arena::rank(const std::byte* data, size_t bytes) const {
  const bool end = std::any_of(slabs_.begin(), slabs_.end(), [&](const Slab& slab) { return data + bytes == slab.data + slab.bytes; });
  return end ? std::numeric_limits<size_t>::max() : bytes;
}

size_t Arena::extent_bytes() const {
  size_t sum = 0;
  for (const Slab& slab : slabs_) sum += slab.extent;
  return sum;
}

void Arena::grow(size_t bytes) {
  const size_t left = most(device_) - std::min(reserved_, most(device_));
  const bool known = slabs_.empty() && expected_ > 0;
  // A large slab may be refused where the addresses of a process are limited.
  for (const size_t least : {known ? round_up(expected_, kHugePage) : least_slab(device_), kUsualSlab, size_t{0}}) {
    const size_t wanted = std::max(round_up(bytes, kHugePage), least);
    if (wanted > left) continue;
    std::byte* data = from_system(device_, wanted);
    if (!data) continue;
    slabs_.push_back({data, wanted, 0});
    reserved_ += wanted;
    return insert_free(data, wanted);
  }
  const std::string problem = str("memory: cannot get ", bytes >> 20, " MiB more from the ",
                                  device_ == Device::cuda ? "GPU" : "system", ", with ", used_ >> 20,
                                  " MiB in use; a smaller --batch-size or --recompute needs less");
  // Where only addresses are planned there is always enough, but for what no machine has.
  check<UsageError>(device_ != Device::plan && bytes <= most(device_), problem,
                    ", but so much it never has: use a smaller network");
  throw Error(problem);
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
  free_by_size_.emplace(rank(data, bytes), data);
}

void Arena::erase_free(std::map<std::byte*, size_t>::iterator place) {
  auto [first, last] = free_by_size_.equal_range(rank(place->first, place->second));
  free_by_size_.erase(std::find_if(first, last, [&](const auto& entry) { return entry.second == place->first; }));
  free_.erase(place);
}

}  // namespace dino
