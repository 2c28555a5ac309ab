#include "ptx/lexer.h"

#include <algorithm>
#include <charconv>
#include <cstring>

#include "ptx/module.h"

namespace emulator::ptx {
namespace {

constexpr int kMaxConstantDepth = 16;

bool is_digit(char c) { return c >= '0' && c <= '9'; }
bool is_name_start(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_' || c == '$' || c == '%';
}
bool is_name_part(char c) { return (is_name_start(c) && c != '%') || is_digit(c); }

std::uint64_t parse_integer(std::string_view digits, int base, const Token& token) {
  std::uint64_t value = 0;
  const auto [end, status] = std::from_chars(digits.data(), digits.data() + digits.size(), value, base);
  if (status == std::errc::result_out_of_range) {
    throw Error(token.line, "integer '" + std::string(token.text) + "' does not fit 64 bits");
  }
  if (status != std::errc() || end != digits.data() + digits.size()) {
    throw Error(token.line, "malformed number '" + std::string(token.text) + "'");
  }
  return value;
}

/// 0f3F800000 and 0d3FF0000000000000: the bits, all hexadecimal digits required.
Literal parse_float_bits(const Token& token, int width) {
  const std::string_view digits = token.text.substr(2);
  if (digits.size() != 2 * static_cast<std::size_t>(width)) {
    throw Error(token.line, "malformed number '" + std::string(token.text) + "': expected " +
                                std::to_string(2 * width) + " hexadecimal digits");
  }
  return {.floating = true, .bits = parse_integer(digits, 16, token), .width = width};
}

Literal parse_decimal_float(const Token& token) {
  double value = 0;
  const auto [end, status] = std::from_chars(token.text.data(), token.text.data() + token.text.size(), value);
  if (status != std::errc() || end != token.text.data() + token.text.size()) {
    throw Error(token.line, "malformed number '" + std::string(token.text) + "'");
  }
  Literal literal{.floating = true};
  std::memcpy(&literal.bits, &value, sizeof(value));
  return literal;
}

Literal parse_number(const Token& token) {
  std::string_view text = token.text;
  const char second = text.size() > 1 && text[0] == '0' ? text[1] : '\0';
  if (second == 'f' || second == 'F') return parse_float_bits(token, 4);
  if (second == 'd' || second == 'D') return parse_float_bits(token, 8);
  if (text.find('.') != std::string_view::npos) return parse_decimal_float(token);
  if (text.ends_with('U')) text.remove_suffix(1);
  Literal literal;
  if (second == 'x' || second == 'X') {
    literal.bits = parse_integer(text.substr(2), 16, token);
  } else if (second == 'b' || second == 'B') {
    literal.bits = parse_integer(text.substr(2), 2, token);
  } else {
    literal.bits = parse_integer(text, text.size() > 1 && text[0] == '0' ? 8 : 10, token);
  }
  return literal;
}

}  // namespace

Token Lexer::take() {
  const Token taken = token_;
  advance();
  return taken;
}

bool Lexer::accept(char punctuation) {
  if (!at(punctuation)) return false;
  advance();
  return true;
}

bool Lexer::accept_directive(std::string_view name) {
  if (!at_directive(name)) return false;
  advance();
  return true;
}

void Lexer::expect(char punctuation) {
  if (!accept(punctuation)) fail_expected(std::string("'") + punctuation + "'");
}

std::string_view Lexer::expect(Token::Kind kind, std::string_view what) {
  if (!at(kind)) fail_expected(what);
  return take().text;
}

Literal Lexer::expect_literal() {
  bool negative = false;
  while (accept('-')) negative = !negative;
  if (!at(Token::Kind::number)) fail_expected("a number");
  Literal literal = parse_number(take());
  if (negative && literal.floating) {
    literal.bits ^= std::uint64_t{1} << (8 * literal.width - 1);
  } else if (negative) {
    literal.bits = 0 - literal.bits;
  }
  return literal;
}

std::uint64_t Lexer::expect_integer(std::string_view what, std::uint64_t limit) {
  if (!at(Token::Kind::number)) fail_expected(what);
  const Literal literal = parse_number(token_);
  if (literal.floating) fail_expected(what);
  if (literal.bits > limit) {
    fail(std::string(what) + " is " + std::to_string(literal.bits) + ", more than " + std::to_string(limit));
  }
  advance();
  return literal.bits;
}

std::uint64_t Lexer::constant_term(int depth) {
  bool negative = false;
  while (accept('-')) negative = !negative;
  std::uint64_t value = 0;
  if (accept('(')) {
    if (depth == kMaxConstantDepth) fail("constant expression is nested too deeply");
    value = constant_sum(depth + 1);
    expect(')');
  } else {
    value = expect_integer("an integer constant", UINT64_MAX);
  }
  return negative ? 0 - value : value;
}

std::uint64_t Lexer::constant_sum(int depth) {
  std::uint64_t value = constant_term(depth);
  while (at('+') || at('-')) {
    const bool minus = take().text[0] == '-';
    const std::uint64_t term = constant_term(depth);
    value = minus ? value - term : value + term;
  }
  return value;
}

std::uint64_t Lexer::expect_constant() { return constant_sum(0); }

std::uint64_t Lexer::optional_addend() {
  if (accept('+')) return constant_sum(0);
  return at('-') ? constant_sum(0) : 0;
}

void Lexer::fail_expected(std::string_view what) const {
  std::string found = "'" + std::string(token_.text.substr(0, 60)) + "'";
  if (at(Token::Kind::directive)) found.insert(1, ".");
  if (at(Token::Kind::end)) found = "the end of the text";
  fail("expected " + std::string(what) + ", found " + found);
}

void Lexer::fail(const std::string& message) const { throw Error(token_.line, message); }

void Lexer::advance() {
  skip_blanks();
  token_ = {.kind = Token::Kind::end, .text = {}, .line = line_};
  if (position_ == text_.size()) return;
  const char c = peek();
  if (is_name_start(c)) return lex_name(Token::Kind::word);
  if (is_digit(c)) return lex_number();
  if (c == '"') return lex_string();
  if (c == '.' && (is_name_start(peek(1)) || is_digit(peek(1)))) {
    ++position_;
    return lex_name(Token::Kind::directive);
  }
  if (c == '\0' || std::strchr("{}[]()<>,;:@!|+-=", c) == nullptr) {
    char code[8];
    const auto end = std::to_chars(code, code + sizeof(code), static_cast<unsigned char>(c), 16).ptr;
    fail("unexpected byte 0x" + std::string(code, end));
  }
  token_.kind = Token::Kind::punctuation;
  token_.text = text_.substr(position_++, 1);
}

void Lexer::skip_blanks() {
  while (position_ < text_.size()) {
    const char c = text_[position_];
    if (c == '\n') ++line_;
    if (c == ' ' || c == '\t' || c == '\n' || c == '\r') {
      ++position_;
    } else if (c == '/' && peek(1) == '/') {
      position_ = std::min(text_.find('\n', position_), text_.size());
    } else if (c == '/' && peek(1) == '*') {
      skip_block_comment();
    } else {
      return;
    }
  }
}

void Lexer::skip_block_comment() {
  const std::size_t end = text_.find("*/", position_ + 2);
  if (end == std::string_view::npos) throw Error(line_, "comment without end");
  for (; position_ < end; ++position_) line_ += text_[position_] == '\n';
  position_ = end + 2;
}

void Lexer::lex_name(Token::Kind kind) {
  const std::size_t begin = position_++;
  while (true) {
    if (is_name_part(peek())) {
      ++position_;
    } else if (kind == Token::Kind::directive && peek() == ':' && peek(1) == ':' && is_name_part(peek(2))) {
      position_ += 3;
    } else {
      break;
    }
  }
  token_.kind = kind;
  token_.text = text_.substr(begin, position_ - begin);
}

void Lexer::lex_number() {
  const std::size_t begin = position_;
  while (is_digit(peek())) ++position_;
  const bool fraction = peek() == '.' && is_digit(peek(1));
  if (fraction) ++position_;
  while (is_name_part(peek())) {
    const char c = peek();
    ++position_;
    if (fraction && (c == 'e' || c == 'E') && (peek() == '+' || peek() == '-')) ++position_;
  }
  token_.kind = Token::Kind::number;
  token_.text = text_.substr(begin, position_ - begin);
}

void Lexer::lex_string() {
  const std::size_t begin = position_ + 1;
  const std::size_t end = text_.find_first_of("\"\n", begin);
  if (end == std::string_view::npos || text_[end] == '\n') fail("string without end");
  token_.kind = Token::Kind::string;
  token_.text = text_.substr(begin, end - begin);
  position_ = end + 1;
}

}  // namespace emulator::ptx
