#include "engine/safetensors.h"

#include <algorithm>
#include <cstring>
#include <nlohmann/json.hpp>
#include <unordered_set>

#include "engine/atomic_file.h"
#include "engine/mapped_file.h"

namespace dino {
namespace {

using nlohmann::json;

constexpr uint64_t kLongestHeader = 100'000'000;  // the limit of the format's own readers
constexpr std::string_view kMetadata = "__metadata__";

struct DtypeName {
  Dtype dtype;
  std::string_view name;
};
constexpr DtypeName kDtypeNames[] = {{Dtype::f64, "F64"}, {Dtype::f32, "F32"}, {Dtype::bf16, "BF16"},
                                     {Dtype::f16, "F16"}, {Dtype::i64, "I64"}, {Dtype::i32, "I32"},
                                     {Dtype::u8, "U8"}};

/// One tensor of the header, before its offsets are checked.
struct Entry {
  std::string name;
  Dtype dtype = Dtype::none;
  std::vector<int64_t> shape{};
  std::vector<int64_t> offsets{};
  bool has_dtype = false, has_shape = false, has_offsets = false;
};

/// Takes the header as a stream of JSON events: a document tree would keep the last of two equal names
/// silently, and could nest without bound. Here anything but `{name: {dtype, shape: [...], data_offsets:
/// [...]}}` stops the parse.
class HeaderReader : public nlohmann::json_sax<json> {
 public:
  explicit HeaderReader(const std::string& path) : path_(path) {}

  std::vector<Entry> entries;
  std::map<std::string, std::string> metadata;

  bool start_object(size_t) override {
    if (place_ == Place::outside) {
      place_ = Place::names;
    } else if (place_ == Place::name && name_ == kMetadata) {
      place_ = Place::metadata;
    } else if (place_ == Place::name) {
      place_ = Place::fields;
      entries.push_back({.name = name_});
    } else {
      unexpected("an object");
    }
    return true;
  }

  bool end_object() override {
    if (place_ == Place::fields) {
      const Entry& entry = entries.back();
      const char* missing = !entry.has_dtype     ? "dtype"
                            : !entry.has_shape   ? "shape"
                            : !entry.has_offsets ? "data_offsets"
                                                 : nullptr;
      if (missing) fail(str("expected the field '", missing, "', found none"));
    }
    place_ = place_ == Place::names ? Place::outside : Place::names;
    return true;
  }

  bool key(std::string& text) override {
    if (place_ == Place::names) {
      name_ = text;
      field_.clear();
      if (!names_.insert(text).second) fail("expected unique names, found this one twice");
      place_ = Place::name;
    } else if (place_ == Place::metadata) {
      field_ = text;
      if (metadata.contains(text)) fail("expected unique keys, found this one twice");
      place_ = Place::metadata_value;
    } else {
      begin_field(text);
    }
    return true;
  }

  bool start_array(size_t) override {
    if (in_array_ || (place_ != Place::shape && place_ != Place::offsets)) unexpected("an array");
    in_array_ = true;
    return true;
  }

  bool end_array() override {
    in_array_ = false;
    place_ = Place::fields;
    return true;
  }

  bool string(std::string& text) override {
    if (place_ == Place::metadata_value) {
      metadata[field_] = text;
      place_ = Place::metadata;
    } else if (place_ == Place::dtype) {
      set_dtype(text);
      place_ = Place::fields;
    } else {
      unexpected("a string");
    }
    return true;
  }

  bool number_unsigned(uint64_t number) override {
    if (!in_array_) unexpected("a number");
    if (number > INT64_MAX) fail(str("expected numbers below 2^63, found ", number));
    auto& numbers = place_ == Place::shape ? entries.back().shape : entries.back().offsets;
    numbers.push_back(static_cast<int64_t>(number));
    return true;
  }

  bool number_integer(int64_t number) override { return unexpected(str("the number ", number)); }
  bool number_float(double, const std::string& text) override { return unexpected("the number " + text); }
  bool null() override { return unexpected("null"); }
  bool boolean(bool value) override { return unexpected(value ? "true" : "false"); }
  bool binary(json::binary_t&) override { return unexpected("binary data"); }

