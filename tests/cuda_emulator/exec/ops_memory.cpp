// ld, ldu, st, prefetch: between registers and memory.
#include <algorithm>
#include <bit>

#include "exec/context.h"
#include "exec/interleave.h"
#include "exec/lanes.h"
#include "exec/memory.h"

namespace emulator {
namespace {

template <int Bytes>
struct Unsigned;
template <> struct Unsigned<1> { using type = std::uint8_t; using sign = std::int8_t; };
template <> struct Unsigned<2> { using type = std::uint16_t; using sign = std::int16_t; };
template <> struct Unsigned<4> { using type = std::uint32_t; using sign = std::int32_t; };
template <> struct Unsigned<8> { using type = std::uint64_t; using sign = std::int64_t; };

Access access_of(const Ins& ins, Access::Kind kind, Access::Where where, std::uint32_t bytes, Mask active, const std::uint64_t* address) {
  Access access;
  access.kind = kind;
  access.where = where;
  access.order = order_of(ins);
  access.bytes = bytes;
  access.active = active;
  access.address = address;
  access.speculative = ins.extra != 0;
  return access;
}

Access::Where where_of(Window window) {
  switch (window) {
    case Window::shared: return Access::Where::shared;
    case Window::local: return Access::Where::local;
    case Window::constant: return Access::Where::constant;
    default: return Access::Where::global;
  }
}

template <int V>
void move_in_words(const Warp& warp, const Slot* slots, const std::uint8_t* memory) {
  const auto d = [&](int v) { return warp.lanes<std::uint32_t>(slots[v]); };
  if constexpr (V == 2) {
    take_of_pairs<0>(memory, d(0));
    take_of_pairs<1>(memory, d(1));
  } else {
    take_of_fours<0>(memory, d(0));
    take_of_fours<1>(memory, d(1));
    take_of_fours<2>(memory, d(2));
    take_of_fours<3>(memory, d(3));
  }
}

template <int V>
void move_out_words(const Warp& warp, const Slot* slots, std::uint8_t* memory) {
  const auto s = [&](int v) { return warp.lanes<std::uint32_t>(slots[v]); };
  if constexpr (V == 2) put_pairs(memory, s(0), s(1));
  else put_fours(memory, s(0), s(1), s(2), s(3));
}

// Elements of B bytes in memory, V per lane, into registers of R bytes; wider registers are filled by sign or zero extension.
template <int B, int V, int R, bool Signed>
void move_in(Warp& warp, const Ins& ins, Mask active, const Resolved& resolved) {
  using Memory = std::conditional_t<Signed, typename Unsigned<B>::sign, typename Unsigned<B>::type>;
  using Register = typename Unsigned<R>::type;
  const Slot* slots = &warp.frame->program->slots[ins.list];
  if constexpr (B == 4 && R == 4 && V > 1) {
    if (resolved.contiguous != nullptr) return move_in_words<V>(warp, slots, resolved.contiguous);
  }
  for (int v = 0; v < V; ++v) {
    Register* d = warp.lanes<Register>(slots[v]);
    if (resolved.contiguous != nullptr) {
      const auto* source = reinterpret_cast<const Memory*>(resolved.contiguous) + v;
#pragma GCC ivdep
      for (int lane = 0; lane < kLanes; ++lane) d[lane] = static_cast<Register>(source[lane * V]);
    } else if (resolved.uniform) {
      Memory value;
      std::memcpy(&value, resolved.pointer[0] + v * B, B);
      map_lanes(active, d, [value](Register) { return static_cast<Register>(value); }, d);
    } else {
      Register values[kLanes];
      for (int lane = 0; lane < kLanes; ++lane) {
        Memory value;
        std::memcpy(&value, resolved.pointer[lane] + v * B, B);
        values[lane] = static_cast<Register>(value);
      }
      map_lanes(active, d, [](Register value) { return value; }, static_cast<const Register*>(values));
    }
  }
}

// Parameters of the kernel: the same bytes for all lanes.
template <int B, int V, int R, bool Signed>
void load_kernel_param(Warp& warp, const Ins& ins, Mask active, const std::uint64_t* offset) {
  Resolved resolved;
  const auto params = warp.launch->params;
  const int first = __builtin_ctz(active);
  resolved.uniform = true;
  each_lane(active, [&](int lane) {
    resolved.uniform = resolved.uniform && offset[lane] == offset[first];
    if (offset[lane] > params.size() || offset[lane] + B * V > params.size()) {
      report(warp, FindingKind::out_of_bounds, lane, offset[lane], "read past the end of the kernel's parameters", 700);
      throw KernelFault{700};
    }
    if (offset[lane] % (B * V) != 0) report(warp, FindingKind::misaligned, lane, offset[lane], "misaligned read of the kernel's parameters", 716);
  });
  for (int lane = 0; lane < kLanes; ++lane) resolved.pointer[lane] = const_cast<std::uint8_t*>(&params[offset[(active >> lane & 1u) != 0 ? lane : first]]);
  move_in<B, V, R, Signed>(warp, ins, active, resolved);
}

template <int B, int V, int R, bool Signed>
void load_from(Warp& warp, const Ins& ins, Window window, Mask active, const std::uint64_t* address) {
  if (window == Window::param) return load_kernel_param<B, V, R, Signed>(warp, ins, active, address);
  const Access access = access_of(ins, Access::Kind::read, where_of(window), B * V, active, address);
  if (warp.counts != nullptr || warp.race != nullptr) observe(warp, access);
  Resolved resolved;
  resolve(warp, access, resolved);
  move_in<B, V, R, Signed>(warp, ins, active, resolved);
}

// What an ordered load of a single lane takes from the budget of its warp.
constexpr std::uint32_t kLookCost = 500;

template <int B, int V, int R, bool Signed>
void load(Warp& warp, const Ins& ins, Mask active) {
  std::uint64_t address[kLanes];
  lane_addresses(warp, ins, address);
  const auto window = static_cast<Window>(ins.aux);
  // One lane that looks at what others write probably waits for them: a few looks are enough for a turn.
  if (order_of(ins) != Access::Order::weak && std::has_single_bit(active) && warp.budget > kLookCost) warp.budget -= kLookCost;
  if (window != Window::generic) return load_from<B, V, R, Signed>(warp, ins, window, active, address);
  sort_generic(address, active, [&](Window w, Mask lanes, const std::uint64_t* a) { load_from<B, V, R, Signed>(warp, ins, w, lanes, a); });
}

template <int B, int V, int R, bool Signed>
void load_param(Warp& warp, const Ins& ins, Mask active) {
  if ((ins.a & kConstantBank) != 0) {
    // Usual: one parameter, named by its address.
    const std::uint64_t at = *warp.lanes<std::uint64_t>(ins.a) + static_cast<std::uint64_t>(ins.imm);
    if (at % (B * V) == 0 && at <= warp.launch->params.size() && at + B * V <= warp.launch->params.size()) {
      Resolved resolved;
      resolved.uniform = true;
      resolved.pointer[0] = const_cast<std::uint8_t*>(&warp.launch->params[at]);
      return move_in<B, V, R, Signed>(warp, ins, active, resolved);
    }
  }
  std::uint64_t offset[kLanes];
  lane_addresses(warp, ins, offset);
  const AddressSpace& space = DeviceMemory::instance().space();
  for (int lane = 0; lane < kLanes; ++lane)
    if (offset[lane] >= space.param_begin && offset[lane] < space.param_end) offset[lane] -= space.param_begin;
  load_kernel_param<B, V, R, Signed>(warp, ins, active, offset);
}

// .param variables of a frame: parameters and results of device functions.
template <int B, int V, int R, bool Signed>
void load_frame_param(Warp& warp, const Ins& ins, Mask active) {
  Frame& frame = *warp.frame;
  Resolved resolved;
  for (int lane = 0; lane < kLanes; ++lane) resolved.pointer[lane] = &frame.params[static_cast<std::size_t>(lane) * frame.program->param_bytes + static_cast<std::size_t>(ins.imm)];
  move_in<B, V, R, Signed>(warp, ins, active, resolved);
}

template <int B, int V, int R>
void move_out(Warp& warp, const Ins& ins, Mask active, const Resolved& resolved) {
  using Memory = typename Unsigned<B>::type;
  using Register = typename Unsigned<R>::type;
  const Slot* slots = &warp.frame->program->slots[ins.list];
  if constexpr (B == 4 && R == 4 && V > 1) {
    if (resolved.contiguous != nullptr) return move_out_words<V>(warp, slots, resolved.contiguous);
  }
  for (int v = 0; v < V; ++v) {
    const Register* s = warp.lanes<Register>(slots[v]);
    if (resolved.contiguous != nullptr) {
      auto* target = reinterpret_cast<Memory*>(resolved.contiguous) + v;
#pragma GCC ivdep
      for (int lane = 0; lane < kLanes; ++lane) target[lane * V] = static_cast<Memory>(s[lane]);
    } else {
      each_lane(active, [&](int lane) {
        const auto value = static_cast<Memory>(s[lane]);
        std::memcpy(resolved.pointer[lane] + v * B, &value, B);
      });
    }
  }
}

// With the race check on, memory must be found before it is overwritten: the check compares old and new bytes.
template <int B, int V, int R>
void observe_store(Warp& warp, const Ins& ins, Access access, const Resolved& resolved) {
  std::uint8_t values[kLanes][16];
  const std::uint8_t *value[kLanes], *memory[kLanes];
  Resolved copy;
  each_lane(access.active, [&](int lane) {
    copy.pointer[lane] = values[lane];
    value[lane] = values[lane];
    memory[lane] = resolved.contiguous != nullptr ? resolved.contiguous + lane * B * V : resolved.pointer[lane];
  });
  move_out<B, V, R>(warp, ins, access.active, copy);
  access.value = value;
  access.memory = memory;
  observe(warp, access);
}

template <int B, int V, int R>
void store_to(Warp& warp, const Ins& ins, Window window, Mask active, const std::uint64_t* address) {
  const Access access = access_of(ins, Access::Kind::write, where_of(window), B * V, active, address);
  Resolved resolved;
  resolve(warp, access, resolved);
  if (warp.counts != nullptr || warp.race != nullptr) observe_store<B, V, R>(warp, ins, access, resolved);
  move_out<B, V, R>(warp, ins, active, resolved);
}

template <int B, int V, int R, bool>
void store(Warp& warp, const Ins& ins, Mask active) {
  std::uint64_t address[kLanes];
  lane_addresses(warp, ins, address);
  const auto window = static_cast<Window>(ins.aux);
  if (window != Window::generic) return store_to<B, V, R>(warp, ins, window, active, address);
  sort_generic(address, active, [&](Window w, Mask lanes, const std::uint64_t* a) {
    if (w == Window::param) {
      report(warp, FindingKind::out_of_bounds, __builtin_ctz(lanes), a[__builtin_ctz(lanes)], "write to the kernel's parameters", 700);
      throw KernelFault{700};
    }
    store_to<B, V, R>(warp, ins, w, lanes, a);
  });
}

template <int B, int V, int R, bool>
void store_frame_param(Warp& warp, const Ins& ins, Mask active) {
  Frame& frame = *warp.frame;
  Resolved resolved;
  each_lane(active, [&](int lane) { resolved.pointer[lane] = &frame.params[static_cast<std::size_t>(lane) * frame.program->param_bytes + static_cast<std::size_t>(ins.imm)]; });
  move_out<B, V, R>(warp, ins, active, resolved);
}

// --- decoding ---

// Expands to the instance of a handler template for run-time widths.
#define DINO_PICK_R(F, B, V)                                             \
  if (wide == B) return &F<B, V, B, false>;                              \
  if constexpr (B <= 2 && B < 2) if (wide == 2) return sign ? &F<B, V, 2, true> : &F<B, V, 2, false>; \
  if constexpr (B < 4) if (wide == 4) return sign ? &F<B, V, 4, true> : &F<B, V, 4, false>;           \
  if constexpr (B < 8) if (wide == 8) return sign ? &F<B, V, 8, true> : &F<B, V, 8, false>;           \
  return nullptr;
#define DINO_PICK(F)                                                     \
  template <int B, int V>                                                \
  Run F##_of_width(int wide, bool sign) { DINO_PICK_R(F, B, V) }         \
  Run pick_##F(int bytes, int count, int wide, bool sign) {              \
    switch (bytes * 16 + count) {                                        \
      case 17: return F##_of_width<1, 1>(wide, sign);                    \
      case 18: return F##_of_width<1, 2>(wide, sign);                    \
      case 20: return F##_of_width<1, 4>(wide, sign);                    \
      case 33: return F##_of_width<2, 1>(wide, sign);                    \
      case 34: return F##_of_width<2, 2>(wide, sign);                    \
      case 36: return F##_of_width<2, 4>(wide, sign);                    \
      case 65: return F##_of_width<4, 1>(wide, sign);                    \
      case 66: return F##_of_width<4, 2>(wide, sign);                    \
      case 68: return F##_of_width<4, 4>(wide, sign);                    \
      case 129: return F##_of_width<8, 1>(wide, sign);                   \
      case 130: return F##_of_width<8, 2>(wide, sign);                   \
      default: return nullptr;                                           \
    }                                                                    \
  }
DINO_PICK(load)
DINO_PICK(load_param)
DINO_PICK(load_frame_param)
DINO_PICK(store)
DINO_PICK(store_frame_param)
#undef DINO_PICK
#undef DINO_PICK_R

struct Form {
  Window window;
  int bytes, count;
  bool sign;
};

// Cache hints change nothing that can be seen, but must be known ones.
void take_cache_hints(Decoder& decoder) {
  decoder.take_one_of({"ca", "cg", "cs", "lu", "cv", "wb", "wt"});
  while (decoder.take_one_of({"L1::evict_normal", "L1::evict_unchanged", "L1::evict_first", "L1::evict_last", "L1::no_allocate", "L2::evict_first", "L2::evict_last",
                              "L2::evict_normal", "L2::64B", "L2::128B", "L2::256B"}) >= 0) {
  }
}

// Orders, caches and spaces that do not go together.
void check_modifiers(Decoder& decoder) {
  const auto& modifiers = decoder.source.modifiers;
  const auto find = [&](std::initializer_list<std::string_view> words) -> std::string_view {
    for (const auto& modifier : modifiers)
      for (const std::string_view word : words) if (modifier == word) return word;
    return {};
  };
  const auto refuse = [&](std::string_view modifier, const std::string& where) { if (!modifier.empty()) decoder.fail("." + std::string(modifier) + " is not allowed " + where); };
  const bool store = decoder.source.opcode == "st";
  refuse(store ? find({"acquire", "acq_rel", "nc", "ca", "lu", "cv", "L2::64B", "L2::128B", "L2::256B"}) : find({"release", "acq_rel", "wb", "wt"}), "here");
  const std::string_view order = find({"volatile", "relaxed", "acquire", "release"}), cache = find({"ca", "cg", "cs", "lu", "cv", "wb", "wt"});
  const std::string_view eviction = find({"L1::evict_normal", "L1::evict_unchanged", "L1::evict_first", "L1::evict_last", "L1::no_allocate"});
  if (!order.empty() && order != "volatile" && find({"cta", "cluster", "gpu", "sys"}).empty()) decoder.fail("." + std::string(order) + " needs a scope");
  if (!find({"mmio"}).empty() && order != "relaxed") decoder.fail(".mmio needs .relaxed");
  if (!order.empty()) refuse(find({"local", "const", "param", "nc"}), "with ." + std::string(order));
  if (!order.empty()) refuse(cache, "with ." + std::string(order));
  if (order == "volatile" || !cache.empty()) refuse(eviction, "with ." + std::string(order.empty() ? cache : order));
  if (!find({"nc"}).empty() && find({"global"}).empty()) decoder.fail(".nc needs .global");
  if (!eviction.empty()) refuse(find({"shared", "shared::cta", "shared::cluster", "local", "const", "param"}), "with ." + std::string(eviction));
  if (decoder.source.opcode == "ldu") {
    refuse(order, "here");
    refuse(cache, "here");
    refuse(find({"nc", "shared", "shared::cta", "shared::cluster", "local", "const", "param"}), "here");
  }
}

bool is_plain(ptx::Type type) {
  using ptx::Type;
  for (const Type plain : {Type::b8, Type::u8, Type::s8, Type::b16, Type::u16, Type::s16, Type::b32, Type::u32, Type::s32, Type::f32, Type::b64, Type::u64, Type::s64, Type::f64})
    if (type == plain) return true;
  return false;
}

Form decode_form(Decoder& decoder, Ins& ins) {
  Form form{};
  check_modifiers(decoder);
  const bool mmio = decoder.take("mmio");
  ins.aux2 = decode_order(decoder);
  if (mmio && ins.aux2 == 0) decoder.fail(".mmio needs .relaxed");
  form.window = decode_window(decoder);
  take_cache_hints(decoder);
  if (decoder.take("nc")) take_cache_hints(decoder);
  form.count = decoder.take("v2") ? 2 : decoder.take("v4") ? 4 : 1;
  const ptx::Type type = decoder.type();
  form.bytes = ptx::bytes_of(type);
  form.sign = type == ptx::Type::s8 || type == ptx::Type::s16 || type == ptx::Type::s32 || type == ptx::Type::s64;
  if (!is_plain(type)) decoder.fail(std::string(ptx::name_of(type)) + " cannot be loaded or stored");
  if (form.bytes * form.count > 16) decoder.fail("more than 16 bytes per lane");
  ins.aux = static_cast<std::uint16_t>(form.window);
  return form;
}

// Registers may be wider than the type, all of them alike.
int value_width(Decoder& decoder, const ptx::Operand& operand, int bytes) {
  const ptx::Operand& first = operand.kind == ptx::Operand::Kind::vector ? operand.elements.at(0) : operand;
  int width = 0;
  if (operand.kind == ptx::Operand::Kind::vector) {
    for (const ptx::Operand& element : operand.elements) width = std::max(width, decoder.register_bytes(element));
  } else {
    width = decoder.register_bytes(first);
  }
  return width == 0 ? std::max(bytes, 2) : width;
}

bool is_kernel_param(Decoder& decoder, const ptx::Operand& operand) {
  if (operand.kind != ptx::Operand::Kind::address) decoder.fail("an address is expected");
  if (operand.name.empty()) return true;
  const Place place = place_of(decoder, operand.name);
  if (place.space != ptx::Space::param) decoder.fail(operand.name + " is no parameter");
  return place.kernel_param;
}

void check_frame_param(Decoder& decoder, Ins& ins, const ptx::Operand& operand, const Form& form) {
  const Place place = place_of(decoder, operand.name);
  if (operand.offset < 0 || static_cast<std::uint64_t>(operand.offset) + static_cast<std::uint64_t>(form.bytes * form.count) > place.bytes)
    decoder.fail("outside of the parameter " + operand.name);
  ins.imm = static_cast<std::int64_t>(place.value) + operand.offset;
}

Class memory_class(Window window, bool store) {
  switch (window) {
    case Window::shared: return store ? Class::store_shared : Class::load_shared;
    case Window::local: return store ? Class::store_local : Class::load_local;
    case Window::constant: return Class::load_constant;
    case Window::param: return Class::load_param;
    default: return store ? Class::store_global : Class::load_global;
  }
}

bool mentions(const ptx::Operand& operand, int reg) {
  if (operand.kind == ptx::Operand::Kind::reg || operand.kind == ptx::Operand::Kind::address) return operand.index == reg;
  return std::any_of(operand.elements.begin(), operand.elements.end(), [&](const ptx::Operand& element) { return mentions(element, reg); });
}

// The compiler loads a local variable ahead of `written ? variable : other` as it pleases: such a load feeds nothing but selp.
bool only_selected(const Decoder& decoder, const ptx::Operand& value) {
  if (value.kind != ptx::Operand::Kind::reg) return false;
  const auto& code = decoder.function.instructions;
  return std::all_of(code.begin(), code.end(), [&](const ptx::Instruction& instruction) {
    return &instruction == &decoder.source || instruction.opcode == "selp" ||
           std::none_of(instruction.operands.begin(), instruction.operands.end(), [&](const ptx::Operand& operand) { return mentions(operand, value.index); });
  });
}

void decode_ld(Decoder& decoder, Ins& ins) {
  const Form form = decode_form(decoder, ins);
  decoder.operand_count(2);
  const ptx::Operand& value = decoder.operand(0);
  const int width = value_width(decoder, value, form.bytes);
  ins.list = decoder.write_list(value, static_cast<std::size_t>(form.count), width);
  decoder.instruction_class = memory_class(form.window, false);
  if (form.window == Window::param && !is_kernel_param(decoder, decoder.operand(1))) {
    check_frame_param(decoder, ins, decoder.operand(1), form);
    ins.run = pick_load_frame_param(form.bytes, form.count, width, form.sign);
    return;
  }
  decode_address(decoder, ins, decoder.operand(1), form.window);
  if (form.window == Window::local) ins.extra = only_selected(decoder, value) ? 1 : 0;
  ins.run = form.window == Window::param ? pick_load_param(form.bytes, form.count, width, form.sign) : pick_load(form.bytes, form.count, width, form.sign);
}

void decode_st(Decoder& decoder, Ins& ins) {
  const Form form = decode_form(decoder, ins);
  decoder.operand_count(2);
  const ptx::Operand& value = decoder.operand(1);
  const int width = value_width(decoder, value, form.bytes);
  ins.list = decoder.read_list(value, static_cast<std::size_t>(form.count), width);
  decoder.instruction_class = memory_class(form.window, true);
  if (form.window == Window::constant) decoder.fail("constant memory cannot be written");
  if (form.window == Window::param) {
    if (is_kernel_param(decoder, decoder.operand(0))) decoder.fail("a kernel's parameters cannot be written");
    check_frame_param(decoder, ins, decoder.operand(0), form);
    ins.run = pick_store_frame_param(form.bytes, form.count, width, false);
    return;
  }
  decode_address(decoder, ins, decoder.operand(0), form.window);
  ins.run = pick_store(form.bytes, form.count, width, false);
}

void nothing(Warp&, const Ins&, Mask) {}

// Hints without an effect on values: their addresses may be anything.
void decode_prefetch(Decoder& decoder, Ins& ins) {
  decode_window(decoder);
  decoder.expect_one_of({"L1", "L2", "L2::evict_last", "L2::evict_normal"});
  decoder.operand_count(1);
  decode_address(decoder, ins, decoder.operand(0), Window::generic);
  ins.run = nothing;
}

void decode_prefetchu(Decoder& decoder, Ins& ins) {
  decoder.expect("L1");
  decoder.operand_count(1);
  decode_address(decoder, ins, decoder.operand(0), Window::generic);
  ins.run = nothing;
}

constexpr std::pair<std::string_view, Decode> kOpcodes[] = {{"ld", decode_ld}, {"ldu", decode_ld}, {"st", decode_st}, {"prefetch", decode_prefetch}, {"prefetchu", decode_prefetchu}};

}  // namespace

Opcodes memory_opcodes() { return kOpcodes; }

}  // namespace emulator
