#include <catch2/catch.hpp>

#include <algorithm>
#include <array>
#include <functional>

#include "count/record.h"
#include "tests/hand_built.h"

using namespace emulator;
using Kind = Access::Kind;
using Where = Access::Where;

namespace {

using AddressOf = std::function<std::uint64_t(std::uint64_t lane)>;

struct Counting : HandBuilt {
  std::unique_ptr<LaunchCounts> counts;
  Counting() : HandBuilt(1, 32), counts(std::make_unique<LaunchCounts>(launch)) {}

  const MemoryCounts& request(Kind kind, Where where, std::uint32_t bytes, const AddressOf& address_of,
                              Mask active = ~0u, bool asynchronous = false) {
    std::array<std::uint64_t, 32> address{};
    for (std::uint64_t lane = 0; lane < 32; ++lane) address[lane] = address_of(lane);
    Access access;
    access.kind = kind;
    access.where = where;
    access.bytes = bytes;
    access.active = active;
    access.address = address.data();
    access.asynchronous = asynchronous;
    count_access(*counts, access);
    return counts->memory->counts;
  }
};

Traffic global_load(std::uint32_t bytes, const AddressOf& address_of, Mask active = ~0u) {
  Counting counting;
  return counting.request(Kind::read, Where::global, bytes, address_of, active).global_loads;
}

std::uint64_t wavefronts(std::uint32_t bytes, const AddressOf& address_of, Mask active = ~0u) {
  Counting counting;
  return counting.request(Kind::read, Where::shared, bytes, address_of, active).shared_loads.wavefronts;
}

/// Bank conflicts by definition, without short cuts: per phase and bank, the distinct words.
std::uint64_t slow_wavefronts(std::uint32_t bytes, const AddressOf& address_of, Mask active) {
  const unsigned lanes = bytes <= 4 ? 32 : 128 / bytes;
  std::uint64_t sum = 0;
  for (unsigned first = 0; first < 32; first += lanes) {
    std::array<std::vector<std::uint64_t>, 32> words;
    std::size_t most = 0;
    for (unsigned lane = first; lane < first + lanes; ++lane) {
      if ((active >> lane & 1u) == 0) continue;
      for (std::uint64_t word = address_of(lane) / 4; word < (address_of(lane) + bytes + 3) / 4; ++word) {
        auto& bank = words[word % 32];
        if (std::find(bank.begin(), bank.end(), word) == bank.end()) bank.push_back(word);
        most = std::max(most, bank.size());
      }
    }
    sum += most;
  }
  return sum;
}

}  // namespace

TEST_CASE("a coalesced request needs as many sectors as its bytes fill") {
  const Traffic words = global_load(4, [](auto lane) { return 4096 + lane * 4; });
  CHECK(words.requests == 1);
  CHECK(words.sectors == 4);
  CHECK(words.useful_bytes == 128);
  CHECK(global_load(16, [](auto lane) { return 4096 + lane * 16; }).sectors == 16);
  CHECK(global_load(4, [](auto lane) { return 4100 + lane * 4; }).sectors == 5);  // not aligned to a sector
  CHECK(global_load(1, [](auto lane) { return 4096 + lane; }).sectors == 1);
  CHECK(global_load(4, [](auto lane) { return 4096 + (31 - lane) * 4; }).sectors == 4);  // backwards
}

TEST_CASE("strided, uniform and partial requests are counted by distinct sectors and bytes") {
  const Traffic strided = global_load(4, [](auto lane) { return 4096 + lane * 32; });
  CHECK(strided.sectors == 32);
  CHECK(strided.useful_bytes == 128);
  const Traffic uniform = global_load(4, [](auto) { return 4096; });
  CHECK(uniform.sectors == 1);
  CHECK(uniform.useful_bytes == 4);
  const Traffic partial = global_load(
      4, [](auto lane) { return 4096 + lane * 4; }, 0x0000ffff);
  CHECK(partial.sectors == 2);
  CHECK(partial.useful_bytes == 64);
  const Traffic mixed = global_load(4, [](auto lane) { return 4096 + lane % 2 * 1024; });
  CHECK(mixed.sectors == 2);
  CHECK(mixed.useful_bytes == 8);
}

TEST_CASE("compulsory bytes are those read before they were written, and those written, each once") {
  Counting counting;
  for (int repeat = 0; repeat < 3; ++repeat)
    counting.request(Kind::read, Where::global, 4,
                     [](auto lane) { return 4000 + lane * 4; });  // over a page border
  CHECK(counting.counts->memory->touched.read_bytes() == 128);
  counting.request(Kind::write, Where::global, 4, [](auto lane) { return 8192 + lane * 8; });
  counting.request(Kind::read, Where::global, 8,
                   [](auto lane) { return 8192 + lane * 8; });  // half of it was just written
  CHECK(counting.counts->memory->touched.read_bytes() == 128 + 128);
  CHECK(counting.counts->memory->touched.written_bytes() == 128);
}

TEST_CASE("shared wavefronts follow the banks") {
  CHECK(wavefronts(4, [](auto lane) { return lane * 4; }) == 1);
  CHECK(wavefronts(4, [](auto) { return 64; }) == 1);
  CHECK(wavefronts(4, [](auto lane) { return lane * 8; }) == 2);
  CHECK(wavefronts(4, [](auto lane) { return lane * 128; }) == 32);
  CHECK(wavefronts(4, [](auto lane) { return lane * 132; }) == 1);  // padded column
  CHECK(wavefronts(8, [](auto lane) { return lane * 8; }) == 2);
  CHECK(wavefronts(16, [](auto lane) { return lane * 16; }) == 4);
  CHECK(wavefronts(16, [](auto) { return 0; }) == 4);  // four phases, each a broadcast
  CHECK(wavefronts(16, [](auto lane) { return lane * 128; }) == 32);
  CHECK(wavefronts(2, [](auto lane) { return lane * 2; }) == 1);
  CHECK(wavefronts(1, [](auto lane) { return lane * 128; }) == 32);
  CHECK(wavefronts(
            4, [](auto lane) { return lane * 128; }, 0xff) == 8);
}

