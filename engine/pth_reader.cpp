#include "engine/pth_reader.h"

#include <algorithm>
#include <cstring>

#include "engine/zip_archive.h"

namespace dino {
namespace {

using Kind = PickleValue::Kind;

constexpr std::string_view kAllowedGlobals[] = {
    "collections.OrderedDict",
    "torch.Size",
    "torch._utils._rebuild_tensor_v2",
    "torch._utils._rebuild_parameter",
    "torch.DoubleStorage",
    "torch.FloatStorage",
    "torch.HalfStorage",
    "torch.BFloat16Storage",
    "torch.LongStorage",
    "torch.IntStorage",
    "torch.ShortStorage",
    "torch.CharStorage",
    "torch.ByteStorage",
    "torch.BoolStorage",
    "torch.ComplexFloatStorage",
    "torch.ComplexDoubleStorage",
    "argparse.Namespace",
    "numpy.core.multiarray.scalar",   // numpy 1
    "numpy._core.multiarray.scalar",  // numpy 2
    "numpy.dtype",
    "_codecs.encode",
};

/// The pickles of the magic number 0x1950a86a20f9469cfc6c and of the protocol version 1001.
constexpr unsigned char kLegacyMagic[] = {0x80, 2,    0x8a, 10,  0x6c, 0xfc, 0x9c, 0x46, 0xf9, 0x20, 0x6a,
                                          0xa8, 0x50, 0x19, '.', 0x80, 2,    'M',  0xe9, 3,    '.'};

template <size_t kCount>
bool begins_with(std::span<const std::byte> bytes, const unsigned char (&start)[kCount]) {
  return bytes.size() >= kCount && std::memcmp(bytes.data(), start, kCount) == 0;
}

bool is_call(const PickleValue& value, std::string_view callee, size_t arguments) {
  return value.kind == Kind::object && value.text == callee && value.items.size() >= arguments;
}

/// `_codecs.encode(text, "latin1")` is how protocol 2 carries bytes: one code point per byte. Gives `count`
/// bytes, or false.
bool latin1_bytes(const PickleValue& value, unsigned char* out, size_t count) {
  if (!is_call(value, "_codecs.encode", 2) || value.items[0]->kind != Kind::string) return false;
  const std::string_view text = value.items[0]->text;
  size_t at = 0, written = 0;
  while (at < text.size() && written < count) {
    const auto lead = static_cast<unsigned char>(text[at]);
    if (lead < 0x80) {
      out[written++] = lead;
      at += 1;
    } else {  // U+0080 … U+00FF are two bytes of UTF-8
      if ((lead != 0xc2 && lead != 0xc3) || at + 1 >= text.size()) return false;
      out[written++] = static_cast<unsigned char>((lead & 3) << 6 | (text[at + 1] & 63));
      at += 2;
    }
  }
  return at == text.size() && written == count;
}

template <class T>
bool numpy_number(const PickleValue& bytes, T& number) {
  unsigned char raw[sizeof(T)];
  if (!latin1_bytes(bytes, raw, sizeof raw)) return false;
  std::memcpy(&number, raw, sizeof raw);
  return true;
}

/// Turns `numpy.core.multiarray.scalar(dtype(code), bytes)` into a plain number; other scalars stay as they
/// are.
void interpret_numpy_scalar(PickleValue& value) {
  const PickleValue& dtype = *value.items[0];
  if (!is_call(dtype, "numpy.dtype", 1) || dtype.items[0]->kind != Kind::string) return;
  const std::string_view code = dtype.items[0]->text;
  const PickleValue& bytes = *value.items[1];
  double f8;
  float f4;
  int64_t i8;
  int32_t i4;
  uint8_t b1;
  if (code == "f8" && numpy_number(bytes, f8)) {
    value = {.kind = Kind::real, .real = f8};
  } else if (code == "f4" && numpy_number(bytes, f4)) {
    value = {.kind = Kind::real, .real = f4};
  } else if (code == "i8" && numpy_number(bytes, i8)) {
    value = {.kind = Kind::integer, .integer = i8};
  } else if (code == "i4" && numpy_number(bytes, i4)) {
    value = {.kind = Kind::integer, .integer = i4};
  } else if (code == "b1" && numpy_number(bytes, b1)) {
    value = {.kind = Kind::boolean, .integer = b1 != 0};
  }
}

}  // namespace

const PthReader::StorageType PthReader::kStorageTypes[12] = {
    {"torch.DoubleStorage", Dtype::f64, 8},        {"torch.FloatStorage", Dtype::f32, 4},
    {"torch.HalfStorage", Dtype::f16, 2},          {"torch.BFloat16Storage", Dtype::bf16, 2},
    {"torch.LongStorage", Dtype::i64, 8},          {"torch.IntStorage", Dtype::i32, 4},
    {"torch.ByteStorage", Dtype::u8, 1},           {"torch.ShortStorage", Dtype::none, 2},
    {"torch.CharStorage", Dtype::none, 1},         {"torch.BoolStorage", Dtype::none, 1},
    {"torch.ComplexFloatStorage", Dtype::none, 8}, {"torch.ComplexDoubleStorage", Dtype::none, 16}};

PthReader::PthReader(std::span<const std::byte> bytes, std::shared_ptr<const void> owner,
                     const std::string& path)
    : bytes_(bytes) {
  file_.path_ = path;
  file_.owner_ = std::move(owner);
  file_.file_bytes_ = bytes.size();
}

bool PthReader::is_zip(std::span<const std::byte> bytes) {
  constexpr unsigned char kZip[] = {'P', 'K', 3, 4};
  return begins_with(bytes, kZip);
}

bool PthReader::is_legacy(std::span<const std::byte> bytes) { return begins_with(bytes, kLegacyMagic); }

void PthReader::fail(const std::string& rule) const { throw FormatError(file_.path_ + ": " + rule); }

PthFile PthReader::read() {
  if (is_zip(bytes_)) {
    read_zip_format();
  } else if (is_legacy(bytes_)) {
    read_legacy_format();
  } else {
    fail("expected a file written by torch.save, found another format");
  }
  interpret_calls();
  return std::move(file_);
}

/// One top folder of any name: `data.pkl`, the storages `data/<key>`, and `byteorder` since torch 2.1.
void PthReader::read_zip_format() {
  const auto entries = read_zip(bytes_, file_.path_);
  constexpr std::string_view kPickle = "/data.pkl";
  const auto pickle = std::find_if(entries.begin(), entries.end(), [&](const auto& entry) {
    return entry.first.ends_with(kPickle) && entry.first.find('/') == entry.first.size() - kPickle.size();
  });
  if (pickle == entries.end())
    fail("expected an entry 'data.pkl', found an archive that torch.save did not write");
  const std::string top = pickle->first.substr(0, pickle->first.size() - kPickle.size());
  if (const auto order = entries.find(top + "/byteorder"); order != entries.end()) {
    const std::string_view text(reinterpret_cast<const char*>(order->second.data()), order->second.size());
    if (text != "little") fail("byteorder: expected 'little', found " + quote(text));
  }
  file_.pickle_ = read_pickle(pickle->second, kAllowedGlobals, file_.path_ + ": data.pkl");
  file_.pickle_bytes_ = file_.pickle_.bytes_read;
  for (const PickleValue& value : file_.pickle_.values) {
    if (value.kind != Kind::persistent_id) continue;
    Storage storage = describe_storage(value);
    const std::string key(value.items[2]->text);
    const auto data = entries.find(top + "/data/" + key);
    if (data == entries.end()) fail("expected an entry " + quote("data/" + key) + ", found none");
    storage.bytes = data->second;
    const auto expected = static_cast<size_t>(storage.elements) * storage.type->element_bytes;
    if (storage.bytes.size() != expected) {
      fail(str(quote("data/" + key), ": expected ", expected, " bytes, found ", storage.bytes.size()));
    }
    const Storage& known = storages_.try_emplace(key, storage).first->second;
    if (known.type != storage.type) fail("storage " + quote(key) + ": expected one type, found two");
  }
}

/// Pickles one after the other: magic number, protocol, system, the values, the keys of the storages; then
/// for each key the number of its elements and the elements.
void PthReader::read_legacy_format() {
  std::span<const std::byte> rest = bytes_.subspan(sizeof kLegacyMagic);
  const auto next_pickle = [&](const char* what) {
    Pickle pickle = read_pickle(rest, kAllowedGlobals, file_.path_ + ": " + what);
    rest = rest.subspan(pickle.bytes_read);
    return pickle;
  };
  const Pickle system = next_pickle("system");
  const PickleValue* little = system.root->find("little_endian");
  if (little && little->integer != 1) fail("system: expected little-endian data, found big-endian");
  file_.pickle_ = next_pickle("values");
  file_.pickle_bytes_ = file_.pickle_.bytes_read;
  for (const PickleValue& value : file_.pickle_.values) {
    if (value.kind != Kind::persistent_id) continue;
    const Storage storage = describe_storage(value);
    const Storage& known = storages_.try_emplace(std::string(value.items[2]->text), storage).first->second;
    if (known.type != storage.type || known.elements != storage.elements) {
      fail("storage " + quote(value.items[2]->text) + ": expected one type and size, found two");
    }
  }
  const Pickle keys = next_pickle("storage keys");
  if (keys.root->kind != Kind::list) fail("storage keys: expected a list, found another value");
  for (const PickleValue* key : keys.root->items) {
    const auto found = key->kind == Kind::string ? storages_.find(key->text) : storages_.end();
    if (found == storages_.end()) fail("storage keys: expected keys that the values use, found another");
    Storage& storage = found->second;
    int64_t elements = 0;
    if (rest.size() < sizeof elements)
      fail("storage " + quote(key->text) + ": expected 8 more bytes, found the end");
    std::memcpy(&elements, rest.data(), sizeof elements);
    rest = rest.subspan(sizeof elements);
    if (elements != storage.elements) {
      fail(str("storage ", quote(key->text), ": expected ", storage.elements, " elements, found ", elements));
    }
    const auto count = static_cast<size_t>(elements) * storage.type->element_bytes;
    if (count > rest.size()) {
      fail(str("storage ", quote(key->text), ": expected ", count, " bytes, found ", rest.size()));
    }
    storage.bytes = rest.first(count);
    rest = rest.subspan(count);
  }
}

/// ("storage", type, key, location, elements[, view]); the location does not matter here.
PthReader::Storage PthReader::describe_storage(const PickleValue& id) const {
  const auto& parts = id.items;
  const bool whole = parts.size() == 5 || (parts.size() == 6 && parts[5]->kind == Kind::none);
  if (!whole || parts[0]->kind != Kind::string || parts[0]->text != "storage" ||
      parts[2]->kind != Kind::string) {
    fail("persistent id: expected a storage, found another value");
  }
  const auto* type = std::find_if(
      std::begin(kStorageTypes), std::end(kStorageTypes),
      [&](const StorageType& t) { return parts[1]->kind == Kind::global && t.global == parts[1]->text; });
  if (type == std::end(kStorageTypes))
    fail("storage " + quote(parts[2]->text) + ": expected a storage type, found another value");
  const int64_t elements = parts[4]->kind == Kind::integer ? parts[4]->integer : -1;
  // No element is free, so this also keeps the product with the element size far from overflow.
  if (elements < 0 || static_cast<size_t>(elements) > bytes_.size()) {
    fail(str("storage ", quote(parts[2]->text), ": expected a size within the file, found ", elements));
  }
  return {type, elements, {}};
}

const PthReader::Storage& PthReader::storage_of(const PickleValue& id) const {
  if (id.kind != Kind::persistent_id) fail("tensor: expected a storage, found another value");
  const Storage& storage = storages_.find(id.items[2]->text)->second;
  if (storage.bytes.empty() && storage.elements > 0) {
    fail("storage " + quote(id.items[2]->text) + ": expected its data, found none");
  }
  return storage;
}

void PthReader::interpret_calls() {
  // Arguments come before the calls that take them, so one pass is enough.
  for (PickleValue& value : file_.pickle_.values) {
    if (value.kind == Kind::object) interpret(value);
  }
}

void PthReader::interpret(PickleValue& value) {
  if (value.text == "torch._utils._rebuild_tensor_v2") {
    const int64_t index = tensor_index(value);
    value = {.kind = Kind::tensor, .integer = index};
  } else if (value.text == "torch._utils._rebuild_parameter") {
    const bool wraps_tensor = !value.items.empty() && value.items[0]->kind == Kind::tensor;
    if (!wraps_tensor) fail("parameter: expected a tensor, found another value");
    value = {.kind = Kind::tensor, .integer = value.items[0]->integer};
  } else if (value.text.ends_with(".multiarray.scalar") && value.items.size() == 2) {
    interpret_numpy_scalar(value);
  }
}

/// _rebuild_tensor_v2(storage, offset in elements, shape, strides, requires_grad, hooks[, metadata])
int64_t PthReader::tensor_index(const PickleValue& call) {
  if (call.items.size() < 4 || call.items[1]->kind != Kind::integer)
    fail("tensor: expected storage, offset, shape, strides, found other arguments");
  const Storage& storage = storage_of(*call.items[0]);
  PthFile::StridedTensor tensor = {.dtype = storage.type->dtype,
                                   .storage_type = storage.type->global,
                                   .shape = integers_of(*call.items[2], "shape"),
                                   .strides = integers_of(*call.items[3], "strides"),
                                   .storage = storage.bytes};
  if (tensor.shape.size() != tensor.strides.size())
    fail("tensor: expected as many strides as extents, found others");
  const int64_t offset = call.items[1]->integer;
  int64_t last = offset;
  bool empty = false, overflow = false;
  for (size_t axis = 0; axis < tensor.shape.size(); ++axis) {
    int64_t reach = 0;
    empty |= tensor.shape[axis] == 0;
    if (tensor.shape[axis] == 1) tensor.strides[axis] = 0;  // meaningless there, and free to be anything
    overflow |= __builtin_mul_overflow(tensor.shape[axis] - 1, tensor.strides[axis], &reach) ||
                __builtin_add_overflow(last, reach, &last);
  }
  const bool inside =
      offset >= 0 && (empty ? offset <= storage.elements : !overflow && last < storage.elements);
  if (!inside) {
    fail(str("tensor: expected to lie in its storage of ", storage.elements, " elements, found offset ",
             offset, ", shape ", shape_text(tensor.shape), ", strides ", shape_text(tensor.strides)));
  }
  tensor.storage = storage.bytes.subspan(static_cast<size_t>(offset) * storage.type->element_bytes);
  file_.tensors_.push_back(std::move(tensor));
  return static_cast<int64_t>(file_.tensors_.size()) - 1;
}

std::vector<int64_t> PthReader::integers_of(const PickleValue& tuple, const char* field) const {
  constexpr size_t kMostAxes = 64;  // as torch
  if (tuple.kind != Kind::tuple || tuple.items.size() > kMostAxes) {
    fail(str("tensor: ", field, ": expected a tuple of at most ", kMostAxes,
             " integers, found another value"));
  }
  std::vector<int64_t> integers;
  for (const PickleValue* item : tuple.items) {
    if (item->kind != Kind::integer || item->integer < 0) {
      fail(str("tensor: ", field, ": expected non-negative integers, found another value"));
    }
    integers.push_back(item->integer);
  }
  return integers;
}

}  // namespace dino
