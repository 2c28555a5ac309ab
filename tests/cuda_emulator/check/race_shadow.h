#pragma once

#include <array>
#include <bit>
#include <cstdint>
#include <cstring>
#include <memory>
#include <unordered_map>
#include <vector>

#include "check/clocks.h"

/// Shadow memory of the race check: per 4-byte word (or per byte, once a word has been accessed in parts) who
/// wrote it last and who has read it since. Words that were accessed side by side by a whole warp share their
/// records.
namespace emulator {

/// One remembered access: when, who, where in the code.
struct Who {
  static constexpr std::uint32_t kSites = 1u << 17;
  std::uint32_t thread : 10 = 0;  // in the block
  std::uint32_t site : 17 = 0;    // interned instruction; 0: unknown
  std::uint32_t same : 1 =
      0;  // a write that left memory as it was: no harm to readers, but later writes may differ
  std::uint32_t several : 1 = 0;  // other lanes of the warp too, not ordered with one another
  std::uint32_t strong : 1 = 0;   // volatile, relaxed or stronger
  std::uint32_t gpu : 1 = 0;      // strong between blocks too
  std::uint32_t atomic : 1 = 0;
};

struct SharedRecord {
  Time time = 0;  // 0: none
  Who who;
  std::uint32_t block_or(std::uint32_t mine) const { return mine; }
  void set_block(std::uint32_t) {}
};

struct GlobalRecord {
  Time time = 0;
  Who who;
  std::uint32_t block = 0;
  std::uint32_t block_or(std::uint32_t) const { return block; }
  void set_block(std::uint32_t number) { block = number; }
};

/// Two of each, of different warps or blocks where possible: whoever comes next meets a stranger in one of
/// them. More unordered readers are forgotten, which can hide a race when only some of them are synchronised
/// with a later writer, but never invents one.
template <class Record>
struct Cell {
  Record write, other_write;  // the second one: of atomics, which do not order one another
  Record read, other_read;
};

/// What a cell remembers, as an index: its records in the order of Cell.
enum CellPart : unsigned { kWrite, kRead, kOtherRead, kOtherWrite };
inline constexpr unsigned kCellParts = 4;

template <class Record>
Record& part_of(Cell<Record>& cell, unsigned part) {
  return part == kWrite       ? cell.write
         : part == kRead      ? cell.read
         : part == kOtherRead ? cell.other_read
                              : cell.other_write;
}

inline constexpr std::uint32_t kLineWords = 32;

/// The words of 128 bytes of memory. Each part of their cells is kept either once, for all words, or per
/// word.
template <class Record>
struct alignas(64) Line {
  /// Part p of all words; word i's thread is who.thread + (i >> shift[p]), all in one warp. kOtherWrite:
  /// always none.
  std::array<Record, 3> whole;
  std::array<std::uint8_t, 3> shift{};
  std::uint8_t by_word = 0;  // bit p: part p is in words[p] instead; kSplit: some words are split into bytes
  std::uint32_t same = 0;    // bit i: whole[kWrite].who.same of word i
  std::array<std::uint32_t, kCellParts> words{};  // numbers in LineStore; 0: none yet
  std::uint32_t split = 0;                        // number in LineStore; 0: none yet

  static constexpr std::uint8_t kSplit = 1u << kCellParts;
  bool is_by_word(unsigned part) const { return (by_word >> part & 1u) != 0; }
};

/// What lines need once their words differ.
template <class Record>
class LineStore {
 public:
  using Words = std::array<Record, kLineWords>;
  struct SplitWords {
    std::uint32_t words = 0;  // bit i: word i's state is in cells[4 * i …]
    std::array<Cell<Record>, kLineWords * 4> cells;
  };

  Words& words(std::uint32_t number) { return (*chunks_[number / kChunk])[number % kChunk]; }
  Words& words(const Line<Record>& line, unsigned part) { return words(line.words[part]); }

