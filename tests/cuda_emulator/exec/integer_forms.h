#pragma once

#include <algorithm>
#include <type_traits>

#include "exec/decoder.h"
#include "exec/lanes.h"

/// How operators on integers become instructions: what integer arithmetic (ops_integer.cpp) and operations on
/// bits (ops_bits.cpp) share.
namespace emulator::integer_forms {

using ptx::Type;

__extension__ typedef __int128 Int128;
__extension__ typedef unsigned __int128 Uint128;

/// The type of a whole product.
template <class T>
struct WiderOf;
template <>
struct WiderOf<std::uint16_t> {
  using type = std::uint32_t;
};
template <>
struct WiderOf<std::int16_t> {
  using type = std::int32_t;
};
template <>
struct WiderOf<std::uint32_t> {
  using type = std::uint64_t;
};
template <>
struct WiderOf<std::int32_t> {
  using type = std::int64_t;
};
template <>
struct WiderOf<std::uint64_t> {
  using type = Uint128;
};
template <>
struct WiderOf<std::int64_t> {
  using type = Int128;
};
template <class T>
using Wider = typename WiderOf<T>::type;
template <class T>
using Bits = std::make_unsigned_t<T>;

template <class F, class D, class... S>
struct Executor;
template <class F, class D, class A>
struct Executor<F, D, A> {
  static void run(Warp& w, const Ins& i, Mask active) {
    map_lanes(
        active, w.lanes<D>(i.d), [](A a) { return static_cast<D>(F{}(a)); }, w.lanes<A>(i.a));
  }
};
template <class F, class D, class A, class B>
struct Executor<F, D, A, B> {
  static void run(Warp& w, const Ins& i, Mask active) {
    map_lanes(
        active, w.lanes<D>(i.d), [](A a, B b) { return static_cast<D>(F{}(a, b)); }, w.lanes<A>(i.a),
        w.lanes<B>(i.b));
  }
};
template <class F, class D, class A, class B, class C>
struct Executor<F, D, A, B, C> {
  static void run(Warp& w, const Ins& i, Mask active) {
    map_lanes(
        active, w.lanes<D>(i.d), [](A a, B b, C c) { return static_cast<D>(F{}(a, b, c)); }, w.lanes<A>(i.a),
        w.lanes<B>(i.b), w.lanes<C>(i.c));
  }
};

/// Calls f with a value of the C++ type of an integer type; false if it is none of the widths.
template <class F>
bool with_integer(Type type, F&& f) {
  switch (type) {
    case Type::b16:
    case Type::u16:
      f(std::uint16_t{});
      return true;
    case Type::s16:
      f(std::int16_t{});
      return true;
    case Type::b32:
    case Type::u32:
      f(std::uint32_t{});
      return true;
    case Type::s32:
      f(std::int32_t{});
      return true;
    case Type::b64:
    case Type::u64:
      f(std::uint64_t{});
      return true;
    case Type::s64:
      f(std::int64_t{});
      return true;
    default:
      return false;
  }
}

enum Kinds { bits_only, arithmetic };

/// Takes the next modifier, which must name an integer type (arithmetic) or a type of bits, of one of these
/// widths in bytes.
inline Type integer_type(Decoder& decoder, Kinds kinds, std::initializer_list<int> widths) {
  const Type type = decoder.type();
  const int bytes = ptx::bytes_of(type);
  const bool is_bits = type == Type::b16 || type == Type::b32 || type == Type::b64;
  const bool is_integer = type == Type::u16 || type == Type::u32 || type == Type::u64 || type == Type::s16 ||
                          type == Type::s32 || type == Type::s64;
  if (!(kinds == bits_only ? is_bits : is_integer) ||
      std::find(widths.begin(), widths.end(), bytes) == widths.end())
    decoder.fail(std::string("not defined for .") + ptx::name_of(type));
  decoder.instruction_class = Class::integer;
  return type;
}

template <class F>
void unary(Decoder& decoder, Ins& ins, Type type) {
  decoder.operand_count(2);
  ins.d = decoder.write(0, type);
  ins.a = decoder.read(1, type);
  with_integer(type, [&](auto v) {
    using T = decltype(v);
    ins.run = &Executor<F, T, T>::run;
  });
}

template <class F>
void binary(Decoder& decoder, Ins& ins, Type type) {
  decoder.operand_count(3);
  ins.d = decoder.write(0, type);
  ins.a = decoder.read(1, type);
  ins.b = decoder.read(2, type);
  with_integer(type, [&](auto v) {
    using T = decltype(v);
    ins.run = &Executor<F, T, T, T>::run;
  });
}

inline void ternary_operands(Decoder& decoder, Ins& ins, Type type) {
  decoder.operand_count(4);
  ins.d = decoder.write(0, type);
  ins.a = decoder.read(1, type);
  ins.b = decoder.read(2, type);
  ins.c = decoder.read(3, type);
}

template <class F>
void ternary(Decoder& decoder, Ins& ins, Type type) {
  ternary_operands(decoder, ins, type);
  with_integer(type, [&](auto v) {
    using T = decltype(v);
    ins.run = &Executor<F, T, T, T, T>::run;
  });
}

}  // namespace emulator::integer_forms
