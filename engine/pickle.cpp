#include "engine/pickle.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <unordered_map>

#include "engine/tensor_file.h"

namespace dino {
namespace {

using Kind = PickleValue::Kind;

constexpr size_t kMostValues = 1'000'000;  // the full checkpoint of a 24-block XCiT has about 100 000
constexpr size_t kMostItems = 4 * kMostValues;
constexpr uint32_t kDeepest = 100;

/// The opcodes, by the names of Python's pickletools.py.
enum Opcode : uint8_t {
  kMark = '(',
  kStop = '.',
  kNone = 'N',
  kBinInt = 'J',
  kBinInt1 = 'K',
  kBinInt2 = 'M',
  kBinFloat = 'G',
  kBinUnicode = 'X',
  kEmptyList = ']',
  kEmptyTuple = ')',
  kEmptyDict = '}',
  kAppend = 'a',
  kAppends = 'e',
  kTuple = 't',
  kSetItem = 's',
  kSetItems = 'u',
  kGlobal = 'c',
  kReduce = 'R',
  kBuild = 'b',
  kBinPersId = 'Q',
  kBinGet = 'h',
  kLongBinGet = 'j',
  kBinPut = 'q',
  kLongBinPut = 'r',
  kProto = 0x80,
  kNewObj = 0x81,
  kTuple1 = 0x85,
  kTuple2 = 0x86,
  kTuple3 = 0x87,
  kNewTrue = 0x88,
  kNewFalse = 0x89,
  kLong1 = 0x8a,
};

class Reader {
 public:
  Reader(std::span<const std::byte> bytes, std::span<const std::string_view> allowed_globals,
         const std::string& where)
      : bytes_(bytes), allowed_globals_(allowed_globals), where_(where) {}

  Pickle read() {
    expect(take<uint8_t>() == kProto && take<uint8_t>() == 2, "expected protocol 2, found another");
    while (true) {
      const auto opcode = take<uint8_t>();
      if (opcode == kStop) break;
      const bool known = push_scalar(opcode) || push_container(opcode) || fill_container(opcode) ||
                         record_call(opcode) || use_memo(opcode);
      expect(known, "expected an opcode of torch's files, found ", static_cast<int>(opcode));
      expect(stack_.size() <= kMostValues, "expected a stack of at most ", kMostValues,
             " values, found more");
    }
    pickle_.root = pop();
    expect(stack_.empty() && marks_.empty(), "expected one value at the end, found several");
    pickle_.bytes_read = at_;
    return std::move(pickle_);
  }

 private:
  template <class... Args>
  void expect(bool condition, Args&&... message) const {
    check<FormatError>(condition, where_, ": byte ", at_, ": ", std::forward<Args>(message)...);
  }

  std::span<const std::byte> take_bytes(size_t count) {
    expect(count <= bytes_.size() - at_, "expected ", count, " more bytes, found ", bytes_.size() - at_);
    at_ += count;
    return bytes_.subspan(at_ - count, count);
  }

  std::string_view take_text(size_t count) {
    return {reinterpret_cast<const char*>(take_bytes(count).data()), count};
  }

  template <class T>
  T take() {
    T value;
    std::memcpy(&value, take_bytes(sizeof value).data(), sizeof value);
    return value;
  }

  std::string_view take_line() {
    const auto rest = bytes_.subspan(at_);
    const auto end = std::find(rest.begin(), rest.end(), std::byte{'\n'});
    expect(end != rest.end(), "expected a line, found the end");
    const std::string_view line = take_text(static_cast<size_t>(end - rest.begin()));
    take_bytes(1);
    return line;
  }

  PickleValue* push(PickleValue value) {
    expect(pickle_.values.size() < kMostValues, "expected at most ", kMostValues, " values, found more");
    adopt(value, value.items);
    pickle_.values.push_back(std::move(value));
    stack_.push_back(&pickle_.values.back());
    return stack_.back();
  }

  /// Accounts for `items` becoming children of `parent`. They are counted because calls copy their arguments,
  /// and one remembered tuple can be the argument of many calls.
  void adopt(PickleValue& parent, std::span<const PickleValue* const> items) {
    items_ += items.size();
    expect(items_ <= kMostItems, "expected at most ", kMostItems, " items, found more");
    for (const PickleValue* item : items) parent.depth = std::max(parent.depth, item->depth + 1);
    expect(parent.depth <= kDeepest, "expected at most ", kDeepest, " levels of nesting, found more");
  }

