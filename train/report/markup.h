#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>

namespace dino {

/// `text` with the characters that mean something in HTML replaced, for content and for quoted attributes.
std::string escaped(std::string_view text);

/// A PNG file as the source of an <img>: a data URI in base64 (RFC 4648).
std::string data_uri(std::span<const uint8_t> png);

/// A number with `digits` significant ones, without trailing zeros: 0.00125, 6.31, 1.2e-06.
std::string short_number(double value, int digits = 4);

}  // namespace dino
