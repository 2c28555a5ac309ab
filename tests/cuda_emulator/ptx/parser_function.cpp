#include <limits>
#include <utility>

#include "ptx/parser.h"

namespace emulator::ptx {
namespace {

constexpr std::uint64_t kMaxInt = std::numeric_limits<int>::max();

/// The statements of one function.
class Body {
 public:
  Body(Parse& parse, int index)
      : parse_(parse),
        lexer_(parse.lexer),
        index_(index),
        function_(parse.module.functions[static_cast<std::size_t>(index)]),
        scopes_(parse, function_) {}

  void read() {
    const std::size_t outside = scopes_.depth();
    int last_line = 0;
    do {
      last_line = lexer_.line();
      statement();
    } while (scopes_.depth() > outside);
    scopes_.close();
    end_with_return(last_line);
    settle_unresolved();
  }

 private:
  void statement() {
    if (lexer_.accept('{')) return scopes_.open();
    if (lexer_.accept('}')) return scopes_.close();
    if (lexer_.at('@')) return guarded_instruction();
    if (lexer_.at(Token::Kind::directive)) return directive();
    if (!lexer_.at(Token::Kind::word)) lexer_.fail_expected("a statement");
    const Token name = lexer_.take();
    if (lexer_.accept(':')) return label(name);
    function_.instructions.push_back(parse_instruction(parse_, scopes_, function_, name));
  }

  /// Running over the closing brace returns (ptxas accepts that); labels may stand right before it.
  void end_with_return(int line) {
    const std::vector<Instruction>& all = function_.instructions;
    const bool ends =
        !all.empty() && all.back().guard < 0 &&
        (all.back().opcode == "ret" || all.back().opcode == "exit" || all.back().opcode == "bra" ||
         all.back().opcode == "brx" || all.back().opcode == "trap");
    if (ends && last_label_ < static_cast<int>(all.size())) return;
    Instruction implicit;
    implicit.opcode = "ret";
    implicit.line = line;
    function_.instructions.push_back(std::move(implicit));
  }

  void guarded_instruction() {
    lexer_.expect('@');
    const bool negated = lexer_.accept('!');
    const Token name = lexer_.token();
    lexer_.expect(Token::Kind::word, "a predicate");
    const std::optional<Symbol> symbol = scopes_.find(name.text);
    if (!symbol || symbol->kind != Symbol::Kind::reg ||
        function_.registers[static_cast<std::size_t>(symbol->index)].type != Type::pred) {
      throw Error(name.line, "guard '" + std::string(name.text) + "' is no predicate register");
    }
    if (!lexer_.at(Token::Kind::word)) lexer_.fail_expected("an instruction");
    const Token opcode = lexer_.take();
    Instruction instruction = parse_instruction(parse_, scopes_, function_, opcode);
    instruction.guard = symbol->index;
    instruction.guard_negated = negated;
    function_.instructions.push_back(std::move(instruction));
  }

  void directive() {
    if (lexer_.accept_directive("reg")) return registers();
    if (lexer_.accept_directive("loc")) return parse_loc(parse_);
    if (lexer_.accept_directive("pragma")) return parse_pragma(lexer_);
    const bool is_extern = lexer_.accept_directive("extern");
    for (const char* space : {"local", "shared", "param", "global", "const"}) {
      if (!lexer_.at_directive(space)) continue;
      for (DeclaredVariable& declared : parse_variables(parse_, is_extern)) {
        scopes_.declare_variable(std::move(declared));
      }
      return;
    }
    lexer_.fail_expected("a directive that is known in a function");
  }

  /// `.reg .b32 %r<102>, x;` behind the `.reg`.
  void registers() {
    const Type type = parse_type(lexer_);
    do {
      const Token name = lexer_.token();
      lexer_.expect(Token::Kind::word, "a register's name");
      if (lexer_.accept('<')) {
        scopes_.declare_registers(name, lexer_.expect_integer("a number of registers", kMaxRegisters), type);
        lexer_.expect('>');
      } else {
        scopes_.declare_register(name, type);
      }
    } while (lexer_.accept(','));
    lexer_.expect(';');
  }

