#include "exec/decoder.h"

#include <algorithm>
#include <limits>

#include "exec/context.h"

namespace emulator {

using ptx::Operand;
using ptx::Type;

void Decoder::fail(const std::string& message) const {
  throw ptx::Error(source.line, source.text() + ": " + message);
}

// --- modifiers ---

std::string_view Decoder::next() const {
  return modifier < source.modifiers.size() ? std::string_view(source.modifiers[modifier])
                                            : std::string_view();
}

bool Decoder::take(std::string_view word) {
  if (next() != word || word.empty()) return false;
  ++modifier;
  return true;
}

int Decoder::take_one_of(std::initializer_list<std::string_view> words) {
  int i = 0;
  for (const std::string_view word : words) {
    if (take(word)) return i;
    ++i;
  }
  return -1;
}

int Decoder::expect_one_of(std::initializer_list<std::string_view> words) {
  const int i = take_one_of(words);
  if (i < 0) fail(next().empty() ? "a modifier is missing" : "unknown modifier ." + std::string(next()));
  return i;
}

void Decoder::expect(std::string_view word) {
  if (!take(word))
    fail("expected ." + std::string(word) + (next().empty() ? "" : ", found ." + std::string(next())));
}

Type Decoder::optional_type() {
  const auto type = ptx::type_named(next());
  if (!type) return Type::none;
  ++modifier;
  return *type;
}

Type Decoder::type() {
  const Type type = optional_type();
  if (type == Type::none)
    fail(next().empty() ? "a type is missing" : "unknown modifier ." + std::string(next()));
  return type;
}

bool Decoder::ends_with_modifier(std::string_view word) const {
  return !source.modifiers.empty() && source.modifiers.back() == word;
}

// --- operands ---

const Operand& Decoder::operand(std::size_t i) {
  if (i >= source.operands.size()) fail("operand " + std::to_string(i + 1) + " is missing");
  return source.operands[i];
}

void Decoder::operand_count(std::size_t exactly) { operand_count(exactly, exactly); }

void Decoder::operand_count(std::size_t at_least, std::size_t at_most) {
  if (source.operands.size() < at_least || source.operands.size() > at_most)
    fail("takes " + std::to_string(at_least) + (at_most > at_least ? " to " + std::to_string(at_most) : "") +
         " operands, got " + std::to_string(source.operands.size()));
}

namespace {

// 8-bit registers (of inline assembly) are kept in 16 bits.
int lane_bytes(Type type) { return type == Type::pred ? 0 : std::max(2, ptx::bytes_of(type)); }

}  // namespace

int Decoder::register_bytes(const Operand& operand) {
  if (operand.kind == Operand::Kind::special) return 4;
  if (operand.kind != Operand::Kind::reg) return 0;
  return lane_bytes(function.registers[static_cast<std::size_t>(operand.index)].type);
}

Slot Decoder::append(Slot slot) {
  program.slots.push_back(slot);
  return static_cast<Slot>(program.slots.size() - 1);
}

Slot Decoder::constant(std::uint64_t bits, int bytes) {
  if (bytes < 8) bits &= (std::uint64_t{1} << (8 * bytes)) - 1;
  const auto [found, fresh] = context.constants.try_emplace({bits, bytes}, 0);
  if (fresh) {
    const std::size_t offset = program.constants.size();
    program.constants.resize(offset + static_cast<std::size_t>(bytes) * kLanes);
    for (int lane = 0; lane < kLanes; ++lane)
      std::memcpy(&program.constants[offset + static_cast<std::size_t>(lane * bytes)], &bits,
                  static_cast<std::size_t>(bytes));
    program.constants.resize((program.constants.size() + 63) / 64 * 64);
    found->second = static_cast<Slot>(offset) | kConstantBank;
  }
  return found->second;
}

Slot Decoder::constant_predicate(bool value) { return value ? kConstantBank : constant(0, 4); }

namespace {

const std::unordered_map<std::string_view, Special>& special_names() {
  static const std::unordered_map<std::string_view, Special> names = {
      {"%tid.x", Special::tid_x},
      {"%tid.y", Special::tid_y},
      {"%tid.z", Special::tid_z},
      {"%ntid.x", Special::ntid_x},
      {"%ntid.y", Special::ntid_y},
      {"%ntid.z", Special::ntid_z},
      {"%ctaid.x", Special::ctaid_x},
      {"%ctaid.y", Special::ctaid_y},
      {"%ctaid.z", Special::ctaid_z},
      {"%nctaid.x", Special::nctaid_x},
      {"%nctaid.y", Special::nctaid_y},
      {"%nctaid.z", Special::nctaid_z},
      {"%laneid", Special::laneid},
      {"%warpid", Special::warpid},
      {"%nwarpid", Special::nwarpid},
      {"%smid", Special::smid},
      {"%nsmid", Special::nsmid},
      {"%gridid", Special::gridid},
      {"%lanemask_eq", Special::lanemask_eq},
      {"%lanemask_le", Special::lanemask_le},
      {"%lanemask_lt", Special::lanemask_lt},
      {"%lanemask_ge", Special::lanemask_ge},
      {"%lanemask_gt", Special::lanemask_gt},
      {"%dynamic_smem_size", Special::dynamic_smem_size},
      {"%total_smem_size", Special::total_smem_size},
      {"%aggr_smem_size", Special::aggr_smem_size},
      {"%envreg1", Special::envreg1},
      {"%envreg2", Special::envreg2},
      {"%reserved_smem_offset_begin", Special::zero},
      {"%reserved_smem_offset_0", Special::reserved_smem_offset},
      {"%reserved_smem_offset_1", Special::reserved_smem_offset},
      {"%reserved_smem_offset_cap", Special::reserved_smem_cap},
      {"%reserved_smem_offset_end", Special::reserved_smem_cap},
      // Without clusters each block is a cluster of its own.
      {"%clusterid.x", Special::ctaid_x},
      {"%clusterid.y", Special::ctaid_y},
      {"%clusterid.z", Special::ctaid_z},
      {"%nclusterid.x", Special::nctaid_x},
      {"%nclusterid.y", Special::nctaid_y},
      {"%nclusterid.z", Special::nctaid_z},
      {"%cluster_ctaid.x", Special::zero},
      {"%cluster_ctaid.y", Special::zero},
      {"%cluster_ctaid.z", Special::zero},
      {"%cluster_nctaid.x", Special::one},
      {"%cluster_nctaid.y", Special::one},
      {"%cluster_nctaid.z", Special::one},
      {"%cluster_ctarank", Special::zero},
      {"%cluster_nctarank", Special::one},
      {"%clock", Special::clock},
      {"%clock_hi", Special::clock_hi},
      {"%clock64", Special::clock64},
      {"%globaltimer", Special::globaltimer},
      {"%globaltimer_lo", Special::globaltimer_lo},
      {"%globaltimer_hi", Special::globaltimer_hi}};
  return names;
}

}  // namespace

Special special_of(const Decoder& decoder, const Operand& operand) {
  const auto found = special_names().find(operand.name);
  if (found == special_names().end()) decoder.fail("unknown special register " + operand.name);
  return found->second;
}

Slot Decoder::read(const Operand& operand, int bytes) {
  switch (operand.kind) {
    case Operand::Kind::reg: {
      const ptx::Register& r = function.registers[static_cast<std::size_t>(operand.index)];
      if (r.type == Type::pred || lane_bytes(r.type) != std::max(2, bytes))
        fail("operand " + r.name + " is ." + ptx::name_of(r.type) + ", expected " +
             std::to_string(bytes * 8) + " bits");
      if (operand.negated) fail("only predicates can be negated");
      return context.layout.offset[static_cast<std::size_t>(operand.index)];
    }
    case Operand::Kind::integer:
      if (bytes < 8) {
        const auto value = static_cast<std::int64_t>(operand.bits);
        const std::int64_t limit = std::int64_t{1} << (8 * bytes);
        if (value >= limit || value < -limit / 2)
          fail("the literal " + std::to_string(value) + " does not fit in " + std::to_string(bytes * 8) +
               " bits");
      }
      return constant(operand.bits, bytes);
    case Operand::Kind::floating:
      if (operand.width != bytes)
        fail("a " + std::to_string(operand.width * 8) + "-bit floating literal where " +
             std::to_string(bytes * 8) + " bits are expected");
      return constant(operand.bits, bytes);
    case Operand::Kind::special: {
      const Special special = special_of(*this, operand);
      if (special >= Special::clock) fail(operand.name + " can only be moved");
      if (bytes != 4 && special != Special::gridid) fail(operand.name + " has 32 bits");
      const int key = static_cast<int>(special) * 16 + bytes;
      const auto [found, fresh] = context.specials.try_emplace(key, 0);
      if (fresh) {
        found->second = program.register_bytes;
        program.register_bytes += static_cast<std::uint32_t>(bytes) * kLanes;
        program.specials.emplace_back(found->second, key);
      }
      return found->second;
    }
    case Operand::Kind::variable: {
      const Place place = place_of(*this, operand.name);
      if (place.space == ptx::Space::local || (place.space == ptx::Space::param && !place.kernel_param))
        fail("the address of " + operand.name + " can only be moved");
      std::uint64_t value = place.value + static_cast<std::uint64_t>(operand.offset);
      if (place.kernel_param) value += DeviceMemory::instance().space().param_begin;
      if (bytes != 8 && !(bytes == 4 && place.space == ptx::Space::shared))
        fail("an address of " + operand.name + " has 64 bits");
      return constant(value, bytes);
    }
    case Operand::Kind::function: {
      const auto found = context.module->functions.find(operand.name);
      if (found == context.module->functions.end() || bytes != 8)
        fail("cannot take the address of " + operand.name);
      return constant(kFunctionAddress + static_cast<std::uint64_t>(found->second) * 16, 8);
    }
    default:
      fail("an operand of this kind is not allowed here");
  }
}

Slot Decoder::read(std::size_t i, Type type) { return read(operand(i), ptx::bytes_of(type)); }

Slot Decoder::write(const Operand& operand, int bytes) {
  if (operand.kind == Operand::Kind::sink) {
    // A register that nobody reads.
    const Slot slot = program.register_bytes;
    program.register_bytes += std::max(64u, static_cast<std::uint32_t>(bytes) * kLanes);
    return slot;
  }
  if (operand.kind != Operand::Kind::reg) fail("the destination must be a register");
  return read(operand, bytes);
}

Slot Decoder::write(std::size_t i, Type type) { return write(operand(i), ptx::bytes_of(type)); }

Slot Decoder::read_predicate(const Operand& operand, Mask* flip) {
  *flip = operand.negated ? ~0u : 0u;
  if (operand.kind == Operand::Kind::integer) return constant_predicate(operand.bits != 0);
  if (operand.kind != Operand::Kind::reg ||
      function.registers[static_cast<std::size_t>(operand.index)].type != Type::pred)
    fail("a predicate is expected");
  return context.layout.offset[static_cast<std::size_t>(operand.index)];
}

Slot Decoder::write_predicate(const Operand& operand) {
  if (operand.kind == Operand::Kind::sink) return kNoSlot;
  Mask flip = 0;
  if (operand.kind != Operand::Kind::reg || operand.negated) fail("the destination must be a predicate");
  return read_predicate(operand, &flip);
}

namespace {

template <class F>
std::uint32_t list_of(Decoder& decoder, const Operand& operand, std::size_t count, F&& slot_of) {
  const bool vector = operand.kind == Operand::Kind::vector;
  const std::size_t found = vector ? operand.elements.size() : 1;
  if (found != count)
    decoder.fail("expected " + std::to_string(count) + " elements, found " + std::to_string(found));
  std::vector<Slot> slots;
  for (std::size_t i = 0; i < count; ++i) slots.push_back(slot_of(vector ? operand.elements[i] : operand));
  const auto first = static_cast<std::uint32_t>(decoder.program.slots.size());
  decoder.program.slots.insert(decoder.program.slots.end(), slots.begin(), slots.end());
  return first;
}

}  // namespace

std::uint32_t Decoder::read_list(const Operand& operand, std::size_t count, int bytes) {
  return list_of(*this, operand, count, [&](const Operand& element) { return read(element, bytes); });
}

std::uint32_t Decoder::write_list(const Operand& operand, std::size_t count, int bytes) {
  return list_of(*this, operand, count, [&](const Operand& element) { return write(element, bytes); });
}

std::int64_t Decoder::literal(std::size_t i, std::int64_t low, std::int64_t high) {
  const Operand& o = operand(i);
  if (o.kind != Operand::Kind::integer) fail("operand " + std::to_string(i + 1) + " must be a literal");
  const auto value = static_cast<std::int64_t>(o.bits);
  if (value < low || value > high)
    fail("the literal " + std::to_string(value) + " is outside of [" + std::to_string(low) + ", " +
         std::to_string(high) + "]");
  return value;
}

Decoder::Address Decoder::address(const Operand& operand, ptx::Space space) {
  if (operand.kind != Operand::Kind::address) fail("an address is expected");
  if (operand.index >= 0) {
    const Type type = function.registers[static_cast<std::size_t>(operand.index)].type;
    const int bytes = ptx::bytes_of(type);
    if (bytes != 8 && bytes != 4) fail("an address register has 32 or 64 bits");
    return {context.layout.offset[static_cast<std::size_t>(operand.index)], bytes == 8, operand.offset};
  }
  if (operand.name.empty()) return {constant(static_cast<std::uint64_t>(operand.offset), 8), true, 0};
  const Place place = place_of(*this, operand.name);
  if (place.space == ptx::Space::local && !function.is_kernel)
    fail("local memory of a device function is addressed through a register");
  if (place.space != space && !(space == ptx::Space::none &&
                                (place.space == ptx::Space::global || place.space == ptx::Space::constant)))
    fail(operand.name + " is not in the space of this access");
  return {constant(place.value, 8), true, operand.offset};
}

Place place_of(Decoder& decoder, const std::string& name) {
  if (const auto own = decoder.context.places.find(name); own != decoder.context.places.end())
    return own->second;
  if (const auto global = decoder.context.module->variables.find(name);
      global != decoder.context.module->variables.end()) {
    return global->second;
  }
  decoder.fail("unknown variable " + name);
}

}  // namespace emulator
