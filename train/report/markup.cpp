#include "train/report/markup.h"

#include <array>
#include <cstdio>

namespace dino {

std::string escaped(std::string_view text) {
  std::string result;
  for (const char c : text) {
    switch (c) {
      case '&': result += "&amp;"; break;
      case '<': result += "&lt;"; break;
      case '>': result += "&gt;"; break;
      case '"': result += "&quot;"; break;
      case '\'': result += "&#39;"; break;
      default: result += c;
    }
  }
  return result;
}

std::string data_uri(std::span<const uint8_t> png) {
  constexpr std::string_view kDigits = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  std::string uri = "data:image/png;base64,";
  for (size_t i = 0; i < png.size(); i += 3) {
    const size_t bytes = std::min<size_t>(3, png.size() - i);
    uint32_t word = 0;
    for (size_t b = 0; b < 3; ++b) word = word << 8 | (b < bytes ? png[i + b] : 0u);
    for (size_t d = 0; d < 4; ++d) uri += d <= bytes ? kDigits[word >> (18 - 6 * d) & 63] : '=';
  }
  return uri;
}

std::string short_number(double value, int digits) {
  std::array<char, 32> text{};
  std::snprintf(text.data(), text.size(), "%.*g", digits, value);
  return text.data();
}

}  // namespace dino