  /// One part of one word.
  Record get(const Line<Record>& line, unsigned part, std::uint32_t word) {
    if (line.is_by_word(part)) return words(line, part)[word];
    if (part == kOtherWrite || line.whole[part].time == 0) return {};
    Record record = line.whole[part];
    record.who.thread = (record.who.thread + (word >> line.shift[part])) & 1023u;
    if (part == kWrite) record.who.same = line.same >> word & 1u;
    return record;
  }
  /// The part of the line, per word from now on.
  Words& spread(Line<Record>& line, unsigned part) {
    if (line.is_by_word(part)) return words(line, part);
    if (line.words[part] == 0) line.words[part] = add_words();
    Words& records = words(line, part);
    if (part == kOtherWrite || line.whole[part].time == 0) {
      records.fill({});
    } else {
      for (std::uint32_t word = 0; word < kLineWords; ++word) records[word] = get(line, part, word);
    }
    line.by_word = static_cast<std::uint8_t>(line.by_word | 1u << part);
    return records;
  }
  bool is_none(const Line<Record>& line, unsigned part) const {
    return !line.is_by_word(part) && (part == kOtherWrite || line.whole[part].time == 0);
  }
  /// One part of all words, the same for all but the thread.
  static void set_whole(Line<Record>& line, unsigned part, const Record& record, unsigned shift) {
    line.whole[part] = record;
    line.shift[part] = static_cast<std::uint8_t>(shift);
    line.by_word = static_cast<std::uint8_t>(line.by_word & ~(1u << part));
  }

  Cell<Record> load(const Line<Record>& line, std::uint32_t word) {
    Cell<Record> cell;
    for (unsigned part = 0; part < kCellParts; ++part) part_of(cell, part) = get(line, part, word);
    return cell;
  }
  void store(Line<Record>& line, std::uint32_t word, Cell<Record>& before, Cell<Record>& after) {
    for (unsigned part = 0; part < kCellParts; ++part) {
      const Record &from = part_of(before, part), &to = part_of(after, part);
      if (std::memcmp(&from, &to, sizeof(Record)) != 0) spread(line, part)[word] = to;
    }
  }

  bool is_split(const Line<Record>& line, std::uint32_t word) const {
    return (line.by_word & Line<Record>::kSplit) != 0 && (splits_[line.split - 1]->words >> word & 1u) != 0;
  }
  /// The cells of the word's bytes, instead of the one of the word from now on.
  Cell<Record>* split(Line<Record>& line, std::uint32_t word) {
    if (line.split == 0) {
      splits_.push_back(std::make_unique<SplitWords>());
      line.split = static_cast<std::uint32_t>(splits_.size());
    }
    SplitWords& split = *splits_[line.split - 1];
    Cell<Record>* cells = &split.cells[word * 4];
    if ((split.words >> word & 1u) == 0) {
      for (int i = 0; i < 4; ++i) cells[i] = load(line, word);
      split.words |= 1u << word;
      line.by_word |= Line<Record>::kSplit;
    }
    return cells;
  }
  void join(Line<Record>& line, std::uint32_t word, Cell<Record>& cell) {
    SplitWords& split = *splits_[line.split - 1];
    Cell<Record> before = load(line, word);
    store(line, word, before, cell);
    split.words &= ~(1u << word);
    if (split.words == 0) line.by_word = static_cast<std::uint8_t>(line.by_word & ~Line<Record>::kSplit);
  }

 private:
  static constexpr std::uint32_t kChunk = 64;
  std::uint32_t add_words() {
    const std::uint32_t number = ++count_;
    if (number / kChunk >= chunks_.size()) chunks_.emplace_back(new Chunk);
    return number;
  }

  using Chunk = std::array<Words, kChunk>;
  std::vector<std::unique_ptr<Chunk>> chunks_;
  std::uint32_t count_ = 0;  // number 0 stays unused
  std::vector<std::unique_ptr<SplitWords>> splits_;
};

class SharedShadow {
 public:
  using Record = SharedRecord;
  LineStore<Record> store;

  Line<Record>& line(std::uint64_t address) {
    const std::uint64_t index = address / (kLineWords * 4);
    if (index >= lines_.size()) lines_.resize(index + 1);
    return lines_[index];
  }

 private:
  std::vector<Line<Record>> lines_;
};

class GlobalShadow {
 public:
  using Record = GlobalRecord;
  LineStore<Record> store;

  Line<Record>& line(std::uint64_t address) {
    const std::uint64_t index = address / kRegion;
    Recent& recent = recent_[index % recent_.size()];
    if (index != recent.index) [[unlikely]] {
      auto& found = regions_[index];
      if (!found) found = std::make_unique<Line<Record>[]>(kRegion / (kLineWords * 4));
      recent = {index, found.get()};
    }
    return recent.lines[address % kRegion / (kLineWords * 4)];
  }

 private:
  static constexpr std::uint64_t kRegion = 1u << 16;
  struct Recent {
    std::uint64_t index = ~0ull;
    Line<Record>* lines = nullptr;
  };
  std::array<Recent, 256> recent_;
  std::unordered_map<std::uint64_t, std::unique_ptr<Line<Record>[]>> regions_;
};

}  // namespace emulator
