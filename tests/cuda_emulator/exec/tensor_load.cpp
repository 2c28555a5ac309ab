// ldmatrix, stmatrix, movmatrix: 8x8 matrices of 16-bit elements between shared memory and registers.
// Register j of a warp holds matrix j row by row, four lanes to a row of 16 bytes, so a row of memory is a
// piece of a register.
#include <algorithm>

#include "check/race.h"
#include "count/counters.h"
#include "exec/memory.h"
#include "exec/tensor_mma.h"

namespace emulator::tensor {
namespace {

constexpr int kRowBytes = 16;

// Ins::aux is the number of matrices, Ins::extra holds these bits, Ins::list the registers.
constexpr std::uint32_t kTransposed = 1, kGeneric = 2;

/// The rows' addresses: lane 8j + r has that of row r of matrix j; what the other lanes have does not matter.
Access rows_of(Warp& warp, const Ins& ins, Mask lanes, Access::Kind kind, std::uint64_t* address) {
  Access access;
  access.kind = kind;
  access.where = Access::Where::shared;
  access.bytes = kRowBytes;
  access.active = ins.aux == 4 ? lanes : lanes & ((1u << (8 * ins.aux)) - 1);
  access.address = address;
  lane_addresses(warp, ins, address);
  if ((ins.extra & kGeneric) != 0)
    each_lane(access.active, [&](int lane) { address[lane] = shared_offset(warp, lane, address[lane]); });
  return access;
}

/// Counts phases of eight rows instead of requests of the lanes.
void tell_rows(Warp& warp, const Access& access) {
  if (warp.race != nullptr) warp.race->access(warp, access);
  if (warp.counts == nullptr) return;
  std::uint32_t offsets[kLanes];
  for (int lane = 0; lane < kLanes; ++lane)
    offsets[lane] = static_cast<std::uint32_t>((access.active >> lane & 1u) != 0 ? access.address[lane] : 0);
  count_matrix_rows(*warp.counts, offsets, (32 - __builtin_clz(access.active) + 7) / 8,
                    access.kind == Access::Kind::write);
}

void copy_lanes(const Warp& warp, Slot slot, const void* block, Mask lanes) {
  auto* to = warp.lanes<std::uint32_t>(slot);
  std::uint32_t values[kLanes];
  std::memcpy(values, block, sizeof values);
  if (lanes == ~0u)
    std::memcpy(to, values, sizeof values);
  else
    each_lane(lanes, [&](int lane) { to[lane] = values[lane]; });
}

void run_ldmatrix(Warp& warp, const Ins& ins, Mask active) {
  const Mask lanes = whole_warp(warp, ins, active);
  if (lanes == 0) return;
  std::uint64_t address[kLanes];
  std::uint8_t rows[kLanes][kRowBytes];
  const Access access = rows_of(warp, ins, lanes, Access::Kind::read, address);
  if (access.active != 0) read_rows(warp, access, tell_rows, rows);
  const Slot* slots = &warp.frame->program->slots[ins.list];
  for (int matrix = 0; matrix < ins.aux; ++matrix) {
    std::uint16_t block[64], turned[64];
    std::memcpy(block, rows[8 * matrix], sizeof block);
    if ((ins.extra & kTransposed) != 0) transpose_8x8(block, turned);
    copy_lanes(warp, slots[matrix], (ins.extra & kTransposed) != 0 ? turned : block, lanes);
  }
}

void run_stmatrix(Warp& warp, const Ins& ins, Mask active) {
  const Mask lanes = whole_warp(warp, ins, active);
  if (lanes == 0) return;
  std::uint64_t address[kLanes];
  std::uint8_t rows[kLanes][kRowBytes];
  const Slot* slots = &warp.frame->program->slots[ins.list];
  for (int matrix = 0; matrix < ins.aux; ++matrix) {
    std::uint16_t block[64];
    std::memcpy(block, warp.lanes<std::uint8_t>(slots[matrix]), sizeof block);
    if ((ins.extra & kTransposed) != 0)
      transpose_8x8(block, reinterpret_cast<std::uint16_t*>(rows[8 * matrix]));
    else
      std::memcpy(rows[8 * matrix], block, sizeof block);
  }
  const Access access = rows_of(warp, ins, lanes, Access::Kind::write, address);
  if (access.active != 0) write_rows(warp, access, tell_rows, rows);
}

void run_movmatrix(Warp& warp, const Ins& ins, Mask active) {
  const Mask lanes = whole_warp(warp, ins, active);
  if (lanes == 0) return;
  std::uint16_t block[64], turned[64];
  std::memcpy(block, warp.lanes<std::uint8_t>(ins.a), sizeof block);
  transpose_8x8(block, turned);
  copy_lanes(warp, ins.d, turned, lanes);
}

/// `.sync.aligned.m8n8.num{.trans}{.ss}.b16`; PTX takes shape, count and .trans in any order, and programs
/// use several.
void decode_modifiers(Decoder& decoder, Ins& ins) {
  decoder.expect("sync");
  decoder.expect("aligned");
  bool shape = false, transposed = false;
  for (;;) {
    const int word = decoder.take_one_of({"m8n8", "trans", "x1", "x2", "x4"});
    if (word < 0) break;
    if (word == 0 ? shape : word == 1 ? transposed : ins.aux != 0) decoder.fail("a modifier is given twice");
    shape = shape || word == 0;
    transposed = transposed || word == 1;
    if (word > 1) ins.aux = static_cast<std::uint16_t>(1 << (word - 2));
  }
  if (!shape || ins.aux == 0) decoder.fail("expected .m8n8 and one of .x1, .x2, .x4");
  const Window window = decode_window(decoder);
  if (window != Window::shared && window != Window::generic)
    decoder.fail("the matrices lie in shared memory");
  decoder.expect("b16");
  ins.extra = (transposed ? kTransposed : 0) | (window == Window::generic ? kGeneric : 0);
  decoder.operand_count(2);
  decode_address(decoder, ins, decoder.operand(decoder.source.opcode == "ldmatrix" ? 1 : 0), window);
  decoder.instruction_class = Class::matrix_load;
}

}  // namespace

void read_rows(Warp& warp, const Access& access, Tell tell, std::uint8_t (*rows)[16]) {
  Resolved resolved;
  resolve(warp, access, resolved);
  if (warp.counts != nullptr || warp.race != nullptr) tell(warp, access);
  if (resolved.contiguous != nullptr && access.bytes == 16) {
    std::memcpy(rows, resolved.contiguous, sizeof(std::uint8_t[kLanes][16]));
    return;
  }
  for (int lane = 0; lane < kLanes; ++lane) {
    if ((access.active >> lane & 1u) == 0)
      std::memset(rows[lane], 0xff, 16);
    else
      std::memcpy(rows[lane],
                  resolved.contiguous != nullptr
                      ? resolved.contiguous + static_cast<std::uint32_t>(lane) * access.bytes
                      : resolved.pointer[lane],
                  access.bytes);
  }
}

void write_rows(Warp& warp, Access access, Tell tell, const std::uint8_t (*rows)[16]) {
  Resolved resolved;
  resolve(warp, access, resolved);
  const std::uint8_t *value[kLanes], *memory[kLanes];
  each_lane(access.active, [&](int lane) {
    value[lane] = rows[lane];
    if (resolved.contiguous != nullptr)
      resolved.pointer[lane] = resolved.contiguous + static_cast<std::uint32_t>(lane) * access.bytes;
    memory[lane] = resolved.pointer[lane];
  });
  access.value = value;
  access.memory = memory;
  if (warp.counts != nullptr || warp.race != nullptr) tell(warp, access);
  each_lane(access.active, [&](int lane) { std::memcpy(resolved.pointer[lane], rows[lane], access.bytes); });
}

void decode_ldmatrix(Decoder& decoder, Ins& ins) {
  decode_modifiers(decoder, ins);
  ins.list = write_fragment(decoder, 0, ins.aux, 4);
  ins.run = run_ldmatrix;
}

void decode_stmatrix(Decoder& decoder, Ins& ins) {
  decode_modifiers(decoder, ins);
  ins.list = read_fragment(decoder, 1, ins.aux, 4);
  ins.run = run_stmatrix;
}

void decode_movmatrix(Decoder& decoder, Ins& ins) {
  for (const std::string_view word : {"sync", "aligned", "m8n8", "trans", "b16"}) decoder.expect(word);
  decoder.operand_count(2);
  ins.a = decoder.read(1, ptx::Type::b32);
  ins.d = decoder.write(0, ptx::Type::b32);
  ins.run = run_movmatrix;
  decoder.instruction_class = Class::shuffle;
}

}  // namespace emulator::tensor