TEST_CASE("fast and slow ways to count wavefronts agree on random addresses") {
  std::uint32_t state = 1;
  const auto random = [&] { return state = state * 1664525u + 1013904223u, state >> 8; };
  for (int round = 0; round < 2000; ++round) {
    const std::uint32_t bytes = 1u << (random() % 5);
    const std::uint64_t range = 1ull << (4 + random() % 8);
    const Mask active = random() % 2 ? ~0u : (random() << 16 ^ random()) | 1u;
    std::array<std::uint64_t, 32> address{};
    for (auto& a : address) a = random() % range * bytes;
    const AddressOf address_of = [&](std::uint64_t lane) { return address[lane]; };
    INFO(bytes << " bytes, mask " << active);
    REQUIRE(wavefronts(bytes, address_of, active) == slow_wavefronts(bytes, address_of, active));
  }
}

TEST_CASE("ldmatrix needs one wavefront per matrix when its rows lie in different banks") {
  Counting counting;
  std::array<std::uint32_t, 32> offsets{};
  for (std::uint32_t i = 0; i < 32; ++i) offsets[i] = i * 16;
  count_matrix_rows(*counting.counts, offsets.data(), 4, false);
  CHECK(counting.counts->memory->counts.matrix_loads.wavefronts == 4);
  for (std::uint32_t i = 0; i < 32; ++i) offsets[i] = i % 8 * 128;  // all rows begin in bank 0
  count_matrix_rows(*counting.counts, offsets.data(), 2, false);
  CHECK(counting.counts->memory->counts.matrix_loads.wavefronts == 4 + 16);
  CHECK(counting.counts->memory->counts.matrix_loads.ideal_wavefronts == 6);
  CHECK(counting.counts->memory->counts.matrix_loads.requests == 2);
}

TEST_CASE("atomics are counted by how many lanes share an address") {
  Counting counting;
  counting.request(Kind::atomic, Where::global, 4, [](auto) { return 4096; });
  counting.request(Kind::atomic, Where::global, 4, [](auto lane) { return 4096 + lane * 4; });
  counting.request(Kind::atomic, Where::global, 4, [](auto lane) { return 4096 + lane % 8 * 4; });
  const AtomicTraffic& atomics = counting.counts->memory->counts.global_atomics;
  CHECK(atomics.requests == 3);
  CHECK(atomics.serialized == 32 + 1 + 4);
  CHECK(atomics.most_serialized == 32);
  CHECK(atomics.sectors == 1 + 4 + 1);
}

TEST_CASE("local memory is interleaved: one offset in all lanes takes four sectors") {
  Counting counting;
  CHECK(counting.request(Kind::write, Where::local, 4, [](auto) { return 8; }).local_stores.sectors == 4);
  CHECK(counting.request(Kind::read, Where::local, 16, [](auto) { return 16; }).local_loads.sectors == 16);
  CHECK(
      counting.request(Kind::read, Where::local, 4, [](auto lane) { return lane * 4; }).local_loads.sectors ==
      16 + 32);
}

TEST_CASE("constant loads cost one pass per distinct word, asynchronous copies are counted in bytes") {
  Counting counting;
  counting.request(Kind::read, Where::constant, 4, [](auto) { return 4096; });
  CHECK(counting.request(Kind::read, Where::constant, 4, [](auto lane) { return 4096 + lane / 4 * 4; })
            .constant_words == 1 + 8);
  CHECK(counting
            .request(
                Kind::write, Where::shared, 16, [](auto lane) { return lane * 16; }, ~0u, true)
            .async_copy_bytes == 512);
  CHECK(counting.counts->memory->counts.shared_stores.requests == 0);
}

TEST_CASE("workers of a launch are merged, and launches of one shape are summed") {
  forget_kernel_records();
  HandBuilt built(1, 32);
  built.program.classes[3] = Class::tensor;
  built.program.code[3].aux2 = 64;  // 4096 FLOP
  built.program.classes[4] = Class::special;
  for (int repeat = 0; repeat < 2; ++repeat) {
    std::vector<std::unique_ptr<LaunchCounts>> workers;
    for (int worker = 0; worker < 2; ++worker) {
      auto counts = std::make_unique<LaunchCounts>(built.launch);
      LaunchCounts::PerProgram& program = counts->of(&built.program);
      program.executed[3] = 10;
      program.lanes[3] = 320;
      program.executed[4] = 2;
      program.lanes[4] = 20;
      counts->barriers = 1;
      counts->memory->touched.read(4096, 64);  // the same bytes in both workers
      workers.push_back(std::move(counts));
    }
    finish_counts(built.launch, workers);
  }
  const std::vector<KernelRecord> records = kernel_records();
  REQUIRE(records.size() == 1);
  CHECK(records[0].launches == 2);
  CHECK(records[0].tensor_flops == 4 * 10 * 4096);
  CHECK(records[0].thread_instructions[static_cast<std::size_t>(Class::special)] == 80);
  CHECK(records[0].barriers == 4);
  CHECK(records[0].memory.read_bytes == 2 * 64);
  const std::string json = counters_json();
  CHECK(json.find("\"mangled\": \"hand_built\"") != std::string::npos);
  CHECK(json.find("\"tensor_flops\": 163840") != std::string::npos);
  CHECK(json.find("\"activity\": {") != std::string::npos);
}
