#pragma once

#include "exec/decoder.h"

/// Opcodes that integers share with floating-point types (add, sub, mul, mad, div, min, max, abs, neg): the
/// owner of the opcode table asks each family in turn.
namespace emulator {

/// Decodes an instruction whose last modifier is f32 or f64; false, and nothing taken, if it is another type.
bool decode_float_arithmetic(Decoder& decoder, Ins& ins);

/// The same for f16, f16x2, bf16 and bf16x2; `fma`, `ex2` and `tanh` of these types included.
bool decode_half_arithmetic(Decoder& decoder, Ins& ins);

/// div.approx.f32 and div.full.f32.
void decode_approximate_division(Decoder& decoder, Ins& ins);

/// rcp, sqrt, rsqrt, sin, cos, lg2, ex2, tanh (exec/ops_special.cpp) and setp, set, selp, slct
/// (exec/ops_compare.cpp); float_opcodes() contains them.
void decode_rcp(Decoder& decoder, Ins& ins);
void decode_sqrt(Decoder& decoder, Ins& ins);
void decode_rsqrt(Decoder& decoder, Ins& ins);
void decode_sin(Decoder& decoder, Ins& ins);
void decode_cos(Decoder& decoder, Ins& ins);
void decode_lg2(Decoder& decoder, Ins& ins);
void decode_ex2(Decoder& decoder, Ins& ins);
void decode_tanh(Decoder& decoder, Ins& ins);
void decode_setp(Decoder& decoder, Ins& ins);
void decode_set(Decoder& decoder, Ins& ins);
void decode_selp(Decoder& decoder, Ins& ins);
void decode_slct(Decoder& decoder, Ins& ins);

/// cvt to and from pairs and tf32, and cvt.pack (exec/ops_convert_packed.cpp); false, and nothing taken, if
/// the types are those of plain cvt.
bool decode_packed_convert(Decoder& decoder, Ins& ins);

}  // namespace emulator