  PickleValue* top() const {
    // As in Python, values below the last mark are out of reach.
    expect(stack_.size() > (marks_.empty() ? 0 : marks_.back()), "expected a value on the stack, found none");
    return stack_.back();
  }

  PickleValue* pop() {
    PickleValue* value = top();
    stack_.pop_back();
    return value;
  }

  std::vector<const PickleValue*> pop_many(size_t count) {
    std::vector<const PickleValue*> values(count);
    for (size_t i = count; i-- > 0;) values[i] = pop();
    return values;
  }

  std::vector<const PickleValue*> pop_to_mark() {
    expect(!marks_.empty(), "expected a mark, found none");
    std::vector<const PickleValue*> values = pop_many(stack_.size() - marks_.back());
    marks_.pop_back();
    return values;
  }

  bool push_scalar(uint8_t opcode) {
    switch (opcode) {
      case kNone:
        push({});
        return true;
      case kNewTrue:
        push({.kind = Kind::boolean, .integer = 1});
        return true;
      case kNewFalse:
        push({.kind = Kind::boolean});
        return true;
      case kBinInt:
        push({.kind = Kind::integer, .integer = take<int32_t>()});
        return true;
      case kBinInt1:
        push({.kind = Kind::integer, .integer = take<uint8_t>()});
        return true;
      case kBinInt2:
        push({.kind = Kind::integer, .integer = take<uint16_t>()});
        return true;
      case kLong1:
        push({.kind = Kind::integer, .integer = take_long()});
        return true;
      case kBinFloat:  // the only big-endian one
        push({.kind = Kind::real, .real = std::bit_cast<double>(__builtin_bswap64(take<uint64_t>()))});
        return true;
      case kBinUnicode:
        push({.kind = Kind::string, .text = take_text(take<uint32_t>())});
        return true;
      default:
        return false;
    }
  }

  /// A two's complement integer of a given number of bytes.
  int64_t take_long() {
    const size_t count = take<uint8_t>();
    const auto digits = take_bytes(count);
    expect(count <= 8, "expected integers of at most 8 bytes, found ", count);
    if (count == 0) return 0;
    uint64_t value = 0;
    std::memcpy(&value, digits.data(), count);
    const int unused = static_cast<int>(64 - 8 * count);
    return static_cast<int64_t>(value << unused) >> unused;
  }

  bool push_container(uint8_t opcode) {
    switch (opcode) {
      case kEmptyList:
        push({.kind = Kind::list});
        return true;
      case kEmptyDict:
        push({.kind = Kind::dict});
        return true;
      case kEmptyTuple:
        push({.kind = Kind::tuple});
        return true;
      case kTuple1:
        push({.kind = Kind::tuple, .items = pop_many(1)});
        return true;
      case kTuple2:
        push({.kind = Kind::tuple, .items = pop_many(2)});
        return true;
      case kTuple3:
        push({.kind = Kind::tuple, .items = pop_many(3)});
        return true;
      case kTuple:
        push({.kind = Kind::tuple, .items = pop_to_mark()});
        return true;
      case kMark:
        push_mark();
        return true;
      default:
        return false;
    }
  }

  void push_mark() {
    expect(marks_.size() < kDeepest * 2, "expected at most ", kDeepest * 2, " open marks, found more");
    marks_.push_back(stack_.size());
  }

  bool fill_container(uint8_t opcode) {
    switch (opcode) {
      case kAppend:
        fill(pop_many(1), Kind::list);
        return true;
      case kAppends:
        fill(pop_to_mark(), Kind::list);
        return true;
      case kSetItem:
        fill(pop_many(2), Kind::dict);
        return true;
      case kSetItems:
        fill(pop_to_mark(), Kind::dict);
        return true;
      default:
        return false;
    }
  }

  void fill(const std::vector<const PickleValue*>& items, Kind kind) {
    PickleValue* container = top();
    expect(container->kind == kind, "expected a ", kind == Kind::list ? "list" : "dict",
           " to fill, found another value");
    expect(kind == Kind::list || items.size() % 2 == 0,
           "expected pairs of key and value, found an odd number");
    container->items.insert(container->items.end(), items.begin(), items.end());
    adopt(*container, items);
  }

