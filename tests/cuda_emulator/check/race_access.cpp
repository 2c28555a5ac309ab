#include <atomic>

#include "check/race_state.h"
#include "exec/kernel.h"

/// The access side of the race check: is everything that this access conflicts with in the past of its thread?
namespace emulator {
namespace {

std::atomic<std::uint64_t> same_value{0};

const char* verb(Who who, bool wrote) { return who.atomic ? "atomic operation" : wrote ? "write" : "read"; }

std::string thread_text(const Launch* launch, std::uint32_t block, std::uint32_t thread) {
  const std::uint32_t one[3] = {1, 1, 1};
  const auto& threads = launch ? launch->config.block : one;
  const auto& grid = launch ? launch->config.grid : one;
  const auto triple = [](std::uint32_t linear, const std::uint32_t (&size)[3]) {
    return "(" + std::to_string(linear % size[0]) + "," + std::to_string(linear / size[0] % size[1]) + "," +
           std::to_string(linear / size[0] / size[1]) + ")";
  };
  return "thread " + triple(thread, threads) + " of block " + triple(block, grid);
}

/// Checks one request of a warp, cell by cell.
template <class Record>
class Checker {
 public:
  Checker(BlockRaces& state, Warp& warp, const Access& access)
      : state_(state), all_(state.all), clock_(state.warps[warp.index]), warp_(warp), access_(access) {
    me_.time = all_.now;
    me_.set_block(state.number);
    me_.who.site = all_.site(warp) & (Who::kSites - 1);
    me_.who.atomic = access.kind == Access::Kind::atomic;
    me_.who.strong = me_.who.atomic || access.order != Access::Order::weak;
    me_.who.gpu = me_.who.strong && access.system_or_gpu_scope;
  }

  bool is_strong() const { return me_.who.strong; }

  template <class Shadow>
  void run(Shadow& shadow) {
    Mask lanes = access_.active;
    if (access_.kind == Access::Kind::read) {
      const auto first = static_cast<unsigned>(__builtin_ctz(lanes));
      bool uniform = (lanes & (lanes - 1)) != 0;
      for (unsigned lane = first + 1; uniform && lane < kLanes; ++lane) {
        uniform = (lanes >> lane & 1u) == 0 || access_.address[lane] == access_.address[first];
      }
      me_.who.several = uniform;
      if (uniform) lanes = 1u << first;
    }
    each_lane(lanes, [&](int index) {
      lane_ = static_cast<unsigned>(index);
      me_.who.thread = (warp_.index * kLanes + lane_) & 1023u;
      const std::uint64_t address = access_.address[lane_];
      if (access_.kind == Access::Kind::read) {
        visit_cells(shadow, address, access_.bytes, [&](Cell<Record>& cell, std::uint32_t offset, std::uint32_t) {
          read(cell, address + offset);
          return false;
        });
      } else {
        visit_cells(shadow, address, access_.bytes, [&](Cell<Record>& cell, std::uint32_t offset, std::uint32_t bytes) {
          return write(cell, address + offset, offset, bytes);
        });
      }
    });
  }

 private:
  bool of_this_block(const Record& record) const { return record.block_or(state_.number) == state_.number; }

  /// Everything that comes here often: ordered by a barrier of the whole block, or never happened.
  bool surely_ordered(const Record& record) const { return record.time <= state_.full && (record.time == 0 || of_this_block(record)); }

