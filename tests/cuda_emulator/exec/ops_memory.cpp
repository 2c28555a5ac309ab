// ld, ldu, st, prefetch: between registers and memory.
#include <algorithm>
#include <bit>

#include "exec/context.h"
#include "exec/element_moves.h"

namespace emulator {
namespace {

Access access_of(const Ins& ins, Access::Kind kind, Access::Where where, std::uint32_t bytes, Mask active,
                 const std::uint64_t* address) {
  Access access;
  access.kind = kind;
  access.where = where;
  access.order = order_of(ins);
  access.system_or_gpu_scope = reaches_other_blocks(ins);
  access.bytes = bytes;
  access.active = active;
  access.address = address;
  access.speculative = ins.extra != 0;
  return access;
}

Access::Where where_of(Window window) {
  switch (window) {
    case Window::shared:
      return Access::Where::shared;
    case Window::local:
      return Access::Where::local;
    case Window::constant:
      return Access::Where::constant;
    default:
      return Access::Where::global;
  }
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
  if (order_of(ins) != Access::Order::weak && std::has_single_bit(active) && warp.budget > kLookCost)
    warp.budget -= kLookCost;
  if (window != Window::generic) return load_from<B, V, R, Signed>(warp, ins, window, active, address);
  sort_generic(address, active, [&](Window w, Mask lanes, const std::uint64_t* a) {
    load_from<B, V, R, Signed>(warp, ins, w, lanes, a);
  });
}

// With the race check on, memory must be found before it is overwritten: the check compares old and new
// bytes.
template <int B, int V, int R>
void observe_store(Warp& warp, const Ins& ins, Access access, const Resolved& resolved) {
  if (warp.race == nullptr) return observe(warp, access);
  alignas(16) std::uint8_t values[kLanes * B * V];
  const std::uint8_t *value[kLanes], *memory[kLanes];
  Resolved copy;
  copy.contiguous = resolved.contiguous != nullptr ? values : nullptr;
  for (int lane = 0; lane < kLanes; ++lane) {
    copy.pointer[lane] = values + lane * B * V;
    value[lane] = values + lane * B * V;
    memory[lane] =
        resolved.contiguous != nullptr ? resolved.contiguous + lane * B * V : resolved.pointer[lane];
  }
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
      report(warp, FindingKind::out_of_bounds, __builtin_ctz(lanes), a[__builtin_ctz(lanes)],
             "write to the kernel's parameters", 700);
      throw KernelFault{700};
    }
    store_to<B, V, R>(warp, ins, w, lanes, a);
  });
}

// --- decoding ---

PICK_WIDTHS(load)
PICK_WIDTHS(store)

struct Form {
  Window window;
  int bytes, count;
  bool sign;
};

// Cache hints change nothing that can be seen, but must be known ones.
void take_cache_hints(Decoder& decoder) {
  decoder.take_one_of({"ca", "cg", "cs", "lu", "cv", "wb", "wt"});
  while (decoder.take_one_of({"L1::evict_normal", "L1::evict_unchanged", "L1::evict_first", "L1::evict_last",
                              "L1::no_allocate", "L2::evict_first", "L2::evict_last", "L2::evict_normal",
                              "L2::64B", "L2::128B", "L2::256B"}) >= 0) {
  }
}