  bool record_call(uint8_t opcode) {
    switch (opcode) {
      case kGlobal:
        push_global();
        return true;
      case kReduce:
      case kNewObj:
        call();
        return true;
      case kBuild:
        build();
        return true;
      case kBinPersId: {
        const PickleValue* id = pop();
        expect(id->kind == Kind::tuple, "expected a tuple as persistent id, found another value");
        push({.kind = Kind::persistent_id, .items = id->items});
        return true;
      }
      default:
        return false;
    }
  }

  void push_global() {
    const std::string_view module = take_line(), name = take_line();
    for (const std::string_view allowed : allowed_globals_) {
      if (allowed.size() == module.size() + 1 + name.size() && allowed.starts_with(module) &&
          allowed[module.size()] == '.' && allowed.ends_with(name)) {
        push({.kind = Kind::global, .text = allowed});
        return;
      }
    }
    expect(false, "expected only globals that weights need, found ",
           quote(str(module.substr(0, 80), '.', name.substr(0, 80))), " (nothing was executed)");
  }

  void call() {
    const PickleValue* arguments = pop();
    const PickleValue* callee = pop();
    expect(arguments->kind == Kind::tuple, "expected a tuple of arguments, found another value");
    expect(callee->kind == Kind::global, "expected a global to call, found another value");
    if (callee->text == "collections.OrderedDict") {
      push({.kind = Kind::dict, .items = ordered_dict_items(*arguments)});
    } else if (callee->text == "torch.Size" && arguments->items.size() == 1) {
      stack_.push_back(const_cast<PickleValue*>(arguments->items[0]));
    } else {
      push({.kind = Kind::object, .text = callee->text, .items = arguments->items});
    }
  }

  /// OrderedDict() or, from Python 2, OrderedDict([[key, value], …]).
  std::vector<const PickleValue*> ordered_dict_items(const PickleValue& arguments) const {
    std::vector<const PickleValue*> items;
    if (arguments.items.empty()) return items;
    expect(arguments.items.size() == 1 && arguments.items[0]->kind == Kind::list,
           "expected OrderedDict of a list of pairs, found other arguments");
    for (const PickleValue* pair : arguments.items[0]->items) {
      expect((pair->kind == Kind::list || pair->kind == Kind::tuple) && pair->items.size() == 2,
             "expected OrderedDict of pairs, found another item");
      items.insert(items.end(), pair->items.begin(), pair->items.end());
    }
    return items;
  }

  void build() {
    const PickleValue* state = pop();
    PickleValue* object = top();
    expect(object->kind == Kind::object || object->kind == Kind::dict,
           "expected an object to give its state to, found another value");
    adopt(*object, {&state, 1});
    object->state = state;
  }

  bool use_memo(uint8_t opcode) {
    switch (opcode) {
      case kBinPut:
        remember(take<uint8_t>());
        return true;
      case kLongBinPut:
        remember(take<uint32_t>());
        return true;
      case kBinGet:
        recall(take<uint8_t>());
        return true;
      case kLongBinGet:
        recall(take<uint32_t>());
        return true;
      default:
        return false;
    }
  }

  void remember(uint32_t index) {
    // Python counts up from 0, so an honest index is below the number of bytes.
    expect(index < bytes_.size() && index < 2 * kMostValues, "expected a small memo index, found ", index);
    memo_[index] = top();
  }

  void recall(uint32_t index) {
    const auto found = memo_.find(index);
    expect(found != memo_.end(), "expected a remembered value, found memo index ", index);
    stack_.push_back(found->second);
  }

  std::span<const std::byte> bytes_;
  std::span<const std::string_view> allowed_globals_;
  const std::string& where_;
  size_t at_ = 0;
  size_t items_ = 0;
  Pickle pickle_;
  std::vector<PickleValue*> stack_;
  std::vector<size_t> marks_;
  std::unordered_map<uint32_t, PickleValue*> memo_;
};

}  // namespace

const PickleValue* PickleValue::find(std::string_view key) const {
  if (kind == Kind::object) return state && state->kind == Kind::dict ? state->find(key) : nullptr;
  if (kind != Kind::dict) return nullptr;
  for (size_t i = 0; i + 1 < items.size(); i += 2) {
    if (items[i]->kind == Kind::string && items[i]->text == key) return items[i + 1];
  }
  return nullptr;
}

Pickle read_pickle(std::span<const std::byte> bytes, std::span<const std::string_view> allowed_globals,
                   const std::string& where) {
  return Reader(bytes, allowed_globals, where).read();
}

}  // namespace dino
