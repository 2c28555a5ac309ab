// mov, cvta, isspacep: moves between registers, packing, addresses.
#include <time.h>

#include "exec/context.h"
#include "exec/lanes.h"
#include "exec/memory.h"

namespace emulator {

namespace {

using ptx::Operand;
using ptx::Type;

template <class T>
void copy(Warp& w, const Ins& i, Mask active) {
  map_lanes(
      active, w.lanes<T>(i.d), [](T a) { return a; }, w.lanes<T>(i.a));
}

// {a, b, …} into one register, the first element lowest.
template <class Part, class Whole>
void pack(Warp& w, const Ins& i, Mask active) {
  constexpr int kParts = sizeof(Whole) / sizeof(Part);
  const Slot* slots = &w.frame->program->slots[i.list];
  Whole* d = w.lanes<Whole>(i.d);
  alignas(64) Whole result[kLanes] = {};
  for (int p = 0; p < kParts; ++p) {
    const Part* s = w.lanes<Part>(slots[p]);
    for (int lane = 0; lane < kLanes; ++lane)
      result[lane] = static_cast<Whole>(result[lane] | static_cast<Whole>(s[lane])
                                                           << (8 * sizeof(Part) * static_cast<unsigned>(p)));
  }
  map_lanes(
      active, d, [](Whole a) { return a; }, static_cast<const Whole*>(result));
}

template <class Part, class Whole>
void unpack(Warp& w, const Ins& i, Mask active) {
  constexpr int kParts = sizeof(Whole) / sizeof(Part);
  const Slot* slots = &w.frame->program->slots[i.list];
  alignas(64) Whole source[kLanes];
  std::memcpy(source, w.lanes<Whole>(i.a), sizeof source);
  for (int p = 0; p < kParts; ++p)
    map_lanes(
        active, w.lanes<Part>(slots[p]),
        [p](Whole a) { return static_cast<Part>(a >> (8 * sizeof(Part) * static_cast<unsigned>(p))); },
        static_cast<const Whole*>(source));
}

Run packer(int part, int whole, bool packing) {
  using U16 = std::uint16_t;
  using U32 = std::uint32_t;
  using U64 = std::uint64_t;
  if (part == 2 && whole == 4) return packing ? &pack<U16, U32> : &unpack<U16, U32>;
  if (part == 4 && whole == 8) return packing ? &pack<U32, U64> : &unpack<U32, U64>;
  if (part == 2 && whole == 8) return packing ? &pack<U16, U64> : &unpack<U16, U64>;
  return nullptr;
}

std::uint64_t nanoseconds() {
  timespec now{};
  clock_gettime(CLOCK_MONOTONIC, &now);
  return static_cast<std::uint64_t>(now.tv_sec) * 1'000'000'000u + static_cast<std::uint64_t>(now.tv_nsec);
}

// Clocks run at the wall clock's pace; programs only wait for them to move on.
template <class T>
void read_clock(Warp& w, const Ins& i, Mask active) {
  const std::uint64_t now = nanoseconds();
  const bool high = i.aux == static_cast<std::uint16_t>(Special::clock_hi) ||
                    i.aux == static_cast<std::uint16_t>(Special::globaltimer_hi);
  const auto value = static_cast<T>(high ? now >> 32 : now);
  T* d = w.lanes<T>(i.d);
  each_lane(active, [&](int lane) { d[lane] = value; });
}

// The address of a .local variable depends on the depth of calls.
void local_address(Warp& w, const Ins& i, Mask active) {
  const std::uint64_t value = w.frame->local_base + static_cast<std::uint64_t>(i.imm);
  std::uint64_t* d = w.lanes<std::uint64_t>(i.d);
  each_lane(active, [&](int lane) { d[lane] = value; });
}

void move_predicate(Warp& w, const Ins& i, Mask active) {
  set_predicate(w, i.d, active, w.predicate(i.a) ^ i.extra);
}

bool decode_special_move(Decoder& decoder, Ins& ins, Type type) {
  const Operand& source = decoder.operand(1);
  if (source.kind == Operand::Kind::special) {
    const Special special = special_of(decoder, source);
    if (special < Special::clock) return false;
    ins.d = decoder.write(0, type);
    ins.aux = static_cast<std::uint16_t>(special);
    ins.run = ptx::bytes_of(type) == 8 ? &read_clock<std::uint64_t> : &read_clock<std::uint32_t>;
    return true;
  }
  if (source.kind != Operand::Kind::variable) return false;
  const Place place = place_of(decoder, source.name);
  if (place.space != ptx::Space::local) return false;
  if (ptx::bytes_of(type) != 8) decoder.fail("an address of " + source.name + " has 64 bits");
  ins.d = decoder.write(0, type);
  ins.imm = static_cast<std::int64_t>(place.value) + source.offset;
  ins.run = local_address;
  return true;
}

bool decode_packing(Decoder& decoder, Ins& ins, Type type) {
  const bool packing = decoder.operand(1).kind == Operand::Kind::vector,
             unpacking = decoder.operand(0).kind == Operand::Kind::vector;
  if (packing == unpacking) return false;
  if (type != Type::b16 && type != Type::b32 && type != Type::b64)
    decoder.fail("vectors are moved as .b16, .b32 or .b64");
  const Operand& parts = decoder.operand(packing ? 1 : 0);
  const int whole = ptx::bytes_of(type), part = whole / static_cast<int>(parts.elements.size());
  if (packing) {
    ins.list = decoder.read_list(parts, parts.elements.size(), part);
    ins.d = decoder.write(0, type);
  } else {
    ins.list = decoder.write_list(parts, parts.elements.size(), part);
    ins.a = decoder.read(1, type);
  }
  ins.run = packer(part, whole, packing);
  return true;
}

void decode_mov(Decoder& decoder, Ins& ins) {
  const Type type = decoder.type();
  decoder.instruction_class = Class::move;
  decoder.operand_count(2);
  if (type == Type::pred) {
    ins.d = decoder.write_predicate(decoder.operand(0));
    ins.a = decoder.read_predicate(decoder.operand(1), &ins.extra);
    ins.run = move_predicate;
    return;
  }
  if (decode_special_move(decoder, ins, type) || decode_packing(decoder, ins, type)) return;
  ins.d = decoder.write(0, type);
  ins.a = decoder.read(1, type);
  switch (ptx::bytes_of(type)) {
    case 2:
      ins.run = &copy<std::uint16_t>;
      break;
    case 4:
      ins.run = &copy<std::uint32_t>;
      break;
    case 8:
      ins.run = &copy<std::uint64_t>;
      break;
    default:
      decoder.fail("this width is not supported");
  }
}

// Generic addresses of shared and local memory are offsets in a window; all others are what they are.
void add_base(Warp& w, const Ins& i, Mask active) {
  const auto base = static_cast<std::uint64_t>(i.imm);
  if ((i.aux2 & kWideAddress) != 0)
    map_lanes(
        active, w.lanes<std::uint64_t>(i.d), [base](std::uint64_t a) { return a + base; },
        w.lanes<std::uint64_t>(i.a));
  else
    map_lanes(
        active, w.lanes<std::uint64_t>(i.d), [base](std::uint32_t a) { return a + base; },
        w.lanes<std::uint32_t>(i.a));
}

void decode_cvta(Decoder& decoder, Ins& ins) {
  const AddressSpace& space = DeviceMemory::instance().space();
  const bool to_space = decoder.take("to");
  const Window window = decode_window(decoder);
  const Type type = decoder.type();
  decoder.instruction_class = Class::integer;
  decoder.operand_count(2);
  if (window == Window::generic) decoder.fail("a state space is missing");
  if (type != Type::u64) decoder.fail("only 64-bit addresses are supported");
  std::uint64_t base = window == Window::shared  ? space.shared_begin
                       : window == Window::local ? space.local_begin
                                                 : 0;
  if (to_space) base = std::uint64_t{0} - base;
  ins.imm = static_cast<std::int64_t>(base);
  ins.d = decoder.write(0, type);
  const Operand& source = decoder.operand(1);
  if (source.kind == Operand::Kind::variable && place_of(decoder, source.name).space == ptx::Space::local)
    decoder.fail("the address of a local variable must be in a register");
  ins.a = decoder.read(1, type);
  ins.aux2 = kWideAddress;
  ins.run = add_base;
}

void is_in_space(Warp& w, const Ins& i, Mask active) {
  const AddressSpace& s = DeviceMemory::instance().space();
  std::uint64_t begin = s.shared_begin, end = s.shared_end;
  const auto window = static_cast<Window>(i.aux);
  if (window == Window::local) begin = s.local_begin, end = s.local_end;
  if (window == Window::param) begin = s.param_begin, end = s.param_end;
  const std::uint64_t* a = w.lanes<std::uint64_t>(i.a);
  Mask inside = mask_of(
      active, [&](std::uint64_t address) { return address >= begin && address < end; }, a);
  if (window == Window::global)
    inside = mask_of(
        active,
        [&](std::uint64_t address) {
          return (address < s.shared_begin || address >= s.shared_end) &&
                 (address < s.local_begin || address >= s.local_end) &&
                 (address < s.param_begin || address >= s.param_end);
        },
        a);
  if (window == Window::constant) {
    inside = 0;
    each_lane(active, [&](int lane) {
      const Extent* extent = DeviceMemory::instance().find(a[lane]);
      inside |= static_cast<Mask>(extent != nullptr && extent->kind == MemoryKind::constant) << lane;
    });
  }
  set_predicate(w, i.d, active, inside);
}

void decode_isspacep(Decoder& decoder, Ins& ins) {
  const Window window = decode_window(decoder);
  if (window == Window::generic) decoder.fail("a state space is missing");
  decoder.operand_count(2);
  decoder.instruction_class = Class::predicate;
  ins.d = decoder.write_predicate(decoder.operand(0));
  ins.a = decoder.read(1, Type::u64);
  ins.aux = static_cast<std::uint16_t>(window);
  ins.run = is_in_space;
}

constexpr std::pair<std::string_view, Decode> kOpcodes[] = {
    {"mov", decode_mov}, {"cvta", decode_cvta}, {"isspacep", decode_isspacep}};

}  // namespace

Opcodes move_opcodes() { return kOpcodes; }

}  // namespace emulator
