#include <catch2/catch.hpp>

#include <algorithm>
#include <random>

#include "tests/ptx_program.h"

// shfl, vote, match, redux, activemask, elect: lanes of a warp that talk to each other. Each form runs with
// the whole warp, with some lanes, and with lanes in groups of their own; the lanes of a group may come at
// different times.
namespace {

using namespace emulator;
using namespace emulator::ptx_program;

/// Who takes part: each lane's member mask; 0: the lane goes by.
using Members = std::array<U32, 32>;

Members whole_warp() {
  Members members;
  members.fill(~0u);
  return members;
}
Members some_lanes(U32 mask) {
  Members members{};
  for (U32 lane = 0; lane < 32; ++lane) members[lane] = (mask >> lane & 1u) != 0 ? mask : 0;
  return members;
}
Members two_groups(U32 mask) {
  Members members{};
  for (U32 lane = 0; lane < 32; ++lane) members[lane] = (mask >> lane & 1u) != 0 ? mask : ~mask;
  return members;
}
const std::vector<Members> kAllMembers = {whole_warp(),
                                          some_lanes(0x0000ffffu),
                                          some_lanes(0x80000001u),
                                          some_lanes(0x00000400u),
                                          some_lanes(0x5a5af00fu),
                                          two_groups(0x55555555u),
                                          two_groups(0x0000fff0u),
                                          two_groups(1)};

/// Runs `instruction`, which reads %a, %b, %c, %m (and %rd0: a and b as one number; %p0: a is odd) and writes
/// %d and %p1. A row of the result is d and p1, or `kOff` twice.
constexpr U64 kOff = 0xdeadu;
struct Inputs {
  std::array<U32, 32> a{}, b{}, c{};
};

std::vector<U64> results(const std::string& instruction, const Inputs& inputs, const Members& members,
                         bool apart) {
  Source source;
  source.ins = 4;
  source.outs = 2;
  source.body =
      "{ .reg .b32 %a, %b, %c, %m, %d; ld.global.b32 %a, [%mine_in]; ld.global.b32 %b, [%mine_in+8]; "
      "ld.global.b32 %c, [%mine_in+16]; ld.global.b32 %m, [%mine_in+24];\n"
      "mov.b64 %rd0, {%a, %b}; and.b32 %r0, %a, 1; setp.ne.b32 %p0, %r0, 0; setp.ne.b32 %p1, 0, 0; mov.u32 "
      "%d, " +
      std::to_string(kOff) +
      ";\n"
      "selp.b32 %r1, 1, 0, %p1; setp.eq.u32 %p2, %m, 0; @%p2 bra BY;\n";
  // Lanes come one after the other, from the last to the first. They are late in code that stands behind the
  // instruction, so that those which are there run first.
  if (apart) source.body += "sub.u32 %r2, 31, %lane; setp.ne.u32 %p3, %r2, 0; @%p3 bra LATE;\nCOME:\n";
  source.body += instruction + "\nselp.b32 %r1, 1, 0, %p1; bra END;\nBY: mov.u32 %r1, " +
                 std::to_string(kOff) +
                 ";\n"
                 "END: cvt.u64.u32 %rd1, %d; st.global.b64 [%mine], %rd1; cvt.u64.u32 %rd1, %r1; "
                 "st.global.b64 [%mine+8], %rd1; ret;\n";
  if (apart) source.body += "LATE: sub.u32 %r2, %r2, 1; setp.ne.u32 %p3, %r2, 0; @%p3 bra LATE; bra COME;\n";
  source.body += "}";
  std::vector<U64> rows;
  for (std::size_t lane = 0; lane < 32; ++lane)
    rows.insert(rows.end(), {inputs.a[lane], inputs.b[lane], inputs.c[lane], members[lane]});
  const Result result = run(source, rows);
  CHECK(result.clean());
  return result.out;
}

/// What a lane of those that take part should get; p is ignored where the form has none.
struct Lane {
  U32 d = kOff;
  bool p = false;
};
template <class F>
void check(const std::string& instruction, const Inputs& inputs, const Members& members, F expected) {
  for (const bool apart : {false, true}) {
    const auto out = results(instruction, inputs, members, apart);
    std::vector<U64> want;
    for (U32 lane = 0; lane < 32; ++lane) {
      if (members[lane] == 0) {
        want.insert(want.end(), {kOff, kOff});
        continue;
      }
      const Lane l = expected(lane);
      want.insert(want.end(), {l.d, l.p ? 1u : 0u});
    }
    INFO(instruction << (apart ? ", lanes one after the other" : "") << ", mask of lane 0 " << members[0]);
    CHECK(out == want);
  }
}

Inputs random_inputs(unsigned seed, U32 most) {
  std::mt19937 generator(seed);
  Inputs inputs;
  for (auto* list : {&inputs.a, &inputs.b, &inputs.c})
    for (U32& x : *list) x = static_cast<U32>(most == 0 ? generator() : generator() % most);
  return inputs;
}

bool has(U32 mask, U32 lane) { return (mask >> lane & 1u) != 0; }

/// All lanes of a mask, in order.
std::vector<U32> lanes_of(U32 mask) {
  std::vector<U32> lanes;
  for (U32 lane = 0; lane < 32; ++lane)
    if (has(mask, lane)) lanes.push_back(lane);
  return lanes;
}

}  // namespace

