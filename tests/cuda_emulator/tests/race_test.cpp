#include <catch2/catch.hpp>

#include <array>
#include <memory>

#include "check/race.h"
#include "check/race_state.h"
#include "tests/hand_built.h"

using namespace emulator;
using Kind = Access::Kind;
using Where = Access::Where;
using Order = Access::Order;

namespace {

/// Blocks that exist without an interpreter; accesses are told to the race check by hand.
struct Scene : HandBuilt {
  GlobalRaces global;
  std::vector<std::unique_ptr<RaceCheck>> checks;
  std::uint64_t before = findings_reported(FindingKind::race);

  Scene(std::uint32_t blocks, std::uint32_t threads) : HandBuilt(blocks, threads) {
    for (auto& block : this->blocks) checks.push_back(std::make_unique<RaceCheck>(*block, global));
  }
  Warp& warp(std::size_t block, std::size_t index) { return *blocks[block]->warps[index]; }
  RaceCheck& check(std::size_t block = 0) { return *checks[block]; }
  std::uint64_t races() const { return findings_reported(FindingKind::race) - before; }

  /// The lanes access base + lane * stride. Writes store `now` over `old` (the same in all lanes) unless they
  /// are given per lane.
  struct How {
    Kind kind = Kind::read;
    Where where = Where::shared;
    std::uint64_t base = 0, stride = 4;
    Mask lanes = ~0u;
    std::uint32_t bytes = 4;
    Order order = Order::weak;
    bool gpu = true;
    std::uint32_t old = 0, now = 1;
    const std::uint32_t* values = nullptr;  // per lane
  };
  void access(std::size_t block, std::size_t index, const How& how) {
    std::array<std::uint64_t, 32> address{};
    std::array<const std::uint8_t*, 32> value{}, memory{};
    for (std::size_t lane = 0; lane < 32; ++lane) {
      address[lane] = how.base + lane * how.stride;
      value[lane] = reinterpret_cast<const std::uint8_t*>(how.values ? how.values + lane : &how.now);
      memory[lane] = reinterpret_cast<const std::uint8_t*>(&how.old);
    }
    Access access;
    access.kind = how.kind;
    access.where = how.where;
    access.order = how.order;
    access.system_or_gpu_scope = how.gpu;
    access.bytes = how.bytes;
    access.active = how.lanes;
    access.address = address.data();
    if (how.kind == Kind::write) {
      access.value = value.data();
      access.memory = memory.data();
    }
    Warp& at = warp(block, index);
    at.pc = ++next_pc;  // every access of a scene is an instruction of its own
    check(block).access(at, access);
  }
  void read(std::size_t index, std::uint64_t base = 0) { access(0, index, {.base = base}); }
  void write(std::size_t index, std::uint64_t base = 0) {
    access(0, index, {.kind = Kind::write, .base = base});
  }
  std::uint32_t next_pc = 0;
};

constexpr std::uint64_t kData = 1 << 20, kFlag = 2 << 20;

/// One thread of block 0 writes data and raises a flag; block 1 sees the flag and reads.
std::uint64_t races_of_message(bool fence_before_flag, Order flag_write, Order flag_read) {
  Scene scene(2, 64);
  const auto at = [](Kind kind, std::uint64_t base, Order order) {
    return Scene::How{.kind = kind, .where = Where::global, .base = base, .lanes = 1, .order = order};
  };
  if (!fence_before_flag) scene.check(0).fence(scene.warp(0, 0), 1, true);
  scene.access(0, 0, at(Kind::write, kData, Order::weak));
  if (fence_before_flag) scene.check(0).fence(scene.warp(0, 0), 1, true);
  scene.access(0, 0, at(Kind::write, kFlag, flag_write));
  scene.access(1, 0, at(Kind::read, kFlag, flag_read));
  scene.check(1).fence(scene.warp(1, 0), 1, true);
  scene.check(1).barrier(3);
  scene.access(1, 1, {.where = Where::global, .base = kData, .stride = 0});
  return scene.races();
}

/// Both warps write, one after the other, without a barrier.
std::uint64_t races_of_writes(std::uint32_t first, std::uint32_t second) {
  Scene scene(1, 64);
  scene.access(0, 0, {.kind = Kind::write, .old = 0, .now = first});
  scene.access(0, 1, {.kind = Kind::write, .old = first, .now = second});
  return scene.races();
}

}  // namespace

