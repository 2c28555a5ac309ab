#pragma once

#include <atomic>
#include <cstring>
#include <string>

#include "check/race_state.h"
#include "exec/kernel.h"

/// The rules of the race check for one cell: is everything that an access conflicts with in the past of its
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

/// One request of a warp, seen from one of its lanes at a time.
template <class Record>
class CellRules {
 public:
  CellRules(BlockRaces& state, Warp& warp, const Access& access)
      : state_(state), all_(state.all), clock_(state.warps[warp.index]), warp_(warp), access_(access) {
    me_.time = all_.now;
    me_.set_block(state.number);
    me_.who.site = all_.site(warp) & (Who::kSites - 1);
    me_.who.atomic = access.kind == Access::Kind::atomic;
    me_.who.strong = me_.who.atomic || access.order != Access::Order::weak;
    me_.who.gpu = me_.who.strong && access.system_or_gpu_scope;
  }

 protected:
  void be_lane(unsigned lane) {
    lane_ = lane;
    me_.who.thread = (warp_.index * kLanes + lane) & 1023u;
  }

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

  /// What of ordered() is quickly told.
  bool easily_ordered(const Record& record) const {
    if (surely_ordered(record)) return true;
    if (!of_this_block(record)) return false;
    if (record.who.thread / kLanes != warp_.index)
      return record.time <= clock_.known[record.who.thread / kLanes];
    return record.time <= clock_.full ||
           (record.who.thread == me_.who.thread && !record.who.several && !me_.who.several);
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
  Record me_;
  unsigned lane_ = 0;
};

}  // namespace emulator
