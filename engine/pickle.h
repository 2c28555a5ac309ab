#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace dino {

/// A value of a pickle. Calls are recorded, never made.
struct PickleValue {
  enum class Kind : uint8_t {
    none,
    boolean,  ///< `integer`: 0 or 1
    integer,  ///< `integer`
    real,     ///< `real`
    string,   ///< `text`, UTF-8
    list,     ///< `items`
    tuple,    ///< `items`
    dict,     ///< `items`: key, value, key, value, … in insertion order
    global,   ///< `text`: "module.name"
    object,   ///< result of a call: `text` the callee, `items` the arguments, `state` what BUILD gave it or
              ///< null
    persistent_id,  ///< `items`: the parts of the id
    tensor          ///< set by engine/pth.h: `integer` is its index
  };

  Kind kind = Kind::none;
  uint32_t depth = 0;  ///< of nesting below this value
  int64_t integer = 0;
  double real = 0;
  std::string_view text{};
  std::vector<const PickleValue*> items{};
  const PickleValue* state = nullptr;

  /// The value of a string key of a dict (or of an object's state, such as an argparse Namespace); null if
  /// absent.
  const PickleValue* find(std::string_view key) const;
};

/// A pickle as a tree of values (a graph: values may be shared, and hostile files may hold cycles). Texts are
/// views into the bytes it was read from.
struct Pickle {
  std::deque<PickleValue> values;  ///< all of them, arguments before the calls that take them
  const PickleValue* root = nullptr;
  size_t bytes_read = 0;
};

/// Reads one pickle from the front of `bytes`: the opcodes that torch's files use (protocol 2, see Python's
/// pickletools.py), and no other. A global that is not in `allowed_globals` ("module.name") is refused by
/// name. Memory is bounded by about a hundred bytes a byte of pickle, nesting by 100 levels. Throws
/// FormatError; `where` begins its message.
Pickle read_pickle(std::span<const std::byte> bytes, std::span<const std::string_view> allowed_globals,
                   const std::string& where);

}  // namespace dino
