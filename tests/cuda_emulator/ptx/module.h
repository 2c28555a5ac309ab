#pragma once

#include <cstdint>
#include <optional>
#include <stdexcept>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

/// The syntax tree of one PTX module ("Parallel Thread Execution ISA", version 9.0), as nvcc writes it. Names
/// are resolved (registers, variables, labels), opcodes are split at their dots, but what an instruction
/// means is decided by the decoder (exec/decode.h).
namespace emulator::ptx {

/// What is wrong with a module: a line of the PTX text and a message that names the construct.
class Error : public std::runtime_error {
 public:
  Error(int line, const std::string& message)
      : std::runtime_error("PTX line " + std::to_string(line) + ": " + message), line(line) {}
  int line;
};

enum class Type : std::uint8_t {
  none,
  pred,
  b8,
  b16,
  b32,
  b64,
  b128,
  u8,
  u16,
  u32,
  u64,
  s8,
  s16,
  s32,
  s64,
  f16,
  f16x2,
  bf16,
  bf16x2,
  tf32,
  f32,
  f64
};
/// Width of one value; 0 for none and pred.
int bytes_of(Type type);
/// "f32" → Type::f32; nothing if the word is no type.
std::optional<Type> type_named(std::string_view name);
const char* name_of(Type type);

enum class Space : std::uint8_t { none, global, shared, local, constant, param };

/// A virtual register of one function. Scoped declarations (`{ .reg .pred p; }`) that repeat a name are
/// different registers.
struct Register {
  std::string name;
  Type type = Type::none;
};

/// The address of a variable or function inside of an initialiser; `bytes` bytes at `offset` of the image
/// receive it.
struct Relocation {
  std::uint64_t offset = 0;
  std::string symbol;
  std::int64_t addend = 0;
  bool generic =
      false;  // generic(symbol): an address in the generic window; otherwise an address in the symbol's space
  int bytes = 8;
};

/// A variable of a module or of a function: .global, .const, .shared, .local or .param.
struct Variable {
  std::string name;
  Space space = Space::none;
  Type type = Type::none;   // of one element
  std::uint64_t align = 1;  // bytes
  std::uint64_t bytes = 0;  // whole variable; 0 for `extern .shared x[]`
  bool is_array = false;
  bool is_extern = false;   // .extern
  bool is_managed = false;  // .attribute(.managed): the host may use it too
  std::vector<std::uint8_t>
      image;  // initial value; empty when there is none; shorter than bytes means that the rest is zero
  std::vector<Relocation> relocations;
  std::uint64_t offset = 0;  // params: byte offset in the parameter buffer (natural packing by align)
};

struct Operand {
  enum class Kind : std::uint8_t {
    reg,       // index = register of the function
    integer,   // bits = value, sign-extended to 64 bits; negative literals included
    floating,  // bits: as written in 0f (32 bits, width 4) or 0d (64 bits, width 8) form; decimal literals
               // are 0d
    special,   // name = "%tid.x", "%laneid", "%envreg1", "%clock64", …
    address,   // [base + offset]; base: `reg` (index >= 0), or `name` (a variable), or neither ([imm])
    variable,  // name = variable whose address is meant (as in mov.u64 %rd, x); offset = addend
    function,  // name
    label,     // index = instruction
    table,     // name of a .branchtargets or .calltargets table, or of a .callprototype
    vector,    // elements {a, b, c, d}
    pair,      // elements p|q
    list,      // (a, b, …) of a call
    sink       // _
  };
  Kind kind = Kind::integer;
  int index = -1;
  std::uint64_t bits = 0;
  int width = 0;         // of a floating literal: 4 or 8
  bool negated = false;  // !%p
  std::string name;
  std::int64_t offset = 0;
  std::vector<Operand> elements;
};

struct Instruction {
  std::string opcode;                  // "ld"
  std::vector<std::string> modifiers;  // "global", "nc", "v4", "f32"; "L2::128B", "sync", "m16n8k16", …
  std::vector<Operand> operands;  // as written, destination first; of a call: results list, callee, arguments
                                  // list, [prototype]
  int guard = -1;                 // register of @%p; -1: none
  bool guard_negated = false;     // @!%p
  int line = 0;                   // of the PTX text
  int file = 0, source_line = 0;  // from .loc; 0: unknown. Of code that was inlined from a header of the
                                  // toolkit: where the user's code calls it
  std::string text() const;       // "ld.global.nc.v4.f32", for messages
};

/// The targets of `brx.idx`: instruction indices. Of `.calltargets`: function names. Of `.callprototype`:
/// nothing.
struct Table {
  std::vector<int> labels;
  std::vector<std::string> functions;
};

struct Function {
  std::string name;
  bool is_kernel = false;
  bool is_declaration = false;            // without a body: vprintf, __assertfail, malloc, free
  std::vector<Variable> results, params;  // .param variables, with offsets
  std::uint64_t param_bytes = 0;
  std::vector<Register> registers;
  std::vector<Variable>
      variables;  // .shared, .local and .param of the body, all scopes; names unique (renamed when repeated)
  std::vector<Instruction> instructions;
  std::unordered_map<std::string, Table> tables;
  // Performance directives; 0: absent.
  std::uint32_t max_threads[3] = {0, 0, 0};       // .maxntid
  std::uint32_t required_threads[3] = {0, 0, 0};  // .reqntid
  std::uint32_t min_blocks = 0, max_registers = 0;
  std::uint32_t cluster[3] = {0, 0, 0};  // .reqnctapercluster
  bool explicit_cluster = false;         // .explicitcluster
  bool blocks_are_clusters = false;      // .blocksareclusters: the grid counts clusters
};

struct Module {
  int version = 0;                 // 90 for 9.0
  int target = 0;                  // 80 for sm_80
  std::string target_name;         // "sm_90a"
  std::vector<std::string> files;  // of .file, by index; "" when unused
  std::vector<Variable> variables;
  std::vector<Function> functions;
  std::unordered_map<std::string, int> function_index;
  std::unordered_map<std::string, int> variable_index;
};

/// Parses the text of a module. Throws Error on anything that it does not know: directives included, nothing
/// is skipped silently.
Module parse(std::string_view text);

}  // namespace emulator::ptx
