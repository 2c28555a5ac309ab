// and, or, xor, shifts, fields, permutations, dot products of bytes: operations on the bits of integers.
#include <bit>

#include "exec/integer_forms.h"

namespace emulator {
namespace {

using namespace integer_forms;

struct And {
  template <class T>
  T operator()(T a, T b) const {
    return static_cast<T>(a & b);
  }
};
struct Or {
  template <class T>
  T operator()(T a, T b) const {
    return static_cast<T>(a | b);
  }
};
struct Xor {
  template <class T>
  T operator()(T a, T b) const {
    return static_cast<T>(a ^ b);
  }
};
struct Not {
  template <class T>
  T operator()(T a) const {
    return static_cast<T>(~a);
  }
};
struct LogicalNot {
  template <class T>
  T operator()(T a) const {
    return a == 0 ? T{1} : T{0};
  }
};
// Shifts by more than the width give zero, or the sign.
struct ShiftLeft {
  template <class T>
  T operator()(T a, std::uint32_t n) const {
    return n >= sizeof(T) * 8 ? T{0} : static_cast<T>(a << n);
  }
};
struct ShiftRight {
  template <class T>
  T operator()(T a, std::uint32_t n) const {
    if constexpr (std::is_signed_v<T>)
      return static_cast<T>(a >> std::min<std::uint32_t>(n, sizeof(T) * 8 - 1));
    else
      return n >= sizeof(T) * 8 ? T{0} : static_cast<T>(a >> n);
  }
};
struct PopCount {
  template <class T>
  std::uint32_t operator()(T a) const {
    return static_cast<std::uint32_t>(std::popcount(a));
  }
};
struct LeadingZeros {
  template <class T>
  std::uint32_t operator()(T a) const {
    return static_cast<std::uint32_t>(std::countl_zero(a));
  }
};
struct Reverse {
  template <class T>
  T operator()(T a) const {
    T result = 0;
    for (unsigned i = 0; i < sizeof(T) * 8; ++i)
      result = static_cast<T>(result | (a >> i & 1) << (sizeof(T) * 8 - 1 - i));
    return result;
  }
};
// Position of the highest bit that differs from the sign; all ones if there is none. ShiftAmount: how far to
// shift it to the top.
template <bool ShiftAmount>
struct FindHighest {
  template <class T>
  std::uint32_t operator()(T a) const {
    const auto bits = static_cast<Bits<T>>(std::is_signed_v<T> && a < 0 ? static_cast<T>(~a) : a);
    if (bits == 0) return ~0u;
    const auto position =
        static_cast<std::uint32_t>(sizeof(T) * 8 - 1) - static_cast<std::uint32_t>(std::countl_zero(bits));
    return ShiftAmount ? static_cast<std::uint32_t>(sizeof(T) * 8 - 1) - position : position;
  }
};
struct ExtractField {
  template <class T>
  T operator()(T a, std::uint32_t position, std::uint32_t length) const {
    constexpr std::uint32_t width = sizeof(T) * 8;
    position &= 0xff, length &= 0xff;
    const auto bits = static_cast<Bits<T>>(a);
    const std::uint32_t sign_at = std::min(position + length - 1, width - 1);
    const bool sign = std::is_signed_v<T> && length != 0 && (bits >> sign_at & 1) != 0;
    Bits<T> field = position >= width ? 0 : static_cast<Bits<T>>(bits >> position);
    const std::uint32_t kept = position >= width ? 0 : std::min(length, width - position);
    if (kept < width) {
      const auto low = static_cast<Bits<T>>((Bits<T>{1} << kept) - 1);
      field = sign ? static_cast<Bits<T>>(field | ~low) : static_cast<Bits<T>>(field & low);
    }
    return static_cast<T>(field);
  }
};
struct InsertField {
  template <class T>
  T operator()(T a, T b, std::uint32_t position, std::uint32_t length) const {
    constexpr std::uint32_t width = sizeof(T) * 8;
    position &= 0xff, length &= 0xff;
    if (position >= width || length == 0) return b;
    const std::uint32_t kept = std::min(length, width - position);
    const T field = kept >= width ? static_cast<T>(~T{0}) : static_cast<T>((T{1} << kept) - 1);
    return static_cast<T>((b & ~static_cast<T>(field << position)) | static_cast<T>((a & field) << position));
  }
};

template <class F>
void predicate_logic(Warp& warp, const Ins& ins, Mask active) {
  set_predicate(warp, ins.d, active,
                F{}(warp.predicate(ins.a) ^ static_cast<Mask>(ins.imm), warp.predicate(ins.b) ^ ins.extra));
}

template <class F>
void decode_logic(Decoder& decoder, Ins& ins) {
  if (!decoder.take("pred")) return binary<F>(decoder, ins, integer_type(decoder, bits_only, {2, 4, 8}));
  decoder.operand_count(3);
  decoder.instruction_class = Class::predicate;
  Mask flip_a = 0, flip_b = 0;
  ins.d = decoder.write_predicate(decoder.operand(0));
  ins.a = decoder.read_predicate(decoder.operand(1), &flip_a);
  ins.b = decoder.read_predicate(decoder.operand(2), &flip_b);
  ins.imm = static_cast<std::int64_t>(flip_a);
  ins.extra = flip_b;
  ins.run = &predicate_logic<F>;
}

void decode_not(Decoder& decoder, Ins& ins) {
  if (!decoder.take("pred")) return unary<Not>(decoder, ins, integer_type(decoder, bits_only, {2, 4, 8}));
  decoder.operand_count(2);
  decoder.instruction_class = Class::predicate;
  Mask flip = 0;
  ins.d = decoder.write_predicate(decoder.operand(0));
  ins.a = decoder.read_predicate(decoder.operand(1), &flip);
  ins.imm = static_cast<std::int64_t>(~flip);
  ins.run = [](Warp& w, const Ins& i, Mask active) {
    set_predicate(w, i.d, active, w.predicate(i.a) ^ static_cast<Mask>(i.imm));
  };
}

void decode_cnot(Decoder& decoder, Ins& ins) {
  unary<LogicalNot>(decoder, ins, integer_type(decoder, bits_only, {2, 4, 8}));
}

template <class F, bool Left>
void decode_shift(Decoder& decoder, Ins& ins) {
  const Type type = decoder.type();
  decoder.instruction_class = Class::integer;
  decoder.operand_count(3);
  ins.d = decoder.write(0, type);
  ins.a = decoder.read(1, type);
  ins.b = decoder.read(2, Type::u32);
  const bool bits = type == Type::b16 || type == Type::b32 || type == Type::b64;
  if ((Left && !bits) || !with_integer(type, [&](auto v) {
        using T = decltype(v);
        ins.run = &Executor<F, T, T, std::uint32_t>::run;
      }))
    decoder.fail(std::string("not defined for .") + ptx::name_of(type));
}

template <bool Left, bool Wrap>
struct Funnel {
  std::uint32_t operator()(std::uint32_t a, std::uint32_t b, std::uint32_t n) const {
    n = Wrap ? n & 31 : std::min(n, 32u);
    const std::uint64_t both = static_cast<std::uint64_t>(b) << 32 | a;
    return Left ? static_cast<std::uint32_t>((both << n) >> 32) : static_cast<std::uint32_t>(both >> n);
  }
};

void decode_shf(Decoder& decoder, Ins& ins) {
  const bool left = decoder.expect_one_of({"l", "r"}) == 0,
             wrap = decoder.expect_one_of({"wrap", "clamp"}) == 0;
  decoder.expect("b32");
  decoder.instruction_class = Class::integer;
  ternary_operands(decoder, ins, Type::b32);
  using U = std::uint32_t;
  ins.run = left ? (wrap ? &Executor<Funnel<true, true>, U, U, U, U>::run
                         : &Executor<Funnel<true, false>, U, U, U, U>::run)
                 : (wrap ? &Executor<Funnel<false, true>, U, U, U, U>::run
                         : &Executor<Funnel<false, false>, U, U, U, U>::run);
}

template <class F>
void to_u32(Decoder& decoder, Ins& ins, Type type) {
  decoder.operand_count(2);
  ins.d = decoder.write(0, Type::u32);
  ins.a = decoder.read(1, type);
  with_integer(type, [&](auto v) {
    using T = decltype(v);
    if constexpr (std::is_unsigned_v<T>) ins.run = &Executor<F, std::uint32_t, T>::run;
  });
}

void decode_popc(Decoder& decoder, Ins& ins) {
  to_u32<PopCount>(decoder, ins, integer_type(decoder, bits_only, {4, 8}));
}
void decode_clz(Decoder& decoder, Ins& ins) {
  to_u32<LeadingZeros>(decoder, ins, integer_type(decoder, bits_only, {4, 8}));
}
void decode_brev(Decoder& decoder, Ins& ins) {
  unary<Reverse>(decoder, ins, integer_type(decoder, bits_only, {4, 8}));
}

void decode_bfind(Decoder& decoder, Ins& ins) {
  const bool amount = decoder.take("shiftamt");
  const Type type = integer_type(decoder, arithmetic, {4, 8});
  decoder.operand_count(2);
  ins.d = decoder.write(0, Type::u32);
  ins.a = decoder.read(1, type);
  with_integer(type, [&](auto v) {
    using T = decltype(v);
    ins.run = amount ? &Executor<FindHighest<true>, std::uint32_t, T>::run
                     : &Executor<FindHighest<false>, std::uint32_t, T>::run;
  });
}

void decode_bfe(Decoder& decoder, Ins& ins) {
  const Type type = integer_type(decoder, arithmetic, {4, 8});
  decoder.operand_count(4);
  ins.d = decoder.write(0, type);
  ins.a = decoder.read(1, type);
  ins.b = decoder.read(2, Type::u32);
  ins.c = decoder.read(3, Type::u32);
  with_integer(type, [&](auto v) {
    using T = decltype(v);
    ins.run = &Executor<ExtractField, T, T, std::uint32_t, std::uint32_t>::run;
  });
}

template <class T>
void insert_field(Warp& w, const Ins& i, Mask active) {
  map_lanes(active, w.lanes<T>(i.d), InsertField{}, w.lanes<T>(i.a), w.lanes<T>(i.b),
            w.lanes<std::uint32_t>(i.c), w.lanes<std::uint32_t>(i.e));
}

void decode_bfi(Decoder& decoder, Ins& ins) {
  const Type type = integer_type(decoder, bits_only, {4, 8});
  decoder.operand_count(5);
  ins.d = decoder.write(0, type);
  ins.a = decoder.read(1, type);
  ins.b = decoder.read(2, type);
  ins.c = decoder.read(3, Type::u32);
  ins.e = decoder.read(4, Type::u32);
  ins.run = ptx::bytes_of(type) == 4 ? &insert_field<std::uint32_t> : &insert_field<std::uint64_t>;
}

// Any function of three bits: bit i of the table is its value where a, b, c spell i.
void lop3(Warp& w, const Ins& i, Mask active) {
  const std::uint32_t table = i.extra;
  map_lanes(
      active, w.lanes<std::uint32_t>(i.d),
      [table](std::uint32_t a, std::uint32_t b, std::uint32_t c) {
        std::uint32_t result = 0;
        for (std::uint32_t row = 0; row < 8; ++row) {
          const std::uint32_t on = 0u - (table >> row & 1u);
          result |= on & ((row & 4) != 0 ? a : ~a) & ((row & 2) != 0 ? b : ~b) & ((row & 1) != 0 ? c : ~c);
        }
        return result;
      },
      w.lanes<std::uint32_t>(i.a), w.lanes<std::uint32_t>(i.b), w.lanes<std::uint32_t>(i.c));
}

void decode_lop3(Decoder& decoder, Ins& ins) {
  decoder.expect("b32");
  decoder.instruction_class = Class::integer;
  decoder.operand_count(5);
  ins.d = decoder.write(0, Type::b32);
  ins.a = decoder.read(1, Type::b32);
  ins.b = decoder.read(2, Type::b32);
  ins.c = decoder.read(3, Type::b32);
  ins.extra = static_cast<std::uint32_t>(decoder.literal(4, 0, 255));
  ins.run = lop3;
}

// Picks four of eight bytes; bit 3 of a selector copies the byte's sign instead.
void permute_bytes(Warp& w, const Ins& i, Mask active) {
  map_lanes(
      active, w.lanes<std::uint32_t>(i.d),
      [](std::uint32_t a, std::uint32_t b, std::uint32_t selector) {
        const std::uint64_t bytes = static_cast<std::uint64_t>(b) << 32 | a;
        std::uint32_t result = 0;
        for (unsigned n = 0; n < 4; ++n) {
          const std::uint32_t s = selector >> (4 * n) & 15;
          std::uint32_t byte = static_cast<std::uint32_t>(bytes >> (8 * (s & 7))) & 0xff;
          if ((s & 8) != 0) byte = (byte & 0x80) != 0 ? 0xff : 0;
          result |= byte << (8 * n);
        }
        return result;
      },
      w.lanes<std::uint32_t>(i.a), w.lanes<std::uint32_t>(i.b), w.lanes<std::uint32_t>(i.c));
}

// The modes of prmt as selectors: for each value of the two lowest bits of c.
std::uint32_t mode_selector(int mode, std::uint32_t c) {
  static constexpr std::uint32_t kSelectors[6][4] = {
      {0x3210, 0x4321, 0x5432, 0x6543}, {0x5670, 0x6701, 0x7012, 0x0123}, {0x0000, 0x1111, 0x2222, 0x3333},
      {0x3210, 0x3211, 0x3222, 0x3333}, {0x0000, 0x1110, 0x2210, 0x3210}, {0x1010, 0x3232, 0x1010, 0x3232}};
  return kSelectors[mode][c & 3];
}

void permute_by_mode(Warp& w, const Ins& i, Mask active) {
  alignas(64) std::uint32_t selector[kLanes];
  const std::uint32_t* c = w.lanes<std::uint32_t>(i.c);
  for (int lane = 0; lane < kLanes; ++lane) selector[lane] = mode_selector(i.aux, c[lane]);
  map_lanes(
      active, w.lanes<std::uint32_t>(i.d),
      [](std::uint32_t a, std::uint32_t b, std::uint32_t s) {
        const std::uint64_t bytes = static_cast<std::uint64_t>(b) << 32 | a;
        std::uint32_t result = 0;
        for (unsigned n = 0; n < 4; ++n)
          result |= (static_cast<std::uint32_t>(bytes >> (8 * (s >> (4 * n) & 7))) & 0xff) << (8 * n);
        return result;
      },
      w.lanes<std::uint32_t>(i.a), w.lanes<std::uint32_t>(i.b), static_cast<const std::uint32_t*>(selector));
}

void decode_prmt(Decoder& decoder, Ins& ins) {
  decoder.expect("b32");
  const int mode = decoder.take_one_of({"f4e", "b4e", "rc8", "ecl", "ecr", "rc16"});
  decoder.instruction_class = Class::integer;
  ternary_operands(decoder, ins, Type::b32);
  ins.aux = static_cast<std::uint16_t>(std::max(mode, 0));
  ins.run = mode < 0 ? permute_bytes : permute_by_mode;
}

// Dot products of four bytes, or of two halves with two of four bytes.
template <bool SignA, bool SignB, bool Four, bool High>
struct Dot {
  std::uint32_t operator()(std::uint32_t a, std::uint32_t b, std::uint32_t c) const {
    for (unsigned n = 0; n < (Four ? 4u : 2u); ++n) {
      const std::uint32_t x = Four ? a >> (8 * n) : a >> (16 * n), y = b >> (8 * (Four || !High ? n : n + 2));
      const std::int32_t left = Four ? (SignA ? static_cast<std::int8_t>(x) : static_cast<std::uint8_t>(x))
                                     : (SignA ? static_cast<std::int16_t>(x) : static_cast<std::uint16_t>(x));
      const std::int32_t right = SignB ? static_cast<std::int8_t>(y) : static_cast<std::uint8_t>(y);
      c += static_cast<std::uint32_t>(left * right);
    }
    return c;
  }
};

template <bool Four, bool High>
Run dot_of(bool sign_a, bool sign_b) {
  using U = std::uint32_t;
  if (sign_a)
    return sign_b ? &Executor<Dot<true, true, Four, High>, U, U, U, U>::run
                  : &Executor<Dot<true, false, Four, High>, U, U, U, U>::run;
  return sign_b ? &Executor<Dot<false, true, Four, High>, U, U, U, U>::run
                : &Executor<Dot<false, false, Four, High>, U, U, U, U>::run;
}

template <bool Four>
void decode_dot(Decoder& decoder, Ins& ins) {
  const bool high = !Four && decoder.expect_one_of({"lo", "hi"}) == 1;
  const bool sign_a = decoder.expect_one_of({"u32", "s32"}) == 1,
             sign_b = decoder.expect_one_of({"u32", "s32"}) == 1;
  decoder.instruction_class = Class::integer;
  ternary_operands(decoder, ins, Type::b32);
  ins.run = high ? dot_of<Four, true>(sign_a, sign_b) : dot_of<Four, false>(sign_a, sign_b);
}

template <bool Wrap>
struct MakeMask {
  std::uint32_t operator()(std::uint32_t position, std::uint32_t length) const {
    if (Wrap) position &= 31, length &= 31;
    if (position >= 32) return 0;
    const std::uint32_t low = length >= 32 ? ~0u : (1u << length) - 1;
    return low << position;
  }
};

void decode_bmsk(Decoder& decoder, Ins& ins) {
  const bool wrap = decoder.expect_one_of({"wrap", "clamp"}) == 0;
  decoder.expect("b32");
  decoder.instruction_class = Class::integer;
  binary<And>(decoder, ins, Type::b32);
  using U = std::uint32_t;
  ins.run = wrap ? &Executor<MakeMask<true>, U, U, U>::run : &Executor<MakeMask<false>, U, U, U>::run;
}

// Distances of bytes or halves without sign; with .add, their sum and c. Of the video instructions these are
// what CUDA's headers still use.
template <class Part, bool Sum>
struct PartDistances {
  std::uint32_t operator()(std::uint32_t a, std::uint32_t b, std::uint32_t c) const {
    std::uint32_t parts = 0, sum = c;
    for (std::uint32_t at = 0; at < 32; at += sizeof(Part) * 8) {
      const auto x = static_cast<Part>(a >> at), y = static_cast<Part>(b >> at);
      const auto distance = static_cast<std::uint32_t>(x > y ? x - y : y - x);
      parts |= distance << at;
      sum += distance;
    }
    return Sum ? sum : parts;
  }
};

template <class Part>
void decode_vabsdiff(Decoder& decoder, Ins& ins) {
  for (int i = 0; i < 3; ++i) decoder.expect("u32");
  decoder.instruction_class = Class::integer;
  const bool sum = decoder.take("add");
  ternary_operands(decoder, ins, Type::u32);
  using U = std::uint32_t;
  ins.run = sum ? &Executor<PartDistances<Part, true>, U, U, U, U>::run
                : &Executor<PartDistances<Part, false>, U, U, U, U>::run;
}

constexpr std::pair<std::string_view, Decode> kOpcodes[] = {{"and", decode_logic<And>},
                                                            {"or", decode_logic<Or>},
                                                            {"xor", decode_logic<Xor>},
                                                            {"not", decode_not},
                                                            {"cnot", decode_cnot},
                                                            {"shl", decode_shift<ShiftLeft, true>},
                                                            {"shr", decode_shift<ShiftRight, false>},
                                                            {"shf", decode_shf},
                                                            {"popc", decode_popc},
                                                            {"clz", decode_clz},
                                                            {"brev", decode_brev},
                                                            {"bfind", decode_bfind},
                                                            {"bfe", decode_bfe},
                                                            {"bfi", decode_bfi},
                                                            {"lop3", decode_lop3},
                                                            {"prmt", decode_prmt},
                                                            {"dp4a", decode_dot<true>},
                                                            {"dp2a", decode_dot<false>},
                                                            {"bmsk", decode_bmsk},
                                                            {"vabsdiff2", decode_vabsdiff<std::uint16_t>},
                                                            {"vabsdiff4", decode_vabsdiff<std::uint8_t>}};

}  // namespace

Opcodes bits_opcodes() { return kOpcodes; }

}  // namespace emulator
