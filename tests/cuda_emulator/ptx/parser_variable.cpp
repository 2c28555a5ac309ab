#include <bit>
#include <cstring>
#include <utility>

#include "ptx/parser.h"

namespace emulator::ptx {
namespace {

/// The extents of a variable; the elements of a vector type are the last dimension.
struct Shape {
  std::vector<std::uint64_t> dims;
  bool unsized = false;  // `x[]`: the initialiser gives dims[0]
};

std::uint64_t checked_product(const Lexer& lexer, std::uint64_t a, std::uint64_t b) {
  if (a > kMaxVariableBytes / b) {
    lexer.fail("variables of more than " + std::to_string(kMaxVariableBytes) + " bytes");
  }
  return a * b;
}

std::uint64_t align_up(std::uint64_t offset, std::uint64_t align) {
  return (offset + align - 1) / align * align;
}

/// Reads the initialiser of one variable into its image.
class Initialiser {
 public:
  Initialiser(Parse& parse, Variable& variable, Shape& shape)
      : parse_(parse), variable_(variable), shape_(shape) {}

  void level(std::size_t dimension, std::uint64_t offset) {
    if (dimension == shape_.dims.size()) return element(offset);
    Lexer& lexer = parse_.lexer;
    const std::uint64_t stride = stride_of(dimension);
    const bool unsized = shape_.unsized && dimension == 0;
    lexer.expect('{');
    std::uint64_t count = 0;
    do {
      if (!unsized && count == shape_.dims[dimension]) {
        lexer.fail("initialiser of '" + variable_.name + "' has more than " + std::to_string(count) +
                   " elements");
      }
      level(dimension + 1, offset + count * stride);
      ++count;
    } while (lexer.accept(','));
    lexer.expect('}');
    if (unsized) shape_.dims[0] = count;
  }

 private:
  std::uint64_t stride_of(std::size_t dimension) const {
    std::uint64_t stride = static_cast<std::uint64_t>(bytes_of(variable_.type));
    for (std::size_t i = dimension + 1; i < shape_.dims.size(); ++i) {
      stride = checked_product(parse_.lexer, stride, shape_.dims[i]);
    }
    return stride;
  }

  void element(std::uint64_t offset) {
    Lexer& lexer = parse_.lexer;
    const int bytes = bytes_of(variable_.type);
    if (bytes > 8)
      lexer.fail(std::string("initialiser of type .") + name_of(variable_.type) + " is not supported");
    if (lexer.at(Token::Kind::word)) return put(offset, bytes, symbol(offset, bytes));
    const int line = lexer.line();
    const Literal literal = lexer.expect_literal();
    put(offset, bytes, literal.floating ? float_bits(literal, line) : integer_bits(literal.bits, line));
  }

  /// Records the relocation; its bytes in the image are 0.
  std::uint64_t symbol(std::uint64_t offset, int bytes) {
    Lexer& lexer = parse_.lexer;
    Token name = lexer.take();
    Relocation relocation;
    relocation.offset = offset;
    relocation.bytes = bytes;
    if (lexer.accept('(')) {
      if (name.text != "generic")
        throw Error(name.line, "initialiser operator '" + std::string(name.text) + "' is not supported");
      relocation.generic = true;
      name = {
          .kind = Token::Kind::word, .text = lexer.expect(Token::Kind::word, "a name"), .line = name.line};
      relocation.addend = static_cast<std::int64_t>(lexer.optional_addend());
      lexer.expect(')');
    }
    relocation.addend += static_cast<std::int64_t>(lexer.optional_addend());
    if (bytes < 4)
      throw Error(name.line,
                  "address of '" + std::string(name.text) + "' in an element of less than 4 bytes");
    relocation.symbol = name.text;
    parse_.references.push_back({.name = name.text, .line = name.line});
    variable_.relocations.push_back(std::move(relocation));
    return 0;
  }

