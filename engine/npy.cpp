#include "engine/npy.h"

#include <algorithm>
#include <charconv>
#include <cstring>

#include "engine/atomic_file.h"
#include "engine/mapped_file.h"

namespace dino {
namespace {

constexpr std::string_view kMagic("\x93NUMPY\x01\x00", 8);  // version 1.0
constexpr size_t kPreamble = kMagic.size() + sizeof(uint16_t);
constexpr size_t kAlignment = 64;  // NumPy pads the header so that the data can be mapped aligned
constexpr size_t kMostAxes = 4;

struct Descriptor {
  Dtype dtype;
  std::string_view name;
};
constexpr Descriptor kDescriptors[] = {{Dtype::f64, "<f8"}, {Dtype::f32, "<f4"}, {Dtype::f16, "<f2"},
                                       {Dtype::i64, "<i8"}, {Dtype::i32, "<i4"}, {Dtype::u8, "|u1"}};

/// The header is a Python dict literal with three keys; this reads just that, with spaces as anyone may put
/// them.
class HeaderReader {
 public:
  HeaderReader(std::string_view text, const std::string& path) : text_(text), path_(path) {}

  NpyHeader read() {
    expect("{");
    while (!accept("}")) {
      const std::string key = take_string();
      expect(":");
      read_field(key);
      if (!accept(",")) {
        expect("}");
        break;
      }
    }
    skip_spaces();
    check<FormatError>(text_.empty(), path_, ": header: expected its end, found ", quote(text_));
    check<FormatError>(has_descr_ && has_order_ && has_shape_, path_,
                       ": header: expected descr, fortran_order and shape, found less");
    return std::move(header_);
  }

 private:
  void read_field(const std::string& key) {
    const auto once = [&](bool& seen) {
      check<FormatError>(!std::exchange(seen, true), path_, ": ", key, ": expected once, found twice");
    };
    if (key == "descr") {
      once(has_descr_);
      header_.descr = take_string();
    } else if (key == "fortran_order") {
      once(has_order_);
      const bool is_false = accept("False");  // before the text is quoted: it skips spaces
      check<FormatError>(is_false, path_, ": fortran_order: expected False, found ", quote(text_));
    } else if (key == "shape") {
      once(has_shape_);
      read_shape();
    } else {
      throw FormatError(str(path_, ": header: expected descr, fortran_order and shape, found ", quote(key)));
    }
  }

  void read_shape() {
    expect("(");
    while (!accept(")")) {
      skip_spaces();
      int64_t extent = -1;
      const auto [end, error] = std::from_chars(text_.data(), text_.data() + text_.size(), extent);
      check<FormatError>(error == std::errc() && extent >= 0 && header_.shape.size() < kMostAxes, path_,
                         ": shape: expected at most ", kMostAxes, " non-negative integers, found ",
                         quote(text_));
      text_.remove_prefix(static_cast<size_t>(end - text_.data()));
      header_.shape.push_back(extent);
      if (!accept(",")) {
        expect(")");
        break;
      }
    }
  }

  void skip_spaces() {
    const size_t begin = text_.find_first_not_of(" \n");
    text_.remove_prefix(begin == std::string_view::npos ? text_.size() : begin);
  }

  bool accept(std::string_view token) {
    skip_spaces();
    if (!text_.starts_with(token)) return false;
    text_.remove_prefix(token.size());
    return true;
  }

  void expect(std::string_view token) {
    const bool found = accept(token);
    check<FormatError>(found, path_, ": header: expected ", quote(token), ", found ", quote(text_));
  }

  std::string take_string() {
    expect("'");
    const size_t end = text_.find('\'');
    check<FormatError>(end != std::string_view::npos, path_, ": header: expected a string, found ",
                       quote(text_));
    std::string value(text_.substr(0, end));
    text_.remove_prefix(end + 1);
    return value;
  }

