// ldmatrix, stmatrix, movmatrix and wmma: matrices between memory and registers.
#include "tests/tensor_harness.h"

namespace {

using namespace tensor_test;

// Row i (of 32, 16 bytes each) lies at tile + 112 i mod 512: scattered, no two at one place.
const std::string kRowAddress =
    "mul.lo.u32 %r1, %r0, 112;\nand.b32 %r1, %r1, 511;\nmov.u32 %r2, tile;\nadd.u32 %r1, %r1, %r2;\n";
const std::string kLoadRow =
    "mul.wide.u32 %rd8, %r0, 16;\nadd.s64 %rd2, %rd0, %rd8;\nadd.s64 %rd3, %rd1, %rd8;\n";
const std::string kFill = kRowAddress + kLoadRow +
                          "ld.global.v4.b32 {%r4, %r5, %r6, %r7}, [%rd2];\nst.shared.v4.b32 [%r1], {%r4, "
                          "%r5, %r6, %r7};\nbar.sync 0;\n";

/// The ways to name an address of shared memory in %r1.
struct Addressing {
  std::string prepare, space, base;
};
const Addressing kAddressings[] = {
    {"", ".shared", "%r1"},
    {"", ".shared::cta", "%r1"},
    {"mov.b32 %r3, 0;\nmov.b64 %rd9, {%r1, %r3};\n", ".shared", "%rd9"},
    {"mov.b32 %r3, 0;\nmov.b64 %rd9, {%r1, %r3};\ncvta.shared.u64 %rd9, %rd9;\n", "", "%rd9"}};

std::string registers(int first, int count, const std::string& prefix = "%r") {
  std::string text = "{";
  for (int i = 0; i < count; ++i) text += (i == 0 ? "" : ", ") + prefix + std::to_string(first + i);
  return text + "}";
}

/// Lanes that address no row hold nonsense.
std::string spoil_addresses(int matrices) {
  return "setp.lt.u32 %p0, %r0, " + std::to_string(8 * matrices) + ";\nselp.b32 %r1, %r1, 0x7ffffff3, %p0;\n";
}

std::vector<std::uint16_t> random_halves(Buffer& buffer, std::size_t count) {
  std::vector<std::uint16_t> values(count);
  for (auto& v : values) v = static_cast<std::uint16_t>(random_bits()());
  std::memcpy(buffer.host<std::uint8_t>(), values.data(), 2 * count);
  return values;
}

void check_ldmatrix(int matrices, bool transposed, const Addressing& addressing) {
  Buffer in(512), out(512);
  const auto halves = random_halves(in, 256);
  const std::string opcode = "ldmatrix.sync.aligned.m8n8.x" + std::to_string(matrices) +
                             (transposed ? ".trans" : "") + addressing.space + ".b16 ";
  INFO(opcode << addressing.base);
  std::string store;
  for (int j = 0; j < matrices; ++j)
    store += "st.global.b32 [%rd3+" + std::to_string(4 * j) + "], %r" + std::to_string(8 + j) + ";\n";
  const std::string load = opcode + registers(8, matrices) + ", [" + addressing.base + "+0];\n";
  REQUIRE(run(kFill + spoil_addresses(matrices) + addressing.prepare + load + store, in, out) == 0);
  int wrong = 0;
  for (int j = 0; j < matrices; ++j) {
    for (int lane = 0; lane < 32; ++lane) {
      for (int i = 0; i < 2; ++i) {
        const int row = lane / 4, column = 2 * (lane % 4) + i;
        const int expected = j * 64 + (transposed ? column * 8 + row : row * 8 + column);
        wrong += out.host<std::uint16_t>()[lane * 8 + j * 2 + i] == halves[static_cast<std::size_t>(expected)]
                     ? 0
                     : 1;
      }
    }
  }
  CHECK(wrong == 0);
}

TEST_CASE(
    "ldmatrix gives each lane the elements that the ISA says, from the rows that the first lanes address",
    "[tensor]") {
  for (const int matrices : {1, 2, 4}) {
    for (const bool transposed : {false, true}) {
      for (const Addressing& addressing : kAddressings) check_ldmatrix(matrices, transposed, addressing);
    }
  }
}

TEST_CASE("stmatrix writes the rows that ldmatrix would read", "[tensor]") {
  for (const int matrices : {1, 2, 4}) {
    for (const bool transposed : {false, true}) {
      for (const Addressing& addressing : kAddressings) {
        Buffer in(512), out(512);
        const auto halves = random_halves(in, 256);
        const std::string opcode = "stmatrix.sync.aligned.m8n8.x" + std::to_string(matrices) +
                                   (transposed ? ".trans" : "") + addressing.space + ".b16 ";
        INFO(opcode << addressing.base);
        const std::string clear =
            kRowAddress + kLoadRow +
            "mov.b32 %r20, 0;\nst.shared.v4.b32 [%r1], {%r20, %r20, %r20, %r20};\nbar.sync 0;\n";
        const std::string load = "ld.global.v4.b32 {%r4, %r5, %r6, %r7}, [%rd2];\nmov.b32 %r21, %r1;\n" +
                                 spoil_addresses(matrices) + addressing.prepare;
        REQUIRE(run(clear + load + opcode + "[" + addressing.base + "], " + registers(4, matrices) +
                        ";\nbar.sync 0;\nld.shared.v4.b32 {%r8, %r9, %r10, %r11}, [%r21];\nst.global.v4.b32 "
                        "[%rd3], {%r8, %r9, %r10, %r11};\n",
                    in, out) == 0);
        int wrong = 0;
        for (int i = 0; i < 256; ++i) {
          const int j = i / 64, row = transposed ? i % 8 : i / 8 % 8, column = transposed ? i / 8 % 8 : i % 8;
          const int lane = row * 4 + column / 2;
          const std::uint16_t expected = j < matrices
                                             ? halves[static_cast<std::size_t>(lane * 8 + j * 2 + column % 2)]
                                             : std::uint16_t{0};
          wrong += out.host<std::uint16_t>()[i] == expected ? 0 : 1;
        }
        CHECK(wrong == 0);
      }
    }
  }
}

TEST_CASE("movmatrix transposes a matrix in registers", "[tensor]") {
  Buffer in(512), out(512);
  const auto halves = random_halves(in, 64);
  REQUIRE(run("mul.wide.u32 %rd8, %r0, 4;\nadd.s64 %rd2, %rd0, %rd8;\nadd.s64 %rd3, %rd1, "
              "%rd8;\nld.global.b32 %r4, [%rd2];\n"
              "movmatrix.sync.aligned.m8n8.trans.b16 %r4, %r4;\nst.global.b32 [%rd3], %r4;\n",
              in, out) == 0);
  for (int i = 0; i < 64; ++i)
    CHECK(out.host<std::uint16_t>()[i] == halves[static_cast<std::size_t>(i % 8 * 8 + i / 8)]);
}

TEST_CASE(
    "ldmatrix and stmatrix report rows that are not aligned to 16 bytes or lie outside of shared memory",
    "[tensor]") {
  Buffer in(512), out(512);
  random_halves(in, 256);
  const std::string load = "ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%r8, %r9, %r10, %r11}, [%r1",
                    store = "stmatrix.sync.aligned.m8n8.x4.shared.b16 [%r1";
  std::uint64_t before = findings_reported(FindingKind::misaligned);
  CHECK(run(kFill + load + "+8];\n", in, out) == 716);
  CHECK(findings_reported(FindingKind::misaligned) == before + 1);
  CHECK(run(kFill + store + "+2], {%r4, %r5, %r6, %r7};\n", in, out) == 716);
  CHECK(findings_reported(FindingKind::misaligned) == before + 2);
  before = findings_reported(FindingKind::out_of_bounds);
  CHECK(run(kFill + load + "+4096];\n", in, out) == 700);
  CHECK(findings_reported(FindingKind::out_of_bounds) > before);
  before = findings_reported(FindingKind::uninitialized);
  CHECK(run(kFill + load + "+1024];\n", in, out) == 0);
  CHECK(findings_reported(FindingKind::uninitialized) > before);
}

TEST_CASE("matrix loads and stores that PTX does not have are refused", "[tensor]") {
  CHECK(refusal("ldmatrix.sync.aligned.x4.trans.m8n8.shared.b16 {%r8, %r9, %r10, %r11}, [%r1];\n") ==
        "");  // this order is common
  const std::string wrong[] = {
      "ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%r8, %r9}, [%r1];\n",
      "ldmatrix.sync.aligned.m8n8.x1.shared.b16 %r8, [%r1];\n",
      "ldmatrix.sync.aligned.m8n8.x1.global.b16 {%r8}, [%rd1];\n",
      "ldmatrix.sync.aligned.m8n8.x2.x2.shared.b16 {%r8, %r9}, [%r1];\n",
      "ldmatrix.sync.aligned.m8n8.shared.b16 {%r8}, [%r1];\n",
      "ldmatrix.sync.aligned.m8n16.x1.shared.b8x16.b4x16_p64 {%r8}, [%r1];\n",
      "ldmatrix.aligned.m8n8.x1.shared.b16 {%r8}, [%r1];\n",
      "movmatrix.sync.aligned.m8n8.b16 %r8, %r9;\n",
      "wmma.load.a.sync.aligned.row.m16n16k16.f16 {%r8, %r9, %r10, %r11}, [%rd1], 16;\n",
      "wmma.load.a.sync.aligned.row.m16n16k8.f16 " + registers(8, 8) + ", [%rd1], 16;\n",
      "wmma.load.d.sync.aligned.row.m16n16k16.f32 " + registers(8, 8) + ", [%rd1], 16;\n",
      "wmma.mma.sync.aligned.row.col.m16n16k16.f32.bf16.bf16.f16 " + registers(8, 8) + ", " +
          registers(8, 4) + ", " + registers(8, 4) + ", " + registers(8, 8) + ";\n",
      "wmma.mma.sync.aligned.row.col.m16n16k16.f32.f32.satfinite " + registers(8, 8) + ", " +
          registers(8, 8) + ", " + registers(8, 8) + ", " + registers(8, 8) + ";\n"};
  for (const std::string& text : wrong) {
    INFO(text);
    CHECK(refusal(text) != "");
  }
}

// ---- wmma ----

struct Extents {
  int m, n, k;
};

/// Elements (row, column) at row * stride + column, or, by columns, at column * stride + row.
void place(Values& v, std::uint8_t* memory, bool by_rows, int stride) {
  const auto bytes = static_cast<std::size_t>(bits_of(v.type) / 8);
  for (int r = 0; r < v.rows; ++r) {
    for (int c = 0; c < v.columns; ++c)
      std::memcpy(memory + static_cast<std::size_t>(by_rows ? r * stride + c : c * stride + r) * bytes,
                  &v.at(r, c), bytes);
  }
}
void fetch(Values& v, const std::uint8_t* memory, bool by_rows, int stride) {
  const auto bytes = static_cast<std::size_t>(bits_of(v.type) / 8);
  for (int r = 0; r < v.rows; ++r) {
    for (int c = 0; c < v.columns; ++c) {
      v.at(r, c) = 0;
      std::memcpy(&v.at(r, c),
                  memory + static_cast<std::size_t>(by_rows ? r * stride + c : c * stride + r) * bytes,
                  bytes);
    }
  }
}

/// Registers per lane, from the table of wmma fragments in the ISA.
int registers_of(Type type, int elements) {
  switch (type) {
    case Type::f16:
      return 8;
    case Type::f64:
      return elements / 32;
    default:
      return elements * bits_of(type) / 1024;
  }
}

struct Wmma {
  Extents e;
  Type ab, c, d;
  bool row_a, row_b, row_c;
  std::string space = ".global";
  Op op = Op::multiply;
};

void check_wmma(const Wmma& w) {
  Values a(w.ab, w.e.m, w.e.k), b(w.ab, w.e.k, w.e.n), c(w.c, w.e.m, w.e.n), d(w.d, w.e.m, w.e.n);
  if (w.op == Op::multiply_saturating)
    for (auto& bits : c.bits) bits = (bits & 1u) != 0 ? 0x7fffffff - bits % 5000 : 0x80000000 + bits % 5000;
  Buffer in(16384), out(8192);
  const int stride_a = 48, stride_b = 32, stride_c = 64, stride_d = 32;
  auto* memory = in.host<std::uint8_t>();
  place(a, memory, w.row_a, stride_a);
  place(b, memory + 4096, w.row_b, stride_b);
  place(c, memory + 8192, w.row_c, stride_c);
  const std::string shape =
      "m" + std::to_string(w.e.m) + "n" + std::to_string(w.e.n) + "k" + std::to_string(w.e.k);
  const auto layout = [](bool row) { return std::string(row ? ".row" : ".col"); };
  const auto accumulators = [&](Type type) { return type == Type::f16 ? 4 : type == Type::f64 ? 2 : 8; };
  const std::string kind = w.ab == Type::f64 ? "%d" : "%r";
  const std::string fa = registers(8, registers_of(w.ab, w.e.m * w.e.k), kind),
                    fb = registers(16, registers_of(w.ab, w.e.k * w.e.n), kind);
  const std::string fc = registers(24, accumulators(w.c), kind), fd = registers(32, accumulators(w.d), kind);
  const std::string types = w.ab == Type::f16
                                ? name(w.d) + "." + name(w.c)
                                : name(w.d) + "." + name(w.ab) + "." + name(w.ab) + "." + name(w.c);
  const std::string product = "wmma.mma.sync.aligned" + layout(w.row_a) + layout(w.row_b) + "." + shape +
                              "." + types + (w.op == Op::multiply_saturating ? ".satfinite " : " ");
  INFO(product << w.space << (w.row_c ? " C by rows" : " C by columns"));
  std::string body = "mov.b32 %r5, " + std::to_string(stride_a) + ";\nmov.b64 %rd10, %rd0;\n";
  if (w.space != ".global") {  // A lies in shared memory
    body +=
        "mul.wide.u32 %rd8, %r0, 16;\nadd.s64 %rd2, %rd0, %rd8;\nshl.b32 %r1, %r0, 4;\nmov.u32 %r2, "
        "tile;\nadd.u32 %r1, %r1, %r2;\n";
    for (int at = 0; at < 4096; at += 512)
      body += "ld.global.v4.b32 {%r40, %r41, %r42, %r43}, [%rd2+" + std::to_string(at) +
              "];\nst.shared.v4.b32 [%r1+" + std::to_string(at) + "], {%r40, %r41, %r42, %r43};\n";
    body += "bar.sync 0;\nmov.b32 %r3, 0;\nmov.b64 %rd10, {%r2, %r3};\n";
    if (w.space == "") body += "cvta.shared.u64 %rd10, %rd10;\n";
  }
  const std::string other = w.space == "" ? "" : ".global";
  body += "wmma.load.a.sync.aligned" + layout(w.row_a) + "." + shape + w.space + "." + name(w.ab) + " " + fa +
          ", [%rd10], %r5;\n";
  body += "wmma.load.b.sync.aligned" + layout(w.row_b) + "." + shape + other + "." + name(w.ab) + " " + fb +
          ", [%rd0+4096], " + std::to_string(stride_b) + ";\n";
  body += "wmma.load.c.sync.aligned" + layout(w.row_c) + "." + shape + other + "." + name(w.c) + " " + fc +
          ", [%rd0+8192], " + std::to_string(stride_c) + ";\n";
  body += product + fd + ", " + fa + ", " + fb + ", " + fc + ";\n";
  body += "wmma.store.d.sync.aligned" + layout(!w.row_c) + "." + shape + other + "." + name(w.d) +
          " [%rd1], " + fd + ", " + std::to_string(stride_d) + ";\n";
  REQUIRE(run(body, in, out) == 0);
  fetch(d, out.host<std::uint8_t>(), !w.row_c, stride_d);
  check_product(a, b, c, d, w.op);
}

void check_layouts(Extents e, Type ab, Type c, Type d, Op op = Op::multiply) {
  for (int layouts = 0; layouts < 8; ++layouts) {
    for (const std::string space : {".global", ".shared", ""})
      check_wmma({e, ab, c, d, (layouts & 1) != 0, (layouts & 2) != 0, (layouts & 4) != 0, space, op});
  }
}

constexpr Extents kShapes16[] = {{16, 16, 16}, {32, 8, 16}, {8, 32, 16}};

TEST_CASE("wmma multiplies f16 and bf16 matrices of all shapes, layouts and spaces", "[tensor]") {
  for (const Extents e : kShapes16) {
    for (const Type c : {Type::f16, Type::f32}) {
      for (const Type d : {Type::f16, Type::f32}) check_layouts(e, Type::f16, c, d);
    }
    check_layouts(e, Type::bf16, Type::f32, Type::f32);
  }
}

TEST_CASE("wmma multiplies tf32 and f64 matrices of all layouts and spaces", "[tensor]") {
  check_layouts({16, 16, 8}, Type::tf32, Type::f32, Type::f32);
  check_layouts({8, 8, 4}, Type::f64, Type::f64, Type::f64);
}

TEST_CASE("wmma multiplies 8-bit matrices of all shapes, layouts and spaces, and wraps or saturates",
          "[tensor]") {
  for (const Extents e : kShapes16) {
    for (const Type ab : {Type::s8, Type::u8}) {
      for (const Op op : {Op::multiply, Op::multiply_saturating})
        check_layouts(e, ab, Type::s32, Type::s32, op);
    }
  }
}

TEST_CASE("wmma fragments of f16 hold their matrix as often as fits in 8 registers", "[tensor]") {
  Buffer in(8192), out(1024);
  random_halves(in, 256);
  std::string body = "wmma.load.b.sync.aligned.col.m16n16k16.global.f16 " + registers(8, 8) +
                     ", [%rd0];\nmul.wide.u32 %rd8, %r0, 4;\nadd.s64 %rd3, %rd1, %rd8;\n";
  for (int r = 0; r < 8; ++r)
    body += "st.global.b32 [%rd3+" + std::to_string(128 * r) + "], %r" + std::to_string(8 + r) + ";\n";
  REQUIRE(run(body, in, out) == 0);
  const auto* fragment = out.host<std::uint32_t>();
  CHECK(std::equal(fragment, fragment + 128, fragment + 128));
  std::vector<std::uint32_t> all(in.host<std::uint32_t>(), in.host<std::uint32_t>() + 128),
      held(fragment, fragment + 128);
  std::sort(all.begin(), all.end()), std::sort(held.begin(), held.end());
  CHECK(all == held);  // pairs along k stay together
}

TEST_CASE("wmma reports addresses and strides that are not aligned to a fragment, and lanes that disagree",
          "[tensor]") {
  Buffer in(8192), out(8192);
  const std::string load = "wmma.load.a.sync.aligned.row.m16n16k16.global.bf16 {%r8, %r9, %r10, %r11}, ";
  std::uint64_t before = findings_reported();
  CHECK(run(load + "[%rd0], 16;\n" + load + "[%rd0];\n", in, out) == 0);
  CHECK(findings_reported() == before);
  before = findings_reported(FindingKind::misaligned);
  CHECK(run(load + "[%rd0+8], 16;\n", in, out) == 716);
  CHECK(findings_reported(FindingKind::misaligned) > before);
  before = findings_reported(FindingKind::misaligned);
  CHECK(run("wmma.load.b.sync.aligned.col.m16n16k16.global.f16 " + registers(8, 8) + ", [%rd0+16], 16;\n", in,
            out) == 0);
  CHECK(findings_reported(FindingKind::misaligned) == before + 1);
  before = findings_reported(FindingKind::invalid_operation);
  CHECK(run("wmma.load.c.sync.aligned.col.m8n8k4.global.f64 {%d8, %d9}, [%rd0], 9;\n", in, out) == 0);
  CHECK(findings_reported(FindingKind::invalid_operation) == before + 1);
  before = findings_reported(FindingKind::invalid_operation);
  CHECK(run("mul.wide.u32 %rd8, %r0, 32;\nadd.s64 %rd2, %rd0, %rd8;\n" + load + "[%rd2], 16;\n", in, out) ==
        0);
  CHECK(findings_reported(FindingKind::invalid_operation) > before);
}

}  // namespace
