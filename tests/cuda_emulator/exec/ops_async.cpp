// cp.async and its groups: copies from global to shared memory that arrive as late as the rules allow.
//
// A copy is read from global memory when it is issued, but written to shared memory only when its thread
// waits for it. Until then the destination counts as unwritten, so that a read before the wait finds poison
// and is reported.
#include "check/race.h"
#include "count/counters.h"
#include "exec/async.h"
#include "exec/lanes.h"
#include "exec/memory.h"

namespace emulator {
namespace {

using ptx::Type;

// The write may happen at any time from the issue on: the race check sees it now, and once more with its
// value when it lands.
void observe_copy(Warp& warp, Access::Where where, Access::Kind kind, std::uint32_t bytes, Mask lanes,
                  const std::uint64_t* address) {
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

// Calls f with a constant of the size, so that copies become single instructions.
template <class F>
void with_size(std::uint32_t bytes, F&& f) {
  if (bytes == 16)
    f(std::integral_constant<std::size_t, 16>{});
  else if (bytes == 8)
    f(std::integral_constant<std::size_t, 8>{});
  else
    f(std::integral_constant<std::size_t, 4>{});
}

// Source size, and what kind of fourth operand says it (Ins::aux2).
constexpr std::uint16_t kWideDestination = 1, kHasSize = 2, kHasIgnore = 4;

std::uint32_t source_bytes(Warp& warp, const Ins& ins, int lane, std::uint64_t from) {
  const Slot* slots = &warp.frame->program->slots[ins.list];
  const std::uint32_t bytes = ins.aux;
  if ((ins.aux2 & kHasSize) != 0) {
    const std::uint32_t wanted = warp.lanes<std::uint32_t>(slots[0])[lane];
    if (wanted > bytes)
      report(
          warp, FindingKind::invalid_operation, lane, from,
          "the source size " + std::to_string(wanted) + " of a copy of " + std::to_string(bytes) + " bytes",
          719);
    return wanted;
  }
  const bool ignored =
      (ins.aux2 & kHasIgnore) != 0 && ((warp.predicate(slots[1]) ^ slots[2]) >> lane & 1u) != 0;
  return ignored ? 0 : bytes;
}

// A source that is shorter than the copy: byte by byte, the rest stays zero.
void read_part(Warp& warp, int lane, std::uint64_t address, std::uint32_t bytes, std::uint8_t* data) {
  for (std::uint32_t done = 0; done < bytes;) {
    std::uint32_t piece = 16;
    while (piece > bytes - done || ((address + done) & (piece - 1)) != 0) piece /= 2;
    std::memcpy(data + done, generic_at(warp, lane, address + done, piece, false), piece);
    done += piece;
  }
}

void read_whole(Warp& warp, Mask lanes, const std::uint64_t* from, AsyncCopy& copy) {
  if (lanes == 0) return;
  Access access;
  access.bytes = copy.bytes;
  access.active = lanes;
  access.address = from;
  access.asynchronous = true;
  Resolved resolved;
  resolve(warp, access, resolved);
  with_size(copy.bytes, [&](auto size) {
    each_lane(lanes, [&](int lane) {
      std::memcpy(copy.data[lane],
                  resolved.contiguous != nullptr
                      ? resolved.contiguous + static_cast<std::size_t>(lane) * size()
                      : resolved.pointer[lane],
                  size());
    });
  });
}

void check_destination(Warp& warp, const Ins& ins, int lane, std::uint64_t to) {
  if ((to & (ins.aux - 1u)) != 0)
    report(warp, FindingKind::misaligned, lane, to,
           "an asynchronous copy of " + std::to_string(ins.aux) +
               " bytes to an address that is no multiple of that",
           716);
  if (to + ins.aux > warp.block->shared.size())
    report(warp, FindingKind::out_of_bounds, lane, to,
           "an asynchronous copy past the end of the block's shared memory", 700);
}

AsyncCopy& new_copy(Warp& warp) {
  if (warp.spare_copies.empty()) warp.spare_copies.push_back(std::make_unique<AsyncCopy>());
  warp.copies.push_back(std::move(warp.spare_copies.back()));
  warp.spare_copies.pop_back();
  return *warp.copies.back();
}

void drop_landed(Warp& warp) {
  auto& copies = warp.copies;
  std::size_t kept = 0;
  for (auto& copy : copies) {
    if (copy->lanes == 0)
      warp.spare_copies.push_back(std::move(copy));
    else
      copies[kept++] = std::move(copy);
  }
  copies.resize(kept);
}

void mark_unwritten(Warp& warp, const AsyncCopy& copy, Mask lanes) {
  std::uint8_t* shadow = warp.block->shared_shadow.data();
  with_size(copy.bytes, [&](auto size) {
    each_lane(lanes, [&](int lane) { std::memset(shadow + copy.shared[lane] / 4, 0, size() / 4); });
  });
}

void cp_async(Warp& warp, const Ins& ins, Mask active) {
  AsyncCopy& copy = new_copy(warp);
  copy.bytes = ins.aux;
  copy.lanes = active;
  std::uint64_t from[kLanes];
  const auto offset =
      static_cast<std::uint64_t>(static_cast<std::int64_t>(static_cast<std::int32_t>(ins.extra)));
  const auto* source = warp.lanes<std::uint64_t>(ins.a);
  Mask whole = 0, some = 0;
  const std::uint64_t low_bits = ins.aux - 1u;
  each_lane(active, [&](int lane) {
    copy.shared[lane] = ((ins.aux2 & kWideDestination) != 0 ? warp.lanes<std::uint64_t>(ins.d)[lane]
                                                            : warp.lanes<std::uint32_t>(ins.d)[lane]) +
                        offset;
    copy.group[lane] = warp.committed_groups[static_cast<std::size_t>(lane)];
    from[lane] = source[lane] + static_cast<std::uint64_t>(ins.imm);
    check_destination(warp, ins, lane, copy.shared[lane]);
    const std::uint32_t wanted = source_bytes(warp, ins, lane, from[lane]);
    if (wanted != 0 && (from[lane] & low_bits) != 0)
      report(warp, FindingKind::misaligned, lane, from[lane],
             "an asynchronous copy of " + std::to_string(ins.aux) +
                 " bytes from an address that is no multiple of that",
             716);
    whole |= static_cast<Mask>(wanted == ins.aux) << lane;
    some |= static_cast<Mask>(wanted != 0) << lane;
    if (wanted == ins.aux) return;
    std::memset(copy.data[lane], 0, 16);
    read_part(warp, lane, from[lane], wanted, copy.data[lane]);
  });
  read_whole(warp, whole, from, copy);
  observe_copy(warp, Access::Where::global, Access::Kind::read, copy.bytes, some, from);
  observe_copy(warp, Access::Where::shared, Access::Kind::write, copy.bytes, active, copy.shared);
  if (options().async_check) {
    mark_unwritten(warp, copy, active);
  } else {
    land(warp, copy, active);
    copy.lanes = 0;
    drop_landed(warp);
  }
}

void commit(Warp& warp, const Ins&, Mask active) {
  each_lane(active, [&](int lane) { ++warp.committed_groups[static_cast<std::size_t>(lane)]; });
}

// All but the newest `keep` groups of each lane arrive.
void wait_for(Warp& warp, Mask active, std::uint32_t keep) {
  bool landed = false;
  for (const auto& copy : warp.copies) {
    Mask due = 0;
    each_lane(copy->lanes & active, [&](int lane) {
      due |=
          static_cast<Mask>(copy->group[lane] + keep < warp.committed_groups[static_cast<std::size_t>(lane)])
          << lane;
    });
    if (due == 0) continue;
    land(warp, *copy, due);
    copy->lanes &= ~due;
    landed = true;
  }
  if (!landed) return;
  drop_landed(warp);
  // A copy still under way to bytes where one has just landed may overwrite them at any time.
  for (const auto& copy : warp.copies) mark_unwritten(warp, *copy, copy->lanes);
}

void wait_group(Warp& warp, const Ins& ins, Mask active) {
  wait_for(warp, active, static_cast<std::uint32_t>(ins.imm));
}

void wait_all(Warp& warp, const Ins& ins, Mask active) {
  commit(warp, ins, active);
  wait_for(warp, active, 0);
}

void decode_copy(Decoder& decoder, Ins& ins, bool cg) {
  decoder.expect_one_of({"shared", "shared::cta", "shared::cluster"});
  decoder.expect("global");
  decoder.take("L2::cache_hint");
  decoder.take_one_of({"L2::64B", "L2::128B", "L2::256B"});
  decoder.operand_count(3, 4);
  const std::int64_t bytes = decoder.literal(2, 4, 16);
  if (cg ? bytes != 16 : bytes != 4 && bytes != 8 && bytes != 16)
    decoder.fail("copies of " + std::to_string(bytes) + " bytes do not exist");
  const Decoder::Address to = decoder.address(decoder.operand(0), ptx::Space::shared),
                         from = decoder.address(decoder.operand(1), ptx::Space::global);
  if (!from.wide) decoder.fail("the source needs a 64-bit address");
  ins.d = to.base;
  ins.extra = static_cast<std::uint32_t>(to.offset);
  ins.a = from.base;
  ins.imm = from.offset;
  ins.aux = static_cast<std::uint16_t>(bytes);
  ins.aux2 = to.wide ? kWideDestination : std::uint16_t{0};
  Slot size = kNoSlot, ignore = kNoSlot;
  Mask flip = 0;
  if (decoder.operands() == 4) {
    const ptx::Operand& last = decoder.operand(3);
    const bool predicate =
        last.kind == ptx::Operand::Kind::reg &&
        decoder.function.registers[static_cast<std::size_t>(last.index)].type == Type::pred;
    if (predicate)
      ignore = decoder.read_predicate(last, &flip), ins.aux2 |= kHasIgnore;
    else
      size = decoder.read(3, Type::u32), ins.aux2 |= kHasSize;
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
    case 0:
      return decode_copy(decoder, ins, false);
    case 1:
      return decode_copy(decoder, ins, true);
    case 2:
      decoder.operand_count(0);
      ins.run = commit;
      return;
    case 3:
      decoder.operand_count(1);
      ins.imm = decoder.literal(0, 0, 1 << 20);
      ins.run = wait_group;
      return;
    default:
      decoder.operand_count(0);
      ins.run = wait_all;
      return;
  }
}

constexpr std::pair<std::string_view, Decode> kOpcodes[] = {{"cp", decode_cp}, {"mbarrier", decode_mbarrier}};

}  // namespace

Opcodes async_opcodes() { return kOpcodes; }

void land(Warp& warp, const AsyncCopy& copy, Mask lanes) {
  if (lanes == 0) return;
  Block& block = *warp.block;
  if (warp.race != nullptr) {
    const std::uint8_t *value[kLanes], *memory[kLanes];
    each_lane(lanes, [&](int lane) {
      value[lane] = copy.data[lane];
      memory[lane] = &block.shared[copy.shared[lane]];
    });
    Access access;
    access.kind = Access::Kind::write;
    access.where = Access::Where::shared;
    access.asynchronous = true;
    access.bytes = copy.bytes;
    access.active = lanes;
    access.address = copy.shared;
    access.value = value;
    access.memory = memory;
    warp.race->access(warp, access);
  }
  with_size(copy.bytes, [&](auto size) {
    each_lane(lanes, [&](int lane) {
      std::memcpy(&block.shared[copy.shared[lane]], copy.data[lane], size());
      std::memset(&block.shared_shadow[copy.shared[lane] / 4], 0x0f, size() / 4);
    });
  });
}

}  // namespace emulator
