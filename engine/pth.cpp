#include "engine/pth.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <unordered_set>

#include "engine/mapped_file.h"
#include "engine/pth_reader.h"

namespace dino {
namespace {

using Kind = PickleValue::Kind;

/// Copies the elements in row-major order; `Element` is an unsigned integer of the element's size.
template <class Element>
void gather(std::span<const std::byte> storage, std::span<const int64_t> shape,
            std::span<const int64_t> strides, std::vector<std::byte>& out) {
  std::vector<int64_t> index(shape.size(), 0);
  int64_t from = 0;
  for (size_t to = 0; to < out.size(); to += sizeof(Element)) {
    std::memcpy(out.data() + to, storage.data() + static_cast<size_t>(from) * sizeof(Element),
                sizeof(Element));
    for (size_t axis = shape.size(); axis-- > 0;) {
      from += strides[axis];
      if (++index[axis] < shape[axis]) break;
      from -= strides[axis] * shape[axis];
      index[axis] = 0;
    }
  }
}

bool is_dense(std::span<const int64_t> shape, std::span<const int64_t> strides) {
  int64_t dense = 1;
  for (size_t axis = shape.size(); axis-- > 0;) {
    if (shape[axis] != 1 && strides[axis] != dense) return false;
    dense *= shape[axis];
  }
  return true;
}

/// Strided tensors may have this many times the size of the file: an expanded one can claim any.
constexpr size_t kMostCopied = 4;

/// Up to eight string keys of a dict, for messages.
std::string keys_of(const PickleValue& dict) {
  constexpr size_t kShown = 8;
  std::string text;
  size_t shown = 0;
  for (size_t i = 0; i + 1 < dict.items.size() && shown < kShown; i += 2) {
    if (dict.items[i]->kind == Kind::string) text += (shown++ ? ", " : "") + quote(dict.items[i]->text);
  }
  return text.empty() ? "no names" : text + (dict.items.size() > 2 * kShown ? ", ..." : "");
}

}  // namespace

/// Walks dicts. Shared values can make a small file as a tree exponentially large, so the walk has a budget.
class PthFile::Flattener {
 public:
  explicit Flattener(const PthFile& source) : file_(source), budget_(1000 + 16 * source.pickle_bytes_) {}

  void walk(const PickleValue& value, const std::string& name, int depth) {
    constexpr int kDeepest = 16;
    const size_t cost = 1 + name.size();
    check<FormatError>(depth <= kDeepest && cost <= budget_, file_.path_,
                       ": expected a state dict, found names nested without bound");
    budget_ -= cost;
    if (value.kind == Kind::tensor) {
      check<FormatError>(names_.insert(name).second, file_.path_, ": ", quote(name),
                         ": expected unique names, found this one twice");
      file.tensors.push_back(file_.tensor(value, name));
      const NamedTensor& tensor = file.tensors.back();
      if (tensor.owner != file_.owner_) copied_bytes_ += tensor.bytes.size();
      check<FormatError>(copied_bytes_ <= kMostCopied * file_.file_bytes_, file_.path_, ": ", quote(name),
                         ": expected strided tensors of together at most ", kMostCopied,
                         " times the file's size, found more");
    }
    if (value.kind != Kind::dict) return;
    for (size_t i = 0; i + 1 < value.items.size(); i += 2) {
      const PickleValue& key = *value.items[i];
      if (key.kind != Kind::string && key.kind != Kind::integer) continue;
      const std::string part = key.kind == Kind::string ? std::string(key.text) : std::to_string(key.integer);
      walk(*value.items[i + 1], name.empty() ? part : name + '.' + part, depth + 1);
    }
  }

  TensorFile file;

