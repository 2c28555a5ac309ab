#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <utility>
#include <vector>

/// Logical time for the race check. One counter runs per launch and advances at every synchronisation,
/// whoever synchronises; an access is stamped with its value. "a knows b up to t" means: what b did at times
/// <= t is ordered before what a does now.
namespace emulator {

using Time = std::uint32_t;

/// What somebody knows of the past of one block.
struct BlockPast {
  std::array<Time, 32> warps{};  // whole warps
  std::vector<std::pair<std::uint16_t, Time>>
      threads;  // threads that are known for longer than their warp, by thread number

  bool covers(unsigned thread, Time time) const;
  bool covers(const BlockPast& other) const;
  void add(unsigned thread, Time time);
  void add(const BlockPast& other);
};

/// What somebody knows of all blocks. Immutable; parts are shared between copies, so that a chain of blocks
/// in which each knows all before it (look-back scan) costs little.
class Knowledge {
 public:
  using Pointer = std::shared_ptr<const Knowledge>;  // null: nothing

  const BlockPast* of(std::uint32_t block) const;
  static Pointer join(const Pointer& a, const Pointer& b);
  static Pointer with(const Pointer& base, std::uint32_t block, BlockPast past);

 private:
  static constexpr std::uint32_t kChunk = 64;
  using Chunk = std::array<std::shared_ptr<const BlockPast>, kChunk>;
  static std::shared_ptr<const Chunk> join(const std::shared_ptr<const Chunk>& a,
                                           const std::shared_ptr<const Chunk>& b);
  std::vector<std::shared_ptr<const Chunk>> chunks_;
};

}  // namespace emulator