  bool parse_error(size_t position, const std::string&, const json::exception&) override {
    throw FormatError(str(path_, ": header: expected JSON, found a syntax error at byte ", position));
  }

 private:
  enum class Place { outside, names, name, metadata, metadata_value, fields, dtype, shape, offsets };

  [[noreturn]] void fail(const std::string& rule) const {
    const std::string field = field_.empty() ? "" : ": " + quote(field_);
    throw FormatError(str(path_, ": ", name_.empty() ? "header" : quote(name_), field, ": ", rule));
  }

  [[noreturn]] bool unexpected(const std::string& found) const {
    const char* expected = "a number";
    switch (place_) {
      case Place::outside:
        expected = "one object";
        break;
      case Place::name:
        expected = "an object";
        break;
      case Place::metadata_value:
      case Place::dtype:
        expected = "a string";
        break;
      default:
        expected = in_array_ ? "an unsigned integer" : "an array";
        break;
    }
    fail(str("expected ", expected, ", found ", found));
  }

  void begin_field(const std::string& text) {
    field_ = text;
    Entry& entry = entries.back();
    const auto enter = [&](bool& seen, Place place) {
      if (std::exchange(seen, true)) fail("expected once, found twice");
      place_ = place;
    };
    if (text == "dtype") {
      enter(entry.has_dtype, Place::dtype);
    } else if (text == "shape") {
      enter(entry.has_shape, Place::shape);
    } else if (text == "data_offsets") {
      enter(entry.has_offsets, Place::offsets);
    } else {
      fail("expected dtype, shape or data_offsets, found another field");
    }
  }

  void set_dtype(const std::string& text) {
    for (const auto& [dtype, name] : kDtypeNames) {
      if (name == text) entries.back().dtype = dtype;
    }
    if (entries.back().dtype == Dtype::none) {
      fail("expected F64, F32, BF16, F16, I64, I32 or U8, found " + quote(text));
    }
  }