// Orders, caches and spaces that do not go together.
void check_modifiers(Decoder& decoder) {
  const auto& modifiers = decoder.source.modifiers;
  const auto find = [&](std::initializer_list<std::string_view> words) -> std::string_view {
    for (const auto& modifier : modifiers)
      for (const std::string_view word : words)
        if (modifier == word) return word;
    return {};
  };
  const auto refuse = [&](std::string_view modifier, const std::string& where) {
    if (!modifier.empty()) decoder.fail("." + std::string(modifier) + " is not allowed " + where);
  };
  const bool store = decoder.source.opcode == "st";
  refuse(store ? find({"acquire", "acq_rel", "nc", "ca", "lu", "cv", "L2::64B", "L2::128B", "L2::256B"})
               : find({"release", "acq_rel", "wb", "wt"}),
         "here");
  const std::string_view order = find({"volatile", "relaxed", "acquire", "release"}),
                         cache = find({"ca", "cg", "cs", "lu", "cv", "wb", "wt"});
  const std::string_view eviction = find(
      {"L1::evict_normal", "L1::evict_unchanged", "L1::evict_first", "L1::evict_last", "L1::no_allocate"});
  if (!order.empty() && order != "volatile" && find({"cta", "cluster", "gpu", "sys"}).empty())
    decoder.fail("." + std::string(order) + " needs a scope");
  if (!find({"mmio"}).empty() && order != "relaxed") decoder.fail(".mmio needs .relaxed");
  if (!order.empty()) refuse(find({"local", "const", "param", "nc"}), "with ." + std::string(order));
  if (!order.empty()) refuse(cache, "with ." + std::string(order));
  if (order == "volatile" || !cache.empty())
    refuse(eviction, "with ." + std::string(order.empty() ? cache : order));
  if (!find({"nc"}).empty() && find({"global"}).empty()) decoder.fail(".nc needs .global");
  if (!eviction.empty())
    refuse(find({"shared", "shared::cta", "shared::cluster", "local", "const", "param"}),
           "with ." + std::string(eviction));
  if (decoder.source.opcode == "ldu") {
    refuse(order, "here");
    refuse(cache, "here");
    refuse(find({"nc", "shared", "shared::cta", "shared::cluster", "local", "const", "param"}), "here");
  }
}

bool is_plain(ptx::Type type) {
  using ptx::Type;
  for (const Type plain : {Type::b8, Type::u8, Type::s8, Type::b16, Type::u16, Type::s16, Type::b32,
                           Type::u32, Type::s32, Type::f32, Type::b64, Type::u64, Type::s64, Type::f64})
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
  form.sign =
      type == ptx::Type::s8 || type == ptx::Type::s16 || type == ptx::Type::s32 || type == ptx::Type::s64;
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
    for (const ptx::Operand& element : operand.elements)
      width = std::max(width, decoder.register_bytes(element));
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
  if (operand.offset < 0 ||
      static_cast<std::uint64_t>(operand.offset) + static_cast<std::uint64_t>(form.bytes * form.count) >
          place.bytes)
    decoder.fail("outside of the parameter " + operand.name);
  ins.imm = static_cast<std::int64_t>(place.value) + operand.offset;
}

Class memory_class(Window window, bool store) {
  switch (window) {
    case Window::shared:
      return store ? Class::store_shared : Class::load_shared;
    case Window::local:
      return store ? Class::store_local : Class::load_local;
    case Window::constant:
      return Class::load_constant;
    case Window::param:
      return Class::load_param;
    default:
      return store ? Class::store_global : Class::load_global;
  }
}

bool mentions(const ptx::Operand& operand, int reg) {
  if (operand.kind == ptx::Operand::Kind::reg || operand.kind == ptx::Operand::Kind::address)
    return operand.index == reg;
  return std::any_of(operand.elements.begin(), operand.elements.end(),
                     [&](const ptx::Operand& element) { return mentions(element, reg); });
}

// The compiler loads a local variable ahead of `written ? variable : other` as it pleases: such a load feeds
// nothing but selp.
bool only_selected(const Decoder& decoder, const ptx::Operand& value) {
  if (value.kind != ptx::Operand::Kind::reg) return false;
  const auto& code = decoder.function.instructions;
  return std::all_of(code.begin(), code.end(), [&](const ptx::Instruction& instruction) {
    return &instruction == &decoder.source || instruction.opcode == "selp" ||
           std::none_of(instruction.operands.begin(), instruction.operands.end(),
                        [&](const ptx::Operand& operand) { return mentions(operand, value.index); });
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
  ins.run = form.window == Window::param ? pick_load_param(form.bytes, form.count, width, form.sign)
                                         : pick_load(form.bytes, form.count, width, form.sign);
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

constexpr std::pair<std::string_view, Decode> kOpcodes[] = {{"ld", decode_ld},
                                                            {"ldu", decode_ld},
                                                            {"st", decode_st},
                                                            {"prefetch", decode_prefetch},
                                                            {"prefetchu", decode_prefetchu}};

}  // namespace

Opcodes memory_opcodes() { return kOpcodes; }

}  // namespace emulator
