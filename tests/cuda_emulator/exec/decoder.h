#pragma once

#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "exec/machine.h"

namespace emulator {

/// Turns one PTX instruction into an Ins. Modifiers are taken one by one in their order; what is left over,
/// an operand of the wrong width or kind, or one too many is an error: nothing is guessed.
class Decoder {
 public:
  const ptx::Instruction& source;
  const ptx::Function& function;
  Program& program;
  Class instruction_class = Class::other;

  // --- modifiers ---
  /// Takes the next modifier if it is this one.
  bool take(std::string_view modifier);
  /// Takes the next modifier if it is in the list, and says which (0…); -1 otherwise.
  int take_one_of(std::initializer_list<std::string_view> modifiers);
  /// Takes the next modifier, which must be in the list.
  int expect_one_of(std::initializer_list<std::string_view> modifiers);
  void expect(std::string_view modifier);
  /// Takes the next modifier, which must name a type.
  ptx::Type type();
  /// Takes the next modifier if it is a type.
  ptx::Type optional_type();
  std::string_view next() const;  // "" at the end
  bool ends_with_modifier(std::string_view modifier) const;

  // --- operands ---
  std::size_t operands() const { return source.operands.size(); }
  const ptx::Operand& operand(std::size_t i);
  void operand_count(std::size_t exactly);
  void operand_count(std::size_t at_least, std::size_t at_most);
  /// A source of exactly `bytes` bytes per lane: register or immediate. Where wider registers are allowed
  /// (cvt, ld, st) the caller asks register_bytes() first.
  Slot read(const ptx::Operand& operand, int bytes);
  Slot read(std::size_t i, ptx::Type type);
  Slot write(const ptx::Operand& operand, int bytes);
  Slot write(std::size_t i, ptx::Type type);
  Slot read_predicate(const ptx::Operand& operand,
                      Mask* flip);  // register (with its negation in flip) or constant true/false
  Slot write_predicate(const ptx::Operand& operand);  // kNoSlot for the sink `_`
  int register_bytes(const ptx::Operand& operand);    // width of a register operand; 0: it is none
  /// The elements of a vector operand {a, b, …}, each of `bytes` bytes, appended to Program::slots; returns
  /// the index of the first. A bare register counts as a vector of one. `count` must match.
  std::uint32_t read_list(const ptx::Operand& operand, std::size_t count, int bytes);
  std::uint32_t write_list(const ptx::Operand& operand, std::size_t count, int bytes);
  std::uint32_t append(Slot slot);  // to Program::slots
  /// An integer literal in [low, high].
  std::int64_t literal(std::size_t i, std::int64_t low, std::int64_t high);
  /// An address operand [base + offset] in a space other than param: slot of u64 or u32 lane addresses
  /// (`wide`), and the offset. Variables become constants.
  struct Address {
    Slot base;
    bool wide;
    std::int64_t offset;
  };
  Address address(const ptx::Operand& operand, ptx::Space space);
  /// A new constant, the same in all lanes.
  Slot constant(std::uint64_t bits, int bytes);
  Slot constant_predicate(bool value);

  [[noreturn]] void fail(const std::string& message) const;

  // Set up by decode(); see decoder.cpp.
  struct Context;
  Context& context;
  std::size_t modifier = 0;  // the next one
};

/// Decodes one opcode into `ins` (guard excluded): sets run, operands and decoder.instruction_class.
using Decode = void (*)(Decoder& decoder, Ins& ins);
using Opcodes = std::span<const std::pair<std::string_view, Decode>>;

// The families (exec/ops_*.cpp, exec/tensor_*.cpp). Opcodes that integers share with other types stand with
// the integers, see exec/arithmetic.h.
Opcodes integer_opcodes();
Opcodes bits_opcodes();
Opcodes float_opcodes();
Opcodes convert_opcodes();
Opcodes move_opcodes();
Opcodes memory_opcodes();
Opcodes atomic_opcodes();
Opcodes warp_opcodes();
Opcodes control_opcodes();
Opcodes barrier_opcodes();
Opcodes async_opcodes();   // cp.async, cp.async.bulk, mbarrier
Opcodes tensor_opcodes();  // mma, ldmatrix, stmatrix, movmatrix, wmma

}  // namespace emulator