TEST_CASE("warp: shuffles of CUDA's widths stay in their segment") {
  const Inputs random = random_inputs(1, 0);
  for (const U32 width : {1u, 2u, 4u, 8u, 16u, 32u}) {
    for (const U32 by : {0u, 1u, 2u, 3u, 7u, 8u, 15u, 16u, 31u}) {
      Inputs inputs = random;
      inputs.b.fill(by);
      const auto from = [&](U32 lane, bool inside, U32 source) {
        return Lane{inputs.a[inside ? source : lane], inside};
      };
      const U32 segments = (32 - width) << 8;
      inputs.c.fill(segments);
      check("shfl.sync.up.b32 %d|%p1, %a, %b, %c, %m;", inputs, whole_warp(),
            [&](U32 lane) { return from(lane, lane % width >= by, lane - by); });
      inputs.c.fill(segments | 31);
      check("shfl.sync.down.b32 %d|%p1, %a, %b, %c, %m;", inputs, whole_warp(),
            [&](U32 lane) { return from(lane, lane % width + by < width, lane + by); });
      check("shfl.sync.idx.b32 %d|%p1, %a, %b, %c, %m;", inputs, whole_warp(),
            [&](U32 lane) { return from(lane, true, lane / width * width + by % width); });
      // A partner in an earlier segment may be read, one in a later segment may not.
      check("shfl.sync.bfly.b32 %d|%p1, %a, %b, %c, %m;", inputs, whole_warp(),
            [&](U32 lane) { return from(lane, (lane ^ by) / width <= lane / width, lane ^ by); });
    }
  }
}

TEST_CASE("warp: shuffles obey any clamp and segment mask, each lane its own") {
  for (unsigned seed = 1; seed <= 40; ++seed) {
    const Inputs inputs = random_inputs(seed, 0);
    for (const std::string mode : {"up", "down", "bfly", "idx"}) {
      // PTX ISA, shfl.sync: pseudo-code.
      check("shfl.sync." + mode + ".b32 %d|%p1, %a, %b, %c, %m;", inputs, whole_warp(), [&](U32 lane) {
        const int l = static_cast<int>(lane), b = static_cast<int>(inputs.b[lane] & 0x1fu),
                  clamp = static_cast<int>(inputs.c[lane] & 0x1fu),
                  segment = static_cast<int>(inputs.c[lane] >> 8 & 0x1fu);
        const int most = (l & segment) | (clamp & ~segment), least = l & segment;
        const int j = mode == "up"     ? l - b
                      : mode == "down" ? l + b
                      : mode == "bfly" ? l ^ b
                                       : least | (b & ~segment);
        const bool p = mode == "up" ? j >= most : j <= most;
        return Lane{inputs.a[static_cast<std::size_t>(p ? j : l)], p};
      });
    }
  }
}

TEST_CASE("warp: shuffles of some lanes, or of groups, read lanes of their own mask") {
  for (const Members& members : kAllMembers) {
    Inputs inputs = random_inputs(3, 0);
    inputs.c.fill(31);
    // Each lane asks for the next one of its mask.
    for (U32 lane = 0; lane < 32; ++lane) {
      if (members[lane] == 0) continue;
      const auto group = lanes_of(members[lane]);
      const auto next = std::find_if(group.begin(), group.end(), [&](U32 other) { return other > lane; });
      inputs.b[lane] = next == group.end() ? group[0] : *next;
    }
    check("shfl.sync.idx.b32 %d, %a, %b, %c, %m;", inputs, members,
          [&](U32 lane) { return Lane{inputs.a[inputs.b[lane]]}; });
  }
}

