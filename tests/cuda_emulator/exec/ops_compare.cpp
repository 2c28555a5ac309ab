#include <array>
#include <utility>

#include "exec/arithmetic.h"
#include "exec/decoder.h"
#include "exec/half_math.h"
#include "exec/lanes.h"

/// setp and set for all types, selp and slct.
namespace emulator {
namespace {

using ptx::Type;

// ---- the relations ----

/// Every comparison is one of these five, perhaps with its operands swapped, perhaps inverted: "ltu" is "not
/// a >= b" and so on.
enum class Base : std::uint8_t { less, less_equal, equal, less_or_greater, ordered };

struct Relation {
  std::string_view name;
  Base base;
  bool swapped, inverted;
};
constexpr Relation kSigned[] = {
    {"eq", Base::equal, false, false}, {"ne", Base::equal, false, true},
    {"lt", Base::less, false, false},  {"le", Base::less_equal, false, false},
    {"gt", Base::less, true, false},   {"ge", Base::less_equal, true, false},
};
constexpr Relation kUnsigned[] = {
    {"lo", Base::less, false, false},
    {"ls", Base::less_equal, false, false},
    {"hi", Base::less, true, false},
    {"hs", Base::less_equal, true, false},
};
constexpr Relation kFloat[] = {
    {"eq", Base::equal, false, false},
    {"ne", Base::less_or_greater, false, false},
    {"lt", Base::less, false, false},
    {"le", Base::less_equal, false, false},
    {"gt", Base::less, true, false},
    {"ge", Base::less_equal, true, false},
    {"equ", Base::less_or_greater, false, true},
    {"neu", Base::equal, false, true},
    {"ltu", Base::less_equal, true, true},
    {"leu", Base::less, true, true},
    {"gtu", Base::less_equal, false, true},
    {"geu", Base::less, false, true},
    {"num", Base::ordered, false, false},
    {"nan", Base::ordered, false, true},
};

template <Base base, class T>
inline bool holds(T a, T b) {
  switch (base) {
    case Base::less:
      return a < b;
    case Base::less_equal:
      return a <= b;
    case Base::equal:
      return a == b;
    case Base::less_or_greater:
      return (a < b) | (a > b);
    default:
      return (a == a) & (b == b);
  }
}

// ---- how lanes are read ----

template <class T>
struct Plain {
  using Storage = T;
  static T load(T x) { return x; }
};
struct Flushed {
  using Storage = float;
  static float load(float x) { return flush(x); }
};
template <class Format, bool ftz>
struct Half {
  using Storage = std::uint16_t;
  static float load(std::uint32_t x) { return Format::widen(ftz ? Format::flush(x) : x); }
};
template <class Format, bool ftz, int shift>
struct HalfOfPair {
  using Storage = std::uint32_t;
  static float load(std::uint32_t x) {
    return Format::widen((ftz ? Format::flush(x >> shift & 0xffffu) : x >> shift & 0xffffu));
  }
};

template <class Source, Base base>
Mask compare(Warp& warp, const Ins& ins, Mask active) {
  using T = typename Source::Storage;
  return mask_of(
      active, [](T a, T b) { return holds<base>(Source::load(a), Source::load(b)); }, warp.lanes<T>(ins.a),
      warp.lanes<T>(ins.b));
}

// ---- what follows the comparison ----

enum Combine : std::uint16_t { kNone, kAnd, kOr, kXor };
// aux: Combine; aux2: the comparison is inverted; extra: all ones if the predicate source is negated.

inline Mask combine(Warp& warp, const Ins& ins, Mask t) {
  if (ins.aux == kNone) return t;
  const Mask c = warp.predicate(ins.c) ^ ins.extra;
  return ins.aux == kAnd ? t & c : ins.aux == kOr ? t | c : t ^ c;
}

inline Mask inverted(const Ins& ins, Mask t) { return ins.aux2 != 0 ? ~t : t; }

template <class Source, Base base>
[[gnu::flatten]] void run_setp(Warp& warp, const Ins& ins, Mask active) {
  const Mask t = inverted(ins, compare<Source, base>(warp, ins, active));
  const Mask p = combine(warp, ins, t),
             q = combine(warp, ins,
                         ~t);  // both before either is written: the predicate source may be a destination
  set_predicate(warp, ins.d, active, p);
  set_predicate(warp, ins.e, active, q);
}

/// p of the lower halves, q of the upper ones.
template <class Low, class High, Base base>
[[gnu::flatten]] void run_setp_pair(Warp& warp, const Ins& ins, Mask active) {
  const Mask p = combine(warp, ins, inverted(ins, compare<Low, base>(warp, ins, active)));
  const Mask q = combine(warp, ins, inverted(ins, compare<High, base>(warp, ins, active)));
  set_predicate(warp, ins.d, active, p);
  set_predicate(warp, ins.e, active, q);
}

/// d = imm where the comparison holds, else 0.
template <class D>
void write_choice(Warp& warp, const Ins& ins, Mask active, Mask t) {
  D* d = warp.lanes<D>(ins.d);
  const D value = static_cast<D>(ins.imm);
  for (int lane = 0; lane < kLanes; ++lane) {
    const D chosen = (t >> lane & 1u) != 0 ? value : D(0);
    d[lane] = (active >> lane & 1u) != 0 ? chosen : d[lane];
  }
}

template <class Source, Base base>
[[gnu::flatten]] void run_set(Warp& warp, const Ins& ins, Mask active) {
  const Mask t = combine(warp, ins, inverted(ins, compare<Source, base>(warp, ins, active)));
  if (ins.e == 2)
    write_choice<std::uint16_t>(warp, ins, active, t);
  else
    write_choice<std::uint32_t>(warp, ins, active, t);
}

template <class Low, class High, Base base>
[[gnu::flatten]] void run_set_pair(Warp& warp, const Ins& ins, Mask active) {
  const Mask low = combine(warp, ins, inverted(ins, compare<Low, base>(warp, ins, active)));
  const Mask high = combine(warp, ins, inverted(ins, compare<High, base>(warp, ins, active)));
  const auto value = static_cast<std::uint32_t>(ins.imm) & 0xffffu;
  std::uint32_t* d = warp.lanes<std::uint32_t>(ins.d);
  for (int lane = 0; lane < kLanes; ++lane) {
    const std::uint32_t chosen = (low >> lane & 1u) * value | (high >> lane & 1u) * (value << 16);
    d[lane] = (active >> lane & 1u) != 0 ? chosen : d[lane];
  }
}

// ---- choosing the function ----

using Runs = std::array<Run, 5>;  // by Base

template <class Source, bool setp, std::size_t... base>
constexpr Runs runs_of(std::index_sequence<base...>) {
  return {(setp ? run_setp<Source, static_cast<Base>(base)> : run_set<Source, static_cast<Base>(base)>)...};
}
template <class Format, bool ftz, bool setp, std::size_t... base>
constexpr Runs pair_runs_of(std::index_sequence<base...>) {
  using Low = HalfOfPair<Format, ftz, 0>;
  using High = HalfOfPair<Format, ftz, 16>;
  return {(setp ? run_setp_pair<Low, High, static_cast<Base>(base)>
                : run_set_pair<Low, High, static_cast<Base>(base)>)...};
}

template <class Source, bool setp>
Runs float_runs() {
  return runs_of<Source, setp>(std::make_index_sequence<5>());
}

template <class T, bool setp>
Runs integer_runs() {
  return runs_of<Plain<T>, setp>(std::index_sequence<0, 1, 2>());  // less_or_greater and ordered do not occur
}

template <class Format, bool setp>
Runs pair_runs(bool ftz) {
  constexpr auto all = std::make_index_sequence<5>();
  return ftz ? pair_runs_of<Format, true, setp>(all) : pair_runs_of<Format, false, setp>(all);
}

template <bool setp>
Runs runs_for(Decoder& decoder, Type type, bool ftz) {
  switch (type) {
    case Type::b16:
    case Type::u16:
      return integer_runs<std::uint16_t, setp>();
    case Type::s16:
      return integer_runs<std::int16_t, setp>();
    case Type::b32:
    case Type::u32:
      return integer_runs<std::uint32_t, setp>();
    case Type::s32:
      return integer_runs<std::int32_t, setp>();
    case Type::b64:
    case Type::u64:
      return integer_runs<std::uint64_t, setp>();
    case Type::s64:
      return integer_runs<std::int64_t, setp>();
    case Type::f32:
      return ftz ? float_runs<Flushed, setp>() : float_runs<Plain<float>, setp>();
    case Type::f64:
      return float_runs<Plain<double>, setp>();
    case Type::f16:
      return ftz ? float_runs<Half<F16, true>, setp>() : float_runs<Half<F16, false>, setp>();
    case Type::bf16:
      return float_runs<Half<Bf16, false>, setp>();
    case Type::f16x2:
      return pair_runs<F16, setp>(ftz);
    case Type::bf16x2:
      return pair_runs<Bf16, setp>(false);
    default:
      decoder.fail("cannot be compared");
  }
}

// ---- decoding ----

bool is_float(Type type) {
  return type == Type::f32 || type == Type::f64 || type == Type::f16 || type == Type::bf16 ||
         type == Type::f16x2 || type == Type::bf16x2;
}
bool is_pair(Type type) { return type == Type::f16x2 || type == Type::bf16x2; }

const Relation& relation_for(Decoder& decoder, std::string_view name, Type type) {
  const auto find = [&](std::span<const Relation> relations) -> const Relation* {
    for (const Relation& relation : relations)
      if (relation.name == name) return &relation;
    return nullptr;
  };
  const bool bits = type == Type::b16 || type == Type::b32 || type == Type::b64;
  const bool is_unsigned = type == Type::u16 || type == Type::u32 || type == Type::u64;
  const Relation* found = find(is_float(type) ? std::span<const Relation>(kFloat) : kSigned);
  if (found == nullptr && is_unsigned) found = find(kUnsigned);
  if (found == nullptr || (bits && found->base != Base::equal))
    decoder.fail("." + std::string(name) + " does not apply to this type");
  return *found;
}

struct Comparison {
  std::string_view relation;
  bool ftz;
};

Comparison take_comparison(Decoder& decoder, Ins& ins) {
  const std::string_view relation = decoder.next();
  decoder.expect_one_of({"eq", "ne", "lt", "le", "gt", "ge", "lo", "ls", "hi", "hs", "equ", "neu", "ltu",
                         "leu", "gtu", "geu", "num", "nan"});
  ins.aux = static_cast<std::uint16_t>(decoder.take_one_of({"and", "or", "xor"}) + 1);
  return {relation, decoder.take("ftz")};
}

template <bool setp>
void finish(Decoder& decoder, Ins& ins, const Comparison& comparison, Type type) {
  if (comparison.ftz && type != Type::f32 && type != Type::f16 && type != Type::f16x2)
    decoder.fail(".ftz does not apply to this type");
  const Relation& relation = relation_for(decoder, comparison.relation, type);
  ins.run = runs_for<setp>(decoder, type, comparison.ftz)[static_cast<std::size_t>(relation.base)];
  ins.aux2 = relation.inverted;
  decoder.instruction_class = Class::predicate;
  decoder.operand_count(ins.aux == kNone ? 3 : 4);
  const Slot a = decoder.read(1, type), b = decoder.read(2, type);
  ins.a = relation.swapped ? b : a;
  ins.b = relation.swapped ? a : b;
  if (ins.aux != kNone) ins.c = decoder.read_predicate(decoder.operand(3), &ins.extra);
}

/// What `set` writes where the comparison holds, per element; 0: not a type that it can write.
std::uint32_t true_value(Type type) {
  switch (type) {
    case Type::u32:
    case Type::s32:
      return 0xffffffffu;
    case Type::u16:
    case Type::s16:
      return 0xffffu;
    case Type::f32:
      return 0x3f800000u;
    case Type::f16:
    case Type::f16x2:
      return 0x3c00u;
    case Type::bf16:
    case Type::bf16x2:
      return 0x3f80u;
    default:
      return 0;
  }
}

}  // namespace

void decode_setp(Decoder& decoder, Ins& ins) {
  const Comparison comparison = take_comparison(decoder, ins);
  const Type type = decoder.type();
  finish<true>(decoder, ins, comparison, type);
  const ptx::Operand& destination = decoder.operand(0);
  if (destination.kind == ptx::Operand::Kind::pair) {
    if (destination.elements.size() != 2) decoder.fail("expected p|q");
    if (type == Type::f16 || type == Type::bf16) decoder.fail("takes one destination");
    ins.d = decoder.write_predicate(destination.elements[0]);
    ins.e = decoder.write_predicate(destination.elements[1]);
  } else {
    if (is_pair(type)) decoder.fail("expected two destinations, p|q");
    ins.d = decoder.write_predicate(destination);
  }
}

void decode_set(Decoder& decoder, Ins& ins) {
  const Comparison comparison = take_comparison(decoder, ins);
  const Type written = decoder.type(), type = decoder.type();
  finish<false>(decoder, ins, comparison, type);
  const bool mask_of_pair = is_pair(type) && (written == Type::u32 || written == Type::s32);
  const bool half = type == Type::f16 || type == Type::bf16,
             writes_16_bits = written == Type::u16 || written == Type::s16;
  if ((writes_16_bits && !half) || (written == Type::f32 && half)) decoder.fail("cannot write this type");
  if (true_value(written) == 0 || (is_pair(type) && written != type && !mask_of_pair) ||
      (!is_pair(type) && is_pair(written)))
    decoder.fail("cannot write this type");
  ins.imm = true_value(written);
  ins.e = static_cast<Slot>(ptx::bytes_of(written));
  ins.d = decoder.write(0, written);
}

// ---- selection ----

namespace {

/// extra: all ones for a negated predicate.
template <class T>
void run_selp(Warp& warp, const Ins& ins, Mask active) {
  const Mask choose = warp.predicate(ins.c) ^ ins.extra;
  T* d = warp.lanes<T>(ins.d);
  const T *a = warp.lanes<T>(ins.a), *b = warp.lanes<T>(ins.b);
#pragma GCC ivdep
  for (int lane = 0; lane < kLanes; ++lane) {
    const T chosen = (choose >> lane & 1u) != 0 ? a[lane] : b[lane];
    d[lane] = (active >> lane & 1u) != 0 ? chosen : d[lane];
  }
}

/// d = c >= 0 ? a : b; an unordered c chooses b, -0 chooses a, and so does a negative subnormal with .ftz
/// (Source = Flushed).
template <class T, class Source>
void run_slct(Warp& warp, const Ins& ins, Mask active) {
  using C = typename Source::Storage;
  map_lanes(
      active, warp.lanes<T>(ins.d), [](T a, T b, C c) { return Source::load(c) >= 0 ? a : b; },
      warp.lanes<T>(ins.a), warp.lanes<T>(ins.b), warp.lanes<C>(ins.c));
}

template <class Source>
Run slct_run(int bytes) {
  return bytes == 2   ? run_slct<std::uint16_t, Source>
         : bytes == 4 ? run_slct<std::uint32_t, Source>
                      : run_slct<std::uint64_t, Source>;
}

Type expect_scalar(Decoder& decoder) {
  const Type type = decoder.type();
  const int bytes = ptx::bytes_of(type);
  if ((bytes != 2 && bytes != 4 && bytes != 8) || is_pair(type) || type == Type::f16 || type == Type::bf16 ||
      type == Type::tf32)
    decoder.fail("does not apply to this type");
  return type;
}

}  // namespace

void decode_selp(Decoder& decoder, Ins& ins) {
  const Type type = expect_scalar(decoder);
  const int bytes = ptx::bytes_of(type);
  ins.run = bytes == 2   ? run_selp<std::uint16_t>
            : bytes == 4 ? run_selp<std::uint32_t>
                         : run_selp<std::uint64_t>;
  decoder.instruction_class = Class::predicate;
  decoder.operand_count(4);
  ins.d = decoder.write(0, type);
  ins.a = decoder.read(1, type);
  ins.b = decoder.read(2, type);
  ins.c = decoder.read_predicate(decoder.operand(3), &ins.extra);
}

void decode_slct(Decoder& decoder, Ins& ins) {
  const bool ftz = decoder.take("ftz");
  const Type type = expect_scalar(decoder), chooser = decoder.type();
  if (chooser != Type::s32 && chooser != Type::f32) decoder.fail("expected s32 or f32");
  if (ftz && chooser != Type::f32) decoder.fail(".ftz does not apply to s32");
  const int bytes = ptx::bytes_of(type);
  ins.run = chooser == Type::s32 ? slct_run<Plain<std::int32_t>>(bytes)
            : ftz                ? slct_run<Flushed>(bytes)
                                 : slct_run<Plain<float>>(bytes);
  decoder.instruction_class = Class::predicate;
  decoder.operand_count(4);
  ins.d = decoder.write(0, type);
  ins.a = decoder.read(1, type);
  ins.b = decoder.read(2, type);
  ins.c = decoder.read(3, chooser);
}

}  // namespace emulator
