#include <iterator>

#include "ptx/module.h"

namespace emulator::ptx {
namespace {

struct TypeEntry {
  const char* name;
  int bytes;
};

/// In the order of the enumeration.
constexpr TypeEntry kTypes[] = {{"none", 0},   {"pred", 0}, {"b8", 1},  {"b16", 2}, {"b32", 4},   {"b64", 8},
                                {"b128", 16},  {"u8", 1},   {"u16", 2}, {"u32", 4}, {"u64", 8},   {"s8", 1},
                                {"s16", 2},    {"s32", 4},  {"s64", 8}, {"f16", 2}, {"f16x2", 4}, {"bf16", 2},
                                {"bf16x2", 4}, {"tf32", 4}, {"f32", 4}, {"f64", 8}};
static_assert(std::size(kTypes) == static_cast<std::size_t>(Type::f64) + 1);

}  // namespace

int bytes_of(Type type) { return kTypes[static_cast<std::size_t>(type)].bytes; }

const char* name_of(Type type) { return kTypes[static_cast<std::size_t>(type)].name; }

std::optional<Type> type_named(std::string_view name) {
  for (std::size_t i = 1; i < std::size(kTypes); ++i) {
    if (name == kTypes[i].name) return static_cast<Type>(i);
  }
  return std::nullopt;
}

std::string Instruction::text() const {
  std::string text = opcode;
  for (const std::string& modifier : modifiers) text += "." + modifier;
  return text;
}

}  // namespace emulator::ptx
