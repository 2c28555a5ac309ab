#include "engine/tensor_file.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>

namespace dino {
namespace {

static_assert(std::endian::native == std::endian::little,
              "tensor files are read and written without swapping");

double from_f16(uint16_t bits) {
  const int exponent = (bits >> 10) & 31;
  const int fraction = bits & 1023;
  double magnitude = 0;
  if (exponent == 31) {
    magnitude = fraction ? std::nan("") : HUGE_VAL;
  } else if (exponent == 0) {
    magnitude = std::ldexp(fraction, -24);
  } else {
    magnitude = std::ldexp(1024 + fraction, exponent - 25);
  }
  return bits & 0x8000 ? -magnitude : magnitude;
}

double from_bf16(uint16_t bits) { return std::bit_cast<float>(static_cast<uint32_t>(bits) << 16); }

template <class Stored, class T, class Convert>
void convert_all(const NamedTensor& tensor, std::vector<T>& values, Convert convert) {
  for (size_t i = 0; i < values.size(); ++i) {
    Stored stored;
    std::memcpy(&stored, tensor.bytes.data() + i * sizeof stored, sizeof stored);
    values[i] = static_cast<T>(convert(stored));
  }
}

template <class T>
std::vector<T> values_of(const NamedTensor& tensor) {
  const auto bytes = dense_bytes(tensor.shape, tensor.dtype);
  check<FormatError>(bytes && *bytes == static_cast<int64_t>(tensor.bytes.size()), tensor.name, ": ",
                     name_of(tensor.dtype), " ", shape_text(tensor.shape), " does not take ",
                     tensor.bytes.size(), " bytes");
  check<FormatError>(tensor.dtype != Dtype::none, tensor.name, ": dtype: none");
  std::vector<T> values(tensor.bytes.size() / bytes_of(tensor.dtype));
  if (values.empty()) return values;
  if (tensor.dtype == kDtypeOf<T>) {
    std::memcpy(values.data(), tensor.bytes.data(), tensor.bytes.size());
    return values;
  }
  const auto same = [](auto value) { return value; };
  switch (tensor.dtype) {
    case Dtype::f64:
      convert_all<double>(tensor, values, same);
      break;
    case Dtype::f32:
      convert_all<float>(tensor, values, same);
      break;
    case Dtype::bf16:
      convert_all<uint16_t>(tensor, values, from_bf16);
      break;
    case Dtype::f16:
      convert_all<uint16_t>(tensor, values, from_f16);
      break;
    case Dtype::i64:
      convert_all<int64_t>(tensor, values, same);
      break;
    case Dtype::i32:
      convert_all<int32_t>(tensor, values, same);
      break;
    case Dtype::u8:
      convert_all<uint8_t>(tensor, values, same);
      break;
    case Dtype::none:
      break;
  }
  return values;
}

}  // namespace

const NamedTensor* TensorFile::find(std::string_view name) const {
  const auto found =
      std::find_if(tensors.begin(), tensors.end(), [&](const NamedTensor& t) { return t.name == name; });
  return found == tensors.end() ? nullptr : &*found;
}

std::optional<int64_t> dense_bytes(std::span<const int64_t> shape, Dtype dtype) {
  int64_t product = static_cast<int64_t>(bytes_of(dtype));
  for (const int64_t extent : shape) {
    if (extent < 0 || __builtin_mul_overflow(product, extent, &product)) return std::nullopt;
  }
  return product;
}

std::vector<double> to_doubles(const NamedTensor& tensor) { return values_of<double>(tensor); }
std::vector<float> to_floats(const NamedTensor& tensor) { return values_of<float>(tensor); }

std::string quote(std::string_view text) {
  constexpr size_t kLongest = 80;
  constexpr char kHex[] = "0123456789abcdef";
  std::string out = "'";
  for (const char c : text.substr(0, kLongest)) {
    const auto byte = static_cast<unsigned char>(c);
    if (byte >= 0x20 && byte != 0x7f) {
      out += c;
    } else {
      out += {'\\', 'x', kHex[byte >> 4], kHex[byte & 15]};
    }
  }
  return out + (text.size() > kLongest ? "...'" : "'");
}

std::string shape_text(std::span<const int64_t> shape) {
  std::string out = "[";
  for (size_t axis = 0; axis < shape.size(); ++axis) out += (axis ? ", " : "") + std::to_string(shape[axis]);
  return out + "]";
}

}  // namespace dino
