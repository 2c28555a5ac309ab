#pragma once

#include <cstdint>
#include <cstdio>
#include <string>
#include <string_view>

namespace emulator {

/// Writes JSON text, with line breaks between the members of the outer levels. No checks: the caller nests
/// correctly.
class JsonWriter {
 public:
  JsonWriter& open(char bracket) {
    separate();
    text_ += bracket;
    ++depth_;
    first_ = true;
    return *this;
  }
  JsonWriter& close(char bracket) {
    --depth_;
    if (depth_ < kWrapped && !first_) new_line();
    text_ += bracket;
    first_ = false;
    return *this;
  }
  JsonWriter& key(std::string_view name) {
    separate();
    quote(name);
    text_ += ": ";
    after_key_ = true;
    return *this;
  }
  JsonWriter& value(std::string_view text) {
    separate();
    quote(text);
    return *this;
  }
  JsonWriter& value(std::uint64_t number) {
    separate();
    text_ += std::to_string(number);
    return *this;
  }
  JsonWriter& value(double number) {
    separate();
    char digits[32];
    std::snprintf(digits, sizeof digits, "%.6g", number);
    text_ += digits;
    return *this;
  }
  template <class T>
  JsonWriter& member(std::string_view name, const T& what) {
    return key(name).value(what);
  }
  std::string take() { return std::move(text_); }

 private:
  static constexpr int kWrapped = 3;  // levels whose members get lines of their own

  void new_line() { text_ += "\n" + std::string(static_cast<std::size_t>(depth_) * 2, ' '); }
  void separate() {
    if (after_key_) {
      after_key_ = false;
      return;
    }
    if (!first_) text_ += depth_ <= kWrapped ? "," : ", ";
    if (depth_ > 0 && depth_ <= kWrapped) new_line();
    first_ = false;
  }
  void quote(std::string_view text) {
    text_ += '"';
    for (const char c : text) {
      if (c == '"' || c == '\\') text_ += '\\';
      if (static_cast<unsigned char>(c) >= 0x20) {
        text_ += c;
      } else {
        char code[8];
        std::snprintf(code, sizeof code, "\\u%04x", static_cast<unsigned>(static_cast<unsigned char>(c)));
        text_ += code;
      }
    }
    text_ += '"';
  }

  std::string text_;
  int depth_ = 0;
  bool first_ = true, after_key_ = false;
};

}  // namespace emulator
