#pragma once

#include <atomic>
#include <string>

#include "check/race_state.h"
#include "exec/kernel.h"

/// The access side of the race check: is everything that this access conflicts with in the past of its
/// thread?
namespace emulator {

/// Writes of the value that was there already, or that another lane of the instruction writes too.
inline std::atomic<std::uint64_t> same_value{0};

const char* verb(Who who, bool wrote);
std::string thread_text(const Launch* launch, std::uint32_t block, std::uint32_t thread);
/// The sentence of a finding: this access, the other one and its place in the source, and what is missing
/// between them.
std::string race_message(const Access& access, Who who, const std::string& other, const std::string& place,
                         const char* why);

/// Checks one request of a warp, cell by cell, or line by line where all words of a line are in the same
/// situation.
template <class Shadow>
class Checker {
 public:
  using Record = typename Shadow::Record;

  Checker(BlockRaces& state, Warp& warp, const Access& access, Shadow& shadow)
      : state_(state),
        all_(state.all),
        clock_(state.warps[warp.index]),
        warp_(warp),
        access_(access),
        shadow_(shadow),
        store_(shadow.store) {
    me_.time = all_.now;
    me_.set_block(state.number);
    me_.who.site = all_.site(warp) & (Who::kSites - 1);
    me_.who.atomic = access.kind == Access::Kind::atomic;
    me_.who.strong = me_.who.atomic || access.order != Access::Order::weak;
    me_.who.gpu = me_.who.strong && access.system_or_gpu_scope;
  }

  void run() {
    const auto first = static_cast<unsigned>(__builtin_ctz(access_.active));
    const std::uint64_t begin = access_.address[first];
    if (access_.active == ~0u && access_.bytes >= 4 && begin % (kLineWords * 4) == 0) {
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
  using Words = typename LineStore<Record>::Words;

  void be_lane(unsigned lane) {
    lane_ = lane;
    me_.who.thread = (warp_.index * kLanes + lane) & 1023u;
  }

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
      if (lines[lane]->is_by_word(part))
        sum += store_.words(*lines[lane], part)[access_.address[lane] / 4 % kLineWords].time;
    });
    asm volatile("" ::"r"(sum));
  }

  // --- whole lines ---

  /// A request of all lanes, side by side from the begin of a line on; false: cannot be told in lines.
  bool run_lines(std::uint64_t begin);

  static std::uint32_t unlike_words(const std::uint8_t* a, const std::uint8_t* b) {
    std::uint32_t x[kLineWords], y[kLineWords], mask = 0;
    std::memcpy(x, a, sizeof x);
    std::memcpy(y, b, sizeof y);
    for (std::uint32_t i = 0; i < kLineWords; ++i) mask |= static_cast<std::uint32_t>(x[i] != y[i]) << i;
    return mask;
  }

  enum class Order { yes, no, differs };

  /// Is a part that the words of a line share in the past of me_, whose words have the threads that `shift`
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

  /// Every word's part is in the past of me_.
  bool line_ordered(const Line<Record>& line, unsigned part, unsigned shift);

  bool read_line(Line<Record>& line, unsigned shift);

  /// `changed`: the words whose contents become others.
  bool write_line(Line<Record>& line, unsigned shift, std::uint32_t changed);

  // --- single words and bytes ---

  /// The cells of [address, address + bytes), for the current lane.
  void visit(std::uint64_t address, std::uint32_t bytes) {
    if (((address | bytes) & 3) == 0 && address % (kLineWords * 4) + bytes <= kLineWords * 4) {
      Line<Record>& line = shadow_.line(address);
      const auto word = static_cast<std::uint32_t>(address / 4 % kLineWords);
      if (bytes == 16 && visit_quickly<4>(line, word, 0)) return;
      for (std::uint32_t i = 0; i < bytes / 4; ++i) visit_word(line, word + i, address + i * 4, i * 4);
      return;
    }
    for (std::uint32_t offset = 0; offset < bytes;) {
      const std::uint64_t at = address + offset;
      Line<Record>& line = shadow_.line(at);
      const auto word = static_cast<std::uint32_t>(at / 4 % kLineWords);
      const auto first = static_cast<std::uint32_t>(at % 4);
      const std::uint32_t width = std::min(bytes - offset, 4 - first);
      if (width == 4)
        visit_word(line, word, at, offset);
      else
        visit_bytes(line, word, first, width, at, offset);
      offset += width;
    }
  }

