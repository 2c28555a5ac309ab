#include "check/clocks.h"

#include <algorithm>

namespace emulator {

bool BlockPast::covers(unsigned thread, Time time) const {
  if (time <= warps[thread / 32]) return true;
  for (const auto& [known, until] : threads) {
    if (known == thread) return time <= until;
  }
  return false;
}

bool BlockPast::covers(const BlockPast& other) const {
  for (std::size_t i = 0; i < warps.size(); ++i) {
    if (other.warps[i] > warps[i]) return false;
  }
  return std::all_of(other.threads.begin(), other.threads.end(),
                     [&](const auto& entry) { return covers(entry.first, entry.second); });
}

void BlockPast::add(unsigned thread, Time time) {
  if (time <= warps[thread / 32]) return;
  for (auto& [known, until] : threads) {
    if (known == thread) {
      until = std::max(until, time);
      return;
    }
  }
  threads.emplace_back(static_cast<std::uint16_t>(thread), time);
}

void BlockPast::add(const BlockPast& other) {
  for (std::size_t i = 0; i < warps.size(); ++i) warps[i] = std::max(warps[i], other.warps[i]);
  for (const auto& [thread, time] : other.threads) add(thread, time);
  std::erase_if(threads, [&](const auto& entry) { return entry.second <= warps[entry.first / 32]; });
}

const BlockPast* Knowledge::of(std::uint32_t block) const {
  const std::size_t index = block / kChunk;
  return index < chunks_.size() && chunks_[index] ? (*chunks_[index])[block % kChunk].get() : nullptr;
}

std::shared_ptr<const Knowledge::Chunk> Knowledge::join(const std::shared_ptr<const Chunk>& a,
                                                        const std::shared_ptr<const Chunk>& b) {
  if (!b || a == b) return a;
  if (!a) return b;
  std::shared_ptr<Chunk> result;  // made when the first entry differs from a's
  for (std::uint32_t i = 0; i < kChunk; ++i) {
    const auto& x = (*a)[i];
    const auto& y = (*b)[i];
    if (!y || x == y || (x && x->covers(*y))) continue;
    if (!result) result = std::make_shared<Chunk>(*a);
    if (!x || y->covers(*x)) {
      (*result)[i] = y;
    } else {
      auto both = std::make_shared<BlockPast>(*x);
      both->add(*y);
      (*result)[i] = std::move(both);
    }
  }
  return result ? result : a;
}

Knowledge::Pointer Knowledge::join(const Pointer& a, const Pointer& b) {
  if (!b || a == b) return a;
  if (!a) return b;
  std::vector<std::shared_ptr<const Chunk>> chunks(std::max(a->chunks_.size(), b->chunks_.size()));
  bool is_a = chunks.size() == a->chunks_.size();
  for (std::size_t i = 0; i < chunks.size(); ++i) {
    const auto part = [i](const Pointer& from) {
      return i < from->chunks_.size() ? from->chunks_[i] : nullptr;
    };
    chunks[i] = join(part(a), part(b));
    is_a = is_a && chunks[i] == part(a);
  }
  if (is_a) return a;
  auto result = std::make_shared<Knowledge>();
  result->chunks_ = std::move(chunks);
  return result;
}

Knowledge::Pointer Knowledge::with(const Pointer& base, std::uint32_t block, BlockPast past) {
  auto added = std::make_shared<Knowledge>();
  added->chunks_.resize(block / kChunk + 1);
  auto chunk = std::make_shared<Chunk>();
  (*chunk)[block % kChunk] = std::make_shared<BlockPast>(std::move(past));
  added->chunks_.back() = std::move(chunk);
  return join(base, added);
}

}  // namespace emulator
