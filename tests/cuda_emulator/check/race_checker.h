#pragma once

#include <algorithm>
#include <bit>

#include "check/race_cells.h"

/// The access side of the race check: which cells a request of a warp touches.
namespace emulator {

/// Checks one request of a warp: line by line where all cells of a line are in the same situation, otherwise
/// cell by cell.
template <class Shadow>
class Checker : CellRules<typename Shadow::Record> {
  using Record = typename Shadow::Record;
  using Rules = CellRules<Record>;
  using Rules::access_, Rules::be_lane, Rules::both_strong, Rules::changes, Rules::clock_,
      Rules::easily_ordered, Rules::lane_, Rules::me_, Rules::note, Rules::of_this_block, Rules::read,
      Rules::surely_ordered, Rules::warp_, Rules::write;

 public:
  Checker(BlockRaces& state, Warp& warp, const Access& access, Shadow& shadow)
      : Rules(state, warp, access), shadow_(shadow), store_(shadow.store) {}

  void run() {
    const auto first = static_cast<unsigned>(__builtin_ctz(access_.active));
    const std::uint64_t begin = access_.address[first];
    if (access_.active == ~0u && begin % std::min(kLineCells * access_.bytes, kLineBytes) == 0) {
      std::uint64_t apart = 0;
      for (unsigned lane = 0; lane < kLanes; ++lane)
        apart |= access_.address[lane] ^ (begin + lane * access_.bytes);
      if (apart == 0 && run_lines(begin)) return;
    }
    Mask lanes = access_.active;
    if (access_.kind == Access::Kind::read && (lanes & (lanes - 1)) != 0) {
      std::uint64_t unlike = 0;
      for (unsigned lane = 0; lane < kLanes; ++lane)
        unlike |= (access_.address[lane] ^ begin) & (0 - static_cast<std::uint64_t>(lanes >> lane & 1u));
      me_.who.several = unlike == 0;
      if (unlike == 0) lanes = 1u << first;
    }
    if (access_.where == Access::Where::global && (lanes & (lanes - 1)) != 0) prefetch(lanes);
    each_lane(lanes, [&](int index) {
      be_lane(static_cast<unsigned>(index));
      visit(access_.address[lane_], access_.bytes);
    });
  }

 private:
  /// Lanes all over the memory: their cells are fetched side by side. The second step loads: prefetches of
  /// addresses without a TLB entry bring nothing.
  void prefetch(Mask lanes) {
    Line<Record>* lines[kLanes];
    each_lane(lanes, [&](int lane) {
      lines[lane] = &shadow_.line(access_.address[lane]);
      __builtin_prefetch(lines[lane], 1);
    });
    const unsigned part = access_.kind == Access::Kind::read ? kRead : kWrite;
    Time sum = 0;
    each_lane(lanes, [&](int lane) {
      if (lines[lane]->is_by_cell(part))
        sum += store_.records(*lines[lane], part)[access_.address[lane] / 4 % kLineCells].time;
    });
    asm volatile("" ::"r"(sum));
  }

  // --- whole lines ---

  /// A request of all lanes, side by side from the begin of a line on; false: cannot be told in lines.
  bool run_lines(std::uint64_t begin);
  bool side_by_side(const std::uint8_t* const* pointer) const;
  /// A line of cells of `width` bytes, `offset` bytes into the request.
  void run_line(Line<Record>& line, unsigned width, unsigned shift, unsigned offset, std::uint64_t begin);
  /// The cells of `width` bytes whose contents become others.
  std::uint32_t unlike_cells(unsigned width, unsigned offset) const;
  enum class Order { yes, no, differs };