  const std::string& path_;
  Place place_ = Place::outside;
  bool in_array_ = false;
  std::string name_, field_;
  std::unordered_set<std::string> names_;
};

void check_offsets(const std::vector<Entry>& entries, int64_t data_bytes, const std::string& path) {
  std::vector<const Entry*> sorted;
  for (const Entry& entry : entries) {
    const auto where = [&] { return path + ": " + quote(entry.name) + ": data_offsets: "; };
    check<FormatError>(entry.offsets.size() == 2, where(), "expected 2 numbers, found ",
                       entry.offsets.size());
    const int64_t begin = entry.offsets[0], end = entry.offsets[1];
    check<FormatError>(begin <= end && end <= data_bytes, where(), "expected begin <= end <= ", data_bytes,
                       ", found [", begin, ", ", end, "]");
    const auto bytes = dense_bytes(entry.shape, entry.dtype);
    check<FormatError>(bytes.has_value(), path, ": ", quote(entry.name),
                       ": shape: expected less than 2^63 bytes, found ", shape_text(entry.shape));
    check<FormatError>(*bytes == end - begin, where(), "expected ", *bytes, " bytes, found ", end - begin);
    sorted.push_back(&entry);
  }
  std::sort(sorted.begin(), sorted.end(), [](auto* a, auto* b) { return a->offsets < b->offsets; });
  int64_t covered = 0;
  for (const Entry* entry : sorted) {
    check<FormatError>(entry->offsets[0] == covered, path, ": ", quote(entry->name),
                       ": data_offsets: expected to begin at ", covered, ", found ", entry->offsets[0]);
    covered = entry->offsets[1];
  }
  check<FormatError>(covered == data_bytes, path, ": data_offsets: expected to cover ", data_bytes,
                     " bytes of data, found ", covered);
}

std::string header_entry(const NamedTensor& tensor, int64_t begin, const std::string& path) {
  const auto* dtype = std::find_if(std::begin(kDtypeNames), std::end(kDtypeNames),
                                   [&](const DtypeName& d) { return d.dtype == tensor.dtype; });
  check<FormatError>(dtype != std::end(kDtypeNames), path, ": ", quote(tensor.name), ": dtype: none");
  const auto bytes = dense_bytes(tensor.shape, tensor.dtype);
  check<FormatError>(bytes && *bytes == static_cast<int64_t>(tensor.bytes.size()), path, ": ",
                     quote(tensor.name), ": expected the bytes of ", dtype->name, " ",
                     shape_text(tensor.shape), ", found ", tensor.bytes.size());
  return str(json(tensor.name).dump(), ":{\"dtype\":\"", dtype->name,
             "\",\"shape\":", json(tensor.shape).dump(), ",\"data_offsets\":[", begin, ",", begin + *bytes,
             "]}");
}

std::string header_of(const TensorFile& file, const std::string& path) {
  std::string header = "{";
  if (!file.metadata.empty()) header += str("\"", kMetadata, "\":", json(file.metadata).dump());
  std::unordered_set<std::string_view> names = {kMetadata};
  int64_t begin = 0;
  for (const NamedTensor& tensor : file.tensors) {
    check<FormatError>(names.insert(tensor.name).second, path, ": ", quote(tensor.name),
                       ": expected unique names, found this one twice");
    if (header.size() > 1) header += ',';
    header += header_entry(tensor, begin, path);
    begin += static_cast<int64_t>(tensor.bytes.size());
  }
  header += '}';
  header.resize((header.size() + 7) / 8 * 8, ' ');  // keeps the data aligned
  return header;
}

}  // namespace

TensorFile read_safetensors(std::span<const std::byte> bytes, std::shared_ptr<const void> owner,
                            const std::string& path) {
  uint64_t header_bytes = 0;
  check<FormatError>(bytes.size() >= sizeof header_bytes, path, ": header: expected at least 8 bytes, found ",
                     bytes.size());
  std::memcpy(&header_bytes, bytes.data(), sizeof header_bytes);
  const std::span rest = bytes.subspan(sizeof header_bytes);
  check<FormatError>(header_bytes <= std::min<uint64_t>(rest.size(), kLongestHeader), path,
                     ": header: expected a length of at most ",
                     std::min<uint64_t>(rest.size(), kLongestHeader), ", found ", header_bytes);
  const std::string_view text(reinterpret_cast<const char*>(rest.data()), header_bytes);
  check<FormatError>(text.starts_with('{'), path, ": header: expected '{', found ", quote(text.substr(0, 1)));
  HeaderReader reader(path);
  json::sax_parse(text.begin(), text.end(), &reader);

  const std::span data = rest.subspan(header_bytes);
  check_offsets(reader.entries, static_cast<int64_t>(data.size()), path);
  TensorFile file;
  file.metadata = std::move(reader.metadata);
  file.tensors.reserve(reader.entries.size());
  for (Entry& entry : reader.entries) {
    const auto begin = static_cast<size_t>(entry.offsets[0]), end = static_cast<size_t>(entry.offsets[1]);
    file.tensors.push_back({std::move(entry.name), entry.dtype, std::move(entry.shape),
                            data.subspan(begin, end - begin), owner});
  }
  return file;
}

TensorFile load_safetensors(const std::string& path) {
  auto file = MappedFile::open(path);
  return read_safetensors(file->bytes(), file, path);
}

void save_safetensors(const std::string& path, const TensorFile& file) {
  std::string header;
  try {
    header = header_of(file, path);
  } catch (const json::exception&) {
    throw FormatError(path + ": header: expected names and metadata in UTF-8, found other bytes");
  }
  check<FormatError>(header.size() <= kLongestHeader, path, ": header: expected at most ", kLongestHeader,
                     " bytes, found ", header.size());
  const uint64_t header_bytes = header.size();
  std::vector<Bytes> pieces = {std::as_bytes(std::span(&header_bytes, 1)), bytes_of_text(header)};
  for (const NamedTensor& tensor : file.tensors) pieces.push_back(tensor.bytes);
  write_file(path, pieces);
}

}  // namespace dino