  [[gnu::always_inline]] void visit_word(Line<Record>& line, std::uint32_t word, std::uint64_t address,
                                         std::uint32_t offset) {
    if (visit_quickly<1>(line, word, offset)) return;
    if (store_.is_split(line, word))
      visit_bytes(line, word, 0, 4, address, offset);
    else
      visit_word_slowly(line, word, address, offset);
  }

  /// False: nothing has been done.
  template <unsigned Count>
  [[gnu::always_inline]] bool visit_quickly(Line<Record>& line, std::uint32_t word, std::uint32_t offset) {
    if ((line.by_word & Line<Record>::kSplit) != 0) [[unlikely]] {
      for (unsigned i = 0; i < Count; ++i)
        if (store_.is_split(line, word + i)) return false;
    }
    return access_.kind == Access::Kind::read ? read_quickly<Count>(line, word)
                                              : write_quickly<Count>(line, word, offset);
  }

  [[gnu::noinline]] void visit_word_slowly(Line<Record>& line, std::uint32_t word, std::uint64_t address,
                                           std::uint32_t offset) {
    Cell<Record> before = store_.load(line, word), after = before;
    if (access_.kind == Access::Kind::read)
      read(after, address);
    else
      write(after, address, offset, 4);
    store_.store(line, word, before, after);
  }

  /// A split word all of whose bytes hold nothing but this access becomes one word again.
  [[gnu::noinline]] void visit_bytes(Line<Record>& line, std::uint32_t word, std::uint32_t first,
                                     std::uint32_t width, std::uint64_t address, std::uint32_t offset) {
    Cell<Record>* cells = store_.split(line, word);
    bool joins = width == 4;
    for (std::uint32_t i = 0; i < width; ++i) {
      if (access_.kind == Access::Kind::read) {
        read(cells[first + i], address + i);
        joins = false;
      } else {
        joins &= write(cells[first + i], address + i, offset + i, 1);
      }
    }
    if (joins) store_.join(line, word, cells[0]);
  }

  /// What of ordered() is quickly told.
  bool easily_ordered(const Record& record) const {
    if (surely_ordered(record)) return true;
    if (!of_this_block(record)) return false;
    if (record.who.thread / kLanes != warp_.index)
      return record.time <= clock_.known[record.who.thread / kLanes];
    return record.time <= clock_.full ||
           (record.who.thread == me_.who.thread && !record.who.several && !me_.who.several);
  }
  /// All of `Count` words from `word` on.
  template <unsigned Count>
  [[gnu::always_inline]] bool easily_ordered(const Line<Record>& line, unsigned part, std::uint32_t word) {
    bool surely = true, easily = true;
    if (line.is_by_word(part)) {
      const Record* records = &store_.words(line, part)[word];
      for (unsigned i = 0; i < Count; ++i) surely &= surely_ordered(records[i]);
      if (surely) return true;
      for (unsigned i = 0; i < Count; ++i) easily = easily && easily_ordered(records[i]);
      return easily;
    }
    if (part == kOtherWrite || surely_ordered(line.whole[part])) return true;
    for (unsigned i = 0; i < Count; ++i) easily = easily && easily_ordered(store_.get(line, part, word + i));
    return easily;
  }

  template <unsigned Count>
  bool read_quickly(Line<Record>& line, std::uint32_t word) {
    if (!easily_ordered<Count>(line, kWrite, word) || !easily_ordered<Count>(line, kOtherWrite, word))
      return false;
    Record* reads = &store_.spread(line, kRead)[word];
    for (unsigned i = 0; i < Count; ++i) {
      if (surely_ordered(reads[i])) {
        reads[i] = me_;
      } else if (store_.is_none(line, kOtherRead)) {
        Record other;
        note(reads[i], other);
        if (other.time != 0) store_.spread(line, kOtherRead)[word + i] = other;
      } else {
        note(reads[i], store_.spread(line, kOtherRead)[word + i]);
      }
    }
    return true;
  }