  void label(const Token& name) {
    if (lexer_.accept_directive("branchtargets")) return branch_targets(scopes_.declare_table(name));
    if (lexer_.accept_directive("calltargets")) return call_targets(scopes_.declare_table(name));
    if (lexer_.accept_directive("callprototype")) {
      scopes_.declare_table(name);
      return call_prototype();
    }
    scopes_.declare_label(name);
    last_label_ = static_cast<int>(function_.instructions.size());
  }

  void branch_targets(const std::string& table) {
    std::vector<int>& labels = function_.tables[table].labels;
    do {
      const int line = lexer_.line();
      const std::string_view name = lexer_.expect(Token::Kind::word, "a label");
      scopes_.use({.name = std::string(name), .line = line, .table = table, .entry = labels.size()});
      labels.push_back(-1);
    } while (lexer_.accept(','));
    lexer_.expect(';');
  }

  void call_targets(const std::string& table) {
    do {
      const int line = lexer_.line();
      const std::string_view name = lexer_.expect(Token::Kind::word, "a function's name");
      function_.tables[table].functions.emplace_back(name);
      parse_.references.push_back({.name = name, .line = line, .must_be_function = true});
    } while (lexer_.accept(','));
    lexer_.expect(';');
  }

  /// `(.param .b32 _) _ (.param .b64 _);`: every call repeats what it says.
  void call_prototype() {
    if (lexer_.at('(')) parse_parameters(parse_);
    lexer_.expect(Token::Kind::word, "_");
    if (lexer_.at('(')) parse_parameters(parse_);
    lexer_.accept_directive("noreturn");
    lexer_.expect(';');
  }

  /// Names that no scope knew: functions declared later, or errors.
  void settle_unresolved() {
    for (const Use& use : scopes_.unresolved()) {
      const bool is_entry = !use.table.empty();
      const std::string opcode =
          is_entry ? "" : function_.instructions[static_cast<std::size_t>(use.instruction)].opcode;
      const bool is_prototype = opcode == "call" && use.operand == 3;
      if (is_entry || is_prototype || opcode == "bra" || opcode == "brx") {
        throw Error(use.line, "label '" + use.name + "' is not known");
      }
      parse_.open_operands.push_back({.name = use.name,
                                      .line = use.line,
                                      .function = index_,
                                      .instruction = use.instruction,
                                      .operand = use.operand});
    }
  }

  Parse& parse_;
  Lexer& lexer_;
  int index_;
  Function& function_;
  Scopes scopes_;
  int last_label_ = -1;  // the instruction behind it
};

}  // namespace

namespace {

std::array<int, 3> position(Lexer& lexer) {
  std::array<int, 3> result;
  const char* const parts[] = {"a file's index", "a line", "a column"};
  for (std::size_t i = 0; i < 3; ++i) result[i] = static_cast<int>(lexer.expect_integer(parts[i], kMaxInt));
  return result;
}

int add_location(Parse& parse, const std::array<int, 3>& at, int outer) {
  parse.locations.push_back({at[0], at[1], outer});
  return parse.location_index[at] = static_cast<int>(parse.locations.size()) - 1;
}

}  // namespace

void parse_loc(Parse& parse) {
  Lexer& lexer = parse.lexer;
  const std::array<int, 3> at = position(lexer);
  int outer = -1;
  while (lexer.accept(',')) {
    const std::string_view attribute = lexer.expect(Token::Kind::word, "function_name or inlined_at");
    if (attribute == "function_name") {
      lexer.expect(Token::Kind::word, "a label");
      lexer.optional_addend();
    } else if (attribute == "inlined_at") {
      const std::array<int, 3> call = position(lexer);
      const auto known = parse.location_index.find(call);
      outer = known != parse.location_index.end() ? known->second : add_location(parse, call, -1);
    } else {
      lexer.fail(".loc attribute '" + std::string(attribute) + "' is not known");
    }
  }
  parse.location = add_location(parse, at, outer);
}

void parse_pragma(Lexer& lexer) {
  do {
    const int line = lexer.line();
    const std::string_view pragma = lexer.expect(Token::Kind::string, "a string");
    bool known = pragma == "nounroll" || pragma == "enable_smem_spilling";
    known = known || pragma.starts_with("used_bytes_mask ") || pragma.starts_with("frequency ");
    if (!known) throw Error(line, "pragma \"" + std::string(pragma) + "\" is not known");
  } while (lexer.accept(','));
  lexer.expect(';');
}

void parse_body(Parse& parse, int function) { Body(parse, function).read(); }

}  // namespace emulator::ptx