  /// Is a part that the cells of a line share in the past of me_, whose cells have the threads that `shift`
  /// says?
  Order whole_ordered(const Record& record, unsigned record_shift, unsigned shift) const {
    if (surely_ordered(record)) return Order::yes;
    if (of_this_block(record)) {
      const unsigned owner = record.who.thread / kLanes;
      if (owner != warp_.index) {
        if (record.time <= clock_.known[owner]) return Order::yes;
      } else {
        const bool same_lanes =
            record_shift == shift && record.who.thread == me_.who.thread && !record.who.several;
        return same_lanes || record.time <= clock_.full ? Order::yes : Order::differs;
      }
    }
    return clock_.acquired ? Order::differs : Order::no;
  }

  /// Every cell's part is in the past of me_.
  bool line_ordered(const Line<Record>& line, unsigned part, unsigned shift);
  /// All that the cells remember is in the past of this write.
  bool may_write(const Line<Record>& line, unsigned shift);
  /// The same for all bytes of a line of which all words are split.
  bool may_reset(const Line<Record>& line, unsigned offset, unsigned shift);
  bool read_line(Line<Record>& line, unsigned shift);
  bool write_line(Line<Record>& line, unsigned shift, unsigned width, unsigned offset);

  // --- single words and bytes ---

  /// The cells of [address, address + bytes), for the current lane.
  void visit(std::uint64_t address, std::uint32_t bytes) {
    if (((address | bytes) & 3) == 0 && address % kLineBytes + bytes <= kLineBytes) {
      Line<Record>& line = shadow_.line(address);
      const auto word = static_cast<std::uint32_t>(address % kLineBytes / 4);
      if ((line.by_cell & Line<Record>::kSplit) == 0) [[likely]] {
        if (bytes == 16 && visit_quickly<4, 4>(line, word, 0)) return;
        for (std::uint32_t i = 0; i < bytes / 4; ++i) visit_cell<4>(line, word + i, address + i * 4, i * 4);
        return;
      }
    }
    for (std::uint32_t offset = 0; offset < bytes;) {
      const std::uint64_t at = address + offset;
      Line<Record>& line = shadow_.line(at);
      const auto word = static_cast<std::uint32_t>(at % kLineBytes / 4);
      const auto first = static_cast<std::uint32_t>(at % 4);
      const std::uint32_t width = std::min(bytes - offset, 4 - first);
      if (width == 4 && (store_.split_words(line) >> word & 1u) == 0)
        visit_cell<4>(line, word, at, offset);
      else
        visit_bytes(line, word, first, width, at, offset);
      offset += width;
    }
  }

  /// A split word all of whose bytes hold nothing but this access becomes one word again.
  [[gnu::noinline]] void visit_bytes(Line<Record>& line, std::uint32_t word, std::uint32_t first,
                                     std::uint32_t width, std::uint64_t address, std::uint32_t offset) {
    Line<Record>& bytes = store_.split(line, word / 8, 1u << word);
    const std::uint32_t cell = word % 8 * 4 + first;
    bool joins = width == 4 && access_.kind != Access::Kind::read;
    for (std::uint32_t i = 0; i < width; ++i) {
      visit_cell<1>(bytes, cell + i, address + i, offset + i);
      joins = joins && changes(offset + i, 1);
    }
    if (joins) store_.join(line, word, store_.load(bytes, cell));
  }

  /// A cell of `Bytes` bytes at the address, `offset` bytes into the lane's access.
  template <unsigned Bytes>
  [[gnu::always_inline]] void visit_cell(Line<Record>& line, std::uint32_t cell, std::uint64_t address,
                                         std::uint32_t offset) {
    if (!visit_quickly<Bytes, 1>(line, cell, offset)) visit_slowly(line, cell, address, offset, Bytes);
  }

  [[gnu::noinline]] void visit_slowly(Line<Record>& line, std::uint32_t cell, std::uint64_t address,
                                      std::uint32_t offset, std::uint32_t bytes) {
    Cell<Record> state = store_.load(line, cell);
    if (access_.kind == Access::Kind::read)
      read(state, address);
    else
      write(state, address, offset, bytes);
    store_.store(line, cell, state);
  }

