// wmma.load, wmma.store, wmma.mma.
//
// PTX leaves open which element lies in which register of a wmma fragment. Here fragments are made of the
// blocks of mma.sync (tensor_mma.h), so C and D have one layout and A and B have it independently of .row and
// .col: an instruction whose layouts contradict those of the loads gives the right product here. Fragments of
// f16 A and B have 8 registers in all shapes, as PTX says; where the matrix is smaller they hold copies of
// it, of which wmma.mma reads the first.
#include <algorithm>

#include "exec/memory.h"
#include "exec/tensor_mma.h"

namespace emulator::tensor {
namespace {

/// A matrix between memory and a fragment. `outer` are the rows of its blocks (m, or n of B), `inner` is what
/// lies along them (k, or n of C and D).
struct Matrix {
  int outer = 0, inner = 0;
  int bytes = 0;                  // of an element: 1, 2, 4, 8
  bool inner_contiguous = false;  // in memory
  bool is_b = false;              // blocks are ordered inner first
  bool split = false;             // C, D of 4 or 8 bytes: even and odd columns in two registers
  Window window = Window::generic;
  int copies = 1;

  int depth() const { return bytes == 8 ? 4 : 16 / bytes; }
  int lines() const { return inner_contiguous ? outer : inner; }
  int length() const { return inner_contiguous ? inner : outer; }
  int total_bytes() const { return outer * inner * bytes; }
  int register_bytes() const { return bytes == 8 ? 8 : 4; }
  int registers() const { return total_bytes() / (kLanes * register_bytes()) * copies; }
};

void pack(const Matrix& m, Ins& ins) {
  ins.aux = static_cast<std::uint16_t>(m.outer | m.inner << 8);
  ins.extra = static_cast<std::uint32_t>(m.bytes | m.inner_contiguous << 4 | m.is_b << 5 | m.split << 6 |
                                         static_cast<int>(m.window) << 8 | m.copies << 16);
}

Matrix unpack(const Ins& ins) {
  Matrix m;
  m.outer = ins.aux & 255;
  m.inner = ins.aux >> 8;
  m.bytes = static_cast<int>(ins.extra & 15);
  m.inner_contiguous = (ins.extra >> 4 & 1) != 0;
  m.is_b = (ins.extra >> 5 & 1) != 0;
  m.split = (ins.extra >> 6 & 1) != 0;
  m.window = static_cast<Window>(ins.extra >> 8 & 255);
  m.copies = static_cast<int>(ins.extra >> 16);
  return m;
}

constexpr int kMostBytes = 1024;     // of a matrix: 32x16 f16, 16x16 f32
constexpr int kMostFragment = 1024;  // of the registers: 8 of 128 bytes

// ---- memory ----

/// All lanes must pass the same address and stride. The ISA ("Matrix Storage for WMMA") wants every line
/// aligned to the size of a lane's fragment, at most 32 bytes; of strides the CUDA C++ guide asks no more
/// than multiples of 16 bytes.
void check_operands(Warp& warp, const Ins& ins, const Matrix& m, Mask lanes, const std::uint64_t* address) {
  const int first = __builtin_ctz(lanes);
  const auto* stride = warp.lanes<std::uint32_t>(ins.b);
  each_lane(lanes, [&](int lane) {
    if (address[lane] != address[first] || stride[lane] != stride[first])
      report(warp, FindingKind::invalid_operation, lane, address[lane],
             "the lanes of a wmma instruction pass different addresses or strides");
  });
  const auto fragment = static_cast<std::uint64_t>(m.registers() * m.register_bytes()),
             pitch = stride[first] * static_cast<std::uint64_t>(m.bytes);
  if (address[first] % fragment != 0)
    report(warp, FindingKind::misaligned, first, address[first],
           "the address of this wmma matrix must be a multiple of " + std::to_string(fragment));
  if (pitch % std::min<std::uint64_t>(fragment, 16) != 0)
    report(warp, FindingKind::invalid_operation, first, address[first],
           "the stride of a wmma matrix is " + std::to_string(pitch) + " bytes, which is no multiple of " +
               std::to_string(std::min<std::uint64_t>(fragment, 16)));
}

/// Moves a matrix between memory and `stage` [lines][length] in requests of 32 lanes of at most 16 bytes.
template <class Move>
void move_matrix(Warp& warp, const Ins& ins, const Matrix& m, Mask lanes, Move&& move) {
  std::uint64_t address[kLanes], pieces[kLanes];
  lane_addresses(warp, ins, address);
  check_operands(warp, ins, m, lanes, address);
  const int first = __builtin_ctz(lanes);
  std::uint64_t base = address[first];
  const AddressSpace& space = DeviceMemory::instance().space();
  const bool shared = m.window == Window::shared ||
                      (m.window == Window::generic && base >= space.shared_begin && base < space.shared_end);
  if (m.window == Window::generic && shared) base = shared_offset(warp, first, base);
  const std::uint64_t pitch =
      std::uint64_t{warp.lanes<std::uint32_t>(ins.b)[first]} * static_cast<std::uint64_t>(m.bytes);
  const int bytes = m.bytes == 8 ? 8 : std::min(16, m.total_bytes() / kLanes),
            per_line = m.length() * m.bytes / bytes;
  Access access;
  access.where = shared ? Access::Where::shared : Access::Where::global;
  access.bytes = static_cast<std::uint32_t>(bytes);
  access.active = ~0u;  // the matrix is whole even where lanes are missing, which has been reported
  access.address = pieces;
  for (int done = 0; done < m.total_bytes(); done += bytes * kLanes) {
    for (int lane = 0; lane < kLanes; ++lane) {
      const int piece = done / bytes + lane;
      pieces[lane] = base + static_cast<std::uint64_t>(piece / per_line) * pitch +
                     static_cast<std::uint64_t>(piece % per_line * bytes);
    }
    move(access, done);
  }
}

/// [lines][length] of memory to [outer][inner] or back.
template <class T>
void turn(const T* in, T* out, int rows, int columns) {
  for (int row = 0; row < rows; ++row) {
    for (int column = 0; column < columns; ++column) out[column * rows + row] = in[row * columns + column];
  }
}

void turn(const std::uint8_t* in, std::uint8_t* out, int rows, int columns, int bytes) {
  switch (bytes) {
    case 1:
      return turn(in, out, rows, columns);
    case 2:
      return turn(reinterpret_cast<const std::uint16_t*>(in), reinterpret_cast<std::uint16_t*>(out), rows,
                  columns);
    case 4:
      return turn(reinterpret_cast<const std::uint32_t*>(in), reinterpret_cast<std::uint32_t*>(out), rows,
                  columns);
    default:
      return turn(reinterpret_cast<const std::uint64_t*>(in), reinterpret_cast<std::uint64_t*>(out), rows,
                  columns);
  }
}

// ---- fragments ----

/// Calls f(offset in the matrix [outer][inner], offset in the fragment's registers [register][lane], bytes)
/// for all pieces that lie side by side in both.
template <class F>
void each_piece(const Matrix& m, F&& f) {
  const int depth = m.split ? 8 : m.depth(), outer_blocks = m.outer / 8, inner_blocks = m.inner / depth;
  const int register_size = kLanes * m.register_bytes();
  for (int ob = 0; ob < outer_blocks; ++ob) {
    for (int ib = 0; ib < inner_blocks; ++ib) {
      const int block = m.is_b ? ob * inner_blocks + ib : ib * outer_blocks + ob;
      for (int row = 0; row < 8; ++row) {
        const int from = ((ob * 8 + row) * m.inner + ib * depth) * m.bytes;
        if (!m.split) {
          f(from, block * register_size + row * depth * m.bytes, depth * m.bytes);
          continue;
        }
        for (int column = 0; column < 8; ++column)
          f(from + column * m.bytes,
            (2 * block + column % 2) * register_size + (4 * row + column / 2) * m.bytes, m.bytes);
      }
    }
  }
}

void run_load(Warp& warp, const Ins& ins, Mask active) {
  const Mask lanes = whole_warp(warp, ins, active);
  if (lanes == 0) return;
  const Matrix m = unpack(ins);
  alignas(16) std::uint8_t stage[kMostBytes], matrix[kMostBytes], fragment[kMostFragment];
  move_matrix(warp, ins, m, lanes, [&](const Access& access, int done) {
    std::uint8_t rows[kLanes][16];
    read_rows(warp, access, observe, rows);
    for (int lane = 0; lane < kLanes; ++lane)
      std::memcpy(stage + done + lane * static_cast<int>(access.bytes), rows[lane], access.bytes);
  });
  if (!m.inner_contiguous) turn(stage, matrix, m.lines(), m.length(), m.bytes);
  const std::uint8_t* from = m.inner_contiguous ? stage : matrix;
  each_piece(m, [&](int in_matrix, int in_fragment, int bytes) {
    std::memcpy(fragment + in_fragment, from + in_matrix, static_cast<std::size_t>(bytes));
  });
  const Slot* slots = &warp.frame->program->slots[ins.list];
  const int distinct = m.registers() / m.copies, width = m.register_bytes();
  for (int r = 0; r < m.registers(); ++r) {
    auto* to = warp.lanes<std::uint8_t>(slots[r]);
    const std::uint8_t* values = fragment + r % distinct * kLanes * width;
    each_lane(lanes, [&](int lane) {
      std::memcpy(to + lane * width, values + lane * width, static_cast<std::size_t>(width));
    });
  }
}

void run_store(Warp& warp, const Ins& ins, Mask active) {
  const Mask lanes = whole_warp(warp, ins, active);
  if (lanes == 0) return;
  const Matrix m = unpack(ins);
  alignas(16) std::uint8_t stage[kMostBytes], matrix[kMostBytes], fragment[kMostFragment];
  const Slot* slots = &warp.frame->program->slots[ins.list];
  const auto size = static_cast<std::size_t>(kLanes * m.register_bytes());
  for (int r = 0; r < m.registers(); ++r)
    std::memcpy(fragment + static_cast<std::size_t>(r) * size, warp.lanes<std::uint8_t>(slots[r]), size);
  each_piece(m, [&](int in_matrix, int in_fragment, int bytes) {
    std::memcpy(matrix + in_matrix, fragment + in_fragment, static_cast<std::size_t>(bytes));
  });
  if (!m.inner_contiguous) turn(matrix, stage, m.outer, m.inner, m.bytes);
  const std::uint8_t* from = m.inner_contiguous ? matrix : stage;
  move_matrix(warp, ins, m, lanes, [&](const Access& found, int done) {
    Access access = found;
    access.kind = Access::Kind::write;
    std::uint8_t rows[kLanes][16];
    for (int lane = 0; lane < kLanes; ++lane)
      std::memcpy(rows[lane], from + done + lane * static_cast<int>(access.bytes), access.bytes);
    write_rows(warp, access, observe, rows);
  });
}

// ---- decoding ----

Shape take_shape(Decoder& decoder) {
  static constexpr Shape kShapes[] = {{16, 16, 16}, {32, 8, 16}, {8, 32, 16}, {16, 16, 8}, {8, 8, 4}};
  return kShapes[decoder.expect_one_of({"m16n16k16", "m32n8k16", "m8n32k16", "m16n16k8", "m8n8k4"})];
}

/// k says which shapes belong to a type: 16 for f16, bf16 and int8, 8 for tf32, 4 for f64.
int k_of(Format format) { return format == Format::tf32 ? 8 : format == Format::f64 ? 4 : 16; }

int copies_of(Format format, int outer, int k) {
  return format == Format::f16 ? 8 / (outer / 8 * (k / 8)) : 1;
}

/// A or B of wmma.load.
Matrix multiplicand(Decoder& decoder, bool is_b, Shape shape) {
  static constexpr Format kFormats[] = {Format::f16, Format::bf16, Format::tf32,
                                        Format::f64, Format::int8, Format::int8};
  static constexpr int kBytes[] = {2, 2, 4, 8, 1, 1};
  const int type = decoder.expect_one_of({"f16", "bf16", "tf32", "f64", "s8", "u8"});
  Matrix m;
  m.is_b = is_b;
  m.outer = is_b ? shape.n : shape.m;
  m.inner = shape.k;
  m.bytes = kBytes[type];
  m.copies = copies_of(kFormats[type], m.outer, m.inner);
  if (shape.k != k_of(kFormats[type])) decoder.fail("this shape does not exist for this type");
  return m;
}

/// C of wmma.load, D of wmma.store.
Matrix accumulator(Decoder& decoder, Shape shape) {
  const int type = decoder.expect_one_of({"f16", "f32", "s32", "f64"});
  Matrix m;
  m.outer = shape.m;
  m.inner = shape.n;
  m.bytes = type == 0 ? 2 : type == 3 ? 8 : 4;
  m.split = type != 0;
  const bool exists = type == 1 ? shape.k != 4 : shape.k == (type == 3 ? 4 : 16);
  if (!exists) decoder.fail("this shape does not exist for this type");
  return m;
}

/// `.sync.aligned.layout.shape{.ss}.type`, after `which` (0: a, 1: b, 2: c or d); operands: fragment,
/// address, stride.
void decode_transfer(Decoder& decoder, Ins& ins, int which, bool store) {
  decoder.expect("sync");
  decoder.expect("aligned");
  const bool row = decoder.expect_one_of({"row", "col"}) == 0;
  const Shape shape = take_shape(decoder);
  const Window window = decode_window(decoder);
  if (window != Window::global && window != Window::shared && window != Window::generic)
    decoder.fail("the matrix lies in global or shared memory");
  Matrix m = which == 2 ? accumulator(decoder, shape) : multiplicand(decoder, which == 1, shape);
  m.inner_contiguous = row != m.is_b;
  m.window = window;
  decoder.operand_count(2, 3);
  decode_address(decoder, ins, decoder.operand(store ? 0 : 1), window);
  ins.b = decoder.operands() == 3 ? decoder.read(2, ptx::Type::u32)
                                  : decoder.constant(static_cast<std::uint64_t>(m.length()), 4);
  ins.list = store ? read_fragment(decoder, 1, m.registers(), m.register_bytes())
                   : write_fragment(decoder, 0, m.registers(), m.register_bytes());
  pack(m, ins);
  ins.run = store ? run_store : run_load;
  decoder.instruction_class = Class::matrix_load;
}

struct Product {
  std::array<std::string_view, 4> types;  // D, A, B, C; of f16 products D and C only
  Format format;
  std::uint32_t flags;
};
constexpr Product kProducts[] = {{{"f16", "f16"}, Format::f16, kHalfD | kHalfC},
                                 {{"f16", "f32"}, Format::f16, kHalfD},
                                 {{"f32", "f16"}, Format::f16, kHalfC},
                                 {{"f32", "f32"}, Format::f16, 0},
                                 {{"f32", "bf16", "bf16", "f32"}, Format::bf16, 0},
                                 {{"f32", "tf32", "tf32", "f32"}, Format::tf32, 0},
                                 {{"f64", "f64", "f64", "f64"}, Format::f64, 0},
                                 {{"s32", "s8", "s8", "s32"}, Format::int8, kSignedA | kSignedB},
                                 {{"s32", "u8", "u8", "s32"}, Format::int8, 0}};

const Product& take_product(Decoder& decoder) {
  for (const Product& product : kProducts) {
    const std::size_t before = decoder.modifier;
    bool same = true;
    for (const std::string_view type : product.types) same = same && (type.empty() || decoder.take(type));
    if (same) return product;
    decoder.modifier = before;
  }
  decoder.fail("unknown combination of types");
}

/// `.sync.aligned.alayout.blayout.shape{.rn}.types{.satfinite}`; nvcc writes .rn at the end, the ISA before
/// the types.
void decode_product(Decoder& decoder, Ins& ins) {
  decoder.expect("sync");
  decoder.expect("aligned");
  decoder.expect_one_of({"row", "col"});
  decoder.expect_one_of({"row", "col"});
  const Shape shape = take_shape(decoder);
  const bool rounds_first = decoder.take("rn");
  const Product& product = take_product(decoder);
  const bool saturates = decoder.take("satfinite"), rounds = rounds_first || decoder.take("rn");
  const Format format = product.format;
  if (saturates && format != Format::int8) decoder.fail(".satfinite is for integers");
  if (rounds && format != Format::f64) decoder.fail(".rn is for .f64");
  if (shape.k != k_of(format)) decoder.fail("this shape does not exist for these types");
  const std::uint32_t flags = saturates ? product.flags | kSaturate : product.flags;
  decode_multiply(decoder, ins, shape, format, flags, copies_of(format, shape.m, shape.k),
                  copies_of(format, shape.n, shape.k));
}

}  // namespace

void decode_wmma(Decoder& decoder, Ins& ins) {
  switch (decoder.expect_one_of({"load", "store", "mma"})) {
    case 0:
      return decode_transfer(decoder, ins, decoder.expect_one_of({"a", "b", "c"}), false);
    case 1:
      decoder.expect("d");
      return decode_transfer(decoder, ins, 2, true);
    default:
      return decode_product(decoder, ins);
  }
}

}  // namespace emulator::tensor