TEST_CASE("a read of what another warp wrote races unless a barrier lies between") {
  Scene missing(1, 64);
  missing.write(0);
  missing.read(1);
  CHECK(missing.races() == 1);

  Scene correct(1, 64);
  correct.write(0);
  correct.check().barrier(3);
  correct.read(1);
  CHECK(correct.races() == 0);
}

TEST_CASE("a write races with the earlier read of another warp unless a barrier lies between") {
  Scene missing(1, 128);
  missing.write(0);
  missing.check().barrier(15);
  for (std::size_t warp = 0; warp < 4; ++warp) missing.read(warp);
  missing.write(2);
  CHECK(missing.races() >= 1);

  Scene correct(1, 128);
  correct.write(0);
  correct.check().barrier(15);
  for (std::size_t warp = 0; warp < 4; ++warp) correct.read(warp);
  correct.check().barrier(15);
  correct.write(2);
  CHECK(correct.races() == 0);
}

TEST_CASE("a race is reported once per pair of instructions, and names both sides") {
  Scene scene(1, 64);
  for (int i = 0; i < 3; ++i) {
    scene.next_pc = 0;
    scene.write(0);
    scene.next_pc = 1;
    scene.read(1);
  }
  CHECK(scene.races() == 2);  // the read after the write; the second write after the read
  const std::string all = findings_json();
  CHECK(all.find("read of 4 bytes of shared memory races with the write of thread (0,0,0) of block (0,0,0) "
                 "at line 1 (no barrier between them)") != std::string::npos);
}

TEST_CASE("lanes of a warp race unless they have met in a warp-level synchronisation") {
  const auto neighbours = [](bool sync, Mask lanes) {
    Scene scene(1, 32);
    scene.write(0);
    if (sync) scene.check().warp_sync(scene.warp(0, 0), lanes);
    scene.access(0, 0, {.base = 4, .lanes = 0x7});  // lane i reads what lane i + 1 wrote
    return scene.races();
  };
  CHECK(neighbours(false, 0) == 1);
  CHECK(neighbours(true, ~0u) == 0);
  CHECK(neighbours(true, 0xf) == 0);
  CHECK(neighbours(true, 0x7) == 1);  // lane 3 was not there
  Scene own(1, 32);
  own.write(0);
  own.read(0);
  CHECK(own.races() == 0);
}

TEST_CASE("order between lanes is passed on by later synchronisations of fewer lanes") {
  Scene scene(1, 32);
  scene.write(0);
  scene.check().warp_sync(scene.warp(0, 0), 0x3);
  scene.check().warp_sync(scene.warp(0, 0), 0x6);
  scene.access(0, 0, {.base = 0, .stride = 0, .lanes = 0x4});  // lane 2 knows lane 0 through lane 1
  CHECK(scene.races() == 0);
  scene.access(0, 0, {.base = 0, .stride = 0, .lanes = 0x8});
  CHECK(scene.races() == 1);
}

TEST_CASE("lanes of one instruction may store one value to one address, but not two values") {
  const auto races = [](std::uint32_t different) {
    Scene scene(1, 32);
    std::array<std::uint32_t, 32> values;
    values.fill(7);
    values[5] += different;
    scene.access(0, 0, {.kind = Kind::write, .stride = 0, .values = values.data()});
    return scene.races();
  };
  CHECK(races(0) == 0);
  CHECK(races(1) == 1);
}

TEST_CASE("a racing write of the value that is there already is information") {
  const std::uint64_t before = same_value_races();
  CHECK(races_of_writes(1, 1) == 0);
  CHECK(same_value_races() > before);
  CHECK(races_of_writes(1, 2) == 1);
  CHECK(races_of_writes(0, 2) ==
        1);  // the first one changes nothing, but the result depends on who comes last

  Scene reader(1, 64);
  reader.access(0, 0, {.kind = Kind::write, .old = 5, .now = 5});
  reader.read(1);
  CHECK(reader.races() == 0);
}