  template <unsigned Count>
  bool write_quickly(Line<Record>& line, std::uint32_t word, std::uint32_t offset) {
    if (me_.who.strong) return false;
    for (unsigned part = 0; part < kCellParts; ++part)
      if (!easily_ordered<Count>(line, part, word)) return false;
    Record* writes = &store_.spread(line, kWrite)[word];
    std::uint32_t changed = 0;
    for (unsigned i = 0; i < Count; ++i) {
      writes[i] = me_;
      const bool same = !changes(offset + i * 4, 4);
      writes[i].who.same = same;
      changed |= static_cast<std::uint32_t>(!same) << i;
    }
    for (const unsigned part : {kRead, kOtherRead, kOtherWrite}) {
      if (store_.is_none(line, part)) continue;
      Record* records = &store_.spread(line, part)[word];
      for (unsigned i = 0; i < Count; ++i)
        if ((changed >> i & 1u) != 0) records[i] = {};
    }
    return true;
  }

  // --- cells ---

  bool of_this_block(const Record& record) const { return record.block_or(state_.number) == state_.number; }

  /// Everything that comes here often: ordered by a barrier of the whole block, or never happened.
  bool surely_ordered(const Record& record) const {
    return record.time <= state_.full && (record.time == 0 || of_this_block(record));
  }

  bool ordered(const Record& record) const {
    if (surely_ordered(record)) return true;
    const std::uint32_t block = record.block_or(state_.number);
    const unsigned thread = record.who.thread;
    if (block == state_.number) {
      const unsigned owner = thread / kLanes;
      if (owner == warp_.index) {
        unsigned lane = lane_;
        if (me_.who.several && thread % kLanes == lane)
          lane = 31u - static_cast<unsigned>(__builtin_clz(access_.active));
        if (clock_.lanes_ordered(lane, thread % kLanes, record.who.several, record.time)) return true;
      } else if (record.time <= clock_.known[owner]) {
        return true;
      }
    }
    if (!clock_.acquired) return false;
    const BlockPast* past = clock_.acquired->of(past_of(block));
    if (past && past->covers(thread, record.time)) return true;
    const BlockPast* strong = record.who.strong ? clock_.acquired->of(strong_past_of(block)) : nullptr;
    return strong && strong->covers(thread, record.time);
  }

  bool both_strong(const Record& record) const {
    return record.who.strong && me_.who.strong && (of_this_block(record) || (record.who.gpu && me_.who.gpu));
  }

  /// No record of the cell is later than the block's last full barrier.
  bool is_old(const Cell<Record>& cell) const {
    const Time write = std::max(cell.write.time, cell.other_write.time),
               read = std::max(cell.read.time, cell.other_read.time);
    return std::max(write, read) <= state_.full && of_this_block(cell.write) &&
           of_this_block(cell.other_write) && of_this_block(cell.read) && of_this_block(cell.other_read);
  }

  [[gnu::always_inline]] void read(Cell<Record>& cell, std::uint64_t address) {
    if (is_old(cell)) [[likely]]
      cell.read = me_;
    else
      read_slowly(cell, address);
  }

  [[gnu::noinline]] void read_slowly(Cell<Record>& cell, std::uint64_t address) {
    for (const Record* record : {&cell.write, &cell.other_write}) {
      if (surely_ordered(*record) || both_strong(*record) || ordered(*record)) continue;
      if (record->who.same)
        same_value.fetch_add(1, std::memory_order_relaxed);
      else
        found(*record, true, address, 0, 0);
    }
    if (surely_ordered(cell.read)) {
      cell.read = me_;
      return;
    }
    note(cell.read, cell.other_read);
  }

