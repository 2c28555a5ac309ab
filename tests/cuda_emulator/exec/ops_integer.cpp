// Integer arithmetic. Opcodes that float types share (add, sub, mul, mad, div, min, max, abs, neg) are
// dispatched here by type.
#include <limits>

#include "exec/arithmetic.h"
#include "exec/integer_forms.h"

namespace emulator {
namespace {

using namespace integer_forms;

// Two's complement arithmetic without undefined behaviour.
struct Add {
  template <class T>
  T operator()(T a, T b) const {
    return static_cast<T>(static_cast<Bits<T>>(a) + static_cast<Bits<T>>(b));
  }
};
struct Sub {
  template <class T>
  T operator()(T a, T b) const {
    return static_cast<T>(static_cast<Bits<T>>(a) - static_cast<Bits<T>>(b));
  }
};
struct MulLow {
  template <class T>
  T operator()(T a, T b) const {
    if constexpr (sizeof(T) == 2)
      return static_cast<T>(static_cast<std::uint32_t>(static_cast<Bits<T>>(a)) * static_cast<Bits<T>>(b));
    else
      return static_cast<T>(static_cast<Bits<T>>(a) * static_cast<Bits<T>>(b));
  }
};
struct MulHigh {
  template <class T>
  T operator()(T a, T b) const {
    return static_cast<T>((static_cast<Wider<T>>(a) * static_cast<Wider<T>>(b)) >> (sizeof(T) * 8));
  }
};
struct MulWide {
  template <class T>
  Wider<T> operator()(T a, T b) const {
    return static_cast<Wider<T>>(static_cast<Wider<T>>(a) * static_cast<Wider<T>>(b));
  }
};
struct MadLow {
  template <class T>
  T operator()(T a, T b, T c) const {
    return Add{}(MulLow{}(a, b), c);
  }
};
struct MadHigh {
  template <class T>
  T operator()(T a, T b, T c) const {
    return Add{}(MulHigh{}(a, b), c);
  }
};
struct MadWide {
  template <class T>
  Wider<T> operator()(T a, T b, Wider<T> c) const {
    return Add{}(MulWide{}(a, b), c);
  }
};
// Division by zero gives all ones, its remainder the dividend; the most negative number divided by -1 is
// itself.
struct Div {
  template <class T>
  T operator()(T a, T b) const {
    if (b == 0) return static_cast<T>(~T{0});
    if constexpr (std::is_signed_v<T>)
      if (b == -1) return static_cast<T>(Bits<T>{0} - static_cast<Bits<T>>(a));
    return static_cast<T>(a / b);
  }
};
struct Rem {
  template <class T>
  T operator()(T a, T b) const {
    if (b == 0) return a;
    if constexpr (std::is_signed_v<T>)
      if (b == -1) return 0;
    return static_cast<T>(a % b);
  }
};
struct Min {
  template <class T>
  T operator()(T a, T b) const {
    return a < b ? a : b;
  }
};
struct Max {
  template <class T>
  T operator()(T a, T b) const {
    return a > b ? a : b;
  }
};
struct Abs {
  template <class T>
  T operator()(T a) const {
    return a < 0 ? static_cast<T>(Bits<T>{0} - static_cast<Bits<T>>(a)) : a;
  }
};
struct Neg {
  template <class T>
  T operator()(T a) const {
    return static_cast<T>(Bits<T>{0} - static_cast<Bits<T>>(a));
  }
};
struct SumOfDifferences {
  template <class T>
  T operator()(T a, T b, T c) const {
    return Add{}(c, a < b ? Sub{}(b, a) : Sub{}(a, b));
  }
};
struct AddSaturated {
  std::int32_t operator()(std::int32_t a, std::int32_t b) const {
    return static_cast<std::int32_t>(std::clamp<std::int64_t>(std::int64_t{a} + b,
                                                              std::numeric_limits<std::int32_t>::min(),
                                                              std::numeric_limits<std::int32_t>::max()));
  }
};
struct SubSaturated {
  std::int32_t operator()(std::int32_t a, std::int32_t b) const {
    return static_cast<std::int32_t>(std::clamp<std::int64_t>(std::int64_t{a} - b,
                                                              std::numeric_limits<std::int32_t>::min(),
                                                              std::numeric_limits<std::int32_t>::max()));
  }
};
template <class T>
T extend24(T a) {
  return static_cast<T>(a << 8) >> 8;
}
struct Mul24Low {
  template <class T>
  T operator()(T a, T b) const {
    return MulLow{}(extend24(a), extend24(b));
  }
};
struct Mul24High {
  template <class T>
  T operator()(T a, T b) const {
    return static_cast<T>((static_cast<Wider<T>>(extend24(a)) * extend24(b)) >> 16);
  }
};
struct Mad24Low {
  template <class T>
  T operator()(T a, T b, T c) const {
    return Add{}(Mul24Low{}(a, b), c);
  }
};
struct Mad24High {
  template <class T>
  T operator()(T a, T b, T c) const {
    return Add{}(Mul24High{}(a, b), c);
  }
};

// add.cc, addc.cc, … keep a carry per lane. The flag that a subtraction leaves is the carry out of a + ~b +
// 1, so it says "no borrow", as on hardware: nvcc's 128-bit division reads it with addc.
template <bool Subtract, bool Use, bool Set, class T>
void with_carry(Warp& warp, const Ins& ins, Mask active) {
  const T *a = warp.lanes<T>(ins.a), *b = warp.lanes<T>(ins.b);
  T* d = warp.lanes<T>(ins.d);
  each_lane(active, [&](int lane) {
    const unsigned carry = Use ? warp.carry >> lane & 1u : (Subtract ? 1u : 0u);
    const Uint128 sum =
        static_cast<Uint128>(a[lane]) + (Subtract ? static_cast<T>(~b[lane]) : b[lane]) + carry;
    d[lane] = static_cast<T>(sum);
    if constexpr (Set) {
      const bool out = (sum >> (sizeof(T) * 8)) != 0;
      warp.carry = (warp.carry & ~(Mask{1} << lane)) | static_cast<Mask>(out) << lane;
    }
  });
}

template <bool Subtract, bool Use>
void carry_form(Decoder& decoder, Ins& ins, bool set) {
  const Type type = integer_type(decoder, arithmetic, {4, 8});
  decoder.operand_count(3);
  ins.d = decoder.write(0, type);
  ins.a = decoder.read(1, type);
  ins.b = decoder.read(2, type);
  if (ptx::bytes_of(type) == 4)
    ins.run = set ? &with_carry<Subtract, Use, true, std::uint32_t>
                  : &with_carry<Subtract, Use, false, std::uint32_t>;
  else
    ins.run = set ? &with_carry<Subtract, Use, true, std::uint64_t>
                  : &with_carry<Subtract, Use, false, std::uint64_t>;
}

bool is_float_form(Decoder& decoder, Ins& ins) {
  return decode_float_arithmetic(decoder, ins) || decode_half_arithmetic(decoder, ins);
}

// add, min and max of two 16-bit halves.
template <class F, class T>
void halves(Warp& warp, const Ins& ins, Mask active) {
  map_lanes(
      active, warp.lanes<std::uint32_t>(ins.d),
      [](std::uint32_t a, std::uint32_t b) {
        const T low = F{}(static_cast<T>(a), static_cast<T>(b)),
                high = F{}(static_cast<T>(a >> 16), static_cast<T>(b >> 16));
        return static_cast<std::uint32_t>(static_cast<std::uint16_t>(low)) |
               static_cast<std::uint32_t>(static_cast<std::uint16_t>(high)) << 16;
      },
      warp.lanes<std::uint32_t>(ins.a), warp.lanes<std::uint32_t>(ins.b));
}

template <class F>
void decode_halves(Decoder& decoder, Ins& ins) {
  const bool sign = decoder.expect_one_of({"u16x2", "s16x2"}) == 1;
  decoder.instruction_class = Class::integer;
  decoder.operand_count(3);
  ins.d = decoder.write(0, Type::b32);
  ins.a = decoder.read(1, Type::b32);
  ins.b = decoder.read(2, Type::b32);
  ins.run = sign ? &halves<F, std::int16_t> : &halves<F, std::uint16_t>;
}

bool is_halves(const Decoder& decoder) { return decoder.next() == "u16x2" || decoder.next() == "s16x2"; }

void decode_add(Decoder& decoder, Ins& ins) {
  if (is_float_form(decoder, ins)) return;
  if (decoder.take("cc")) return carry_form<false, false>(decoder, ins, true);
  if (is_halves(decoder)) return decode_halves<Add>(decoder, ins);
  const bool saturate = decoder.take("sat");
  const Type type = integer_type(decoder, arithmetic, {2, 4, 8});
  binary<Add>(decoder, ins, type);
  if (!saturate) return;
  if (type != Type::s32) decoder.fail(".sat is defined for .s32 only");
  ins.run = &Executor<AddSaturated, std::int32_t, std::int32_t, std::int32_t>::run;
}

void decode_sub(Decoder& decoder, Ins& ins) {
  if (is_float_form(decoder, ins)) return;
  if (decoder.take("cc")) return carry_form<true, false>(decoder, ins, true);
  const bool saturate = decoder.take("sat");
  const Type type = integer_type(decoder, arithmetic, {2, 4, 8});
  binary<Sub>(decoder, ins, type);
  if (!saturate) return;
  if (type != Type::s32) decoder.fail(".sat is defined for .s32 only");
  ins.run = &Executor<SubSaturated, std::int32_t, std::int32_t, std::int32_t>::run;
}

void decode_addc(Decoder& decoder, Ins& ins) { carry_form<false, true>(decoder, ins, decoder.take("cc")); }
void decode_subc(Decoder& decoder, Ins& ins) { carry_form<true, true>(decoder, ins, decoder.take("cc")); }

Type wide_type(Type type) {
  switch (type) {
    case Type::u16:
      return Type::u32;
    case Type::s16:
      return Type::s32;
    case Type::u32:
      return Type::u64;
    default:
      return Type::s64;
  }
}

void decode_mul(Decoder& decoder, Ins& ins) {
  if (is_float_form(decoder, ins)) return;
  const int part = decoder.expect_one_of({"lo", "hi", "wide"});
  const Type type = integer_type(decoder, arithmetic, {2, 4, 8});
  if (part == 0) return binary<MulLow>(decoder, ins, type);
  if (part == 1) return binary<MulHigh>(decoder, ins, type);
  if (ptx::bytes_of(type) == 8) decoder.fail(".wide is not defined for 64 bits");
  decoder.operand_count(3);
  ins.d = decoder.write(0, wide_type(type));
  ins.a = decoder.read(1, type);
  ins.b = decoder.read(2, type);
  with_integer(type, [&](auto v) {
    using T = decltype(v);
    if constexpr (sizeof(T) < 8) ins.run = &Executor<MulWide, Wider<T>, T, T>::run;
  });
}

// mad.lo.cc, madc.hi.cc, …: the product's half plus c plus carry.
template <bool High, bool Use, bool Set, class T>
void mad_with_carry(Warp& warp, const Ins& ins, Mask active) {
  const T *a = warp.lanes<T>(ins.a), *b = warp.lanes<T>(ins.b);
  const Bits<T>* c = warp.lanes<Bits<T>>(ins.c);
  Bits<T>* d = warp.lanes<Bits<T>>(ins.d);
  each_lane(active, [&](int lane) {
    const T half = High ? MulHigh{}(a[lane], b[lane]) : MulLow{}(a[lane], b[lane]);
    const Uint128 sum =
        static_cast<Uint128>(static_cast<Bits<T>>(half)) + c[lane] + (Use ? warp.carry >> lane & 1u : 0u);
    d[lane] = static_cast<Bits<T>>(sum);
    if constexpr (Set)
      warp.carry = (warp.carry & ~(Mask{1} << lane)) | static_cast<Mask>((sum >> (sizeof(T) * 8)) != 0)
                                                           << lane;
  });
}

template <bool Use>
void mad_carry_form(Decoder& decoder, Ins& ins, bool high, bool set) {
  const Type type = integer_type(decoder, arithmetic, {4, 8});
  ternary_operands(decoder, ins, type);
  with_integer(type, [&](auto v) {
    using T = decltype(v);
    if constexpr (sizeof(T) >= 4)
      ins.run = high ? (set ? &mad_with_carry<true, Use, true, T> : &mad_with_carry<true, Use, false, T>)
                     : (set ? &mad_with_carry<false, Use, true, T> : &mad_with_carry<false, Use, false, T>);
  });
}

void decode_mad(Decoder& decoder, Ins& ins) {
  if (is_float_form(decoder, ins)) return;
  const int part = decoder.expect_one_of({"lo", "hi", "wide"});
  if (part < 2 && decoder.take("cc")) return mad_carry_form<false>(decoder, ins, part == 1, true);
  const Type type = integer_type(decoder, arithmetic, {2, 4, 8});
  if (part == 0) return ternary<MadLow>(decoder, ins, type);
  if (part == 1) return ternary<MadHigh>(decoder, ins, type);
  if (ptx::bytes_of(type) == 8) decoder.fail(".wide is not defined for 64 bits");
  decoder.operand_count(4);
  ins.d = decoder.write(0, wide_type(type));
  ins.a = decoder.read(1, type);
  ins.b = decoder.read(2, type);
  ins.c = decoder.read(3, wide_type(type));
  with_integer(type, [&](auto v) {
    using T = decltype(v);
    if constexpr (sizeof(T) < 8) ins.run = &Executor<MadWide, Wider<T>, T, T, Wider<T>>::run;
  });
}

void decode_madc(Decoder& decoder, Ins& ins) {
  const int part = decoder.expect_one_of({"lo", "hi"});
  mad_carry_form<true>(decoder, ins, part == 1, decoder.take("cc"));
}

void decode_mul24(Decoder& decoder, Ins& ins) {
  const bool high = decoder.expect_one_of({"lo", "hi"}) == 1;
  const Type type = integer_type(decoder, arithmetic, {4});
  high ? binary<Mul24High>(decoder, ins, type) : binary<Mul24Low>(decoder, ins, type);
}

void decode_mad24(Decoder& decoder, Ins& ins) {
  const bool high = decoder.expect_one_of({"lo", "hi"}) == 1;
  const Type type = integer_type(decoder, arithmetic, {4});
  high ? ternary<Mad24High>(decoder, ins, type) : ternary<Mad24Low>(decoder, ins, type);
}

template <class F>
void shared_binary(Decoder& decoder, Ins& ins) {
  if (is_float_form(decoder, ins)) return;
  binary<F>(decoder, ins, integer_type(decoder, arithmetic, {2, 4, 8}));
}

template <class F>
void shared_unary(Decoder& decoder, Ins& ins) {
  if (is_float_form(decoder, ins)) return;
  const Type type = integer_type(decoder, arithmetic, {2, 4, 8});
  if (type != Type::s16 && type != Type::s32 && type != Type::s64)
    decoder.fail("is defined for signed types");
  unary<F>(decoder, ins, type);
}

struct ReluMin {
  template <class T>
  T operator()(T a, T b) const {
    return std::max<T>(0, std::min(a, b));
  }
};
struct ReluMax {
  template <class T>
  T operator()(T a, T b) const {
    return std::max<T>(0, std::max(a, b));
  }
};

template <class F, class Relu>
void minimum_or_maximum(Decoder& decoder, Ins& ins) {
  if (is_float_form(decoder, ins)) return;
  const bool relu = decoder.take("relu");
  if (relu && decoder.next() == "s16x2") return decode_halves<Relu>(decoder, ins);
  if (!relu && is_halves(decoder)) return decode_halves<F>(decoder, ins);
  const Type type = integer_type(decoder, arithmetic, {2, 4, 8});
  binary<F>(decoder, ins, type);
  if (!relu) return;
  if (type != Type::s32) decoder.fail(".relu is defined for .s32 and .s16x2");
  ins.run = &Executor<Relu, std::int32_t, std::int32_t, std::int32_t>::run;
}

template <class F>
void decode_binary(Decoder& decoder, Ins& ins) {
  binary<F>(decoder, ins, integer_type(decoder, arithmetic, {2, 4, 8}));
}

void decode_sad(Decoder& decoder, Ins& ins) {
  ternary<SumOfDifferences>(decoder, ins, integer_type(decoder, arithmetic, {2, 4, 8}));
}

constexpr std::pair<std::string_view, Decode> kOpcodes[] = {{"add", decode_add},
                                                            {"sub", decode_sub},
                                                            {"addc", decode_addc},
                                                            {"subc", decode_subc},
                                                            {"mul", decode_mul},
                                                            {"mad", decode_mad},
                                                            {"madc", decode_madc},
                                                            {"mul24", decode_mul24},
                                                            {"mad24", decode_mad24},
                                                            {"div", shared_binary<Div>},
                                                            {"rem", decode_binary<Rem>},
                                                            {"min", minimum_or_maximum<Min, ReluMin>},
                                                            {"max", minimum_or_maximum<Max, ReluMax>},
                                                            {"abs", shared_unary<Abs>},
                                                            {"neg", shared_unary<Neg>},
                                                            {"sad", decode_sad}};

}  // namespace

Opcodes integer_opcodes() { return kOpcodes; }

}  // namespace emulator
