// mma.sync against the formulas of the PTX ISA ("Matrix fragments for mma"), written here a second time, one
// by one, as the ISA gives them.
#include "tests/tensor_harness.h"

namespace {

using namespace tensor_test;

struct Place {
  int row, column;
};
/// Where element i of a lane's fragment is in its matrix; g = lane / 4, t = lane % 4 ("groupID",
/// "threadID_in_group").
using Layout = Place (*)(int g, int t, int i);

struct Form {
  std::string shape;
  int m, n, k;
  Layout a, b, c;
};

Place c_of_16(int g, int t, int i) { return {i < 2 ? g : g + 8, t * 2 + (i & 1)}; }
Place c_of_8(int g, int t, int i) { return {g, t * 2 + i}; }

const Form kHalf16 = {
    "m16n8k16",
    16,
    8,
    16,
    [](int g, int t, int i) {
      return Place{i < 2 || (4 <= i && i < 6) ? g : g + 8, i < 4 ? t * 2 + (i & 1) : t * 2 + (i & 1) + 8};
    },
    [](int g, int t, int i) {
      return Place{i < 2 ? t * 2 + (i & 1) : t * 2 + (i & 1) + 8, g};
    },
    c_of_16};
const Form kHalf8 = {"m16n8k8",
                     16,
                     8,
                     8,
                     [](int g, int t, int i) {
                       return Place{i < 2 ? g : g + 8, t * 2 + (i & 1)};
                     },
                     [](int g, int t, int i) {
                       return Place{t * 2 + i, g};
                     },
                     c_of_16};
const Form kWord4 = {"m16n8k4",
                     16,
                     8,
                     4,
                     [](int g, int t, int i) {
                       return Place{i == 0 ? g : g + 8, t};
                     },
                     [](int g, int t, int) {
                       return Place{t, g};
                     },
                     c_of_16};
const Form kWord8 = {"m16n8k8",
                     16,
                     8,
                     8,
                     [](int g, int t, int i) {
                       return Place{i == 0 || i == 2 ? g : g + 8, i == 0 || i == 1 ? t : t + 4};
                     },
                     [](int g, int t, int i) {
                       return Place{i == 0 ? t : t + 4, g};
                     },
                     c_of_16};
const Form kDouble4 = {"m8n8k4",
                       8,
                       8,
                       4,
                       [](int g, int t, int) {
                         return Place{g, t};
                       },
                       [](int g, int t, int) {
                         return Place{t, g};
                       },
                       c_of_8};
const Form kDouble16 = {"m16n8k16",
                        16,
                        8,
                        16,
                        [](int g, int t, int i) {
                          return Place{i % 2 == 0 ? g : g + 8, i % 2 == 0 ? i * 2 + t : i * 2 - 2 + t};
                        },
                        [](int g, int t, int i) {
                          return Place{t + i * 4, g};
                        },
                        c_of_16};
const Form kByte16Small = {"m8n8k16",
                           8,
                           8,
                           16,
                           [](int g, int t, int i) {
                             return Place{g, t * 4 + i};
                           },
                           [](int g, int t, int i) {
                             return Place{t * 4 + i, g};
                           },
                           c_of_8};
const Form kByte16 = {"m16n8k16",
                      16,
                      8,
                      16,
                      [](int g, int t, int i) {
                        return Place{i < 4 ? g : g + 8, t * 4 + (i & 3)};
                      },
                      [](int g, int t, int i) {
                        return Place{t * 4 + i, g};
                      },
                      c_of_16};
const Form kByte32 = {
    "m16n8k32",
    16,
    8,
    32,
    [](int g, int t, int i) {
      return Place{i < 4 || (8 <= i && i < 12) ? g : g + 8, i < 8 ? t * 4 + (i & 3) : t * 4 + (i & 3) + 16};
    },
    [](int g, int t, int i) {
      return Place{i < 4 ? t * 4 + (i & 3) : t * 4 + (i & 3) + 16, g};
    },
    c_of_16};
const Form kNibble32Small = {"m8n8k32",
                             8,
                             8,
                             32,
                             [](int g, int t, int i) {
                               return Place{g, t * 8 + i};
                             },
                             [](int g, int t, int i) {
                               return Place{t * 8 + i, g};
                             },
                             c_of_8};
const Form kNibble32 = {"m16n8k32",
                        16,
                        8,
                        32,
                        [](int g, int t, int i) {
                          return Place{i < 8 ? g : g + 8, t * 8 + (i & 7)};
                        },
                        [](int g, int t, int i) {
                          return Place{t * 8 + i, g};
                        },
                        c_of_16};
const Form kNibble64 = {
    "m16n8k64",
    16,
    8,
    64,
    [](int g, int t, int i) {
      return Place{i < 8 || (16 <= i && i < 24) ? g : g + 8, i < 16 ? t * 8 + (i & 7) : t * 8 + (i & 7) + 32};
    },
    [](int g, int t, int i) {
      return Place{i < 8 ? t * 8 + (i & 7) : t * 8 + (i & 7) + 32, g};
    },
    c_of_16};
const Form kBit128Small = {"m8n8k128",
                           8,
                           8,
                           128,
                           [](int g, int t, int i) {
                             return Place{g, t * 32 + i};
                           },
                           [](int g, int t, int i) {
                             return Place{t * 32 + i, g};
                           },
                           c_of_8};
const Form kBit128 = {"m16n8k128",
                      16,
                      8,
                      128,
                      [](int g, int t, int i) {
                        return Place{i < 32 ? g : g + 8, t * 32 + (i & 31)};
                      },
                      [](int g, int t, int i) {
                        return Place{t * 32 + i, g};
                      },
                      c_of_16};
const Form kBit256 = {"m16n8k256",
                      16,
                      8,
                      256,
                      [](int g, int t, int i) {
                        return Place{i < 32 || (64 <= i && i < 96) ? g : g + 8,
                                     i < 64 ? t * 32 + (i & 31) : t * 32 + (i & 31) + 128};
                      },
                      [](int g, int t, int i) {
                        return Place{i < 32 ? t * 32 + (i & 31) : t * 32 + (i & 31) + 128, g};
                      },
                      c_of_16};

/// The registers of a fragment as [register][lane] of 32 or 64 bits, one after the other in a buffer.
struct Fragment {
  Fragment(Values& v, Layout where)
      : values(v),
        layout(where),
        bits(bits_of(v.type)),
        width(bits == 64 ? 64 : 32),
        registers(v.rows * v.columns * bits / (32 * width)) {}
  template <class F>
  void each(F&& f) {
    for (int lane = 0; lane < 32; ++lane) {
      for (int i = 0; i < registers * width / bits; ++i) {
        const Place p = layout(lane / 4, lane % 4, i);
        const int bit = (i * bits / width * 32 + lane) * width + i * bits % width;
        f(values.at(p.row, p.column), bit);
      }
    }
  }
  void to(std::uint8_t* memory) {
    std::memset(memory, 0, size());
    each([&](std::uint64_t value, int bit) {
      for (int b = 0; b < bits; ++b)
        memory[(bit + b) / 8] =
            static_cast<std::uint8_t>(memory[(bit + b) / 8] | (value >> b & 1u) << ((bit + b) % 8));
    });
  }
  void from(const std::uint8_t* memory) {
    each([&](std::uint64_t& value, int bit) {
      value = 0;
      for (int b = 0; b < bits; ++b)
        value |= (std::uint64_t{memory[(bit + b) / 8]} >> ((bit + b) % 8) & 1u) << b;
    });
  }
  std::size_t size() const { return static_cast<std::size_t>(registers * width * 4); }
  /// "{%r8, %r9}" and the loads or stores of these registers.
  std::string list(int first) const {
    std::string text;
    for (int r = 0; r < registers; ++r) text += (r == 0 ? "" : ", ") + variable(first + r);
    return "{" + text + "}";
  }
  std::string transfer(int first, bool store, std::size_t offset) const {
    std::string text;
    for (int r = 0; r < registers; ++r) {
      const std::string address = "[%rd" +
                                  std::string(width == 64 ? (store ? "5" : "4") : (store ? "3" : "2")) + "+" +
                                  std::to_string(offset + static_cast<std::size_t>(r * width * 4)) + "]";
      text += (store ? "st" : "ld") + std::string(".global.b") + std::to_string(width) + " " +
              (store ? address + ", " + variable(first + r) : variable(first + r) + ", " + address) + ";\n";
    }
    return text;
  }
  std::string variable(int i) const { return (width == 64 ? "%d" : "%r") + std::to_string(i); }
  Values& values;
  Layout layout;
  int bits, width, registers;
};

const std::string kLaneAddresses =
    "mul.wide.u32 %rd8, %r0, 4;\nadd.s64 %rd2, %rd0, %rd8;\nadd.s64 %rd3, %rd1, %rd8;\nadd.s64 %rd4, %rd2, "
    "%rd8;\nadd.s64 %rd5, %rd3, %rd8;\n";

void check_mma(const Form& form, Type type_d, Type type_a, Type type_b, Op op = Op::multiply) {
  Values a(type_a, form.m, form.k), b(type_b, form.k, form.n), c(type_d, form.m, form.n),
      d(type_d, form.m, form.n);
  Fragment fa(a, form.a), fb(b, form.b), fc(c, form.c), fd(d, form.c);
  if (op == Op::multiply_saturating)
    for (auto& bits : c.bits) bits = (bits & 1u) != 0 ? 0x7fffffff - bits % 5000 : 0x80000000 + bits % 5000;
  Buffer in(8192), out(8192);
  auto* memory = in.host<std::uint8_t>();
  const std::size_t at_b = fa.size(), at_c = at_b + fb.size();
  fa.to(memory), fb.to(memory + at_b), fc.to(memory + at_c);
  const std::string opcode = "mma.sync.aligned." + form.shape + ".row.col" +
                             (op == Op::multiply_saturating ? ".satfinite." : ".") + name(type_d) + "." +
                             name(type_a) + "." + name(type_b) + "." + name(type_d) +
                             (op == Op::bit_xor   ? ".xor.popc"
                              : op == Op::bit_and ? ".and.popc"
                                                  : "");
  INFO(opcode);
  // D overwrites A: sources are read before anything is written.
  REQUIRE(run(kLaneAddresses + fa.transfer(8, false, 0) + fb.transfer(16, false, at_b) +
                  fc.transfer(24, false, at_c) + opcode + " " + fd.list(8) + ", " + fa.list(8) + ", " +
                  fb.list(16) + ", " + fc.list(24) + ";\n" + fd.transfer(8, true, 0),
              in, out) == 0);
  fd.from(out.host<std::uint8_t>());
  check_product(a, b, c, d, op);
}

TEST_CASE("mma.sync of f16 and bf16 multiplies the matrices that the ISA's fragments hold", "[tensor]") {
  for (const Form& form : {kHalf16, kHalf8}) {
    check_mma(form, Type::f32, Type::bf16, Type::bf16);
    check_mma(form, Type::f32, Type::f16, Type::f16);
    check_mma(form, Type::f16, Type::f16, Type::f16);
  }
}

TEST_CASE("mma.sync of tf32 multiplies the matrices that the ISA's fragments hold", "[tensor]") {
  check_mma(kWord4, Type::f32, Type::tf32, Type::tf32);
  check_mma(kWord8, Type::f32, Type::tf32, Type::tf32);
}

TEST_CASE("mma.sync of f64 multiplies the matrices that the ISA's fragments hold", "[tensor]") {
  for (const Form& form : {kDouble4, kWord4, kWord8, kDouble16})
    check_mma(form, Type::f64, Type::f64, Type::f64);
}

TEST_CASE(
    "mma.sync of integers multiplies the matrices that the ISA's fragments hold, and wraps or saturates",
    "[tensor]") {
  for (const Op op : {Op::multiply, Op::multiply_saturating}) {
    for (const Form& form : {kByte16Small, kByte16, kByte32}) {
      for (const Type a : {Type::s8, Type::u8}) {
        for (const Type b : {Type::s8, Type::u8}) check_mma(form, Type::s32, a, b, op);
      }
    }
    for (const Form& form : {kNibble32Small, kNibble32, kNibble64}) {
      for (const Type a : {Type::s4, Type::u4}) {
        for (const Type b : {Type::s4, Type::u4}) check_mma(form, Type::s32, a, b, op);
      }
    }
  }
}

TEST_CASE("mma.sync of bits counts the bits of xor and and", "[tensor]") {
  for (const Form& form : {kBit128Small, kBit128, kBit256}) {
    check_mma(form, Type::s32, Type::b1, Type::b1, Op::bit_xor);
    check_mma(form, Type::s32, Type::b1, Type::b1, Op::bit_and);
  }
}

TEST_CASE("mma.sync that PTX does not have is refused", "[tensor]") {
  const std::string four = "{%r8, %r9, %r10, %r11}", two = "{%r8, %r9}", one = "{%r8}",
                    good = four + ", " + four + ", " + two + ", " + four + ";\n";
  CHECK(refusal("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 " + good) == "");
  const std::string wrong[] = {
      "mma.sync.aligned.m16n8k16.col.col.f32.bf16.bf16.f32 " + good,  // layout
      "mma.sync.aligned.m16n8k16.row.col.f32.bf16.f16.f32 " + good,   // A and B differ
      "mma.sync.aligned.m16n8k16.row.col.f16.bf16.bf16.f16 " + good,  // bf16 accumulates in f32
      "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f16 " + four + ", " + four + ", " + two + ", " + two +
          ";\n",  // C and D differ
      "mma.sync.aligned.m16n8k16.row.col.satfinite.f32.bf16.bf16.f32 " + good,
      "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32.relu " + good,
      "mma.sync.aligned.m16n8k16.row.col.f32.tf32.tf32.f32 " + four +
          ", {%r8, %r9, %r10, %r11, %r12, %r13, %r14, %r15}, " + four + ", " + four + ";\n",  // shape
      "mma.sync.aligned.m8n8k4.row.col.f32.f16.f16.f32 " + good,
      "mma.sync.m16n8k16.row.col.f32.bf16.bf16.f32 " + good,
      "mma.sync.aligned.m16n8k32.row.col.s32.s8.s4.s32 " + good,
      "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 " + four + ", " + two + ", " + two + ", " + four +
          ";\n",
      "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%d8, %d9, %d10, %d11}, " + four + ", " + two +
          ", " + four + ";\n",
      "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 " + four + ", " + four + ", " + two + ";\n",
      "mma.sync.aligned.m8n8k16.row.col.s32.s8.s8.s32 " + two + ", %r8, %r9, " + two + ";\n",  // no vector
  };
  for (const std::string& text : wrong) {
    INFO(text);
    CHECK(refusal(text) != "");
  }
}

TEST_CASE("mma.sync in a warp of fewer than 32 threads is reported", "[tensor]") {
  Buffer in(8192), out(8192);
  const std::uint64_t before = findings_reported(FindingKind::barrier);
  const std::string zero = "mov.b32 %r8, 0;\nmov.b32 %r9, 0;\nmov.b32 %r10, 0;\nmov.b32 %r11, 0;\n",
                    four = "{%r8, %r9, %r10, %r11}";
  const std::string body = zero + "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 " + four + ", " +
                           four + ", {%r8, %r9}, " + four + ";\n";
  CHECK(run(body, in, out, 64) == 0);
  CHECK(findings_reported(FindingKind::barrier) == before);
  CHECK(run(body, in, out, 48) == 0);
  CHECK(findings_reported(FindingKind::barrier) == before + 1);
}

}  // namespace