  /// `Count` cells; false: nothing has been done.
  template <unsigned Bytes, unsigned Count>
  [[gnu::always_inline]] bool visit_quickly(Line<Record>& line, std::uint32_t cell, std::uint32_t offset) {
    return access_.kind == Access::Kind::read ? read_quickly<Count>(line, cell)
                                              : write_quickly<Bytes, Count>(line, cell, offset);
  }

  bool harmless(const Record& record) const { return easily_ordered(record) || both_strong(record); }

  template <unsigned Count>
  [[gnu::always_inline]] bool harmless(const Line<Record>& line, unsigned part, std::uint32_t cell) {
    if (line.is_by_cell(part)) {
      const Record* records = &store_.records(line, part)[cell];
      bool surely = true, all = true;
      for (unsigned i = 0; i < Count; ++i) surely &= surely_ordered(records[i]);
      if (surely) return true;
      for (unsigned i = 0; i < Count; ++i) all = all && harmless(records[i]);
      return all;
    }
    if (part == kOtherWrite || surely_ordered(line.whole[part])) return true;
    bool all = true;
    for (unsigned i = 0; i < Count; ++i) all = all && harmless(store_.get(line, part, cell + i));
    return all;
  }

  /// Notes the access in a part of the cell; what matters of the record before goes to another part.
  [[gnu::always_inline]] void note_in(Line<Record>& line, unsigned part, unsigned other_part,
                                      std::uint32_t cell) {
    Record& record = store_.spread(line, part)[cell];
    if (store_.is_none(line, other_part)) {
      Record other;
      note(record, other);
      if (other.time != 0) store_.spread(line, other_part)[cell] = other;
    } else {
      note(record, store_.spread(line, other_part)[cell]);
    }
  }

  template <unsigned Count>
  bool read_quickly(Line<Record>& line, std::uint32_t cell) {
    if (!harmless<Count>(line, kWrite, cell) || !harmless<Count>(line, kOtherWrite, cell)) return false;
    Record* reads = &store_.spread(line, kRead)[cell];
    for (unsigned i = 0; i < Count; ++i) {
      if (surely_ordered(reads[i]))
        reads[i] = me_;
      else
        note_in(line, kRead, kOtherRead, cell + i);
    }
    return true;
  }

  template <unsigned Bytes, unsigned Count>
  bool write_quickly(Line<Record>& line, std::uint32_t cell, std::uint32_t offset) {
    for (unsigned part = 0; part < kCellParts; ++part)
      if (!harmless<Count>(line, part, cell)) return false;
    Record* writes = &store_.spread(line, kWrite)[cell];
    if (me_.who.strong && (Count > 1 || access_.kind != Access::Kind::atomic)) {
      for (unsigned i = 0; i < Count; ++i)
        if (!surely_ordered(writes[i])) return false;
    }
    std::uint32_t changed = 0;
    bool noted = false;
    for (unsigned i = 0; i < Count; ++i) {
      if (Count == 1 && me_.who.strong && !surely_ordered(writes[0])) {
        note_in(line, kWrite, kOtherWrite, cell);
        noted = true;
      } else {
        writes[i] = me_;
      }
      const bool same = !changes(offset + i * Bytes, Bytes);
      writes[i].who.same = same;
      changed |= static_cast<std::uint32_t>(!same) << i;
    }
    for (const unsigned part : {kRead, kOtherRead, kOtherWrite}) {
      if (store_.is_none(line, part) || (noted && part == kOtherWrite)) continue;
      Record* records = &store_.spread(line, part)[cell];
      for (unsigned i = 0; i < Count; ++i)
        if ((changed >> i & 1u) != 0) records[i] = {};
    }
    return true;
  }

  Shadow& shadow_;
  LineStore<Record>& store_;
  bool compares_ = false;  // run_lines: memory's old and new bytes are known
};

}  // namespace emulator
