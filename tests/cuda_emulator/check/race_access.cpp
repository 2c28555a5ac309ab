#include <atomic>

#include "check/race_state.h"
#include "exec/kernel.h"

/// The access side of the race check: is everything that this access conflicts with in the past of its
/// thread?
namespace emulator {
namespace {

std::atomic<std::uint64_t> same_value{0};

const char* verb(Who who, bool wrote) { return who.atomic ? "atomic operation" : wrote ? "write" : "read"; }

std::string thread_text(const Launch* launch, std::uint32_t block, std::uint32_t thread) {
  const std::uint32_t one[3] = {1, 1, 1};
  const auto& threads = launch ? launch->config.block : one;
  const auto& grid = launch ? launch->config.grid : one;
  const auto triple = [](std::uint32_t linear, const std::uint32_t(&size)[3]) {
    return "(" + std::to_string(linear % size[0]) + "," + std::to_string(linear / size[0] % size[1]) + "," +
           std::to_string(linear / size[0] / size[1]) + ")";
  };
  return "thread " + triple(thread, threads) + " of block " + triple(block, grid);
}

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

  // --- whole lines ---

  /// A request of all lanes, side by side from the begin of a line on; false: cannot be told in lines.
  bool run_lines(std::uint64_t begin) {
    const unsigned bytes = access_.bytes, shift = bytes == 4 ? 0 : bytes == 8 ? 1 : 2;
    const bool compares = access_.kind == Access::Kind::write && access_.value && access_.memory;
    if (compares) {
      std::uintptr_t apart = 0;
      for (unsigned lane = 0; lane < kLanes; ++lane) {
        apart |= reinterpret_cast<std::uintptr_t>(access_.value[lane]) ^
                 (reinterpret_cast<std::uintptr_t>(access_.value[0]) + lane * bytes);
        apart |= reinterpret_cast<std::uintptr_t>(access_.memory[lane]) ^
                 (reinterpret_cast<std::uintptr_t>(access_.memory[0]) + lane * bytes);
      }
      if (apart != 0) return false;
    }
    for (unsigned i = 0; i < bytes / 4; ++i) {
      const unsigned size = kLineWords * 4, first_lane = i * kLineWords >> shift;
      Line<Record>& line = shadow_.line(begin + i * size);
      me_.who.thread = (warp_.index * kLanes + first_lane) & 1023u;
      bool done;
      if (access_.kind == Access::Kind::read) {
        done = read_line(line, shift);
      } else {
        done = write_line(
            line, shift,
            compares ? unlike_words(access_.value[0] + i * size, access_.memory[0] + i * size) : ~0u);
      }
      if (done) continue;
      for (std::uint32_t word = 0; word < kLineWords; ++word) {
        be_lane(first_lane + (word >> shift));
        visit_word(line, word, begin + i * size + word * 4, (word & ((1u << shift) - 1)) * 4);
      }
    }
    return true;
  }

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
  bool line_ordered(const Line<Record>& line, unsigned part, unsigned shift) {
    if (!line.is_by_word(part)) {
      return part == kOtherWrite || whole_ordered(line.whole[part], line.shift[part], shift) == Order::yes;
    }
    bool ordered = true;
    for (const Record& record : store_.words(line, part)) ordered &= surely_ordered(record);
    return ordered;
  }

  bool read_line(Line<Record>& line, unsigned shift) {
    if ((line.by_word & Line<Record>::kSplit) != 0) return false;
    if (!line_ordered(line, kWrite, shift) || !line_ordered(line, kOtherWrite, shift)) return false;
    if (line.is_by_word(kRead)) {
      if (!line_ordered(line, kRead, shift)) return false;
    } else if (const Record& before = line.whole[kRead]; !surely_ordered(before)) {
      if (line.is_by_word(kOtherRead)) return false;
      const Record& other = line.whole[kOtherRead];
      const Order past = whole_ordered(before, line.shift[kRead], shift);
      const Order other_past =
          other.time == 0 ? Order::no : whole_ordered(other, line.shift[kOtherRead], shift);
      if (past == Order::differs || other_past == Order::differs) return false;
      if (past == Order::no)
        store_.set_whole(line, kOtherRead, before, line.shift[kRead]);
      else if (other_past == Order::yes)
        line.whole[kOtherRead] = {};
    }
    store_.set_whole(line, kRead, me_, shift);
    return true;
  }

  /// `changed`: the words whose contents become others.
  bool write_line(Line<Record>& line, unsigned shift, std::uint32_t changed) {
    if ((line.by_word & Line<Record>::kSplit) != 0) return false;
    for (unsigned part = 0; part < kCellParts; ++part)
      if (!line_ordered(line, part, shift)) return false;
    if (me_.who.strong && (line.is_by_word(kWrite) || !surely_ordered(line.whole[kWrite]))) return false;
    // Reads may be forgotten even where nothing changes: whoever is not ordered with them is not with this
    // write.
    line = {.whole = {me_, Record{}, Record{}},
            .shift = {static_cast<std::uint8_t>(shift), 0, 0},
            .same = ~changed,
            .words = line.words,
            .split = line.split};
    return true;
  }

