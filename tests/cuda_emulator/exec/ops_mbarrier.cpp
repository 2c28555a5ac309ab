// mbarrier, cp.async.mbarrier.arrive and cp.async.bulk: barriers in shared memory that count arrivals and
// bytes.
//
// The 64 bits of an mbarrier are opaque to programs. Here: bits 0-19 arrivals expected per phase, 20-39
// arrivals still missing, 40-61 bytes still missing (biased), 63 the parity of the phase that is going on.
#include <algorithm>

#include "check/race.h"
#include "exec/async.h"
#include "exec/lanes.h"
#include "exec/memory.h"
#include "exec/schedule.h"

namespace emulator {
namespace {

using ptx::Type;

constexpr std::uint64_t kCountMask = (1u << 20) - 1, kBytesMask = (1u << 22) - 1;
constexpr std::int64_t kBytesBias = 1 << 21;

struct State {
  std::uint32_t expected, missing;
  std::int64_t bytes;
  bool parity;
};

State unpack(std::uint64_t word) {
  return {static_cast<std::uint32_t>(word & kCountMask), static_cast<std::uint32_t>(word >> 20 & kCountMask),
          static_cast<std::int64_t>(word >> 40 & kBytesMask) - kBytesBias, (word >> 63) != 0};
}

std::uint64_t pack(const State& s) {
  return s.expected | static_cast<std::uint64_t>(s.missing) << 20 |
         static_cast<std::uint64_t>(s.bytes + kBytesBias) << 40 | static_cast<std::uint64_t>(s.parity) << 63;
}

void complete_phase(State& s) {
  if (s.missing != 0 || s.bytes != 0) return;
  s.parity = !s.parity;
  s.missing = s.expected;
}

std::uint32_t barrier_at(const Warp& warp, const Ins& ins, int lane) {
  const std::uint64_t base = (ins.aux2 & kWideAddress) != 0 ? warp.lanes<std::uint64_t>(ins.a)[lane]
                                                            : warp.lanes<std::uint32_t>(ins.a)[lane];
  std::uint64_t address = base + static_cast<std::uint64_t>(ins.imm);
  if (static_cast<Window>(ins.aux) == Window::generic)
    address = shared_offset(const_cast<Warp&>(warp), lane, address);
  return static_cast<std::uint32_t>(address);
}

std::uint64_t& word_at(Warp& warp, int lane, std::uint32_t offset, bool init = false) {
  if (offset % 8 != 0)
    report(warp, FindingKind::misaligned, lane, offset, "an mbarrier at an address that is no multiple of 8",
           716);
  return *reinterpret_cast<std::uint64_t*>(shared_at(warp, lane, offset, 8, init));
}

void arrive(Warp& warp, int lane, std::uint64_t& word, std::uint32_t count) {
  State s = unpack(word);
  if (count > s.missing) {
    report(warp, FindingKind::barrier, lane, 0,
           "more arrivals at the mbarrier than the " + std::to_string(s.expected) + " that it expects");
    count = s.missing;
  }
  s.missing -= count;
  complete_phase(s);
  word = pack(s);
}

// Everything that was to arrive at this mbarrier does so now.
void deliver(Warp& warp, std::uint32_t offset) {
  auto& pending = warp.block->pending_arrivals;
  for (std::size_t i = 0; i < pending.size();) {
    if (pending[i].barrier != offset) {
      ++i;
      continue;
    }
    const PendingArrival arrival = std::move(pending[i]);
    pending.erase(pending.begin() + static_cast<std::ptrdiff_t>(i));
    for (const AsyncCopy& copy : arrival.copies) land(*arrival.warp, copy, copy.lanes);
    std::uint64_t& word = word_at(warp, arrival.lane, offset);
    if (warp.race != nullptr) warp.race->mbarrier_arrive(*arrival.warp, offset);
    if (arrival.arrives) {
      arrive(warp, arrival.lane, word, 1);
    } else {
      std::memcpy(&warp.block->shared[arrival.shared], arrival.data.data(), arrival.data.size());
      std::memset(&warp.block->shared_shadow[arrival.shared / 4], 0x0f, arrival.data.size() / 4);
      State s = unpack(word);
      s.bytes -= static_cast<std::int64_t>(arrival.data.size());
      complete_phase(s);
      word = pack(s);
    }
  }
}

void init(Warp& warp, const Ins& ins, Mask active) {
  each_lane(active, [&](int lane) {
    const std::uint32_t count = warp.lanes<std::uint32_t>(ins.b)[lane];
    if (count == 0 || count > kCountMask)
      report(warp, FindingKind::invalid_operation, lane, 0,
             "an mbarrier for " + std::to_string(count) + " arrivals", 719);
    word_at(warp, lane, barrier_at(warp, ins, lane), true) = pack({count, count, 0, false});
  });
}

void invalidate(Warp& warp, const Ins& ins, Mask active) {
  each_lane(active, [&](int lane) {
    const std::uint32_t offset = barrier_at(warp, ins, lane);
    word_at(warp, lane, offset);
    std::memset(&warp.block->shared_shadow[offset / 4], 0, 2);
  });
}

enum ArriveForm : std::uint32_t { kExpectTx = 1, kDrop = 2, kHasCount = 4, kOnlyExpect = 8 };

void arrive_form(Warp& warp, const Ins& ins, Mask active) {
  each_lane(active, [&](int lane) {
    const std::uint32_t offset = barrier_at(warp, ins, lane);
    std::uint64_t& word = word_at(warp, lane, offset);
    if (ins.d != kNoSlot) warp.lanes<std::uint64_t>(ins.d)[lane] = word;
    if (warp.race != nullptr) warp.race->mbarrier_arrive(warp, offset);
    const std::uint32_t value = ins.b != kNoSlot ? warp.lanes<std::uint32_t>(ins.b)[lane] : 1;
    if ((ins.extra & (kExpectTx | kOnlyExpect)) != 0) {
      State s = unpack(word);
      s.bytes += value;
      word = pack(s);
      if ((ins.extra & kOnlyExpect) != 0) return;
    }
    const std::uint32_t count = (ins.extra & kHasCount) != 0 ? value : 1;
    if ((ins.extra & kDrop) != 0) {
      State s = unpack(word);
      s.expected -= std::min(s.expected, count);
      word = pack(s);
    }
    arrive(warp, lane, word, count);
  });
}

void complete_tx(Warp& warp, const Ins& ins, Mask active) {
  each_lane(active, [&](int lane) {
    std::uint64_t& word = word_at(warp, lane, barrier_at(warp, ins, lane));
    State s = unpack(word);
    s.bytes -= warp.lanes<std::uint32_t>(ins.b)[lane];
    complete_phase(s);
    word = pack(s);
  });
}

// test_wait and try_wait: by the state that an arrival returned, or by the parity of the phase.
void test_wait(Warp& warp, const Ins& ins, Mask active) {
  Mask done = 0;
  each_lane(active, [&](int lane) {
    const std::uint32_t offset = barrier_at(warp, ins, lane);
    deliver(warp, offset);
    const State now = unpack(word_at(warp, lane, offset));
    const bool phase = ins.extra != 0 ? (warp.lanes<std::uint32_t>(ins.b)[lane] & 1) != 0
                                      : unpack(warp.lanes<std::uint64_t>(ins.b)[lane]).parity;
    const bool complete = now.parity != phase;
    done |= static_cast<Mask>(complete) << lane;
    if (complete && warp.race != nullptr) {
      warp.race->mbarrier_wait(warp, offset);
      warp.race->warp_sync(warp, warp.live);  // lanes of one warp order each other through it too
    }
  });
  set_predicate(warp, ins.d, active, done);
  // Whoever waits lets the others run.
  if (done != active && warp.budget > kSpinBudget) warp.budget = kSpinBudget;
}

void pending_count(Warp& warp, const Ins& ins, Mask active) {
  map_lanes(
      active, warp.lanes<std::uint32_t>(ins.d),
      [](std::uint64_t word) { return static_cast<std::uint32_t>(word >> 20 & kCountMask); },
      warp.lanes<std::uint64_t>(ins.a));
}

void take_semantics(Decoder& decoder) {
  decoder.take_one_of({"release", "acquire", "relaxed"});
  decoder.take_one_of({"cta", "cluster"});
}

Window shared_window(Decoder& decoder) {
  const Window window = decode_window(decoder);
  if (window != Window::shared && window != Window::generic) decoder.fail("an mbarrier is in shared memory");
  return window;
}

void address_operand(Decoder& decoder, Ins& ins, std::size_t i, Window window) {
  decode_address(decoder, ins, decoder.operand(i), window);
  ins.aux = static_cast<std::uint16_t>(window);
}

void decode_arrive(Decoder& decoder, Ins& ins, bool drop) {
  if (drop) ins.extra |= kDrop;
  if (decoder.take("expect_tx")) ins.extra |= kExpectTx;
  const bool no_complete = (ins.extra & kExpectTx) == 0 && decoder.take("noComplete");
  take_semantics(decoder);
  const Window window = shared_window(decoder);
  decoder.expect("b64");
  decoder.operand_count(2, 3);
  if (decoder.operand(0).kind != ptx::Operand::Kind::sink) ins.d = decoder.write(0, Type::b64);
  address_operand(decoder, ins, 1, window);
  if (decoder.operands() == 3) {
    ins.b = decoder.read(2, Type::u32);
    if ((ins.extra & kExpectTx) == 0) ins.extra |= kHasCount;
  } else if ((ins.extra & kExpectTx) != 0 || no_complete) {
    decoder.fail("a count is missing");
  }
  ins.run = arrive_form;
}

void decode_tx(Decoder& decoder, Ins& ins, bool expect) {
  decoder.take("relaxed");
  decoder.take_one_of({"cta", "cluster"});
  const Window window = shared_window(decoder);
  decoder.expect("b64");
  decoder.operand_count(2);
  address_operand(decoder, ins, 0, window);
  ins.b = decoder.read(1, Type::u32);
  ins.extra = kOnlyExpect;
  ins.run = expect ? arrive_form : complete_tx;
}

void decode_wait(Decoder& decoder, Ins& ins, bool may_suspend) {
  ins.extra = decoder.take("parity") ? 1 : 0;
  take_semantics(decoder);
  const Window window = shared_window(decoder);
  decoder.expect("b64");
  decoder.operand_count(3, may_suspend ? 4 : 3);
  ins.d = decoder.write_predicate(decoder.operand(0));
  address_operand(decoder, ins, 1, window);
  ins.b = decoder.read(2, ins.extra != 0 ? Type::u32 : Type::b64);
  if (decoder.operands() == 4) decoder.read(3, Type::u32);  // how long to wait at most: any time is allowed
  ins.run = test_wait;
}

void decode_plain(Decoder& decoder, Ins& ins, bool with_count) {
  const Window window = shared_window(decoder);
  decoder.expect("b64");
  decoder.operand_count(with_count ? 2 : 1);
  address_operand(decoder, ins, 0, window);
  if (with_count) ins.b = decoder.read(1, Type::u32);
  ins.run = with_count ? init : invalidate;
}

}  // namespace

void decode_mbarrier(Decoder& decoder, Ins& ins) {
  decoder.instruction_class = Class::barrier;
  switch (decoder.expect_one_of({"init", "inval", "arrive", "arrive_drop", "expect_tx", "complete_tx",
                                 "test_wait", "try_wait", "pending_count"})) {
    case 0:
      return decode_plain(decoder, ins, true);
    case 1:
      return decode_plain(decoder, ins, false);
    case 2:
      return decode_arrive(decoder, ins, false);
    case 3:
      return decode_arrive(decoder, ins, true);
    case 4:
      return decode_tx(decoder, ins, true);
    case 5:
      return decode_tx(decoder, ins, false);
    case 6:
      return decode_wait(decoder, ins, false);
    case 7:
      return decode_wait(decoder, ins, true);
    default:
      decoder.expect("b64");
      decoder.operand_count(2);
      ins.d = decoder.write(0, Type::u32);
      ins.a = decoder.read(1, Type::b64);
      ins.run = pending_count;
  }
}

namespace {

// The thread's copies so far, when they have arrived, count as one arrival.
void copy_arrive(Warp& warp, const Ins& ins, Mask active) {
  each_lane(active, [&](int lane) {
    PendingArrival arrival;
    arrival.barrier = barrier_at(warp, ins, lane);
    arrival.warp = &warp;
    arrival.lane = static_cast<std::uint8_t>(lane);
    arrival.arrives = true;
    const Mask bit = Mask{1} << lane;
    for (const auto& copy : warp.copies) {
      if ((copy->lanes & bit) == 0) continue;
      arrival.copies.push_back(*copy);
      arrival.copies.back().lanes = bit;
      copy->lanes &= ~bit;  // it may still be waited for, but then it has arrived
    }
    if (ins.extra == 0) {
      // Without .noinc the arrival is one more than the mbarrier was made for.
      std::uint64_t& word = word_at(warp, lane, arrival.barrier);
      State s = unpack(word);
      ++s.missing;
      word = pack(s);
    }
    warp.block->pending_arrivals.push_back(std::move(arrival));
  });
}

void bulk_copy(Warp& warp, const Ins& ins, Mask active) {
  const Slot* slots = &warp.frame->program->slots[ins.list];
  each_lane(active, [&](int lane) {
    const bool wide = (ins.aux2 & 2) != 0;
    const std::uint64_t to =
        (wide ? warp.lanes<std::uint64_t>(slots[0])[lane] : warp.lanes<std::uint32_t>(slots[0])[lane]) +
        slots[1];
    const std::uint64_t from = warp.lanes<std::uint64_t>(slots[2])[lane] + slots[3];
    const std::uint32_t bytes = warp.lanes<std::uint32_t>(slots[4])[lane];
    if (bytes % 16 != 0 || to % 16 != 0 || from % 16 != 0)
      report(warp, FindingKind::misaligned, lane, from,
             "a bulk copy whose size or addresses are no multiples of 16", 716);
    PendingArrival arrival;
    arrival.barrier = barrier_at(warp, ins, lane);
    arrival.warp = &warp;
    arrival.lane = static_cast<std::uint8_t>(lane);
    arrival.shared = static_cast<std::uint32_t>(to);
    if (to + bytes > warp.block->shared.size())
      report(warp, FindingKind::out_of_bounds, lane, to,
             "a bulk copy past the end of the block's shared memory", 700);
    const std::uint8_t* source = generic_at(warp, lane, from, bytes, false);
    arrival.data.assign(source, source + bytes);
    if (options().async_check) std::memset(&warp.block->shared_shadow[to / 4], 0, bytes / 4);
    warp.block->pending_arrivals.push_back(std::move(arrival));
  });
}

// From shared to global memory: written at once; the source may not change before the group has been waited
// for, which a poisoned copy would not show better.
void bulk_store(Warp& warp, const Ins& ins, Mask active) {
  const Slot* slots = &warp.frame->program->slots[ins.list];
  each_lane(active, [&](int lane) {
    const bool wide = (ins.aux2 & 2) != 0;
    const std::uint64_t from =
        (wide ? warp.lanes<std::uint64_t>(slots[0])[lane] : warp.lanes<std::uint32_t>(slots[0])[lane]) +
        slots[1];
    const std::uint64_t to = warp.lanes<std::uint64_t>(slots[2])[lane] + slots[3];
    const std::uint32_t bytes = warp.lanes<std::uint32_t>(slots[4])[lane];
    if (bytes % 16 != 0 || to % 16 != 0 || from % 16 != 0)
      report(warp, FindingKind::misaligned, lane, to,
             "a bulk copy whose size or addresses are no multiples of 16", 716);
    const std::uint8_t* source = shared_at(warp, lane, from, bytes, false);
    std::memcpy(generic_at(warp, lane, to, bytes, true), source, bytes);
  });
}

void nothing(Warp&, const Ins&, Mask) {}

void bulk_operands(Decoder& decoder, Ins& ins, std::size_t shared, std::size_t global) {
  const Decoder::Address s = decoder.address(decoder.operand(shared), ptx::Space::shared),
                         g = decoder.address(decoder.operand(global), ptx::Space::global);
  if (!g.wide) decoder.fail("global memory needs a 64-bit address");
  const Slot bytes = decoder.read(2, Type::u32);
  ins.list = decoder.append(s.base);
  decoder.append(static_cast<Slot>(s.offset));
  decoder.append(g.base);
  decoder.append(static_cast<Slot>(g.offset));
  decoder.append(bytes);
  if (s.wide) ins.aux2 |= 2;
}

}  // namespace

void decode_copy_arrive(Decoder& decoder, Ins& ins) {
  decoder.expect("arrive");
  ins.extra = decoder.take("noinc") ? 1 : 0;
  const Window window = shared_window(decoder);
  decoder.expect("b64");
  decoder.operand_count(1);
  address_operand(decoder, ins, 0, window);
  ins.run = copy_arrive;
}

void decode_bulk(Decoder& decoder, Ins& ins) {
  if (decoder.take_one_of({"commit_group"}) == 0) {
    decoder.operand_count(0);
    ins.run = nothing;
    return;
  }
  if (decoder.take("wait_group")) {
    decoder.take("read");
    decoder.operand_count(1);
    decoder.literal(0, 0, 1 << 20);
    ins.run = nothing;
    return;
  }
  if (decoder.take("prefetch")) decoder.fail("is not supported");
  if (decoder.take("global")) {
    decoder.expect("shared::cta");
    decoder.expect("bulk_group");
    decoder.operand_count(3);
    bulk_operands(decoder, ins, 1, 0);
    ins.run = bulk_store;
    return;
  }
  decoder.expect_one_of({"shared::cluster", "shared::cta"});
  decoder.expect("global");
  decoder.expect("mbarrier::complete_tx::bytes");
  decoder.operand_count(4);
  bulk_operands(decoder, ins, 0, 1);
  const std::uint16_t keep = ins.aux2;
  address_operand(decoder, ins, 3, Window::shared);
  ins.aux2 |= keep;
  ins.run = bulk_copy;
}

}  // namespace emulator
