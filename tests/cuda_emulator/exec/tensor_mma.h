#pragma once

#include <cstdint>

#include "exec/access.h"
#include "exec/decoder.h"

/// What mma.sync, wmma and ldmatrix share: matrices in the registers of a warp.
///
/// All fragments of the PTX ISA ("Matrix fragments for mma") are made of one kind of block: a 32-bit register
/// of a warp holds, lane after lane, 8 rows (columns of B) with four lanes each; a lane holds 32 / bits
/// consecutive k. So the 128 bytes of a register *are* a row-major block [8][depth]; a 64-bit register of f64
/// is a block [8][4]. Blocks of A are ordered rows first, blocks of B k first (mb, nb, kb: which block of m,
/// n, k):
///
///   A [m, k]: register kb * (m / 8) + mb        B [k, n]: register nb * (k / depth) + kb, stored as [n][k]
///   C, D [m, n]: blocks [8][8], block nb * (m / 8) + mb; lane l holds columns 2t and 2t + 1 (t = l % 4) of
///   row l / 4: in two registers, or as an f16x2 in one
namespace emulator::tensor {

/// Extents of a matrix product.
struct Shape {
  int m = 0, n = 0, k = 0;
};

/// The formats of A and B; s8 and u8 (s4 and u4) differ in the flags below.
enum class Format : std::uint8_t { f16, bf16, tf32, f64, int8, int4, bit };

/// Elements of k in a block.
int depth_of(Format format);

/// Flags in Ins::extra of a product.
enum Flag : std::uint32_t {
  kSignedA = 1,
  kSignedB = 2,   // int8, int4
  kSaturate = 4,  // clamp to s32 instead of wrapping around
  kHalfC = 8,
  kHalfD = 16,  // the accumulators are f16x2 registers
  kAnd = 32     // bit: and instead of xor
};

/// Sets up d = a · b + c. Ins::d, a, b, c are the first entries of the fragments' registers in Program::slots
/// (the caller's business). Also sets the counters' figure, Ins::aux2 = 2 m n k / 64: a warp instruction of
/// Class::tensor stands for 64 * aux2 operations.
///
/// Products are exact and added to the f32 accumulator one by one, k ascending, rounded to nearest (f64:
/// fused); f16 results are rounded once, at the end. Tensor cores add in another way, see Noise in
/// tensor_multiply.cpp.
void set_multiply(Ins& ins, Shape shape, Format format, std::uint32_t flags);

/// Decodes the operands d, a, b, c of a product and calls set_multiply(). `copies_a`, `copies_b`: how often a
/// fragment holds each element (wmma).
void decode_multiply(Decoder& decoder, Ins& ins, Shape shape, Format format, std::uint32_t flags,
                     int copies_a = 1, int copies_b = 1);

/// The lanes that execute a `.sync.aligned` instruction: all live lanes, or none while some are elsewhere (it
/// runs again later). A warp with fewer than 32 live lanes is reported.
Mask whole_warp(Warp& warp, const Ins& ins, Mask active);

/// A vector operand of exactly `count` registers; returns its first entry in Program::slots.
std::uint32_t read_fragment(Decoder& decoder, std::size_t operand, int count, int bytes);
std::uint32_t write_fragment(Decoder& decoder, std::size_t operand, int count, int bytes);

/// 16-bit elements in a register: out[j][i] = in[i][j], [8][8].
void transpose_8x8(const std::uint16_t* in, std::uint16_t* out);

/// Tells the race check and the counters of a request.
using Tell = void (*)(Warp& warp, const Access& access);
/// A checked request of up to 16 bytes per lane: from memory to rows[lane], and back.
void read_rows(Warp& warp, const Access& access, Tell tell, std::uint8_t (*rows)[16]);
void write_rows(Warp& warp, Access access, Tell tell, const std::uint8_t (*rows)[16]);

void decode_ldmatrix(Decoder& decoder, Ins& ins);
void decode_stmatrix(Decoder& decoder, Ins& ins);
void decode_movmatrix(Decoder& decoder, Ins& ins);
void decode_wmma(Decoder& decoder, Ins& ins);

}  // namespace emulator::tensor