  std::uint64_t float_bits(const Literal& literal, int line) const {
    const Type type = variable_.type;
    const bool bits_type = type == Type::b32 || type == Type::b64;
    if (!bits_type && type != Type::f32 && type != Type::f64) {
      throw Error(line, std::string("floating-point initialiser of type .") + name_of(type));
    }
    if (literal.width == bytes_of(type)) return literal.bits;
    if (bits_type) throw Error(line, std::string("initialiser does not have the width of .") + name_of(type));
    if (literal.width == 8)
      return std::bit_cast<std::uint32_t>(static_cast<float>(std::bit_cast<double>(literal.bits)));
    return std::bit_cast<std::uint64_t>(
        static_cast<double>(std::bit_cast<float>(static_cast<std::uint32_t>(literal.bits))));
  }

  std::uint64_t integer_bits(std::uint64_t bits, int line) const {
    const Type type = variable_.type;
    if (type >= Type::f16) throw Error(line, std::string("integer initialiser of type .") + name_of(type));
    const int width = 8 * bytes_of(type);
    const auto value = static_cast<std::int64_t>(bits);
    if (width < 64 && bits >> width != 0 && value >> (width - 1) != -1) {
      throw Error(line, "initialiser " + std::to_string(value) + " does not fit ." + name_of(type));
    }
    return bits;
  }

  void put(std::uint64_t offset, int bytes, std::uint64_t bits) {
    const std::uint64_t end = offset + static_cast<std::uint64_t>(bytes);
    if (end > variable_.image.size()) {
      parse_.image_bytes += end - variable_.image.size();
      if (parse_.image_bytes > kMaxImageBytes) {
        parse_.lexer.fail("initialisers of more than " + std::to_string(kMaxImageBytes) + " bytes");
      }
      variable_.image.resize(end);
    }
    std::memcpy(&variable_.image[offset], &bits, static_cast<std::size_t>(bytes));  // both little-endian
  }

