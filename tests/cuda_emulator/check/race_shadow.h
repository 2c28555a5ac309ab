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

template <class AnyCell>
auto& part_of(AnyCell& cell, unsigned part) {
  return part == kWrite       ? cell.write
         : part == kRead      ? cell.read
         : part == kOtherRead ? cell.other_read
                              : cell.other_write;
}

inline constexpr std::uint32_t kLineCells = 32, kLineBytes = 128;

/// 32 cells side by side: of words, or of the bytes of 8 words. Each part of the cells is kept either once,
/// for all, or per cell.
template <class Record>
struct alignas(64) Line {
  /// Part p of all cells; cell i's thread is who.thread + (i >> shift[p]), all in one warp. kOtherWrite:
  /// always none.
  std::array<Record, 3> whole;
  std::array<std::uint8_t, 3> shift{};
  std::uint8_t by_cell =
      0;                   // bit p: part p is in records[p] instead; kSplit: some words are split into bytes
  std::uint32_t same = 0;  // bit i: whole[kWrite].who.same of cell i
  std::array<std::uint32_t, kCellParts> records{};  // numbers in LineStore; 0: none yet
  std::uint32_t split = 0;                          // number in LineStore; 0: none yet

  static constexpr std::uint8_t kSplit = 1u << kCellParts;
  bool is_by_cell(unsigned part) const { return (by_cell >> part & 1u) != 0; }
};

/// What lines need once their cells differ.
template <class Record>
class LineStore {
 public:
  using Records = std::array<Record, kLineCells>;

  Records& records(const Line<Record>& line, unsigned part) {
    const std::uint32_t number = line.records[part];
    return (*chunks_[number / kChunk])[number % kChunk];
  }

  /// One part of one cell.
  Record get(const Line<Record>& line, unsigned part, std::uint32_t cell) {
    if (line.is_by_cell(part)) return records(line, part)[cell];
    if (part == kOtherWrite || line.whole[part].time == 0) return {};
    Record record = line.whole[part];
    record.who.thread = (record.who.thread + (cell >> line.shift[part])) & 1023u;
    if (part == kWrite) record.who.same = line.same >> cell & 1u;
    return record;
  }
  /// The part of the line, per cell from now on.
  Records& spread(Line<Record>& line, unsigned part) {
    return line.is_by_cell(part) ? records(line, part) : spread_now(line, part);
  }
  bool is_none(const Line<Record>& line, unsigned part) const {
    return !line.is_by_cell(part) && (part == kOtherWrite || line.whole[part].time == 0);
  }
  /// One part of all cells, the same for all but the thread.
  static void set_whole(Line<Record>& line, unsigned part, const Record& record, unsigned shift) {
    line.whole[part] = record;
    line.shift[part] = static_cast<std::uint8_t>(shift);
    line.by_cell = static_cast<std::uint8_t>(line.by_cell & ~(1u << part));
  }

  Cell<Record> load(const Line<Record>& line, std::uint32_t cell) {
    Cell<Record> loaded;
    for (unsigned part = 0; part < kCellParts; ++part) part_of(loaded, part) = get(line, part, cell);
    return loaded;
  }
  void store(Line<Record>& line, std::uint32_t cell, const Cell<Record>& now) {
    for (unsigned part = 0; part < kCellParts; ++part) {
      const Record before = get(line, part, cell), &to = part_of(now, part);
      if (std::memcmp(&before, &to, sizeof(Record)) != 0) spread(line, part)[cell] = to;
    }
  }

