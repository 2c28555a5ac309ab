#pragma once

#include <cstdint>
#include <string>
#include <string_view>

/// The tokens of PTX text, one ahead.
namespace emulator::ptx {

/// One token; `text` points into the PTX text.
struct Token {
  enum class Kind : std::uint8_t { end, word, directive, number, string, punctuation };
  Kind kind = Kind::end;
  std::string_view
      text;  // a directive without its dot ("L2::128B" stays in one piece), a string without its quotes
  int line = 1;
};

/// An integer (two's complement bits) or a floating-point literal (its bits, 4 or 8 bytes wide).
struct Literal {
  bool floating = false;
  std::uint64_t bits = 0;
  int width = 8;
};

/// Reads a text token by token. Everything that fails throws ptx::Error with the line of the current token.
class Lexer {
 public:
  explicit Lexer(std::string_view text) : text_(text) { advance(); }

  const Token& token() const { return token_; }
  int line() const { return token_.line; }
  /// Returns the current token and goes on to the next.
  Token take();

  bool at(Token::Kind kind) const { return token_.kind == kind; }
  bool at(char punctuation) const { return at(Token::Kind::punctuation) && token_.text[0] == punctuation; }
  bool at_directive(std::string_view name) const { return at(Token::Kind::directive) && token_.text == name; }
  bool accept(char punctuation);
  bool accept_directive(std::string_view name);

  void expect(char punctuation);
  /// `what` names the thing in the message: "a name", "a label".
  std::string_view expect(Token::Kind kind, std::string_view what);
  /// A literal of either kind, with signs before it.
  Literal expect_literal();
  /// An integer literal without sign, at most `limit`.
  std::uint64_t expect_integer(std::string_view what, std::uint64_t limit);
  /// Integers joined by + and -, with signs and parentheses.
  std::uint64_t expect_constant();
  /// `+4-2` after a name: nothing is 0.
  std::uint64_t optional_addend();

  /// Throws "expected <what>, found <the current token>".
  [[noreturn]] void fail_expected(std::string_view what) const;
  [[noreturn]] void fail(const std::string& message) const;

 private:
  void advance();
  void skip_blanks();
  void skip_block_comment();
  void lex_name(Token::Kind kind);
  void lex_number();
  void lex_string();
  char peek(std::size_t ahead = 0) const {
    return position_ + ahead < text_.size() ? text_[position_ + ahead] : '\0';
  }
  std::uint64_t constant_term(int depth);
  std::uint64_t constant_sum(int depth);

  std::string_view text_;
  std::size_t position_ = 0;
  int line_ = 1;
  Token token_;
};

}  // namespace emulator::ptx
