// bra, brx, call, ret, exit, trap and waiting: where control goes.
#include <algorithm>

#include "exec/kernel.h"
#include "exec/lanes.h"
#include "exec/schedule.h"
#include "exec/system_calls.h"

namespace emulator {
namespace {

using ptx::Operand;
using ptx::Type;

void bra(Warp& warp, const Ins& ins, Mask active) {
  branch(warp, active, static_cast<std::uint32_t>(ins.imm));
}

void decode_bra(Decoder& decoder, Ins& ins) {
  decoder.take("uni");
  decoder.instruction_class = Class::control;
  decoder.operand_count(1);
  if (decoder.operand(0).kind != Operand::Kind::label) decoder.fail("a label is expected");
  ins.imm = decoder.operand(0).index;
  ins.run = bra;
}

// Each lane goes to the entry of the table that its index names.
void brx(Warp& warp, const Ins& ins, Mask active) {
  const std::vector<int>& table = warp.frame->program->tables[ins.extra];
  const std::uint32_t* index = warp.lanes<std::uint32_t>(ins.a);
  const Mask others = warp.mask & ~active;
  const std::uint32_t after = warp.pc;
  if (--warp.budget == 0 || !warp.groups.empty()) stop_after(warp);
  Mask left = active;
  split_off(warp, others, after);
  while (left != 0) {
    const std::uint32_t i = index[__builtin_ctz(left)];
    if (i >= table.size())
      report(
          warp, FindingKind::invalid_operation, __builtin_ctz(left), 0,
          "the index of an indirect branch is " + std::to_string(i) + " of " + std::to_string(table.size()),
          719);
    Mask same = 0;
    each_lane(left, [&](int lane) { same |= static_cast<Mask>(index[lane] == i) << lane; });
    left &= ~same;
    if (left != 0)
      split_off(warp, same, static_cast<std::uint32_t>(table[i]));
    else
      warp.pc = static_cast<std::uint32_t>(table[i]);
  }
}

void decode_brx(Decoder& decoder, Ins& ins) {
  decoder.expect("idx");
  decoder.take("uni");
  decoder.instruction_class = Class::control;
  decoder.operand_count(2);
  ins.a = decoder.read(0, Type::u32);
  const auto found = decoder.function.tables.find(decoder.operand(1).name);
  if (found == decoder.function.tables.end()) decoder.fail("unknown table " + decoder.operand(1).name);
  ins.extra = static_cast<std::uint32_t>(decoder.program.tables.size());
  decoder.program.tables.push_back(found->second.labels);
  ins.run = brx;
}

void exit(Warp& warp, const Ins&, Mask active) { exit_lanes(warp, active); }

void decode_exit(Decoder& decoder, Ins& ins) {
  decoder.instruction_class = Class::control;
  decoder.operand_count(0);
  ins.run = exit;
}

// --- calls ---

void copy_params(Frame& to, std::uint64_t to_offset, const Frame& from, std::uint64_t from_offset,
                 std::uint64_t bytes, Mask lanes) {
  each_lane(lanes, [&](int lane) {
    std::memcpy(&to.params[static_cast<std::size_t>(lane) * to.program->param_bytes + to_offset],
                &from.params[static_cast<std::size_t>(lane) * from.program->param_bytes + from_offset],
                bytes);
  });
}

// Slots of a call in Program::slots: counts, then offset and size of each result and argument.
struct CallSlots {
  const Slot* slots;
  std::uint32_t results() const { return slots[0]; }
  std::uint32_t arguments() const { return slots[1]; }
  std::uint32_t result_offset(std::uint32_t i) const { return slots[2 + 2 * i]; }
  std::uint32_t result_bytes(std::uint32_t i) const { return slots[3 + 2 * i]; }
  std::uint32_t argument_offset(std::uint32_t i) const { return slots[2 + 2 * (results() + i)]; }
  std::uint32_t argument_bytes(std::uint32_t i) const { return slots[3 + 2 * (results() + i)]; }
};

std::uint64_t result_place(const ptx::Function& function, std::size_t i) {
  std::uint64_t offset = function.param_bytes;
  for (std::size_t r = 0; r <= i; ++r) {
    offset = (offset + function.results[r].align - 1) / function.results[r].align * function.results[r].align;
    if (r < i) offset += function.results[r].bytes;
  }
  return offset;
}

void call_program(Warp& warp, const Ins& ins, Mask lanes, const Program* callee) {
  const CallSlots site{&warp.frame->program->slots[ins.list]};
  const ptx::Function& function = *callee->function;
  const int lane = __builtin_ctz(lanes);
  if (site.arguments() != function.params.size() || site.results() > function.results.size())
    report(warp, FindingKind::invalid_operation, lane, 0,
           "a call of " + function.name + " with the wrong number of parameters", 719);
  Frame* const caller = warp.frame;
  if (warp.frames.size() > 4096 || caller->local_base + caller->program->local_bytes + callee->local_bytes >
                                       std::max<std::uint64_t>(warp.local_stride, 1))
    if (callee->local_bytes != 0 || warp.frames.size() > 4096)
      report(warp, FindingKind::out_of_bounds, lane, 0, "stack overflow in " + function.name, 700);
  const std::uint32_t after = warp.pc, call = warp.pc - 1;
  split_off(warp, warp.mask & ~lanes, after);
  Frame* frame = enter(warp, callee, lanes);
  frame->return_pc = after;
  frame->return_call = call;
  for (std::uint32_t i = 0; i < site.arguments(); ++i)
    copy_params(*frame, function.params[i].offset, *caller, site.argument_offset(i),
                std::min<std::uint64_t>(site.argument_bytes(i), function.params[i].bytes), lanes);
  warp.mask = 0;
  warp.groups.push_back({Group::State::running, 0, lanes, frame, 0, 0});
  stop_after(warp);
}

void call_direct(Warp& warp, const Ins& ins, Mask active) {
  call_program(warp, ins, active, warp.launch->kernel->functions.at(static_cast<int>(ins.extra)).get());
}

void call_indirect(Warp& warp, const Ins& ins, Mask active) {
  const std::uint64_t* target = warp.lanes<std::uint64_t>(ins.a);
  const std::uint64_t address = target[__builtin_ctz(active)];
  Mask same = 0;
  each_lane(active, [&](int lane) { same |= static_cast<Mask>(target[lane] == address) << lane; });
  const auto& functions = warp.launch->kernel->functions;
  const auto found = functions.find(static_cast<int>((address - kFunctionAddress) / 16));
  if (address < kFunctionAddress || found == functions.end())
    report(warp, FindingKind::invalid_operation, __builtin_ctz(active), address,
           "a call of something that is no function", 719);
  // Lanes with other targets execute the instruction again.
  split_off(warp, active & ~same, warp.pc - 1);
  call_program(warp, ins, same, found->second.get());
}

void ret(Warp& warp, const Ins&, Mask active) {
  Frame* frame = warp.frame;
  if (frame->caller == nullptr) return exit_lanes(warp, active);
  Frame* caller = frame->caller;
  const CallSlots site{&caller->program->slots[caller->program->code[frame->return_call].list]};
  for (std::uint32_t i = 0; i < site.results(); ++i)
    copy_params(*caller, site.result_offset(i), *frame, result_place(*frame->program->function, i),
                std::min<std::uint64_t>(site.result_bytes(i), frame->program->function->results[i].bytes),
                active);
  const std::uint32_t back = frame->return_pc;
  warp.mask &= ~active;
  warp.groups.push_back({Group::State::running, back, active, caller, 0, 0});
  if (warp.mask != 0) warp.groups.push_back({Group::State::running, warp.pc, warp.mask, frame, 0, 0});
  warp.mask = 0;
  leave(warp, active);
  stop_after(warp);
}

void decode_ret(Decoder& decoder, Ins& ins) {
  decoder.take("uni");
  decoder.instruction_class = Class::control;
  decoder.operand_count(0);
  ins.run = ret;
}

void system_call(Warp& warp, const Ins& ins, Mask active) {
  const CallSlots site{&warp.frame->program->slots[ins.list]};
  Frame& frame = *warp.frame;
  each_lane(active, [&](int lane) {
    std::uint8_t* params = &frame.params[static_cast<std::size_t>(lane) * frame.program->param_bytes];
    std::uint64_t arguments[8] = {};
    for (std::uint32_t i = 0; i < site.arguments() && i < 8; ++i)
      std::memcpy(&arguments[i], params + site.argument_offset(i),
                  std::min<std::uint32_t>(site.argument_bytes(i), 8));
    const std::uint64_t result = run_system_call(warp, lane, static_cast<SystemCall>(ins.aux), arguments);
    if (site.results() != 0)
      std::memcpy(params + site.result_offset(0), &result, std::min<std::uint32_t>(site.result_bytes(0), 8));
  });
}

void append_places(Decoder& decoder, const Operand& list) {
  for (const Operand& element : list.elements) {
    if (element.kind != Operand::Kind::variable && element.kind != Operand::Kind::sink)
      decoder.fail("arguments and results must be .param variables");
    const Place place = place_of(decoder, element.name);
    if (place.space != ptx::Space::param || place.kernel_param)
      decoder.fail(element.name + " is no .param variable of this function");
    decoder.append(static_cast<Slot>(place.value));
    decoder.append(static_cast<Slot>(place.bytes));
  }
}

void decode_call(Decoder& decoder, Ins& ins) {
  decoder.take("uni");
  decoder.instruction_class = Class::call;
  decoder.operand_count(3, 4);
  const Operand &results = decoder.operand(0), &callee = decoder.operand(1), &arguments = decoder.operand(2);
  ins.list = decoder.append(static_cast<Slot>(results.elements.size()));
  decoder.append(static_cast<Slot>(arguments.elements.size()));
  append_places(decoder, results);
  append_places(decoder, arguments);
  if (callee.kind == Operand::Kind::reg) {
    ins.a = decoder.read(1, Type::u64);
    ins.run = call_indirect;
    return;
  }
  if (callee.kind != Operand::Kind::function) decoder.fail("the callee must be a function");
  if (const int system = system_call_named(callee.name); system >= 0) {
    ins.aux = static_cast<std::uint16_t>(system);
    ins.run = system_call;
    return;
  }
  const auto found = decoder.context.module->functions.find(callee.name);
  if (found == decoder.context.module->functions.end() || is_declaration(decoder, callee.name))
    decoder.fail("the function " + callee.name + " has no body");
  ins.extra = static_cast<std::uint32_t>(found->second);
  ins.run = call_direct;
}

// --- the rest ---

void trap(Warp& warp, const Ins&, Mask active) {
  report(warp, FindingKind::assertion, __builtin_ctz(active), 0, "trap", 719);
}

void decode_trap(Decoder& decoder, Ins& ins) {
  decoder.operand_count(0);
  decoder.instruction_class = Class::control;
  ins.run = trap;
}

void nothing(Warp&, const Ins&, Mask) {}

// Whoever sleeps waits for somebody else: the turn is over.
void nanosleep(Warp& warp, const Ins&, Mask) {
  warp.budget = 1;
  stop_after(warp);
}

void decode_nanosleep(Decoder& decoder, Ins& ins) {
  decoder.expect("u32");
  decoder.operand_count(1);
  ins.a = decoder.read(0, Type::u32);
  ins.run = nanosleep;
}

void decode_brkpt(Decoder& decoder, Ins& ins) {
  decoder.operand_count(0);
  ins.run = nothing;
}

void decode_pmevent(Decoder& decoder, Ins& ins) {
  decoder.take("mask");
  decoder.operand_count(1);
  ins.run = nothing;
}

// Programmatic dependent launch: launches run one after the other here.
void decode_griddepcontrol(Decoder& decoder, Ins& ins) {
  decoder.expect_one_of({"launch_dependents", "wait"});
  decoder.operand_count(0);
  ins.run = nothing;
}

void decode_setmaxnreg(Decoder& decoder, Ins& ins) {
  decoder.expect_one_of({"inc", "dec"});
  decoder.expect("sync");
  decoder.expect("aligned");
  decoder.expect("u32");
  decoder.operand_count(1);
  ins.run = nothing;
}

constexpr std::pair<std::string_view, Decode> kOpcodes[] = {{"bra", decode_bra},
                                                            {"brx", decode_brx},
                                                            {"exit", decode_exit},
                                                            {"ret", decode_ret},
                                                            {"call", decode_call},
                                                            {"trap", decode_trap},
                                                            {"nanosleep", decode_nanosleep},
                                                            {"brkpt", decode_brkpt},
                                                            {"pmevent", decode_pmevent},
                                                            {"griddepcontrol", decode_griddepcontrol},
                                                            {"setmaxnreg", decode_setmaxnreg}};

}  // namespace

Opcodes control_opcodes() { return kOpcodes; }

}  // namespace emulator