TEST_CASE("warp: a lane may shuffle a register onto itself, and ignore the predicate") {
  Inputs inputs = random_inputs(4, 0);
  check("shfl.sync.bfly.b32 %a, %a, 16, 31, 0xffffffff; mov.b32 %d, %a;", inputs, whole_warp(),
        [&](U32 lane) { return Lane{inputs.a[lane ^ 16u]}; });
  check("shfl.sync.up.b32 %d|_, %a, 1, 0, -1;", inputs, whole_warp(),
        [&](U32 lane) { return Lane{inputs.a[lane == 0 ? 0 : lane - 1]}; });
}

TEST_CASE("warp: vote.all, any, uni and ballot count the lanes of their mask") {
  for (const Members& members : kAllMembers) {
    for (const int pattern : {0, 1, 2, 3}) {
      Inputs inputs = random_inputs(5, 0);
      for (U32 lane = 0; lane < 32; ++lane)
        inputs.a[lane] = pattern == 0              ? 0u
                         : pattern == 1            ? 1u
                         : pattern == 2            ? inputs.a[lane]
                         : lane == 0 || lane == 31 ? 1u
                                                   : 0u;
      for (const bool negated : {false, true}) {
        const auto yes = [&](U32 lane) {
          U32 mask = 0;
          for (const U32 other : lanes_of(members[lane]))
            mask |= ((inputs.a[other] & 1u) != 0) != negated ? 1u << other : 0u;
          return mask;
        };
        const std::string source = negated ? "!%p0" : "%p0";
        check("vote.sync.all.pred %p1, " + source + ", %m;", inputs, members, [&](U32 lane) {
          return Lane{kOff, yes(lane) == members[lane]};
        });
        check("vote.sync.any.pred %p1, " + source + ", %m;", inputs, members, [&](U32 lane) {
          return Lane{kOff, yes(lane) != 0};
        });
        check("vote.sync.uni.pred %p1, " + source + ", %m;", inputs, members, [&](U32 lane) {
          return Lane{kOff, yes(lane) == members[lane] || yes(lane) == 0};
        });
        check("vote.sync.ballot.b32 %d, " + source + ", %m;", inputs, members,
              [&](U32 lane) { return Lane{yes(lane)}; });
      }
    }
  }
}

TEST_CASE("warp: match.any finds the lanes with the same value, match.all whether all have it") {
  for (const Members& members : kAllMembers) {
    for (const U32 values : {1u, 2u, 5u, 0u}) {
      Inputs inputs = random_inputs(6, values);
      if (values == 2) inputs.a[31] = inputs.a[30];
      const auto same32 = [&](U32 x, U32 y) { return inputs.a[x] == inputs.a[y]; };
      const auto same64 = [&](U32 x, U32 y) {
        return inputs.a[x] == inputs.a[y] && inputs.b[x] == inputs.b[y];
      };
      const auto equal = [&](U32 lane, auto same) {
        U32 mask = 0;
        for (const U32 other : lanes_of(members[lane])) mask |= same(lane, other) ? 1u << other : 0u;
        return mask;
      };
      const auto all = [&](U32 lane, auto same) {
        return equal(lane, same) == members[lane] ? Lane{members[lane], true} : Lane{0, false};
      };
      check("match.any.sync.b32 %d, %a, %m;", inputs, members,
            [&](U32 lane) { return Lane{equal(lane, same32)}; });
      check("match.any.sync.b64 %d, %rd0, %m;", inputs, members,
            [&](U32 lane) { return Lane{equal(lane, same64)}; });
      check("match.all.sync.b32 %d|%p1, %a, %m;", inputs, members,
            [&](U32 lane) { return all(lane, same32); });
      check("match.all.sync.b64 %d|%p1, %rd0, %m;", inputs, members,
            [&](U32 lane) { return all(lane, same64); });
      check("match.all.sync.b32 %d, %a, %m;", inputs, members,
            [&](U32 lane) { return Lane{all(lane, same32).d}; });
    }
  }
}

