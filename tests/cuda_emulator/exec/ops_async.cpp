// cp.async and its groups: copies from global to shared memory that arrive as late as the rules allow.
//
// A copy is read from global memory when it is issued, but written to shared memory only when its thread waits for it. Until then the destination counts as
// unwritten, so that a read before the wait finds poison and is reported.
#include "check/race.h"
#include "count/counters.h"
#include "exec/async.h"
#include "exec/lanes.h"
#include "exec/memory.h"

namespace emulator {
namespace {

using ptx::Type;

// The write may happen at any time from the issue on: the race check sees it now, and once more with its value when it lands.
void observe_copy(Warp& warp, Access::Where where, Access::Kind kind, std::uint32_t bytes, Mask lanes, const std::uint64_t* address) {
  if ((warp.counts == nullptr && warp.race == nullptr) || lanes == 0) return;
  Access access;
  access.kind = kind;
  access.where = where;
  access.bytes = bytes;
  access.active = lanes;
  access.address = address;
  access.asynchronous = true;
  if (warp.counts != nullptr) count_access(*warp.counts, access);
  if (warp.race != nullptr) warp.race->access(warp, access);
}

// What a lane copies: aux bytes, of which the first `source` come from global memory and the rest are zero.
void read_source(Warp& warp, int lane, std::uint64_t address, std::uint32_t bytes, AsyncCopy& copy) {
  for (std::uint32_t done = 0; done < bytes;) {
    std::uint32_t piece = 16;
    while (piece > bytes - done || ((address + done) & (piece - 1)) != 0) piece /= 2;
    std::memcpy(&copy.data[done], generic_at(warp, lane, address + done, piece, false), piece);
    done += piece;
  }
}

void forget_destination(Warp& warp, const AsyncCopy& copy) {
  if (!options().async_check) return;
  std::memset(&warp.block->shared_shadow[copy.shared / 4], 0, copy.bytes / 4);
}

void cp_async(Warp& warp, const Ins& ins, Mask active) {
  const Slot* slots = &warp.frame->program->slots[ins.list];
  const auto* destination_wide = (ins.aux2 & 1) != 0 ? warp.lanes<std::uint64_t>(ins.d) : nullptr;
  const auto* destination_narrow = warp.lanes<std::uint32_t>(ins.d);
  const auto* source = warp.lanes<std::uint64_t>(ins.a);
  const std::uint32_t bytes = ins.aux;
  std::uint64_t from[kLanes] = {}, to[kLanes] = {};
  Mask reading = 0;
  each_lane(active, [&](int lane) {
    to[lane] = (destination_wide != nullptr ? destination_wide[lane] : destination_narrow[lane]) + static_cast<std::uint64_t>(static_cast<std::int64_t>(static_cast<std::int32_t>(ins.extra)));
    from[lane] = source[lane] + static_cast<std::uint64_t>(ins.imm);
    std::uint32_t wanted = bytes;
    if ((ins.aux2 & 2) != 0) wanted = warp.lanes<std::uint32_t>(slots[0])[lane];
    if ((ins.aux2 & 4) != 0 && ((warp.predicate(slots[1]) ^ slots[2]) >> lane & 1u) != 0) wanted = 0;
    if (wanted > bytes) report(warp, FindingKind::invalid_operation, lane, from[lane], "the source size " + std::to_string(wanted) + " of a copy of " + std::to_string(bytes) + " bytes", 719);
    if ((from[lane] % bytes != 0 && wanted != 0) || to[lane] % bytes != 0)
      report(warp, FindingKind::misaligned, lane, from[lane] % bytes != 0 ? from[lane] : to[lane], "an asynchronous copy of " + std::to_string(bytes) + " bytes at an address that is no multiple of that", 716);
    AsyncCopy copy;
    copy.shared = static_cast<std::uint32_t>(to[lane]);
    copy.bytes = bytes;
    copy.ins = warp.pc - 1;
    copy.lane = static_cast<std::uint8_t>(lane);
    if (to[lane] + bytes > warp.block->shared.size())
      report(warp, FindingKind::out_of_bounds, lane, to[lane], "an asynchronous copy past the end of the block's shared memory", 700);
    if (wanted != 0) read_source(warp, lane, from[lane], wanted, copy);
    if (wanted != 0) reading |= Mask{1} << lane;
    if (options().async_check) {
      forget_destination(warp, copy);
      warp.uncommitted[static_cast<std::size_t>(lane)].push_back(copy);
    } else {
      land(warp, copy);
    }
  });
  observe_copy(warp, Access::Where::global, Access::Kind::read, bytes, reading, from);
  observe_copy(warp, Access::Where::shared, Access::Kind::write, bytes, active, to);
}

void commit(Warp& warp, const Ins&, Mask active) {
  each_lane(active, [&](int lane) {
    const auto l = static_cast<std::size_t>(lane);
    warp.committed[l].push_back(std::move(warp.uncommitted[l]));
    warp.uncommitted[l].clear();
  });
}

void wait_group(Warp& warp, const Ins& ins, Mask active) {
  const auto keep = static_cast<std::size_t>(ins.imm);
  each_lane(active, [&](int lane) {
    auto& groups = warp.committed[static_cast<std::size_t>(lane)];
    while (groups.size() > keep) {
      for (const AsyncCopy& copy : groups.front()) land(warp, copy);
      groups.erase(groups.begin());
    }
  });
}

void wait_all(Warp& warp, const Ins& ins, Mask active) {
  commit(warp, ins, active);
  Ins all = ins;
  all.imm = 0;
  wait_group(warp, all, active);
}

void decode_copy(Decoder& decoder, Ins& ins, bool cg) {
  decoder.expect_one_of({"shared", "shared::cta", "shared::cluster"});
  decoder.expect("global");
  decoder.take("L2::cache_hint");
  decoder.take_one_of({"L2::64B", "L2::128B", "L2::256B"});
  decoder.operand_count(3, 4);
  const std::int64_t bytes = decoder.literal(2, 4, 16);
  if (cg ? bytes != 16 : bytes != 4 && bytes != 8 && bytes != 16) decoder.fail("copies of " + std::to_string(bytes) + " bytes do not exist");
  const Decoder::Address to = decoder.address(decoder.operand(0), ptx::Space::shared), from = decoder.address(decoder.operand(1), ptx::Space::global);
  if (!from.wide) decoder.fail("the source needs a 64-bit address");
  ins.d = to.base;
  ins.extra = static_cast<std::uint32_t>(to.offset);
  ins.a = from.base;
  ins.imm = from.offset;
  ins.aux = static_cast<std::uint16_t>(bytes);
  ins.aux2 = to.wide ? 1 : 0;
  Slot size = kNoSlot, ignore = kNoSlot;
  Mask flip = 0;
  if (decoder.operands() == 4) {
    const ptx::Operand& last = decoder.operand(3);
    const bool predicate = last.kind == ptx::Operand::Kind::reg && decoder.function.registers[static_cast<std::size_t>(last.index)].type == Type::pred;
    if (predicate) ignore = decoder.read_predicate(last, &flip), ins.aux2 |= 4;
    else size = decoder.read(3, Type::u32), ins.aux2 |= 2;
  }
  ins.list = decoder.append(size);
  decoder.append(ignore);
  decoder.append(flip);
  ins.run = cp_async;
}

void decode_cp(Decoder& decoder, Ins& ins) {
  decoder.expect("async");
  decoder.instruction_class = Class::async_copy;
  if (decoder.take("bulk")) return decode_bulk(decoder, ins);
  if (decoder.take("mbarrier")) return decode_copy_arrive(decoder, ins);
  switch (decoder.expect_one_of({"ca", "cg", "commit_group", "wait_group", "wait_all"})) {
    case 0: return decode_copy(decoder, ins, false);
    case 1: return decode_copy(decoder, ins, true);
    case 2: decoder.operand_count(0); ins.run = commit; return;
    case 3: decoder.operand_count(1); ins.imm = decoder.literal(0, 0, 1 << 20); ins.run = wait_group; return;
    default: decoder.operand_count(0); ins.run = wait_all; return;
  }
}

constexpr std::pair<std::string_view, Decode> kOpcodes[] = {{"cp", decode_cp}, {"mbarrier", decode_mbarrier}};

}  // namespace

Opcodes async_opcodes() { return kOpcodes; }

void land(Warp& warp, const AsyncCopy& copy) {
  Block& block = *warp.block;
  if (warp.race != nullptr) {
    std::uint64_t address[kLanes];
    const std::uint8_t *value[kLanes], *memory[kLanes];
    address[copy.lane] = copy.shared;
    value[copy.lane] = copy.data.data();
    memory[copy.lane] = &block.shared[copy.shared];
    Access access;
    access.kind = Access::Kind::write;
    access.where = Access::Where::shared;
    access.asynchronous = true;
    access.bytes = copy.bytes;
    access.active = Mask{1} << copy.lane;
    access.address = address;
    access.value = value;
    access.memory = memory;
    warp.race->access(warp, access);
  }
  std::memcpy(&block.shared[copy.shared], copy.data.data(), copy.bytes);
  std::memset(&block.shared_shadow[copy.shared / 4], 0x0f, copy.bytes / 4);
}

}  // namespace emulator
