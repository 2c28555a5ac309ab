// shfl, vote, match, redux, activemask, elect: lanes of a warp that talk to each other.
#include <algorithm>

#include "exec/decoder.h"
#include "exec/lanes.h"

namespace emulator {
namespace {

using ptx::Type;
using U32 = std::uint32_t;

enum Shuffle : std::uint16_t { up, down, butterfly, index };

// PTX ISA, shfl.sync: the segment of a lane and how far it may read are packed in c.
bool source_lane(Shuffle mode, U32 lane, U32 b, U32 c, U32& source) {
  const U32 clamp = c & 31, segment = c >> 8 & 31;
  const U32 highest = (lane & segment) | (clamp & ~segment), lowest = lane & segment;
  const int offset = static_cast<int>(b & 31);
  int j;
  bool inside;
  switch (mode) {
    case up:
      j = static_cast<int>(lane) - offset;
      inside = j >= static_cast<int>(highest);
      break;
    case down:
      j = static_cast<int>(lane) + offset;
      inside = j <= static_cast<int>(highest);
      break;
    case butterfly:
      j = static_cast<int>(lane) ^ offset;
      inside = j <= static_cast<int>(highest);
      break;
    default:
      j = static_cast<int>(lowest | (static_cast<U32>(offset) & ~segment));
      inside = j <= static_cast<int>(highest);
      break;
  }
  source = inside ? static_cast<U32>(j) : lane;
  return inside;
}

void shfl(Warp& warp, const Ins& ins, Mask active) {
  const Mask ready = ready_lanes(warp, ins, active, warp.lanes<U32>(ins.c));
  if (ready == 0) return;
  const Slot* slots = &warp.frame->program->slots[ins.list];
  const U32 *b = warp.lanes<U32>(slots[0]), *c = warp.lanes<U32>(slots[1]), *members = warp.lanes<U32>(ins.c);
  U32 from[kLanes];
  std::memcpy(from, warp.lanes<U32>(ins.a), sizeof from);
  U32* d = warp.lanes<U32>(ins.d);
  Mask inside = 0;
  U32 results[kLanes];
  each_lane(ready, [&](int lane) {
    U32 source = 0;
    inside |= static_cast<Mask>(source_lane(static_cast<Shuffle>(ins.aux), static_cast<U32>(lane), b[lane],
                                            c[lane], source))
              << lane;
    // What a lane outside of the member mask, or one that is not here, would give is undefined.
    const bool there = (ready >> source & 1u) != 0 && (members[lane] >> source & 1u) != 0;
    results[lane] = there ? from[source] : ~0u;
  });
  each_lane(ready, [&](int lane) { d[lane] = results[lane]; });
  set_predicate(warp, ins.e, ready, inside);
}

void decode_shfl(Decoder& decoder, Ins& ins) {
  decoder.expect("sync");
  ins.aux = static_cast<std::uint16_t>(decoder.expect_one_of({"up", "down", "bfly", "idx"}));
  decoder.expect("b32");
  decoder.instruction_class = Class::shuffle;
  decoder.operand_count(5);
  const ptx::Operand& d = decoder.operand(0);
  const bool pair = d.kind == ptx::Operand::Kind::pair;
  ins.d = decoder.write(pair ? d.elements.at(0) : d, 4);
  if (pair) ins.e = decoder.write_predicate(d.elements.at(1));
  ins.a = decoder.read(1, Type::b32);
  const Slot b = decoder.read(2, Type::b32), c = decoder.read(3, Type::b32);
  ins.list = decoder.append(b);
  decoder.append(c);
  ins.c = decoder.read(4, Type::b32);
  ins.run = shfl;
}

// Calls f(members that are here, the lanes that named them) for each different member mask among the lanes.
template <class F>
void each_partition(Mask ready, const U32* members, F&& f) {
  while (ready != 0) {
    const U32 mask = members[__builtin_ctz(ready)];
    Mask same = 0;
    each_lane(ready, [&](int lane) { same |= static_cast<Mask>(members[lane] == mask) << lane; });
    f(same);
    ready &= ~same;
  }
}

enum Vote : std::uint16_t { all, any, uniform, ballot };

void vote(Warp& warp, const Ins& ins, Mask active) {
  const U32* members = warp.lanes<U32>(ins.b);
  const Mask ready = ready_lanes(warp, ins, active, members);
  const Mask value = warp.predicate(ins.a) ^ ins.extra;
  each_partition(ready, members, [&](Mask lanes) {
    const Mask yes = value & lanes;
    if (ins.aux == ballot) {
      each_lane(lanes, [&](int lane) { warp.lanes<U32>(ins.d)[lane] = yes; });
      return;
    }
    const bool result = ins.aux == all ? yes == lanes : ins.aux == any ? yes != 0 : yes == 0 || yes == lanes;
    set_predicate(warp, ins.d, lanes, result ? ~0u : 0u);
  });
}

void decode_vote(Decoder& decoder, Ins& ins) {
  // ptxas takes the mode before .sync too, and widely used code writes it so.
  const bool sync = decoder.take("sync");
  ins.aux = static_cast<std::uint16_t>(decoder.expect_one_of({"all", "any", "uni", "ballot"}));
  if (!sync) decoder.expect("sync");
  decoder.expect(ins.aux == ballot ? "b32" : "pred");
  decoder.instruction_class = Class::vote;
  decoder.operand_count(3);
  ins.d = ins.aux == ballot ? decoder.write(0, Type::b32) : decoder.write_predicate(decoder.operand(0));
  ins.a = decoder.read_predicate(decoder.operand(1), &ins.extra);
  ins.b = decoder.read(2, Type::b32);
  ins.run = vote;
}

template <class T, bool All>
void match(Warp& warp, const Ins& ins, Mask active) {
  const U32* members = warp.lanes<U32>(ins.b);
  const Mask ready = ready_lanes(warp, ins, active, members);
  T value[kLanes];
  std::memcpy(value, warp.lanes<T>(ins.a), sizeof value);
  U32* d = warp.lanes<U32>(ins.d);
  each_partition(ready, members, [&](Mask lanes) {
    Mask equal[kLanes] = {};
    each_lane(lanes, [&](int lane) {
      each_lane(lanes,
                [&](int other) { equal[lane] |= static_cast<Mask>(value[other] == value[lane]) << other; });
    });
    const bool same = equal[__builtin_ctz(lanes)] == lanes;
    each_lane(lanes, [&](int lane) { d[lane] = !All ? equal[lane] : same ? lanes : 0; });
    if (All) set_predicate(warp, ins.e, lanes, same ? ~0u : 0u);
  });
}

void decode_match(Decoder& decoder, Ins& ins) {
  const bool is_all = decoder.expect_one_of({"any", "all"}) == 1;
  decoder.expect("sync");
  const bool wide = decoder.expect_one_of({"b32", "b64"}) == 1;
  decoder.instruction_class = Class::vote;
  decoder.operand_count(3);
  const ptx::Operand& d = decoder.operand(0);
  const bool pair = d.kind == ptx::Operand::Kind::pair;
  if (pair && !is_all) decoder.fail("match.any has no second destination");
  ins.d = decoder.write(pair ? d.elements.at(0) : d, 4);
  if (pair) ins.e = decoder.write_predicate(d.elements.at(1));
  ins.a = decoder.read(1, wide ? Type::b64 : Type::b32);
  ins.b = decoder.read(2, Type::b32);
  ins.run = wide ? (is_all ? &match<std::uint64_t, true> : &match<std::uint64_t, false>)
                 : (is_all ? &match<U32, true> : &match<U32, false>);
}

enum Reduction : std::uint16_t { sum, minimum, maximum, bit_and, bit_or, bit_xor };

template <class T>
void redux(Warp& warp, const Ins& ins, Mask active) {
  const U32* members = warp.lanes<U32>(ins.b);
  const Mask ready = ready_lanes(warp, ins, active, members);
  const T* a = warp.lanes<T>(ins.a);
  each_partition(ready, members, [&](Mask lanes) {
    T result = a[__builtin_ctz(lanes)];
    each_lane(lanes & (lanes - 1), [&](int lane) {
      const T value = a[lane];
      switch (ins.aux) {
        case sum:
          result = static_cast<T>(static_cast<U32>(result) + static_cast<U32>(value));
          break;
        case minimum:
          result = std::min(result, value);
          break;
        case maximum:
          result = std::max(result, value);
          break;
        case bit_and:
          result = static_cast<T>(result & value);
          break;
        case bit_or:
          result = static_cast<T>(result | value);
          break;
        default:
          result = static_cast<T>(result ^ value);
          break;
      }
    });
    each_lane(lanes, [&](int lane) { warp.lanes<T>(ins.d)[lane] = result; });
  });
}

void decode_redux(Decoder& decoder, Ins& ins) {
  decoder.expect("sync");
  ins.aux = static_cast<std::uint16_t>(decoder.expect_one_of({"add", "min", "max", "and", "or", "xor"}));
  const Type type = decoder.type();
  if (ins.aux >= bit_and ? type != Type::b32 : type != Type::u32 && type != Type::s32)
    decoder.fail(std::string("not defined for .") + ptx::name_of(type));
  decoder.instruction_class = Class::vote;
  decoder.operand_count(3);
  ins.d = decoder.write(0, type);
  ins.a = decoder.read(1, type);
  ins.b = decoder.read(2, Type::b32);
  ins.run = type == Type::s32 ? &redux<std::int32_t> : &redux<U32>;
}

void activemask(Warp& warp, const Ins& ins, Mask active) {
  each_lane(active, [&](int lane) { warp.lanes<U32>(ins.d)[lane] = active; });
}

void decode_activemask(Decoder& decoder, Ins& ins) {
  decoder.expect("b32");
  decoder.instruction_class = Class::vote;
  decoder.operand_count(1);
  ins.d = decoder.write(0, Type::b32);
  ins.run = activemask;
}

void elect(Warp& warp, const Ins& ins, Mask active) {
  const U32* members = warp.lanes<U32>(ins.a);
  const Mask ready = ready_lanes(warp, ins, active, members);
  each_partition(ready, members, [&](Mask lanes) {
    const int leader = __builtin_ctz(lanes);
    each_lane(lanes, [&](int lane) { warp.lanes<U32>(ins.d)[lane] = static_cast<U32>(leader); });
    set_predicate(warp, ins.e, lanes, Mask{1} << leader);
  });
}

void decode_elect(Decoder& decoder, Ins& ins) {
  decoder.expect("sync");
  decoder.instruction_class = Class::vote;
  decoder.operand_count(2);
  const ptx::Operand& d = decoder.operand(0);
  if (d.kind != ptx::Operand::Kind::pair) decoder.fail("needs two destinations");
  ins.d = decoder.write(d.elements.at(0), 4);
  ins.e = decoder.write_predicate(d.elements.at(1));
  ins.a = decoder.read(1, Type::b32);
  ins.run = elect;
}

constexpr std::pair<std::string_view, Decode> kOpcodes[] = {{"shfl", decode_shfl},
                                                            {"vote", decode_vote},
                                                            {"match", decode_match},
                                                            {"redux", decode_redux},
                                                            {"activemask", decode_activemask},
                                                            {"elect", decode_elect}};

}  // namespace

Opcodes warp_opcodes() { return kOpcodes; }

}  // namespace emulator