  /// Puts this access into `first`; what was there moves to `second` if it still matters and is of another
  /// warp.
  void note(Record& first, Record& second) {
    const bool same_warp = of_this_block(first) && first.who.thread / kLanes == warp_.index;
    const bool same_thread = same_warp && first.who.thread == me_.who.thread && !first.who.several;
    const bool old = same_thread || ordered(first);
    const Record before = first;
    first = me_;
    if (!old && same_warp) first.who.several = 1;
    if (!old && !same_warp)
      second = before;
    else if (second.time != 0 && ordered(second))
      second = {};
  }

  /// Whether the current lane's bytes at `offset` become others.
  bool changes(std::uint32_t offset, std::uint32_t bytes) const {
    if (access_.kind == Access::Kind::atomic || !access_.value || !access_.memory) return true;
    const std::uint8_t *value = access_.value[lane_], *memory = access_.memory[lane_];
    return !value || !memory || std::memcmp(value + offset, memory + offset, bytes) != 0;
  }

  bool write(Cell<Record>& cell, std::uint64_t address, std::uint32_t offset, std::uint32_t bytes) {
    const bool changes = this->changes(offset, bytes);
    const auto check = [&](const Record& record, bool wrote) {
      if (surely_ordered(record) || both_strong(record) || ordered(record)) return;
      if (changes)
        found(record, wrote, address, offset, bytes);
      else
        same_value.fetch_add(1, std::memory_order_relaxed);
    };
    if (!is_old(cell)) {
      check(cell.write, true);
      check(cell.other_write, true);
      check(cell.read, false);
      check(cell.other_read, false);
    }
    if (!changes) {
      if (!ordered(cell.write)) return false;  // what changed memory matters more
      cell.write = me_;
      cell.write.who.same = 1;
      return false;
    }
    if (me_.who.strong && !surely_ordered(cell.write)) {
      note(cell.write, cell.other_write);
    } else {
      cell.write = me_;
      cell.other_write = {};
    }
    cell.read = {};
    cell.other_read = {};
    return true;
  }

  /// Two lanes of one instruction that store the same value to one place do no harm.
  bool same_instruction_same_value(const Record& record, std::uint64_t address, std::uint32_t offset,
                                   std::uint32_t bytes) const {
    const unsigned other = record.who.thread % kLanes;
    if (access_.kind != Access::Kind::write || record.time != me_.time || record.who.site != me_.who.site ||
        other == lane_)
      return false;
    if ((access_.active >> other & 1u) == 0 || !access_.value || !access_.value[other] ||
        !access_.value[lane_])
      return false;
    const std::uint64_t begin = access_.address[other];
    if (address < begin || address + bytes > begin + access_.bytes) return false;
    return std::memcmp(access_.value[other] + (address - begin), access_.value[lane_] + offset, bytes) == 0;
  }

  void found(const Record& record, bool wrote, std::uint64_t address, std::uint32_t offset,
             std::uint32_t bytes) {
    const bool same_block = of_this_block(record),
               same_warp = same_block && record.who.thread / kLanes == warp_.index;
    if (wrote && same_warp && same_instruction_same_value(record, address, offset, bytes)) {
      same_value.fetch_add(1, std::memory_order_relaxed);
      return;
    }
    const std::uint32_t earlier = record.who.site, here = me_.who.site;
    if (!all_.reported.emplace(earlier, here).second) return;
    const bool same_instruction = same_warp && record.time == me_.time && record.who.site == me_.who.site;
    const char* why = same_instruction ? "the lanes of one instruction store different values"
                      : same_warp      ? "no __syncwarp between them"
                      : same_block     ? "no barrier between them"
                                       : "no fence and flag between the blocks";
    const std::string other =
        verb(record.who, wrote) +
        (" of " + thread_text(warp_.launch, record.block_or(state_.number), record.who.thread));
    report(warp_, FindingKind::race, static_cast<int>(lane_), address,
           race_message(access_, me_.who, other, all_.place(record.who.site, warp_.launch), why));
  }

  BlockRaces& state_;
  LaunchRaces& all_;
  const WarpClock& clock_;
  Warp& warp_;
  const Access& access_;
  Shadow& shadow_;
  LineStore<Record>& store_;
  Record me_;
  unsigned lane_ = 0;
};

}  // namespace emulator
