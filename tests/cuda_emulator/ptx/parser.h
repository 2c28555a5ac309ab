#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <unordered_set>
#include <vector>

#include "ptx/lexer.h"
#include "ptx/module.h"

/// Inside of the parser: what its files share.
namespace emulator::ptx {

// A damaged text ends as an Error, not as an allocation of all memory.
constexpr std::uint64_t kMaxRegisters = std::uint64_t{1} << 22;      // of one module
constexpr std::uint64_t kMaxVariableBytes = std::uint64_t{1} << 32;  // of one module
constexpr std::uint64_t kMaxImageBytes = std::uint64_t{1} << 28;     // initialisers of one module
constexpr std::uint64_t kMaxAlign = std::uint64_t{1} << 16;
constexpr std::size_t kMaxDimensions = 8;
constexpr std::size_t kMaxScopes = 64;

/// A name of the module that must exist at its end.
struct Reference {
  std::string_view name;
  int line = 0;
  bool must_be_function = false;
};

/// An operand that names nothing known yet: a function that is declared later, or a mistake.
struct OpenOperand {
  std::string name;
  int line = 0;
  int function = 0, instruction = 0, operand = 0;
};

/// Where the instructions that follow come from (.loc).
/// A .loc: a line, and, when the code was inlined, the call that it was inlined at.
struct Location {
  int file = 0, line = 0;
  int outer = -1;  // in Parse::locations; -1: not inlined
};

/// All that parsing one module changes.
struct Parse {
  explicit Parse(std::string_view text) : lexer(text) {}

  Lexer lexer;
  Module module;
  std::vector<Location> locations{Location{}};       // 0: unknown
  std::map<std::array<int, 3>, int> location_index;  // of the function: file, line, column
  int location = 0;  // of what is parsed; Instruction::file holds it until all files are known
  std::uint64_t registers = 0, variable_bytes = 0, image_bytes = 0;  // so far, against the limits
  std::vector<Reference> references;
  std::vector<OpenOperand> open_operands;
};

// parser_variable.cpp

/// A type at the current directive, of a variable or register; names texture types and others that are
/// unsupported.
Type parse_type(Lexer& lexer);
/// A variable and where it was named.
struct DeclaredVariable {
  Variable variable;
  Token name;
};

/// `.global .align 8 .v2 .u32 a[3] = {…}, b;` from its state space to its semicolon.
std::vector<DeclaredVariable> parse_variables(Parse& parse, bool is_extern);
/// `(.param .u64 a, .param .b32 b)`: variables with their offsets.
std::vector<Variable> parse_parameters(Parse& parse);
/// Size of the buffer that holds all of them.
std::uint64_t parameter_bytes(const std::vector<Variable>& parameters);

// parser_function.cpp

void parse_loc(Parse& parse);
/// Accepts the hints that change no results, such as "nounroll".
void parse_pragma(Lexer& lexer);
/// The body of the function with this index in the module, from { to }.
void parse_body(Parse& parse, int function);

// scopes.cpp

/// What a name of a function's scope stands for.
struct Symbol {
  enum class Kind : std::uint8_t { reg, variable, label, table };
  Kind kind = Kind::reg;
  int index = -1;         // of a register or label
  std::string name = {};  // of a variable or table, unique in the function
};

/// A use of a label or table, which may be defined later in its scope or in a scope around.
struct Use {
  std::string name;
  int line = 0;
  int instruction = -1, operand = 0;  // the operand that receives it
  std::string table = {};             // or the table of .branchtargets
  std::size_t entry = 0;
};

/// One { } of a body.
struct Scope {
  struct Range {
    int first = 0;
    std::uint64_t count = 0;
  };
  std::unordered_map<std::string_view, Symbol> names;    // registers and variables
  std::unordered_map<std::string_view, Range> ranges;    // `%r<102>`, by prefix
  std::unordered_map<std::string_view, Symbol> targets;  // labels and tables
  std::vector<Use> uses;
};

/// The scopes of one function's body, from the parameters inwards.
class Scopes {
 public:
  Scopes(Parse& parse, Function& function);

  void open();
  /// Ends the innermost scope: uses of its labels and tables are resolved, others wait for the scope around.
  void close();
  std::size_t depth() const { return scopes_.size(); }

  void declare_register(const Token& name, Type type);
  void declare_registers(const Token& prefix, std::uint64_t count, Type type);
  void declare_variable(DeclaredVariable declared);
  void declare_label(const Token& name);
  /// Adds an empty table to the function and returns its unique name.
  std::string declare_table(const Token& name);

  /// The register or variable of this name; nothing if no scope has one.
  std::optional<Symbol> find(std::string_view name) const;
  void use(Use use) { scopes_.back().uses.push_back(std::move(use)); }
  /// Uses that no scope resolved, after the last scope was closed.
  const std::vector<Use>& unresolved() const { return unresolved_; }

 private:
  void check_new(const Token& name) const;
  int add_registers(std::uint64_t count);
  std::string unique(std::string_view name);
  void resolve(const Use& use, const Symbol& target);

  Parse& parse_;
  Function& function_;
  std::vector<Scope> scopes_;
  std::vector<Use> unresolved_;
  std::unordered_set<std::string_view> taken_;  // names of variables and tables in all scopes
  int renamed_ = 0;
};

// parser_instruction.cpp

/// One instruction from its opcode (already taken) to its semicolon.
Instruction parse_instruction(Parse& parse, Scopes& scopes, const Function& function, const Token& opcode);

}  // namespace emulator::ptx
