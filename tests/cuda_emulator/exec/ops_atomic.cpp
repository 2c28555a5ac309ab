// atom and red: read, change, write, in one step that no other thread can come between.
#include <algorithm>
#include <type_traits>

#include "exec/half_math.h"
#include "exec/lanes.h"
#include "exec/memory.h"
#include "exec/schedule.h"

namespace emulator {
namespace {

using ptx::Type;

enum class Operation : std::uint16_t {
  add,
  minimum,
  maximum,
  bit_and,
  bit_or,
  bit_xor,
  exchange,
  compare_and_swap,
  increment,
  decrement
};

template <class T, class F>
T update(std::uint8_t* memory, F&& f) {
  auto* place = reinterpret_cast<T*>(memory);
  T old = __atomic_load_n(place, __ATOMIC_RELAXED);
  while (!__atomic_compare_exchange_n(place, &old, f(old), true, __ATOMIC_SEQ_CST, __ATOMIC_RELAXED)) {
  }
  return old;
}

// The new value; T: how the bits count.
template <class T>
struct Integer {
  using Word = std::make_unsigned_t<T>;
  static Word apply(Operation operation, Word old, Word b, Word) {
    switch (operation) {
      case Operation::add:
        return static_cast<Word>(old + b);
      case Operation::minimum:
        return static_cast<T>(old) < static_cast<T>(b) ? old : b;
      case Operation::maximum:
        return static_cast<T>(old) > static_cast<T>(b) ? old : b;
      case Operation::bit_and:
        return old & b;
      case Operation::bit_or:
        return old | b;
      case Operation::bit_xor:
        return old ^ b;
      case Operation::increment:
        return old >= b ? Word{0} : static_cast<Word>(old + 1);
      case Operation::decrement:
        return old == 0 || old > b ? b : static_cast<Word>(old - 1);
      default:
        return b;
    }
  }
};

template <class Float, class Bits>
struct Floating {
  using Word = Bits;
  static Word apply(Operation, Word old, Word b, Word) {
    Float x, y;
    std::memcpy(&x, &old, sizeof x);
    std::memcpy(&y, &b, sizeof y);
    x += y;
    std::memcpy(&old, &x, sizeof x);
    return old;
  }
};

// Sums of f32 in global memory know no subnormal numbers (PTX ISA, atom), those in shared memory do.
struct FlushedFloat {
  using Word = std::uint32_t;
  static Word flushed(Word bits) { return (bits & 0x7f800000u) == 0 ? bits & 0x80000000u : bits; }
  static Word apply(Operation operation, Word old, Word b, Word c) {
    return flushed(Floating<float, Word>::apply(operation, flushed(old), flushed(b), c));
  }
};

// f16, bf16 and their pairs, which can only be added; the sum of two of them is exact enough in f32 to be
// rounded once.
template <class Format>
struct Half {
  using Word = std::uint16_t;
  static Word apply(Operation, Word old, Word b, Word) {
    return static_cast<Word>(
        Format::template round<Rounding::nearest>(Format::widen(old) + Format::widen(b)));
  }
};

template <class Format>
struct HalfPair {
  using Word = std::uint32_t;
  static Word apply(Operation operation, Word old, Word b, Word) {
    const auto low =
        Half<Format>::apply(operation, static_cast<std::uint16_t>(old), static_cast<std::uint16_t>(b), 0);
    const auto high = Half<Format>::apply(operation, static_cast<std::uint16_t>(old >> 16),
                                          static_cast<std::uint16_t>(b >> 16), 0);
    return static_cast<Word>(low) | static_cast<Word>(high) << 16;
  }
};

constexpr std::uint16_t kOperationMask = 15, kWindowShift = 4, kReturns = 256;

template <class Kind>
void atomic_in(Warp& warp, const Ins& ins, Window window, Mask active, const std::uint64_t* address) {
  using Word = typename Kind::Word;
  if constexpr (std::is_same_v<Kind, Floating<float, Word>>) {
    if (window != Window::shared) return atomic_in<FlushedFloat>(warp, ins, window, active, address);
  }
  Access access;
  access.kind = Access::Kind::atomic;
  access.where = window == Window::shared ? Access::Where::shared : Access::Where::global;
  access.order = std::max(order_of(ins), Access::Order::relaxed);
  access.system_or_gpu_scope = reaches_other_blocks(ins);
  access.bytes = sizeof(Word);
  access.active = active;
  access.address = address;
  if (warp.counts != nullptr || warp.race != nullptr) observe(warp, access);
  Resolved resolved;
  resolve(warp, access, resolved);
  const auto operation = static_cast<Operation>(ins.aux & kOperationMask);
  const Word* b = warp.lanes<Word>(ins.b);
  const Word* c = ins.c != kNoSlot ? warp.lanes<Word>(ins.c) : b;
  Word old[kLanes];
  // A lock that is taken: the comparison fails, or what is exchanged was there already.
  bool spins = operation == Operation::compare_and_swap || operation == Operation::exchange;
  each_lane(active, [&](int lane) {
    std::uint8_t* memory = resolved.contiguous != nullptr
                               ? resolved.contiguous + static_cast<std::size_t>(lane) * sizeof(Word)
                               : resolved.pointer[lane];
    if (operation == Operation::compare_and_swap) {
      old[lane] = b[lane];
      if (__atomic_compare_exchange_n(reinterpret_cast<Word*>(memory), &old[lane], c[lane], false,
                                      __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST))
        spins = false;
    } else if (operation == Operation::exchange) {
      old[lane] = __atomic_exchange_n(reinterpret_cast<Word*>(memory), b[lane], __ATOMIC_SEQ_CST);
      if (old[lane] != b[lane]) spins = false;
    } else {
      old[lane] =
          update<Word>(memory, [&](Word before) { return Kind::apply(operation, before, b[lane], c[lane]); });
    }
  });
  if ((ins.aux & kReturns) != 0)
    each_lane(active, [&](int lane) { warp.lanes<Word>(ins.d)[lane] = old[lane]; });
  // Whoever finds a lock taken lets the others run.
  if (spins && warp.budget > kSpinBudget) warp.budget = kSpinBudget;
}

template <class Kind>
void atomic(Warp& warp, const Ins& ins, Mask active) {
  std::uint64_t address[kLanes];
  lane_addresses(warp, ins, address);
  const auto window = static_cast<Window>(ins.aux >> kWindowShift & 15);
  if (window != Window::generic) return atomic_in<Kind>(warp, ins, window, active, address);
  sort_generic(address, active, [&](Window w, Mask lanes, const std::uint64_t* a) {
    if (w == Window::local || w == Window::param) {
      report(warp, FindingKind::invalid_operation, __builtin_ctz(lanes), a[__builtin_ctz(lanes)],
             "an atomic operation on memory that is neither global nor shared", 717);
      throw KernelFault{717};
    }
    atomic_in<Kind>(warp, ins, w, lanes, a);
  });
}

// Two elements of a vector form (sm_90): each is atomic by itself.
template <class Kind, int Count>
void atomic_vector(Warp& warp, const Ins& ins, Mask active) {
  using Word = typename Kind::Word;
  Ins element = ins;
  const Slot* slots = &warp.frame->program->slots[ins.list];
  const bool returns = (ins.aux & kReturns) != 0;
  for (int i = 0; i < Count; ++i) {
    element.b = slots[i];
    if (returns) element.d = slots[Count + i];
    element.imm = ins.imm + static_cast<std::int64_t>(sizeof(Word)) * i;
    atomic<Kind>(warp, element, active);
  }
}

bool is_bits_operation(Operation o) {
  return o == Operation::bit_and || o == Operation::bit_or || o == Operation::bit_xor ||
         o == Operation::exchange || o == Operation::compare_and_swap;
}

Run run_for(Decoder& decoder, Operation operation, Type type) {
  const bool extreme = operation == Operation::minimum || operation == Operation::maximum,
             add = operation == Operation::add;
  const bool wrap = operation == Operation::increment || operation == Operation::decrement;
  switch (type) {
    case Type::b16:
      if (operation == Operation::compare_and_swap) return &atomic<Integer<std::uint16_t>>;
      break;
    case Type::b32:
      if (is_bits_operation(operation)) return &atomic<Integer<std::uint32_t>>;
      break;
    case Type::b64:
      if (is_bits_operation(operation)) return &atomic<Integer<std::uint64_t>>;
      break;
    case Type::u32:
      if (add || extreme || wrap) return &atomic<Integer<std::uint32_t>>;
      break;
    case Type::s32:
      if (add || extreme) return &atomic<Integer<std::int32_t>>;
      break;
    case Type::u64:
      if (add || extreme) return &atomic<Integer<std::uint64_t>>;
      break;
    case Type::s64:
      if (extreme) return &atomic<Integer<std::int64_t>>;
      break;
    case Type::f32:
      if (add) return &atomic<Floating<float, std::uint32_t>>;
      break;
    case Type::f64:
      if (add) return &atomic<Floating<double, std::uint64_t>>;
      break;
    case Type::f16:
      if (add) return &atomic<Half<F16>>;
      break;
    case Type::bf16:
      if (add) return &atomic<Half<Bf16>>;
      break;
    case Type::f16x2:
      if (add) return &atomic<HalfPair<F16>>;
      break;
    case Type::bf16x2:
      if (add) return &atomic<HalfPair<Bf16>>;
      break;
    default:
      break;
  }
  decoder.fail(std::string("not defined for .") + ptx::name_of(type));
}

Run vector_run_for(Decoder& decoder, int count, Type type) {
  if (type == Type::f32)
    return count == 2 ? &atomic_vector<Floating<float, std::uint32_t>, 2>
                      : &atomic_vector<Floating<float, std::uint32_t>, 4>;
  if (type == Type::f16x2)
    return count == 2 ? &atomic_vector<HalfPair<F16>, 2> : &atomic_vector<HalfPair<F16>, 4>;
  if (type == Type::bf16x2)
    return count == 2 ? &atomic_vector<HalfPair<Bf16>, 2> : &atomic_vector<HalfPair<Bf16>, 4>;
  decoder.fail(std::string("vectors are not defined for .") + ptx::name_of(type));
}

std::uint16_t atomic_order(Decoder& decoder, bool returns) {
  const std::string_view order = decoder.next();
  if (order == "weak" || order == "volatile" || (!returns && (order == "acquire" || order == "acq_rel")))
    decoder.fail("unknown modifier ." + std::string(order));
  const std::uint16_t bits = decode_order(decoder);
  return bits != 0 ? bits : decode_scope(decoder);
}

void decode_atomic(Decoder& decoder, Ins& ins, bool returns) {
  // Spelled both atom.relaxed.gpu.global.add and atom.global.add; cuda::atomic writes the scope behind the
  // order.
  ins.aux2 = atomic_order(decoder, returns);
  const Window window = decode_window(decoder);
  if (window != Window::global && window != Window::shared && window != Window::generic)
    decoder.fail("atomics work on global and shared memory");
  ins.aux2 = static_cast<std::uint16_t>(ins.aux2 | decode_scope(decoder));
  const int o = decoder.expect_one_of({"add", "min", "max", "and", "or", "xor", "inc", "dec", "exch", "cas"});
  static constexpr Operation kOperations[] = {
      Operation::add,      Operation::minimum,         Operation::maximum,   Operation::bit_and,
      Operation::bit_or,   Operation::bit_xor,         Operation::increment, Operation::decrement,
      Operation::exchange, Operation::compare_and_swap};
  const Operation operation = kOperations[o];
  if (!returns && (operation == Operation::exchange || operation == Operation::compare_and_swap))
    decoder.fail("needs a destination");
  // Cooperative groups write order and scope after the operation.
  if (ins.aux2 == 0) ins.aux2 = atomic_order(decoder, returns);
  const bool noftz = decoder.take("noftz");
  const int vector = decoder.take("v2") ? 2 : decoder.take("v4") ? 4 : 1;
  const Type type = decoder.type();
  const bool half = type == Type::f16 || type == Type::bf16 || type == Type::f16x2 || type == Type::bf16x2;
  if (noftz != half)
    decoder.fail(half ? ".noftz is missing"
                      : ".noftz is not defined for ." + std::string(ptx::name_of(type)));
  decoder.instruction_class = Class::atomic;
  const std::size_t first = returns ? 1 : 0;
  decoder.operand_count(first + (operation == Operation::compare_and_swap ? 3 : 2));
  const int bytes = ptx::bytes_of(type);
  if (vector > 1) {
    if (operation != Operation::add) decoder.fail("vectors are supported for .add");
    if (window == Window::shared) decoder.fail("vectors are defined for global memory");
    ins.list = decoder.read_list(decoder.operand(first + 1), static_cast<std::size_t>(vector), bytes);
    if (returns) decoder.write_list(decoder.operand(0), static_cast<std::size_t>(vector), bytes);
    ins.run = vector_run_for(decoder, vector, type);
  } else {
    if (returns) ins.d = decoder.write(decoder.operand(0), bytes);
    ins.b = decoder.read(decoder.operand(first + 1), bytes);
    if (operation == Operation::compare_and_swap) ins.c = decoder.read(decoder.operand(first + 2), bytes);
    ins.run = run_for(decoder, operation, type);
  }
  decode_address(decoder, ins, decoder.operand(first), window);
  ins.aux = static_cast<std::uint16_t>(static_cast<int>(operation) |
                                       static_cast<int>(window) << kWindowShift | (returns ? kReturns : 0));
}

void decode_atom(Decoder& decoder, Ins& ins) { decode_atomic(decoder, ins, true); }
void decode_red(Decoder& decoder, Ins& ins) { decode_atomic(decoder, ins, false); }

constexpr std::pair<std::string_view, Decode> kOpcodes[] = {{"atom", decode_atom}, {"red", decode_red}};

}  // namespace

Opcodes atomic_opcodes() { return kOpcodes; }

}  // namespace emulator