  Parse& parse_;
  Variable& variable_;
  Shape& shape_;
};

Space take_space(Lexer& lexer) {
  if (lexer.accept_directive("global")) return Space::global;
  if (lexer.accept_directive("shared")) return Space::shared;
  if (lexer.accept_directive("local")) return Space::local;
  if (lexer.accept_directive("const")) return Space::constant;
  if (lexer.accept_directive("param")) return Space::param;
  lexer.fail_expected("a state space");
}

std::uint64_t take_align(Lexer& lexer) {
  const std::uint64_t align = lexer.expect_integer("an alignment", kMaxAlign);
  if (!std::has_single_bit(align)) lexer.fail("alignment " + std::to_string(align) + " is no power of two");
  return align;
}

/// What stands before the name, the same for all names of a declaration.
struct Head {
  Variable variable;
  std::uint64_t vector = 1;
  bool has_align = false;
};

Head parse_head(Lexer& lexer) {
  Head head;
  head.variable.space = take_space(lexer);
  while (true) {
    if (lexer.accept_directive("align")) {
      head.variable.align = take_align(lexer);
      head.has_align = true;
    } else if (lexer.accept_directive("attribute")) {
      lexer.expect('(');
      if (!lexer.accept_directive("managed"))
        lexer.fail_expected(".managed, the only attribute that is supported");
      lexer.expect(')');
      head.variable.is_managed = true;
    } else {
      break;
    }
  }
  if (lexer.accept_directive("v2"))
    head.vector = 2;
  else if (lexer.accept_directive("v4"))
    head.vector = 4;
  head.variable.type = parse_type(lexer);
  if (bytes_of(head.variable.type) == 0)
    lexer.fail("a variable cannot have type ." + std::string(name_of(head.variable.type)));
  return head;
}

/// `.ptr .global .align 16`: about the memory that a pointer parameter points to.
void skip_pointer_attributes(Lexer& lexer) {
  if (!lexer.accept_directive("ptr")) return;
  for (const char* space : {"global", "const", "shared", "local"}) {
    if (lexer.accept_directive(space)) break;
  }
  if (lexer.accept_directive("align")) take_align(lexer);
}

Shape parse_dimensions(Lexer& lexer, Variable& variable) {
  Shape shape;
  while (lexer.accept('[')) {
    variable.is_array = true;
    if (shape.dims.size() == kMaxDimensions) lexer.fail("array of more than 8 dimensions");
    if (shape.dims.empty() && lexer.at(']')) {
      shape.unsized = true;
      shape.dims.push_back(1);
    } else {
      shape.dims.push_back(lexer.expect_integer("an array size", kMaxVariableBytes));
      if (shape.dims.back() == 0) lexer.fail("array of size 0");
    }
    lexer.expect(']');
  }
  return shape;
}

/// The name and all behind it.
Variable parse_declarator(Parse& parse, const Head& head, bool is_extern) {
  Lexer& lexer = parse.lexer;
  Variable variable = head.variable;
  variable.is_extern = is_extern;
  const int line = lexer.line();
  variable.name = lexer.expect(Token::Kind::word, "a variable's name");
  Shape shape = parse_dimensions(lexer, variable);
  if (head.vector > 1) shape.dims.push_back(head.vector);
  if (!head.has_align) variable.align = head.vector * static_cast<std::uint64_t>(bytes_of(variable.type));
  const bool initialised = lexer.accept('=');
  if (initialised) {
    if (is_extern || (variable.space != Space::global && variable.space != Space::constant)) {
      lexer.fail("'" + variable.name + "' cannot have an initialiser");
    }
    Initialiser(parse, variable, shape).level(0, 0);
  }
  if (shape.unsized && !initialised) {
    if (!is_extern) throw Error(line, "array '" + variable.name + "' has no size");
    return variable;
  }
  variable.bytes = static_cast<std::uint64_t>(bytes_of(variable.type));
  for (const std::uint64_t extent : shape.dims)
    variable.bytes = checked_product(lexer, variable.bytes, extent);
  parse.variable_bytes += variable.bytes;
  if (parse.variable_bytes > kMaxVariableBytes) checked_product(lexer, parse.variable_bytes, 1);
  return variable;
}

}  // namespace

Type parse_type(Lexer& lexer) {
  const std::string name(lexer.expect(Token::Kind::directive, "a type"));
  if (name == "texref" || name == "samplerref" || name == "surfref")
    lexer.fail("type ." + name + " is not supported");
  const std::optional<Type> type = type_named(name);
  if (!type) lexer.fail("type ." + name + " is not known");
  return *type;
}

std::vector<DeclaredVariable> parse_variables(Parse& parse, bool is_extern) {
  const Head head = parse_head(parse.lexer);
  const Space space = head.variable.space;
  if (is_extern && (space == Space::local || space == Space::param))
    parse.lexer.fail("a .local or .param variable cannot be .extern");
  std::vector<DeclaredVariable> variables;
  do {
    const Token name = parse.lexer.token();
    variables.push_back({.variable = parse_declarator(parse, head, is_extern), .name = name});
  } while (parse.lexer.accept(','));
  parse.lexer.expect(';');
  return variables;
}

std::vector<Variable> parse_parameters(Parse& parse) {
  Lexer& lexer = parse.lexer;
  std::vector<Variable> parameters;
  lexer.expect('(');
  if (lexer.accept(')')) return parameters;
  do {
    if (!lexer.at_directive("param")) lexer.fail_expected("a .param");
    const Head head = parse_head(lexer);
    skip_pointer_attributes(lexer);
    parameters.push_back(parse_declarator(parse, head, false));
    Variable& last = parameters.back();
    last.offset = 0;
    if (parameters.size() > 1) {
      const Variable& before = parameters[parameters.size() - 2];
      last.offset = align_up(before.offset + before.bytes, last.align);
    }
  } while (lexer.accept(','));
  lexer.expect(')');
  return parameters;
}

std::uint64_t parameter_bytes(const std::vector<Variable>& parameters) {
  return parameters.empty() ? 0 : parameters.back().offset + parameters.back().bytes;
}

}  // namespace emulator::ptx
