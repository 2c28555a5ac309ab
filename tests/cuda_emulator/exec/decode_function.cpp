#include <algorithm>

#include "exec/context.h"

namespace emulator {
namespace {

using ptx::Function;
using ptx::Variable;

const std::unordered_map<std::string_view, Decode>& opcode_table() {
  static const auto table = [] {
    std::unordered_map<std::string_view, Decode> result;
    for (const Opcodes opcodes : {integer_opcodes(), bits_opcodes(), float_opcodes(), convert_opcodes(),
                                  move_opcodes(), memory_opcodes(), atomic_opcodes(), warp_opcodes(),
                                  control_opcodes(), barrier_opcodes(), async_opcodes(), tensor_opcodes()})
      for (const auto& [name, decode] : opcodes) result.emplace(name, decode);
    return result;
  }();
  return table;
}

std::uint64_t align_up(std::uint64_t value, std::uint64_t align) {
  return (value + align - 1) / align * align;
}

void place_variables(const Function& function, const std::unordered_map<std::string, Place>& own_shared,
                     Decoder::Context& context, Program& program) {
  std::uint64_t params = function.is_kernel ? 0 : function.param_bytes;
  for (const Variable& v : function.params)
    context.places[v.name] = {ptx::Space::param, v.offset, v.bytes, function.is_kernel};
  for (const Variable& v : function.results) {
    params = align_up(params, v.align);
    context.places[v.name] = {ptx::Space::param, params, v.bytes, false};
    params += v.bytes;
  }
  for (const Variable& v : function.variables) {
    if (v.space == ptx::Space::local) {
      program.local_bytes = align_up(program.local_bytes, v.align);
      context.places[v.name] = {ptx::Space::local, program.local_bytes, v.bytes, false};
      program.local_bytes += v.bytes;
    } else if (v.space == ptx::Space::param) {
      params = align_up(params, v.align);
      context.places[v.name] = {ptx::Space::param, params, v.bytes, false};
      params += v.bytes;
    }
  }
  for (const auto& [name, place] : own_shared) context.places[name] = place;
  program.local_bytes = align_up(program.local_bytes, 16);
  program.param_bytes = align_up(params, 16);
}

void run_off_the_end(Warp& warp, const Ins&, Mask active) {
  report(warp, FindingKind::invalid_operation, __builtin_ctz(active), 0,
         "control runs off the end of the function", 719);
}

void decode_one(Decoder& decoder, Program& program) {
  const auto found = opcode_table().find(decoder.source.opcode);
  if (found == opcode_table().end()) decoder.fail("unknown instruction");
  Ins ins;
  found->second(decoder, ins);
  if (decoder.modifier != decoder.source.modifiers.size())
    decoder.fail("unknown modifier ." + std::string(decoder.next()));
  if (ins.run == nullptr) decoder.fail("this form is not supported");
  if (decoder.source.guard >= 0) {
    ptx::Operand guard;
    guard.kind = ptx::Operand::Kind::reg;
    guard.index = decoder.source.guard;
    guard.negated = decoder.source.guard_negated;
    ins.guard = decoder.read_predicate(guard, &ins.guard_flip);
  }
  program.code.push_back(ins);
  program.source.push_back(&decoder.source);
  program.classes.push_back(decoder.instruction_class);
}

}  // namespace

void decode_function(const Function& function, const ModulePlaces& module,
                     const std::unordered_map<std::string, Place>& own_shared, Program& program) {
  Decoder::Context context;
  context.layout = allocate_registers(function);
  context.module = &module;
  program.name = function.name;
  program.function = &function;
  program.register_bytes = context.layout.bytes;
  program.constants.assign(64, 0);
  std::memset(program.constants.data(), 0xff, 4);  // the predicate "all lanes"
  place_variables(function, own_shared, context, program);
  for (const int r : context.layout.live_at_entry)
    program.poison.emplace_back(context.layout.offset[static_cast<std::size_t>(r)],
                                register_storage(function.registers[static_cast<std::size_t>(r)].type));
  for (std::size_t i = 0; i < function.instructions.size(); ++i) {
    Decoder decoder{function.instructions[i], function, program, Class::other, context, 0};
    decode_one(decoder, program);
  }
  Ins end;
  end.run = run_off_the_end;
  program.code.push_back(end);
  program.source.push_back(function.instructions.empty() ? nullptr : &function.instructions.back());
  program.classes.push_back(Class::other);
}

}  // namespace emulator