  /// The words of the line whose state is in lines of bytes, as bits.
  std::uint32_t split_words(const Line<Record>& line) const {
    return (line.by_cell & Line<Record>::kSplit) != 0 ? splits_[line.split - 1]->words : 0;
  }
  /// The line of the bytes of words [8 * eighth, 8 * eighth + 8).
  Line<Record>& bytes(const Line<Record>& line, std::uint32_t eighth) {
    return splits_[line.split - 1]->bytes[eighth];
  }
  /// The same, for words of which some are not split yet.
  Line<Record>& split(Line<Record>& line, std::uint32_t eighth, std::uint32_t words) {
    if (line.split == 0) {
      splits_.push_back(std::make_unique<Split>());
      line.split = static_cast<std::uint32_t>(splits_.size());
    }
    Split& split = *splits_[line.split - 1];
    Line<Record>& bytes = split.bytes[eighth];
    if ((words & ~split.words) == 0) return bytes;
    const std::uint32_t all = 0xffu << 8 * eighth;
    if (words == all && (split.words & all) == 0) {
      for (unsigned part = 0; part < kCellParts; ++part) split_part(line, bytes, eighth, part);
    } else {
      for (std::uint32_t rest = words & ~split.words; rest != 0; rest &= rest - 1) {
        const auto word = static_cast<std::uint32_t>(std::countr_zero(rest));
        const Cell<Record> cell = load(line, word);
        for (std::uint32_t i = 0; i < 4; ++i) store(bytes, word % 8 * 4 + i, cell);
      }
    }
    split.words |= words;
    line.by_cell |= Line<Record>::kSplit;
    return bytes;
  }
  /// The word's bytes share one cell again.
  void join(Line<Record>& line, std::uint32_t word, const Cell<Record>& cell) {
    store(line, word, cell);
    Split& split = *splits_[line.split - 1];
    split.words &= ~(1u << word);
    if (split.words == 0) line.by_cell = static_cast<std::uint8_t>(line.by_cell & ~Line<Record>::kSplit);
  }
  /// All cells hold nothing but this write.
  void reset(Line<Record>& line, const Record& write, unsigned shift, std::uint32_t same) {
    if (split_words(line) != 0) splits_[line.split - 1]->words = 0;
    line.by_cell = 0;
    line.whole = {write, Record{}, Record{}};
    line.shift[kWrite] = static_cast<std::uint8_t>(shift);
    line.same = same;
  }

 private:
  static constexpr std::uint32_t kChunk = 64;
  using Chunk = std::array<Records, kChunk>;
  struct Split {
    std::uint32_t words = 0;  // bit i: word i's state is in bytes
    std::array<Line<Record>, kLineBytes / kLineCells> bytes;
  };

  [[gnu::noinline]] Records& spread_now(Line<Record>& line, unsigned part) {
    if (line.records[part] == 0) {
      line.records[part] = ++count_;
      if (count_ / kChunk >= chunks_.size()) chunks_.emplace_back(new Chunk);
    }
    Records& to = records(line, part);
    if (is_none(line, part)) {
      to.fill({});
    } else {
      for (std::uint32_t cell = 0; cell < kLineCells; ++cell) to[cell] = get(line, part, cell);
    }
    line.by_cell = static_cast<std::uint8_t>(line.by_cell | 1u << part);
    return to;
  }

  void split_part(const Line<Record>& line, Line<Record>& bytes, std::uint32_t eighth, unsigned part) {
    if (line.is_by_cell(part)) {
      Records& to = spread(bytes, part);
      for (std::uint32_t i = 0; i < kLineCells; ++i) to[i] = records(line, part)[eighth * 8 + i / 4];
    } else if (part == kOtherWrite) {
      bytes.by_cell = static_cast<std::uint8_t>(bytes.by_cell & ~(1u << part));
    } else {
      Record record = line.whole[part];
      record.who.thread = (record.who.thread + (eighth * 8 >> line.shift[part])) & 1023u;
      set_whole(bytes, part, record, line.shift[part] + 2u);
      if (part != kWrite) return;
      bytes.same = 0;
      for (std::uint32_t i = 0; i < 8; ++i)
        bytes.same |= (line.same >> (eighth * 8 + i) & 1u) * (0xfu << 4 * i);
    }
  }

  std::vector<std::unique_ptr<Chunk>> chunks_;
  std::uint32_t count_ = 0;  // number 0 stays unused
  std::vector<std::unique_ptr<Split>> splits_;
};

class SharedShadow {
 public:
  using Record = SharedRecord;
  LineStore<Record> store;

  Line<Record>& line(std::uint64_t address) {
    const std::uint64_t index = address / kLineBytes;
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
      if (!found) found = std::make_unique<Line<Record>[]>(kRegion / kLineBytes);
      recent = {index, found.get()};
    }
    return recent.lines[address % kRegion / kLineBytes];
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