TEST_CASE("neighbouring bytes of a word do not race") {
  Scene scene(1, 64);
  scene.access(0, 0, {.kind = Kind::write, .base = 0, .stride = 2, .bytes = 1});
  scene.access(0, 1, {.kind = Kind::write, .base = 1, .stride = 2, .bytes = 1});
  CHECK(scene.races() == 0);
  scene.check().barrier(3);
  scene.read(0);  // whole words of the first 128 bytes: split cells
  scene.check().barrier(3);
  scene.write(1);  // whole again
  CHECK(scene.races() == 0);
  scene.access(0, 0, {.kind = Kind::write, .base = 6, .lanes = 1, .bytes = 2});
  CHECK(scene.races() == 1);
}

TEST_CASE("atomics race with plain accesses only") {
  const Scene::How atomic{.kind = Kind::atomic, .stride = 0, .order = Order::relaxed};
  Scene scene(1, 96);
  for (std::size_t warp = 0; warp < 3; ++warp) scene.access(0, warp, atomic);
  CHECK(scene.races() == 0);
  scene.access(0, 2, {.stride = 0});  // knows its own atomic, the last one, but not the others
  CHECK(scene.races() >= 1);

  Scene correct(1, 96);
  for (std::size_t warp = 0; warp < 3; ++warp) correct.access(0, warp, atomic);
  correct.check().barrier(7);
  correct.access(0, 2, {.stride = 0});
  CHECK(correct.races() == 0);
}

TEST_CASE("named barriers order the warps that take part, and no others") {
  Scene scene(1, 128);
  scene.write(0);
  scene.check().barrier(0b0011);
  scene.read(1);
  CHECK(scene.races() == 0);
  scene.read(2);
  CHECK(scene.races() == 1);
}

TEST_CASE("bar.arrive hands over what came before it, not what comes after") {
  Scene scene(1, 64);
  scene.write(0, 0);
  scene.check().barrier(0b01, 0);  // arrives
  scene.write(0, 512);
  scene.check().barrier(0b11, 0b10);  // completes
  scene.read(1, 0);
  CHECK(scene.races() == 0);
  scene.read(1, 512);
  CHECK(scene.races() == 1);
}

TEST_CASE("an mbarrier orders those who arrive before those who wait") {
  Scene scene(1, 96);
  scene.write(0);
  scene.check().mbarrier_arrive(scene.warp(0, 0), 4096);
  scene.check().mbarrier_wait(scene.warp(0, 1), 4096);
  scene.read(1);
  CHECK(scene.races() == 0);
  scene.read(2);
  CHECK(scene.races() == 1);
}

TEST_CASE("a message between blocks needs a fence after the data and a strong flag") {
  CHECK(races_of_message(true, Order::relaxed, Order::relaxed) == 0);
  CHECK(races_of_message(false, Order::relaxed, Order::relaxed) >= 1);
  CHECK(races_of_message(false, Order::release, Order::acquire) == 0);
  CHECK(races_of_message(true, Order::weak, Order::relaxed) >= 1);
}

TEST_CASE("the last block may read all partial results and reset the counter") {
  const auto races = [](bool fence) {
    Scene scene(3, 64);
    for (std::size_t block = 0; block < 3; ++block) {
      scene.access(block, 0,
                   {.kind = Kind::write, .where = Where::global, .base = kData + block * 4, .lanes = 1});
      if (fence) scene.check(block).fence(scene.warp(block, 0), 1, true);
      scene.access(
          block, 0,
          {.kind = Kind::atomic, .where = Where::global, .base = kFlag, .lanes = 1, .order = Order::relaxed});
      scene.check(block).barrier(3);
    }
    scene.access(2, 1, {.where = Where::global, .base = kData, .lanes = 7});
    scene.access(
        2, 1, {.kind = Kind::write, .where = Where::global, .base = kFlag, .lanes = 1, .old = 3, .now = 0});
    return scene.races();
  };
  CHECK(races(true) == 0);
  CHECK(races(false) >= 1);
}