  // --- single words and bytes ---

  /// The cells of [address, address + bytes), for the current lane.
  void visit(std::uint64_t address, std::uint32_t bytes) {
    for (std::uint32_t offset = 0; offset < bytes;) {
      const std::uint64_t at = address + offset;
      Line<Record>& line = shadow_.line(at);
      const auto word = static_cast<std::uint32_t>(at / 4 % kLineWords);
      const auto first = static_cast<std::uint32_t>(at % 4);
      const std::uint32_t width = std::min(bytes - offset, 4 - first);
      if (width == 4) [[likely]]
        visit_word(line, word, at, offset);
      else
        visit_bytes(line, word, first, width, at, offset);
      offset += width;
    }
  }

  [[gnu::always_inline]] void visit_word(Line<Record>& line, std::uint32_t word, std::uint64_t address,
                                         std::uint32_t offset) {
    if (store_.is_split(line, word)) [[unlikely]]
      return visit_bytes(line, word, 0, 4, address, offset);
    if (access_.kind == Access::Kind::read ? read_quickly(line, word) : write_quickly(line, word, offset))
      return;
    visit_word_slowly(line, word, address, offset);
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

  /// Ordered by a full barrier, or by this very thread.
  bool easily_ordered(const Record& record) const {
    return surely_ordered(record) || (of_this_block(record) && record.who.thread == me_.who.thread &&
                                      !record.who.several && !me_.who.several);
  }

  bool read_quickly(Line<Record>& line, std::uint32_t word) {
    // Threads do not matter to surely_ordered, so the shared record will do.
    if (!(line.is_by_word(kWrite) ? easily_ordered(store_.words(line, kWrite)[word])
                                  : surely_ordered(line.whole[kWrite])))
      return false;
    if (line.is_by_word(kOtherWrite) && !surely_ordered(store_.words(line, kOtherWrite)[word])) return false;
    if (!line.is_by_word(kRead)) {
      if (!surely_ordered(line.whole[kRead])) return false;
      store_.spread(line, kRead)[word] = me_;
      return true;
    }
    Record& read = store_.words(line, kRead)[word];
    if (!surely_ordered(read) && !(easily_ordered(read) && store_.is_none(line, kOtherRead))) return false;
    read = me_;
    return true;
  }

  bool write_quickly(Line<Record>& line, std::uint32_t word, std::uint32_t offset) {
    for (unsigned part = 0; part < kCellParts; ++part) {
      if (line.is_by_word(part) ? !surely_ordered(store_.words(line, part)[word])
                                : part != kOtherWrite && !surely_ordered(line.whole[part]))
        return false;
    }
    Record& write = store_.spread(line, kWrite)[word];
    write = me_;
    if (!changes(offset, 4)) {
      write.who.same = 1;
      return true;
    }
    for (const unsigned part : {kRead, kOtherRead, kOtherWrite})
      if (!store_.is_none(line, part)) store_.spread(line, part)[word] = {};
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
    const std::string place = all_.place(record.who.site, warp_.launch);
    report(warp_, FindingKind::race, static_cast<int>(lane_), address,
           std::string(verb(me_.who, access_.kind == Access::Kind::write)) + " of " +
               std::to_string(access_.bytes) + " bytes of " +
               (access_.where == Access::Where::shared ? "shared" : "global") + " memory races with the " +
               verb(record.who, wrote) + " of " +
               thread_text(warp_.launch, record.block_or(state_.number), record.who.thread) +
               (place.empty() ? "" : " at " + place) + " (" + why + ")");
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
  return path.substr(path.rfind('/') + 1) + (path.empty() ? "line " : ":") +
         std::to_string(instruction.source_line);
}

void RaceCheck::access(Warp& warp, const Access& access) {
  const bool is_shared = access.where == Access::Where::shared;
  if ((!is_shared && access.where != Access::Where::global) || access.active == 0) return;
  BlockRaces& state = *state_;
  WarpClock& clock = state.warps[warp.index];
  const bool atomic = access.kind == Access::Kind::atomic;
  const bool strong = atomic || access.order != Access::Order::weak;
  if (strong && access.kind != Access::Kind::write &&
      !(state.all.released.empty() && state.released.empty())) {
    each_lane(access.active, [&](int lane) { state.acquire(clock, access.address[lane], is_shared); });
  }
  if (is_shared) {
    Checker<SharedShadow>(state, warp, access, *state.shared).run();
  } else {
    Checker<GlobalShadow>(state, warp, access, state.all.memory).run();
  }
  const bool releases =
      access.order == Access::Order::release || access.order == Access::Order::acquire_release;
  if (strong && access.kind != Access::Kind::read && (clock.fences || releases)) {
    each_lane(access.active,
              [&](int lane) { state.release(warp, clock, lane, access, access.address[lane]); });
    if (releases) ++state.all.now;
  }
}

}  // namespace emulator
