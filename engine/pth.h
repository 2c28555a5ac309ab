#pragma once

#include <memory>
#include <string>
#include <string_view>

#include "engine/pickle.h"
#include "engine/tensor_file.h"

namespace dino {

/// A file written by `torch.save`, as inert values: its pickle is parsed, never executed. Both of torch's
/// formats are read, the ZIP of torch >= 1.6 and the one before. Besides tensors it may hold what a training
/// checkpoint of the reference holds: an argparse Namespace, numpy scalars (which become plain numbers),
/// optimizer state.
class PthFile {
 public:
  /// Maps and checks the file; every tensor in it lies within its storage afterwards. Throws FormatError,
  /// naming a global that is not on the list of what weights need; UsageError if the file cannot be opened.
  static PthFile open(const std::string& path);

  /// The same for bytes in memory, which `owner` keeps alive; `path` is for messages only.
  static PthFile read(std::span<const std::byte> bytes, std::shared_ptr<const void> owner,
                      const std::string& path);

  /// The top of the value tree, for example a dict of `student`, `teacher`, `optimizer`, `epoch`, `args`,
  /// `dino_loss`. Valid as long as this object.
  const PickleValue& root() const { return *pickle_.root; }

  /// The value at a path of string keys joined by dots, such as `dino_loss.center`; null if absent. Keys that
  /// contain dots themselves are found one by one with PickleValue::find.
  const PickleValue* find(std::string_view dotted_path) const;

  /// The tensor that `value` (of kind `tensor`) stands for, named `name`: a view into the file if it is dense
  /// there, a copy otherwise. Throws FormatError if it is not a tensor of one of our dtypes, or if the copy
  /// would exceed 4 times the file's size (an expanded tensor can claim any size).
  NamedTensor tensor(const PickleValue& value, std::string name) const;

  /// All tensors below the dict `value`, names joined by dots (integer keys in decimal), in the file's order.
  /// Throws as `tensor`, on a repeated name, and if the copies together exceed 4 times the file's size.
  TensorFile tensors_of(const PickleValue& value) const;

 private:
  friend class PthReader;
  PthFile() = default;

  /// A tensor as torch saves it: a strided view into a storage.
  struct StridedTensor {
    Dtype dtype = Dtype::none;
    std::string_view storage_type;
    std::vector<int64_t> shape, strides;
    std::span<const std::byte> storage;  ///< from the tensor's first element on
  };

  class Flattener;
  NamedTensor copy_of(const StridedTensor& tensor, std::string name, int64_t bytes) const;

  std::string path_;
  std::shared_ptr<const void> owner_;
  size_t file_bytes_ = 0;
  size_t pickle_bytes_ = 0;
  Pickle pickle_;
  std::vector<StridedTensor> tensors_;
};

/// Reads the weights of a .pth file: the entry `checkpoint_key` of its dict if there is one ("teacher" or
/// "student" of a training checkpoint), else its entry "state_dict" or "model", else the dict itself. Names
/// are the file's. Throws as PthFile::open, and FormatError if no tensors are there.
TensorFile load_pth(const std::string& path, const std::string& checkpoint_key);

/// The same for a file that is open already.
TensorFile weights_of(const PthFile& file, const std::string& checkpoint_key, const std::string& path);

/// True for the first bytes of either of torch's formats.
bool looks_like_pth(std::span<const std::byte> bytes);

}  // namespace dino
