#include <utility>

#include "ptx/parser.h"

namespace emulator::ptx {
namespace {

Operand make_operand(Operand::Kind kind, std::string name = {}) {
  Operand operand;
  operand.kind = kind;
  operand.name = std::move(name);
  return operand;
}

Operand make_register(int index) {
  Operand operand = make_operand(Operand::Kind::reg);
  operand.index = index;
  return operand;
}

Operand make_literal(const Literal& literal) {
  Operand operand = make_operand(literal.floating ? Operand::Kind::floating : Operand::Kind::integer);
  operand.bits = literal.bits;
  operand.width = literal.floating ? literal.width : 0;
  return operand;
}

/// Operands of one instruction. A name that nothing declared yet becomes a label without index; it is
/// resolved when its scope ends.
class Operands {
 public:
  Operands(Parse& parse, const Scopes& scopes, const Instruction& instruction)
      : parse_(parse), lexer_(parse.lexer), scopes_(scopes), instruction_(instruction) {}

  Operand operand() {
    if (lexer_.accept('{')) return group(Operand::Kind::vector, '}');
    if (lexer_.accept('[')) return address();
    if (instruction_.opcode == "call" && lexer_.accept('(')) return group(Operand::Kind::list, ')');
    if (lexer_.at(Token::Kind::word) && expects_target()) {
      return make_operand(Operand::Kind::label, std::string(lexer_.take().text));
    }
    Operand first = simple();
    if (!lexer_.accept('|')) return first;
    Operand pair = make_operand(Operand::Kind::pair);
    pair.elements.push_back(checked(std::move(first)));
    pair.elements.push_back(checked(simple()));
    return pair;
  }

 private:
  /// `a, b}` behind its opening brace.
  Operand group(Operand::Kind kind, char closing) {
    Operand group = make_operand(kind);
    if (kind == Operand::Kind::list && lexer_.accept(closing)) return group;
    do {
      group.elements.push_back(checked(simple()));
    } while (lexer_.accept(','));
    lexer_.expect(closing);
    return group;
  }

  /// `%rd1+16]`, `x+8]` or `12]`.
  Operand address() {
    Operand address = make_operand(Operand::Kind::address);
    if (lexer_.at(Token::Kind::word)) {
      Operand base = name();
      if (base.kind == Operand::Kind::reg) {
        address.index = base.index;
      } else if (base.kind == Operand::Kind::variable) {
        address.name = std::move(base.name);
      } else {
        fail("'" + base.name + "' in an address of " + instruction_.text() +
             " is neither register nor variable");
      }
      address.offset = static_cast<std::int64_t>(lexer_.optional_addend());
    } else {
      address.offset = static_cast<std::int64_t>(lexer_.expect_constant());
    }
    if (lexer_.at(','))
      lexer_.fail("address with several parts, of " + instruction_.text() + ", is not supported");
    lexer_.expect(']');
    return address;
  }

  Operand simple() {
    if (lexer_.accept('!')) {
      Operand operand = name();
      if (operand.kind != Operand::Kind::reg) fail("'!' needs a register");
      operand.negated = true;
      return operand;
    }
    if (lexer_.at(Token::Kind::word)) {
      Operand operand = name();
      if (operand.kind == Operand::Kind::variable) {
        operand.offset = static_cast<std::int64_t>(lexer_.optional_addend());
      }
      return operand;
    }
    if (!lexer_.at(Token::Kind::number) && !lexer_.at('-'))
      lexer_.fail_expected("an operand of " + instruction_.text());
    return make_literal(lexer_.expect_literal());
  }

  /// The target of a branch or the prototype of a call: what else has this name does not matter.
  bool expects_target() const {
    const std::vector<Operand>& before = instruction_.operands;
    if (instruction_.opcode == "bra") return true;
    if (instruction_.opcode == "brx") return before.size() == 1;
    return instruction_.opcode == "call" && !before.empty() &&
           (before.size() > 1 || before[0].kind != Operand::Kind::list);
  }

  Operand name() {
    line_ = lexer_.line();
    const std::string_view name = lexer_.expect(Token::Kind::word, "a name");
    if (name == "_") return make_operand(Operand::Kind::sink);
    if (name == "WARP_SZ") return make_literal({.bits = 32});
    if (const auto symbol = scopes_.find(name)) {
      if (symbol->kind == Symbol::Kind::reg) return make_register(symbol->index);
      return make_operand(Operand::Kind::variable, symbol->name);
    }
    Operand operand = make_operand(Operand::Kind::label, std::string(name));
    if (name[0] == '%') {
      operand.kind = Operand::Kind::special;
      if (lexer_.at(Token::Kind::directive)) operand.name.append(".").append(lexer_.take().text);
    } else if (parse_.module.variable_index.contains(operand.name)) {
      operand.kind = Operand::Kind::variable;
    } else if (parse_.module.function_index.contains(operand.name)) {
      operand.kind = Operand::Kind::function;
    }
    return operand;
  }

  /// Elements must be known at once: labels and functions are no elements.
  Operand checked(Operand element) const {
    if (element.kind == Operand::Kind::label) fail("'" + element.name + "' is not known");
    return element;
  }

  [[noreturn]] void fail(const std::string& message) const { throw Error(line_, message); }

  Parse& parse_;
  Lexer& lexer_;
  const Scopes& scopes_;
  const Instruction& instruction_;
  int line_ = 0;  // of the last name
};

/// `(results), callee, (arguments), prototype`: only the callee is always written.
void normalise_call(Instruction& call) {
  std::vector<Operand> written = std::move(call.operands);
  call.operands.clear();
  std::size_t next = 0;
  const auto take_list = [&] {
    if (next < written.size() && written[next].kind == Operand::Kind::list) return std::move(written[next++]);
    return make_operand(Operand::Kind::list);
  };
  call.operands.push_back(take_list());
  const Operand::Kind kind = next < written.size() ? written[next].kind : Operand::Kind::list;
  if (kind != Operand::Kind::reg && kind != Operand::Kind::function && kind != Operand::Kind::label) {
    throw Error(call.line, call.text() + " names no function");
  }
  call.operands.push_back(std::move(written[next++]));
  call.operands.push_back(take_list());
  if (next < written.size()) {
    if (written[next].kind != Operand::Kind::label)
      throw Error(call.line, call.text() + ": malformed operands");
    call.operands.push_back(std::move(written[next++]));
  }
  if (next != written.size()) throw Error(call.line, call.text() + " has too many operands");
}

}  // namespace

Instruction parse_instruction(Parse& parse, Scopes& scopes, const Function& function, const Token& opcode) {
  Lexer& lexer = parse.lexer;
  Instruction instruction;
  instruction.opcode = opcode.text;
  instruction.line = opcode.line;
  instruction.file = parse.location;
  while (lexer.at(Token::Kind::directive)) instruction.modifiers.emplace_back(lexer.take().text);
  if (!lexer.at(';')) {
    instruction.operands.reserve(4);
    Operands operands(parse, scopes, instruction);
    do {
      instruction.operands.push_back(operands.operand());
    } while (lexer.accept(','));
  }
  lexer.expect(';');
  if (instruction.opcode == "call") normalise_call(instruction);
  for (std::size_t i = 0; i < instruction.operands.size(); ++i) {
    const Operand& operand = instruction.operands[i];
    if (operand.kind != Operand::Kind::label) continue;
    scopes.use({.name = operand.name,
                .line = opcode.line,
                .instruction = static_cast<int>(function.instructions.size()),
                .operand = static_cast<int>(i)});
  }
  return instruction;
}

}  // namespace emulator::ptx