TEST_CASE("warp: redux reduces over the lanes of its mask") {
  using Fold = std::int64_t (*)(std::int64_t, std::int64_t);
  const std::pair<std::string, Fold> forms[] = {
      {"add.u32", [](std::int64_t x, std::int64_t y) { return x + y; }},
      {"add.s32", [](std::int64_t x, std::int64_t y) { return x + y; }},
      {"min.u32", [](std::int64_t x, std::int64_t y) { return std::min(x, y); }},
      {"min.s32", [](std::int64_t x, std::int64_t y) { return std::min(x, y); }},
      {"max.u32", [](std::int64_t x, std::int64_t y) { return std::max(x, y); }},
      {"max.s32", [](std::int64_t x, std::int64_t y) { return std::max(x, y); }},
      {"and.b32", [](std::int64_t x, std::int64_t y) { return x & y; }},
      {"or.b32", [](std::int64_t x, std::int64_t y) { return x | y; }},
      {"xor.b32", [](std::int64_t x, std::int64_t y) { return x ^ y; }}};
  for (const Members& members : kAllMembers) {
    for (const auto& [form, fold] : forms) {
      const Inputs inputs = random_inputs(7, 0);
      const auto value = [&](U32 lane) {
        return form.find(".s32") != std::string::npos
                   ? static_cast<std::int64_t>(static_cast<std::int32_t>(inputs.a[lane]))
                   : std::int64_t{inputs.a[lane]};
      };
      check("redux.sync." + form + " %d, %a, %m;", inputs, members, [&, fold = fold](U32 lane) {
        const auto group = lanes_of(members[lane]);
        std::int64_t result = value(group[0]);
        for (std::size_t i = 1; i < group.size(); ++i) result = fold(result, value(group[i]));
        return Lane{static_cast<U32>(result)};
      });
    }
  }
}

TEST_CASE("warp: elect chooses one lane of the mask and tells all") {
  for (const Members& members : kAllMembers) {
    // Which lane is left to the machine: it is one of the mask, all agree on it, and only it is told so.
    const auto out = results("elect.sync %d|%p1, %m;", Inputs{}, members, true);
    for (U32 lane = 0; lane < 32; ++lane) {
      if (members[lane] == 0) continue;
      const auto leader = static_cast<U32>(out[2 * lane]);
      REQUIRE(leader < 32);
      CHECK(has(members[lane], leader));
      CHECK(out[2 * lane + 1] == (lane == leader ? 1u : 0u));
      for (const U32 other : lanes_of(members[lane])) CHECK(out[2 * other] == leader);
    }
  }
}

TEST_CASE("warp: activemask is the lanes that execute it together") {
  const auto some = results("activemask.b32 %d;", Inputs{}, some_lanes(0x0000ff01u), false);
  for (U32 lane = 0; lane < 32; ++lane)
    CHECK(some[2 * lane] == (has(0x0000ff01u, lane) ? 0x0000ff01u : kOff));
  Inputs thirds;
  for (U32 lane = 0; lane < 32; lane += 3) thirds.a[lane] = 1;
  const auto guarded = results("@%p0 activemask.b32 %d;", thirds, whole_warp(), false);
  for (U32 lane = 0; lane < 32; ++lane) CHECK(guarded[2 * lane] == (lane % 3 == 0 ? 0x49249249u : kOff));
}

TEST_CASE("warp: a shuffle whose lanes never come is reported, and the others go on") {
  Source source;
  source.body =
      "setp.lt.u32 %p0, %lane, 16; mov.u32 %r0, 7; @!%p0 bra OTHER; shfl.sync.bfly.b32 %r0, %lane, 1, 31, "
      "-1; bra END;\n"
      "OTHER: vote.sync.ballot.b32 %r0, %p0, -1;\nEND: cvt.u64.u32 %rd0, %r0; st.global.b64 [%mine], %rd0;";
  const Result result = run(source, {0});
  CHECK(result.error == 0);
  CHECK(result.of(FindingKind::barrier) >= 1);
  CHECK(result.out[3] == 2);
}

TEST_CASE("warp: lanes that have exited need not come") {
  Source source;
  source.body =
      "setp.ge.u32 %p0, %lane, 8; @%p0 exit; shfl.sync.bfly.b32 %r0, %lane, 1, 31, -1; cvt.u64.u32 %rd0, "
      "%r0; st.global.b64 [%mine], %rd0;";
  const Result result = run(source, {0});
  CHECK(result.clean());
  for (U32 lane = 0; lane < 32; ++lane) CHECK(result.out[lane] == (lane < 8 ? lane ^ 1u : 0u));
}

TEST_CASE("warp: a lane outside of its own member mask is reported") {
  Source source;
  source.body =
      "setp.lt.u32 %p0, %lane, 32; vote.sync.ballot.b32 %r0, %p0, 0x7fffffff; cvt.u64.u32 %rd0, %r0; "
      "st.global.b64 [%mine], %rd0;";
  CHECK(run(source, {0}).of(FindingKind::barrier) == 1);
}
