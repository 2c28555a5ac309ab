#include "engine/memory.h"

#include <catch2/catch.hpp>
#include <cstring>
#include <vector>

#include "kernels/philox.h"

using namespace dino;

TEST_CASE("blocks never overlap, whatever is taken and given back") {
  Arena arena;
  Random random(5, Purpose::test, 1);
  struct Live {
    Block block;
    size_t bytes;
    unsigned char mark;
  };
  std::vector<Live> live;
  for (int i = 0; i < 3000; ++i) {
    if (live.empty() || random.below(5) < 3) {
      const size_t bytes = 1 + random.below(i % 100 == 0 ? 90u << 20 : 4096);
      const auto mark = static_cast<unsigned char>(random.below(256));
      Block block = arena.allocate(bytes);
      REQUIRE(reinterpret_cast<uintptr_t>(block.data()) % 64 == 0);
      std::memset(block.data(), mark, std::min<size_t>(bytes, 4096));
      live.push_back({std::move(block), bytes, mark});
    } else {
      const size_t victim = random.below(static_cast<uint32_t>(live.size()));
      for (size_t at = 0; at < std::min<size_t>(live[victim].bytes, 4096); ++at)
        REQUIRE(static_cast<unsigned char>(live[victim].block.data()[at]) == live[victim].mark);
      std::swap(live[victim], live.back());
      live.pop_back();
    }
  }
  live.clear();
  CHECK(arena.used_bytes() == 0);
}

TEST_CASE("the same requests again need no more memory") {
  Arena arena;
  size_t reserved = 0;
  for (int step = 0; step < 3; ++step) {
    std::vector<Block> blocks;
    for (size_t i = 1; i < 200; ++i) {
      blocks.push_back(arena.allocate(i * 37000 % 3000000 + 1));
      if (i % 3 == 0) blocks.erase(blocks.begin() + static_cast<long>(blocks.size() / 2));
    }
    if (step == 0) reserved = arena.extent_bytes();
    CHECK(arena.extent_bytes() == reserved);
  }
  CHECK(arena.peak_bytes() <= arena.extent_bytes());
}

TEST_CASE("blocks lie in a slab of the expected size as they lay in the one that the expectation comes from") {
  const auto places = [](Arena& arena) {
    Random random(7, Purpose::test, 2);
    std::vector<Block> blocks;
    std::vector<size_t> result;
    const std::byte* first = nullptr;
    for (int i = 0; i < 2000; ++i) {
      if (blocks.empty() || random.below(5) < 3) {
        blocks.push_back(arena.allocate(1 + random.below(1u << 20)));
        if (!first) first = blocks.back().data();
        result.push_back(static_cast<size_t>(blocks.back().data() - first));
      } else {
        std::swap(blocks[random.below(static_cast<uint32_t>(blocks.size()))], blocks.back());
        blocks.pop_back();
      }
    }
    return result;
  };
  Arena plan(Device::plan);
  const std::vector<size_t> planned = places(plan);
  CHECK(plan.extent_bytes() > plan.peak_bytes());
  Arena exact(Device::plan, plan.extent_bytes());
  CHECK(places(exact) == planned);
  CHECK(exact.extent_bytes() == plan.extent_bytes());
}
