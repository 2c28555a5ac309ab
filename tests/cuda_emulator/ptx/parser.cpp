#include <utility>

#include "ptx/parser.h"

namespace emulator::ptx {
namespace {

constexpr std::uint64_t kMaxFiles = 1 << 16;

/// `.version 9.0`
void parse_version(Parse& parse) {
  const int line = parse.lexer.line();
  const std::string_view text = parse.lexer.expect(Token::Kind::number, "a version");
  const bool well_formed = text.size() == 3 && text[1] == '.' && text[0] >= '0' && text[0] <= '9' &&
                           text[2] >= '0' && text[2] <= '9';
  if (!well_formed) throw Error(line, "version '" + std::string(text) + "' is not of the form 9.0");
  parse.module.version = 10 * (text[0] - '0') + (text[2] - '0');
}

/// `.target sm_90a, texmode_independent`
void parse_target(Parse& parse) {
  Lexer& lexer = parse.lexer;
  const int line = lexer.line();
  const std::string_view name = lexer.expect(Token::Kind::word, "a target");
  std::string_view digits = name;
  if (digits.ends_with('a') || digits.ends_with('f')) digits.remove_suffix(1);
  bool well_formed = digits.starts_with("sm_") && digits.size() > 4 && digits.size() < 7;
  int target = 0;
  for (std::size_t i = 3; well_formed && i < digits.size(); ++i) {
    well_formed = digits[i] >= '0' && digits[i] <= '9';
    target = 10 * target + (digits[i] - '0');
  }
  if (!well_formed) throw Error(line, "target '" + std::string(name) + "' is not known");
  parse.module.target = target;
  parse.module.target_name = name;
  while (lexer.accept(',')) {
    const std::string_view option = lexer.expect(Token::Kind::word, "a target option");
    if (option != "texmode_independent" && option != "texmode_unified" && option != "debug") {
      lexer.fail("target option '" + std::string(option) + "' is not known");
    }
  }
}

/// `.file 1 "a.cu", 1700000000, 4096`
void parse_file(Parse& parse) {
  Lexer& lexer = parse.lexer;
  const std::uint64_t index = lexer.expect_integer("a file's index", kMaxFiles);
  const std::string_view path = lexer.expect(Token::Kind::string, "a path");
  for (int i = 0; i < 2 && lexer.accept(','); ++i) lexer.expect_integer("a time or size", UINT64_MAX);
  if (parse.module.files.size() <= index) parse.module.files.resize(index + 1);
  parse.module.files[index] = path;
}

/// `.section .debug_info { … }`: for debuggers only.
void skip_section(Lexer& lexer) {
  const std::string_view name = lexer.expect(Token::Kind::directive, "a section's name");
  if (!name.starts_with("debug_")) lexer.fail("section ." + std::string(name) + " is not known");
  lexer.expect('{');
  while (!lexer.at('}')) {
    if (lexer.at(Token::Kind::end) || lexer.at('{')) lexer.fail_expected("'}'");
    lexer.take();
  }
  lexer.expect('}');
}

struct Linkage {
  bool is_extern = false;
  bool is_any = false;
};

Linkage parse_linkage(Lexer& lexer) {
  for (const char* name : {"extern", "visible", "weak", "common"}) {
    if (lexer.accept_directive(name))
      return {.is_extern = std::string_view(name) == "extern", .is_any = true};
  }
  return {};
}

void add_variable(Module& module, DeclaredVariable declared) {
  Variable& variable = declared.variable;
  if (variable.space == Space::param || variable.space == Space::local) {
    throw Error(declared.name.line, "'" + variable.name + "' of a module cannot be .param or .local");
  }
  const auto found = module.variable_index.find(variable.name);
  if (found != module.variable_index.end()) {
    Variable& before = module.variables[static_cast<std::size_t>(found->second)];
    const bool matches = before.space == variable.space && before.type == variable.type;
    if (!matches || (!before.is_extern && !variable.is_extern)) {
      throw Error(declared.name.line, "variable '" + variable.name + "' is declared twice");
    }
    if (before.is_extern) before = std::move(variable);
    return;
  }
  if (module.function_index.contains(variable.name)) {
    throw Error(declared.name.line, "'" + variable.name + "' is a function already");
  }
  module.variable_index[variable.name] = static_cast<int>(module.variables.size());
  module.variables.push_back(std::move(variable));
}

/// `256, 1, 1`; what is not written is 1.
void parse_extents(Lexer& lexer, std::uint32_t (&extents)[3]) {
  for (std::uint32_t& extent : extents) extent = 1;
  std::size_t i = 0;
  do {
    if (i == 3) lexer.fail("more than 3 extents");
    extents[i++] = static_cast<std::uint32_t>(lexer.expect_integer("an extent", UINT32_MAX));
  } while (lexer.accept(','));
}

/// The directives between the parameters and the body.
void parse_performance_directives(Parse& parse, Function& function) {
  Lexer& lexer = parse.lexer;
  const auto number = [&] {
    return static_cast<std::uint32_t>(lexer.expect_integer("a number", UINT32_MAX));
  };
  while (lexer.at(Token::Kind::directive)) {
    const std::string_view name = lexer.token().text;
    if (lexer.accept_directive("maxntid")) {
      parse_extents(lexer, function.max_threads);
    } else if (lexer.accept_directive("reqntid")) {
      parse_extents(lexer, function.required_threads);
    } else if (lexer.accept_directive("reqnctapercluster")) {
      parse_extents(lexer, function.cluster);
    } else if (lexer.accept_directive("minnctapersm")) {
      function.min_blocks = number();
    } else if (lexer.accept_directive("maxnreg")) {
      function.max_registers = number();
    } else if (lexer.accept_directive("maxnctapersm") || lexer.accept_directive("maxclusterrank")) {
      number();  // bounds that promise something to the assembler
    } else if (lexer.accept_directive("explicitcluster")) {
      function.explicit_cluster = true;
    } else if (lexer.accept_directive("blocksareclusters")) {
      function.blocks_are_clusters = true;
    } else if (lexer.accept_directive("pragma")) {
      parse_pragma(lexer);
    } else if (!lexer.accept_directive("noreturn")) {
      lexer.fail("directive ." + std::string(name) + " of a function is not known");
    }
  }
}

bool same_signature(const Function& a, const Function& b) {
  return a.is_kernel == b.is_kernel && a.results.size() == b.results.size() &&
         a.params.size() == b.params.size() && a.param_bytes == b.param_bytes &&
         parameter_bytes(a.results) == parameter_bytes(b.results);
}

/// Index of the function in the module, which has it as a declaration afterwards.
int add_function(Module& module, Function function, int line) {
  if (module.variable_index.contains(function.name)) {
    throw Error(line, "'" + function.name + "' is a variable already");
  }
  const auto [entry, is_new] =
      module.function_index.try_emplace(function.name, static_cast<int>(module.functions.size()));
  if (is_new) {
    module.functions.push_back(std::move(function));
    return entry->second;
  }
  Function& before = module.functions[static_cast<std::size_t>(entry->second)];
  if (!same_signature(before, function)) {
    throw Error(line, "function '" + function.name + "' was declared with other parameters");
  }
  if (!function.is_declaration && !before.is_declaration) {
    throw Error(line, "function '" + function.name + "' is defined twice");
  }
  if (!function.is_declaration) before = std::move(function);
  return entry->second;
}

/// Behind `.func` or `.entry`.
void parse_function(Parse& parse, bool is_kernel) {
  Lexer& lexer = parse.lexer;
  Function function;
  function.is_kernel = is_kernel;
  lexer.accept_directive("noreturn");
  if (lexer.at('(') && !is_kernel) function.results = parse_parameters(parse);
  const int line = lexer.line();
  function.name = lexer.expect(Token::Kind::word, "a function's name");
  if (lexer.at('(')) function.params = parse_parameters(parse);
  function.param_bytes = parameter_bytes(function.params);
  parse_performance_directives(parse, function);
  function.is_declaration = lexer.at(';');
  if (!function.is_declaration && !lexer.at('{')) lexer.fail_expected("';' or '{'");
  const bool is_declaration = function.is_declaration;
  const int index = add_function(parse.module, std::move(function), line);
  if (is_declaration) return lexer.expect(';');
  parse_body(parse, index);
  parse.location = 0;
  parse.location_index.clear();
}

void parse_module_directive(Parse& parse) {
  Lexer& lexer = parse.lexer;
  if (lexer.accept_directive("version")) return parse_version(parse);
  if (lexer.accept_directive("target")) return parse_target(parse);
  if (lexer.accept_directive("address_size")) {
    if (lexer.expect_integer("an address size", 64) != 64) lexer.fail("the address size must be 64");
    return;
  }
  if (lexer.accept_directive("file")) return parse_file(parse);
  if (lexer.accept_directive("loc")) return parse_loc(parse);
  if (lexer.accept_directive("section")) return skip_section(lexer);
  if (lexer.accept_directive("pragma")) return parse_pragma(lexer);
  const Linkage linkage = parse_linkage(lexer);
  if (lexer.accept_directive("func")) return parse_function(parse, false);
  if (lexer.accept_directive("entry")) return parse_function(parse, true);
  for (const char* space : {"global", "const", "shared"}) {
    if (!lexer.at_directive(space)) continue;
    for (DeclaredVariable& declared : parse_variables(parse, linkage.is_extern)) {
      add_variable(parse.module, std::move(declared));
    }
    return;
  }
  lexer.fail_expected(linkage.is_any ? "a function or variable" : "a directive that is known in a module");
}

/// Names of functions and variables that come after their use.
void resolve_references(Parse& parse) {
  Module& module = parse.module;
  for (const OpenOperand& open : parse.open_operands) {
    Function& function = module.functions[static_cast<std::size_t>(open.function)];
    Instruction& instruction = function.instructions[static_cast<std::size_t>(open.instruction)];
    if (!module.function_index.contains(open.name))
      throw Error(open.line, "'" + open.name + "' is not known");
    instruction.operands[static_cast<std::size_t>(open.operand)].kind = Operand::Kind::function;
  }
  for (const Reference& reference : parse.references) {
    const std::string name(reference.name);
    if (module.function_index.contains(name)) continue;
    if (!reference.must_be_function && module.variable_index.contains(name)) continue;
    throw Error(reference.line, "'" + name + "' is not known");
  }
}

}  // namespace

namespace {

// Headers that come with the compiler: a mistake is in the code that uses them.
bool is_toolkit_header(const std::string& path) {
  return path.find("/targets/x86_64-linux/include/") != std::string::npos ||
         path.find("/include/cccl/") != std::string::npos ||
         (path.find("/cuda") != std::string::npos && path.find("/include/") != std::string::npos);
}

// The line of each instruction: where it was written, or, in a header of the toolkit, where that was called.
// Only now are the files known: .file stands at the end of a module.
void resolve_locations(Parse& parse) {
  const std::vector<std::string>& files = parse.module.files;
  const auto is_foreign = [&](const Location& location) {
    const auto file = static_cast<std::size_t>(location.file);
    return file < files.size() && is_toolkit_header(files[file]);
  };
  for (Function& function : parse.module.functions)
    for (Instruction& instruction : function.instructions) {
      const Location* innermost = &parse.locations[static_cast<std::size_t>(instruction.file)];
      const Location* location = innermost;
      while (is_foreign(*location) && location->outer >= 0)
        location = &parse.locations[static_cast<std::size_t>(location->outer)];
      if (is_foreign(*location)) location = innermost;
      instruction.file = location->file;
      instruction.source_line = location->line;
    }
}

}  // namespace

Module parse(std::string_view text) {
  Parse parse(text);
  while (!parse.lexer.at(Token::Kind::end)) {
    if (!parse.lexer.at(Token::Kind::directive)) parse.lexer.fail_expected("a directive");
    parse_module_directive(parse);
  }
  if (parse.module.version == 0) parse.lexer.fail(".version is missing");
  if (parse.module.target == 0) parse.lexer.fail(".target is missing");
  resolve_references(parse);
  resolve_locations(parse);
  return std::move(parse.module);
}

}  // namespace emulator::ptx