  std::string_view text_;
  const std::string& path_;
  NpyHeader header_;
  bool has_descr_ = false, has_order_ = false, has_shape_ = false;
};

std::string header_of(const NamedTensor& array, const std::string& path) {
  const auto* descriptor = std::find_if(std::begin(kDescriptors), std::end(kDescriptors),
                                        [&](const Descriptor& d) { return d.dtype == array.dtype; });
  check<FormatError>(descriptor != std::end(kDescriptors), path, ": descr: NumPy has no ",
                     name_of(array.dtype));
  check<FormatError>(array.shape.size() <= kMostAxes, path, ": shape: expected at most ", kMostAxes,
                     " axes, found ", array.shape.size());
  std::string shape;
  for (const int64_t extent : array.shape) shape += (shape.empty() ? "" : ", ") + std::to_string(extent);
  if (array.shape.size() == 1) shape += ',';  // a Python tuple of one
  std::string header =
      str("{'descr': '", descriptor->name, "', 'fortran_order': False, 'shape': (", shape, "), }");
  const size_t unpadded = kPreamble + header.size() + 1;
  header.append((kAlignment - unpadded % kAlignment) % kAlignment, ' ');
  return header + '\n';
}

template <class T>
void save_values(const std::string& path, std::span<const T> values, std::vector<int64_t> shape) {
  save_npy(path, NamedTensor{"", kDtypeOf<T>, std::move(shape), std::as_bytes(values), nullptr});
}

}  // namespace

void save_npy(const std::string& path, const NamedTensor& array) {
  const std::string header = header_of(array, path);
  check<FormatError>(dense_bytes(array.shape, array.dtype) == static_cast<int64_t>(array.bytes.size()), path,
                     ": shape: ", shape_text(array.shape), " does not take ", array.bytes.size(), " bytes");
  const auto header_bytes = static_cast<uint16_t>(header.size());
  write_file(path, {bytes_of_text(kMagic), std::as_bytes(std::span(&header_bytes, 1)), bytes_of_text(header),
                    array.bytes});
}

void save_npy(const std::string& path, std::span<const float> values, std::vector<int64_t> shape) {
  save_values(path, values, std::move(shape));
}

void save_npy(const std::string& path, std::span<const int64_t> values, std::vector<int64_t> shape) {
  save_values(path, values, std::move(shape));
}

NpyHeader read_npy_header(std::span<const std::byte> bytes, const std::string& path) {
  const std::string_view text(reinterpret_cast<const char*>(bytes.data()), bytes.size());
  check<FormatError>(text.size() >= kPreamble && text.starts_with(kMagic), path,
                     ": magic: expected .npy version 1.0, found ", quote(text.substr(0, kMagic.size())));
  uint16_t header_bytes = 0;
  std::memcpy(&header_bytes, bytes.data() + kMagic.size(), sizeof header_bytes);
  check<FormatError>(header_bytes <= text.size() - kPreamble, path, ": header: expected ", header_bytes,
                     " bytes, found ", text.size() - kPreamble);
  NpyHeader header = HeaderReader(text.substr(kPreamble, header_bytes), path).read();
  header.data_offset = kPreamble + header_bytes;
  return header;
}

NamedTensor read_npy(std::span<const std::byte> bytes, std::shared_ptr<const void> owner, const std::string& path) {
  NpyHeader header = read_npy_header(bytes, path);
  NamedTensor array;
  for (const Descriptor& descriptor : kDescriptors)
    if (descriptor.name == header.descr) array.dtype = descriptor.dtype;
  check<FormatError>(array.dtype != Dtype::none, path, ": descr: expected '<f8', '<f4', '<f2', '<i8', '<i4' or '|u1', found ",
                     quote(header.descr));
  array.shape = std::move(header.shape);
  array.bytes = bytes.subspan(header.data_offset);
  array.owner = std::move(owner);
  const auto expected = dense_bytes(array.shape, array.dtype);
  check<FormatError>(expected == static_cast<int64_t>(array.bytes.size()), path,
                     ": data: expected the bytes of ", name_of(array.dtype), " ", shape_text(array.shape),
                     ", found ", array.bytes.size());
  return array;
}

NamedTensor load_npy(const std::string& path) {
  auto file = MappedFile::open(path);
  return read_npy(file->bytes(), file, path);
}

}  // namespace dino