 private:
  const PthFile& file_;
  size_t budget_;
  size_t copied_bytes_ = 0;
  std::unordered_set<std::string> names_;
};

PthFile PthFile::open(const std::string& path) {
  auto file = MappedFile::open(path);
  return read(file->bytes(), file, path);
}

PthFile PthFile::read(std::span<const std::byte> bytes, std::shared_ptr<const void> owner,
                      const std::string& path) {
  return PthReader(bytes, std::move(owner), path).read();
}

const PickleValue* PthFile::find(std::string_view dotted_path) const {
  const PickleValue* value = pickle_.root;
  while (value && !dotted_path.empty()) {
    const size_t dot = dotted_path.find('.');
    value = value->find(dotted_path.substr(0, dot));
    dotted_path = dot == std::string_view::npos ? "" : dotted_path.substr(dot + 1);
  }
  return value;
}

NamedTensor PthFile::tensor(const PickleValue& value, std::string name) const {
  check<FormatError>(value.kind == Kind::tensor, path_, ": ", quote(name),
                     ": expected a tensor, found another value");
  const StridedTensor& tensor = tensors_[static_cast<size_t>(value.integer)];
  check<FormatError>(tensor.dtype != Dtype::none, path_, ": ", quote(name),
                     ": dtype: expected f64, f32, bf16, f16, i64, i32 or u8, found ", tensor.storage_type);
  const auto bytes = dense_bytes(tensor.shape, tensor.dtype);
  check<FormatError>(bytes.has_value(), path_, ": ", quote(name),
                     ": shape: expected less than 2^63 bytes, found ", shape_text(tensor.shape));
  if (*bytes > 0 && !is_dense(tensor.shape, tensor.strides)) return copy_of(tensor, std::move(name), *bytes);
  return {std::move(name), tensor.dtype, tensor.shape, tensor.storage.first(static_cast<size_t>(*bytes)),
          owner_};
}

NamedTensor PthFile::copy_of(const StridedTensor& tensor, std::string name, int64_t bytes) const {
  check<FormatError>(static_cast<size_t>(bytes) <= kMostCopied * file_bytes_, path_, ": ", quote(name),
                     ": expected a strided tensor of at most ", kMostCopied, " times the file's size, found ",
                     bytes, " bytes");
  auto copy = std::make_shared<std::vector<std::byte>>(static_cast<size_t>(bytes));
  switch (bytes_of(tensor.dtype)) {
    case 8:
      gather<uint64_t>(tensor.storage, tensor.shape, tensor.strides, *copy);
      break;
    case 4:
      gather<uint32_t>(tensor.storage, tensor.shape, tensor.strides, *copy);
      break;
    case 2:
      gather<uint16_t>(tensor.storage, tensor.shape, tensor.strides, *copy);
      break;
    default:
      gather<uint8_t>(tensor.storage, tensor.shape, tensor.strides, *copy);
      break;
  }
  return {std::move(name), tensor.dtype, tensor.shape, *copy, copy};
}

TensorFile PthFile::tensors_of(const PickleValue& value) const {
  Flattener flattener(*this);
  flattener.walk(value, "", 0);
  return std::move(flattener.file);
}

TensorFile weights_of(const PthFile& file, const std::string& checkpoint_key, const std::string& path) {
  const PickleValue& root = file.root();
  check<FormatError>(root.kind == Kind::dict, path, ": expected a dict of tensors, found another value");
  const PickleValue* weights = &root;
  for (const std::string_view key :
       {std::string_view(checkpoint_key), std::string_view("state_dict"), std::string_view("model")}) {
    const PickleValue* entry = root.find(key);
    if (!entry || entry->kind != Kind::dict) continue;
    weights = entry;
    break;
  }
  // A training checkpoint without the wanted network must not yield the other one under a longer name.
  const bool other_network = weights == &root && (root.find("student") || root.find("teacher"));
  check<FormatError>(!other_network, path, ": expected the entry ", quote(checkpoint_key), ", found ",
                     keys_of(root));
  TensorFile tensors = file.tensors_of(*weights);
  check<FormatError>(!tensors.tensors.empty(), path, ": expected the entry ", quote(checkpoint_key),
                     " or a state dict, found ", keys_of(root));
  return tensors;
}

TensorFile load_pth(const std::string& path, const std::string& checkpoint_key) {
  return weights_of(PthFile::open(path), checkpoint_key, path);
}

bool looks_like_pth(std::span<const std::byte> bytes) {
  return PthReader::is_zip(bytes) || PthReader::is_legacy(bytes);
}

}  // namespace dino