  bool ordered(const Record& record) const {
    if (surely_ordered(record)) return true;
    const std::uint32_t block = record.block_or(state_.number);
    const unsigned thread = record.who.thread;
    if (block == state_.number) {
      const unsigned owner = thread / kLanes;
      if (owner == warp_.index) {
        unsigned lane = lane_;
        if (me_.who.several && thread % kLanes == lane) lane = 31u - static_cast<unsigned>(__builtin_clz(access_.active));
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
    const Time write = std::max(cell.write.time, cell.other_write.time), read = std::max(cell.read.time, cell.other_read.time);
    return std::max(write, read) <= state_.full && of_this_block(cell.write) && of_this_block(cell.other_write) && of_this_block(cell.read) &&
           of_this_block(cell.other_read);
  }

  [[gnu::always_inline]] void read(Cell<Record>& cell, std::uint64_t address) {
    if (is_old(cell)) [[likely]] cell.read = me_;
    else read_slowly(cell, address);
  }

  [[gnu::noinline]] void read_slowly(Cell<Record>& cell, std::uint64_t address) {
    for (const Record* record : {&cell.write, &cell.other_write}) {
      if (surely_ordered(*record) || both_strong(*record) || ordered(*record)) continue;
      if (record->who.same) same_value.fetch_add(1, std::memory_order_relaxed);
      else found(*record, true, address, 0, 0);
    }
    if (surely_ordered(cell.read)) {
      cell.read = me_;
      return;
    }
    note(cell.read, cell.other_read);
  }

  /// Puts this access into `first`; what was there moves to `second` if it still matters and is of another warp.
  void note(Record& first, Record& second) {
    const bool same_warp = of_this_block(first) && first.who.thread / kLanes == warp_.index;
    const bool same_thread = same_warp && first.who.thread == me_.who.thread && !first.who.several;
    const bool old = same_thread || ordered(first);
    const Record before = first;
    first = me_;
    if (!old && same_warp) first.who.several = 1;
    if (!old && !same_warp) second = before;
    else if (second.time != 0 && ordered(second)) second = {};
  }

  bool write(Cell<Record>& cell, std::uint64_t address, std::uint32_t offset, std::uint32_t bytes) {
    const bool changes = access_.kind == Access::Kind::atomic || !access_.value || !access_.memory || !access_.value[lane_] || !access_.memory[lane_] ||
                         std::memcmp(access_.value[lane_] + offset, access_.memory[lane_] + offset, bytes) != 0;
    const auto check = [&](const Record& record, bool wrote) {
      if (surely_ordered(record) || both_strong(record) || ordered(record)) return;
      if (changes) found(record, wrote, address, offset, bytes);
      else same_value.fetch_add(1, std::memory_order_relaxed);
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
  bool same_instruction_same_value(const Record& record, std::uint64_t address, std::uint32_t offset, std::uint32_t bytes) const {
    const unsigned other = record.who.thread % kLanes;
    if (access_.kind != Access::Kind::write || record.time != me_.time || record.who.site != me_.who.site || other == lane_) return false;
    if ((access_.active >> other & 1u) == 0 || !access_.value || !access_.value[other] || !access_.value[lane_]) return false;
    const std::uint64_t begin = access_.address[other];
    if (address < begin || address + bytes > begin + access_.bytes) return false;
    return std::memcmp(access_.value[other] + (address - begin), access_.value[lane_] + offset, bytes) == 0;
  }

  void found(const Record& record, bool wrote, std::uint64_t address, std::uint32_t offset, std::uint32_t bytes) {
    const bool same_block = of_this_block(record), same_warp = same_block && record.who.thread / kLanes == warp_.index;
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
    const std::string place = all_.place(record.who.site, warp_.launch);
    report(warp_, FindingKind::race, static_cast<int>(lane_), address,
           std::string(verb(me_.who, access_.kind == Access::Kind::write)) + " of " + std::to_string(access_.bytes) + " bytes of " +
               (access_.where == Access::Where::shared ? "shared" : "global") + " memory races with the " + verb(record.who, wrote) + " of " +
               thread_text(warp_.launch, record.block_or(state_.number), record.who.thread) + (place.empty() ? "" : " at " + place) + " (" + why + ")");
  }

  BlockRaces& state_;
  LaunchRaces& all_;
  const WarpClock& clock_;
  Warp& warp_;
  const Access& access_;
  Record me_;
  unsigned lane_ = 0;
};

}  // namespace

std::uint64_t same_value_races() { return same_value.load(std::memory_order_relaxed); }

bool WarpClock::lanes_ordered(unsigned lane, unsigned other, bool several, Time time) const {
  if (time <= full || (lane == other && !several)) return true;
  if (!seen) return false;
  const std::array<Time, kLanes>& row = (*seen)[lane];
  if (!several) return time <= row[other];
  return std::any_of(row.begin(), row.end(), [time](Time known) { return time <= known; });
}

std::uint32_t LaunchRaces::site(const Warp& warp) {
  if (!warp.frame || !warp.frame->program) return 0;
  const Program* program = warp.frame->program;
  if (program != last_program) {
    const auto [known, is_new] = first_site.try_emplace(program, static_cast<std::uint32_t>(sites.size()));
    if (is_new) {
      for (std::uint32_t i = 0; i < program->code.size(); ++i) sites.emplace_back(program, i);
    }
    last_program = program;
    last_first = known->second;
  }
  const std::uint32_t number = last_first + warp.pc - 1;
  return number < Who::kSites ? number : 0;
}

std::string LaunchRaces::place(std::uint32_t site, const Launch* launch) const {
  const auto& [program, index] = sites[site];
  if (!program || index >= program->source.size() || !program->source[index]) return "";
  const ptx::Instruction& instruction = *program->source[index];
  if (instruction.source_line == 0) return "PTX line " + std::to_string(instruction.line);
  const ptx::Module* module = launch && launch->kernel ? launch->kernel->module : nullptr;
  const auto file = static_cast<std::size_t>(instruction.file);
  const std::string path = module && file < module->files.size() ? module->files[file] : "";
  return path.substr(path.rfind('/') + 1) + (path.empty() ? "line " : ":") + std::to_string(instruction.source_line);
}

void RaceCheck::access(Warp& warp, const Access& access) {
  const bool is_shared = access.where == Access::Where::shared;
  if ((!is_shared && access.where != Access::Where::global) || access.active == 0) return;
  BlockRaces& state = *state_;
  WarpClock& clock = state.warps[warp.index];
  const bool atomic = access.kind == Access::Kind::atomic;
  const bool strong = atomic || access.order != Access::Order::weak;
  if (strong && access.kind != Access::Kind::write && !(state.all.released.empty() && state.released.empty())) {
    each_lane(access.active, [&](int lane) { state.acquire(clock, access.address[lane], is_shared); });
  }
  if (is_shared) {
    Checker<SharedRecord>(state, warp, access).run(*state.shared);
  } else {
    Checker<GlobalRecord>(state, warp, access).run(state.all.memory);
  }
  const bool releases = access.order == Access::Order::release || access.order == Access::Order::acquire_release;
  if (strong && access.kind != Access::Kind::read && (clock.fences || releases)) {
    each_lane(access.active, [&](int lane) { state.release(warp, clock, lane, access, access.address[lane]); });
    if (releases) ++state.all.now;
  }
}

}  // namespace emulator
