// mma.sync, and the table of the tensor instructions.
#include "exec/tensor_mma.h"

#include <algorithm>

namespace emulator {
namespace tensor {
namespace {

struct NamedShape {
  std::string_view name;
  Shape shape;
};
constexpr NamedShape kShapes[] = {
    {"m16n8k16", {16, 8, 16}},   {"m16n8k8", {16, 8, 8}},    {"m16n8k4", {16, 8, 4}},
    {"m8n8k4", {8, 8, 4}},       {"m8n8k16", {8, 8, 16}},    {"m16n8k32", {16, 8, 32}},
    {"m8n8k32", {8, 8, 32}},     {"m16n8k64", {16, 8, 64}},  {"m8n8k128", {8, 8, 128}},
    {"m16n8k128", {16, 8, 128}}, {"m16n8k256", {16, 8, 256}}};

Shape take_shape(Decoder& decoder) {
  for (const NamedShape& s : kShapes) {
    if (decoder.take(s.name)) return s.shape;
  }
  decoder.fail("unknown shape ." + std::string(decoder.next()));
}

/// Which extents exist; m8n8k4 of f16 (Volta's quad pairs) does not exist here.
bool shape_exists(Shape s, Format format) {
  const int blocks = s.k / depth_of(format);
  if (s.k % depth_of(format) != 0) return false;
  switch (format) {
    case Format::f16:
    case Format::bf16:
    case Format::tf32:
      return s.m == 16 && blocks <= 2;
    case Format::f64:
      return s.m == 16 ? blocks <= 4 : blocks == 1;
    default:
      return s.m == 16 ? blocks <= 2 : blocks == 1;
  }
}

/// The element type of A or B. Signed: in `flag`.
Format take_format(Decoder& decoder, Flag flag, std::uint32_t& flags) {
  switch (decoder.expect_one_of({"f16", "bf16", "tf32", "f64", "s8", "u8", "s4", "u4", "b1"})) {
    case 0:
      return Format::f16;
    case 1:
      return Format::bf16;
    case 2:
      return Format::tf32;
    case 3:
      return Format::f64;
    case 4:
      flags |= flag;
      return Format::int8;
    case 5:
      return Format::int8;
    case 6:
      flags |= flag;
      return Format::int4;
    case 7:
      return Format::int4;
    default:
      return Format::bit;
  }
}

std::string_view accumulator_of(Format format) {
  switch (format) {
    case Format::f16:
    case Format::bf16:
    case Format::tf32:
      return "f32";
    case Format::f64:
      return "f64";
    default:
      return "s32";
  }
}

void decode_mma(Decoder& decoder, Ins& ins) {
  decoder.expect("sync");
  decoder.expect("aligned");
  const Shape shape = take_shape(decoder);
  decoder.expect("row");
  decoder.expect("col");
  std::uint32_t flags = 0;
  bool saturates = decoder.take("satfinite"), rounds = decoder.take("rn");
  const bool half = decoder.take("f16");
  const std::string_view result = half ? "f16" : decoder.next();
  if (!half) decoder.expect_one_of({"f32", "f64", "s32"});
  const Format format = take_format(decoder, kSignedA, flags);
  if (take_format(decoder, kSignedB, flags) != format) decoder.fail("A and B have different types");
  if (result != accumulator_of(format) && !(half && format == Format::f16))
    decoder.fail("." + std::string(result) + " is no result of these types");
  decoder.expect(result);  // C
  // ptxas takes these at either place.
  saturates = saturates || decoder.take("satfinite");
  rounds = rounds || decoder.take("rn");
  const bool integer = format == Format::int8 || format == Format::int4;
  if (saturates && !integer) decoder.fail(".satfinite is for 8- and 4-bit integers");
  if (rounds && format != Format::f64) decoder.fail(".rn is for .f64");
  if (format == Format::bit) {
    if (decoder.expect_one_of({"xor", "and"}) == 1) flags |= kAnd;
    decoder.expect("popc");
  }
  if (!shape_exists(shape, format)) decoder.fail("this shape does not exist for these types");
  if (saturates) flags |= kSaturate;
  if (half) flags |= kHalfC | kHalfD;
  decode_multiply(decoder, ins, shape, format, flags);
}

void require_vector(Decoder& decoder, std::size_t operand) {
  if (decoder.operand(operand).kind != ptx::Operand::Kind::vector)
    decoder.fail("operand " + std::to_string(operand + 1) + " must be a vector {…}");
}

}  // namespace

std::uint32_t read_fragment(Decoder& decoder, std::size_t operand, int count, int bytes) {
  require_vector(decoder, operand);
  return decoder.read_list(decoder.operand(operand), static_cast<std::size_t>(count), bytes);
}

std::uint32_t write_fragment(Decoder& decoder, std::size_t operand, int count, int bytes) {
  require_vector(decoder, operand);
  return decoder.write_list(decoder.operand(operand), static_cast<std::size_t>(count), bytes);
}

void decode_multiply(Decoder& decoder, Ins& ins, Shape shape, Format format, std::uint32_t flags,
                     int copies_a, int copies_b) {
  decoder.operand_count(4);
  const int width = format == Format::f64 ? 8 : 4, k_blocks = shape.k / depth_of(format),
            results = shape.m / 8 * (shape.n / 8);
  ins.a = read_fragment(decoder, 1, shape.m / 8 * k_blocks * copies_a, width);
  ins.b = read_fragment(decoder, 2, shape.n / 8 * k_blocks * copies_b, width);
  ins.c = read_fragment(decoder, 3, results * ((flags & kHalfC) != 0 ? 1 : 2), width);
  ins.d = write_fragment(decoder, 0, results * ((flags & kHalfD) != 0 ? 1 : 2), width);
  set_multiply(ins, shape, format, flags);
  decoder.instruction_class = Class::tensor;
}

}  // namespace tensor

Opcodes tensor_opcodes() {
  static constexpr std::pair<std::string_view, Decode> kOpcodes[] = {{"mma", tensor::decode_mma},
                                                                     {"ldmatrix", tensor::decode_ldmatrix},
                                                                     {"stmatrix", tensor::decode_stmatrix},
                                                                     {"movmatrix", tensor::decode_movmatrix},
                                                                     {"wmma", tensor::decode_wmma}};
  return kOpcodes;
}

}  // namespace emulator