TEST_CASE("a fence of every thread, a barrier and an atomic of one thread release the whole block") {
  const auto races = [](bool barrier) {
    Scene scene(2, 64);
    for (std::size_t warp = 0; warp < 2; ++warp) {
      scene.access(0, warp, {.kind = Kind::write, .where = Where::global, .base = kData + warp * 128});
      scene.check(0).fence(scene.warp(0, warp), ~0u, true);
    }
    if (barrier) scene.check(0).barrier(3);
    scene.access(
        0, 0,
        {.kind = Kind::atomic, .where = Where::global, .base = kFlag, .lanes = 1, .order = Order::relaxed});
    scene.access(
        1, 0,
        {.kind = Kind::atomic, .where = Where::global, .base = kFlag, .lanes = 1, .order = Order::relaxed});
    scene.check(1).barrier(3);
    for (std::size_t warp = 0; warp < 2; ++warp)
      scene.access(1, warp, {.where = Where::global, .base = kData + warp * 128});
    return scene.races();
  };
  CHECK(races(true) == 0);
  CHECK(races(false) >= 1);
}

TEST_CASE("a chain of blocks passes on what earlier blocks have released") {
  Scene scene(200, 32);
  scene.access(0, 0, {.kind = Kind::write, .where = Where::global, .base = kData});
  for (std::size_t block = 0; block < 200; ++block) {
    RaceCheck& check = scene.check(block);
    if (block > 0)
      scene.access(
          block, 0,
          {.where = Where::global, .base = kFlag + 4 * (block - 1), .lanes = 1, .order = Order::acquire});
    check.warp_sync(scene.warp(block, 0), ~0u);
    scene.access(block, 0,
                 {.kind = Kind::write,
                  .where = Where::global,
                  .base = kFlag + 4 * block,
                  .lanes = 1,
                  .order = Order::release});
  }
  scene.access(199, 0, {.where = Where::global, .base = kData});
  CHECK(scene.races() == 0);
}

TEST_CASE("blocks that read the same and write different words are clean, and overlapping writes are not") {
  Scene scene(8, 64);
  for (std::size_t block = 0; block < 8; ++block) {
    scene.access(block, 0, {.where = Where::global, .base = kFlag});
    scene.access(block, 1, {.kind = Kind::write, .where = Where::global, .base = kData + block * 128});
  }
  CHECK(scene.races() == 0);
  scene.access(
      3, 0,
      {.kind = Kind::write, .where = Where::global, .base = kData + 5 * 128, .lanes = 2, .old = 1, .now = 2});
  CHECK(scene.races() == 1);
}

TEST_CASE("a lock made of atomics and fences orders the threads that hold it, lanes of one warp too") {
  const auto races = [](bool fence) {
    Scene scene(2, 64);
    const auto step = [&](std::size_t block, std::size_t warp, int lane) {
      const Mask only = 1u << lane;
      const std::uint64_t back = static_cast<std::uint64_t>(lane) * 4;  // all lanes use one address
      scene.access(block, warp,
                   {.kind = Kind::atomic,
                    .where = Where::global,
                    .base = kFlag - back,
                    .lanes = only,
                    .order = Order::relaxed});
      if (fence) scene.check(block).fence(scene.warp(block, warp), only, true);
      scene.access(block, warp, {.where = Where::global, .base = kData - back, .lanes = only});
      scene.access(block, warp,
                   {.kind = Kind::write, .where = Where::global, .base = kData - back, .lanes = only});
      if (fence) scene.check(block).fence(scene.warp(block, warp), only, true);
      scene.access(block, warp,
                   {.kind = Kind::atomic,
                    .where = Where::global,
                    .base = kFlag - back,
                    .lanes = only,
                    .order = Order::relaxed});
    };
    step(0, 0, 3);
    step(0, 0, 4);
    step(0, 1, 0);
    step(1, 1, 9);
    return scene.races();
  };
  CHECK(races(true) == 0);
  CHECK(races(false) >= 1);
}

TEST_CASE("shared memory of a later block does not meet the records of an earlier one") {
  Scene scene(1, 64);
  scene.write(0);
  scene.checks[0].reset();
  scene.checks[0] = std::make_unique<RaceCheck>(*scene.blocks[0], scene.global);
  scene.read(1);
  CHECK(scene.races() == 0);
}
