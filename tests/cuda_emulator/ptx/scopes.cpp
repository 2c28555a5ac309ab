#include <utility>

#include "ptx/parser.h"

namespace emulator::ptx {

namespace {

/// `%r17` in `%r<102>`. A prefix may end in digits itself, so every split of the name is tried; `%r017` is
/// none of them.
std::optional<int> find_in_ranges(const Scope& scope, std::string_view name) {
  std::size_t split = name.size();
  std::uint64_t number = 0, unit = 1;
  while (split > 1 && name[split - 1] >= '0' && name[split - 1] <= '9' && name.size() - split < 8) {
    --split;
    number += unit * static_cast<std::uint64_t>(name[split] - '0');
    unit *= 10;
    if (name[split] == '0' && split + 1 != name.size()) continue;
    const auto range = scope.ranges.find(name.substr(0, split));
    if (range != scope.ranges.end() && number < range->second.count) {
      return range->second.first + static_cast<int>(number);
    }
  }
  return std::nullopt;
}

}  // namespace

Scopes::Scopes(Parse& parse, Function& function) : parse_(parse), function_(function) {
  scopes_.emplace_back();
  for (const auto* parameters : {&function.results, &function.params}) {
    for (const Variable& parameter : *parameters) {
      check_new({.kind = Token::Kind::word, .text = parameter.name, .line = parse.lexer.line()});
      taken_.insert(parameter.name);
      scopes_.back().names[parameter.name] = {.kind = Symbol::Kind::variable, .name = parameter.name};
    }
  }
}

void Scopes::open() {
  if (scopes_.size() == kMaxScopes) parse_.lexer.fail("scopes are nested too deeply");
  scopes_.emplace_back();
}

void Scopes::close() {
  const Scope scope = std::move(scopes_.back());
  scopes_.pop_back();
  std::vector<Use>& outer = scopes_.empty() ? unresolved_ : scopes_.back().uses;
  for (const Use& use : scope.uses) {
    const auto found = scope.targets.find(use.name);
    if (found == scope.targets.end()) {
      outer.push_back(use);
    } else {
      resolve(use, found->second);
    }
  }
}

void Scopes::resolve(const Use& use, const Symbol& target) {
  const bool is_label = target.kind == Symbol::Kind::label;
  if (!use.table.empty()) {
    if (!is_label) throw Error(use.line, "'" + std::string(use.name) + "' is no label");
    function_.tables[use.table].labels[use.entry] = target.index;
    return;
  }
  Operand& operand = function_.instructions[static_cast<std::size_t>(use.instruction)]
                         .operands[static_cast<std::size_t>(use.operand)];
  operand.kind = is_label ? Operand::Kind::label : Operand::Kind::table;
  operand.index = target.index;
  if (!is_label) operand.name = target.name;
}

void Scopes::check_new(const Token& name) const {
  const Scope& scope = scopes_.back();
  if (name.text == "_" || name.text == "WARP_SZ") {
    throw Error(name.line, "'" + std::string(name.text) + "' cannot be declared");
  }
  if (scope.names.contains(name.text) || scope.targets.contains(name.text) ||
      find_in_ranges(scope, name.text)) {
    throw Error(name.line, "'" + std::string(name.text) + "' is declared twice in one scope");
  }
}

int Scopes::add_registers(std::uint64_t count) {
  parse_.registers += count;
  if (parse_.registers > kMaxRegisters) {
    parse_.lexer.fail("more than " + std::to_string(kMaxRegisters) + " registers");
  }
  return static_cast<int>(function_.registers.size());
}

void Scopes::declare_register(const Token& name, Type type) {
  check_new(name);
  const int index = add_registers(1);
  scopes_.back().names[name.text] = {.kind = Symbol::Kind::reg, .index = index};
  function_.registers.push_back({.name = std::string(name.text), .type = type});
}

void Scopes::declare_registers(const Token& prefix, std::uint64_t count, Type type) {
  const int first = add_registers(count);
  if (!scopes_.back().ranges.try_emplace(prefix.text, Scope::Range{first, count}).second) {
    throw Error(prefix.line, "registers '" + std::string(prefix.text) + "' are declared twice in one scope");
  }
  for (std::uint64_t i = 0; i < count; ++i) {
    function_.registers.push_back({.name = std::string(prefix.text) + std::to_string(i), .type = type});
  }
}

std::string Scopes::unique(std::string_view name) {
  const bool is_new = taken_.insert(name).second;
  std::string result(name);
  if (!is_new || parse_.module.variable_index.contains(result)) result += "#" + std::to_string(++renamed_);
  return result;
}

void Scopes::declare_variable(DeclaredVariable declared) {
  check_new(declared.name);
  Variable& variable = declared.variable;
  variable.name = unique(declared.name.text);
  scopes_.back().names[declared.name.text] = {.kind = Symbol::Kind::variable, .name = variable.name};
  function_.variables.push_back(std::move(variable));
}

void Scopes::declare_label(const Token& name) {
  check_new(name);
  const int index = static_cast<int>(function_.instructions.size());
  scopes_.back().targets[name.text] = {.kind = Symbol::Kind::label, .index = index};
}

std::string Scopes::declare_table(const Token& name) {
  check_new(name);
  std::string result = unique(name.text);
  scopes_.back().targets[name.text] = {.kind = Symbol::Kind::table, .name = result};
  function_.tables[result] = {};
  return result;
}

std::optional<Symbol> Scopes::find(std::string_view name) const {
  for (std::size_t i = scopes_.size(); i-- > 0;) {
    const Scope& scope = scopes_[i];
    const auto symbol = scope.names.find(name);
    if (symbol != scope.names.end()) return symbol->second;
    if (scope.ranges.empty()) continue;
    if (const auto index = find_in_ranges(scope, name)) {
      return Symbol{.kind = Symbol::Kind::reg, .index = *index};
    }
  }
  return std::nullopt;
}

}  // namespace emulator::ptx
