// Running the blocks of a launch on worker threads.
#include "exec/launch.h"

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <deque>
#include <mutex>
#include <numeric>
#include <random>
#include <thread>

#include "check/race.h"
#include "count/counters.h"
#include "exec/kernel.h"
#include "exec/schedule.h"

namespace emulator {
namespace {

// Turns of spinning after which a block is taken for one that waits for others, and a new one is begun beside
// it.
constexpr int kTurnsAlone = 8;
constexpr std::size_t kResidentBlocks = 2048;

struct Job {
  Launch launch;
  std::vector<std::uint32_t> order;  // of blocks; empty: forward
  std::uint64_t blocks = 0;
  std::atomic<std::uint64_t> next{0};
  std::atomic<int> error{0};
  std::unique_ptr<GlobalRaces> races;
};

// One worker's share of a launch. Blocks are kept for the next launch: their memory is warm.
class Worker {
 public:
  void run(Job& job, LaunchCounts* counts) {
    try {
      run_blocks(job, counts);
    } catch (const KernelFault& fault) {
      int none = 0;
      job.error.compare_exchange_strong(none, fault.error);
    }
    while (!active_.empty()) retire();
  }

 private:
  void run_blocks(Job& job, LaunchCounts* counts) {
    while (job.error.load(std::memory_order_relaxed) == 0) {
      const bool want_more = active_.empty() || job.launch.config.cooperative ||
                             (active_.front().turns >= kTurnsAlone && active_.size() < kResidentBlocks);
      if (want_more && begin_block(job, counts)) {
        if (job.launch.config.cooperative) continue;
        std::rotate(active_.begin(), active_.end() - 1, active_.end());
      }
      if (active_.empty()) return;
      Active& current = active_.front();
      const BlockState state = run_block(*current.block);
      if (state == BlockState::spinning) ++current.turns;
      if (state == BlockState::done) {
        retire();
      } else if (state == BlockState::progress && !job.launch.config.cooperative) {
        continue;
      } else if (current.turns % kTurnsAlone == 0 || job.launch.config.cooperative) {
        std::rotate(active_.begin(), active_.begin() + 1, active_.end());
      }
    }
  }

  bool begin_block(Job& job, LaunchCounts* counts) {
    const std::uint64_t position = job.next.fetch_add(1);
    if (position >= job.blocks) return false;
    if (spare_.empty()) spare_.push_back(std::make_unique<Block>());
    std::unique_ptr<Block> block = std::move(spare_.back());
    spare_.pop_back();
    start_block(*block, job, job.order.empty() ? position : job.order[position], counts);
    active_.push_back({std::move(block), 0});
    return true;
  }

  static void start_block(Block& block, Job& job, std::uint64_t linear, LaunchCounts* counts) {
    const LaunchConfig& config = job.launch.config;
    block.launch = &job.launch;
    block.linear = linear;
    block.index[0] = static_cast<std::uint32_t>(linear % config.grid[0]);
    block.index[1] = static_cast<std::uint32_t>(linear / config.grid[0] % config.grid[1]);
    block.index[2] = static_cast<std::uint32_t>(linear / config.grid[0] / config.grid[1]);
    block.threads = config.block[0] * config.block[1] * config.block[2];
    block.barriers = {};
    block.pending_arrivals.clear();
    block.turn = 0;
    block.shared.resize(job.launch.shared_bytes);
    block.shared_shadow.assign(job.launch.shared_bytes / 4 + 4, 0);
    std::memset(block.shared.data(), 0, kReservedShared);
    std::memset(block.shared_shadow.data(), 0x0f, kReservedShared / 4);
    block.race = job.races != nullptr ? std::make_unique<RaceCheck>(block, *job.races) : nullptr;
    const std::uint32_t warps = (block.threads + kLanes - 1) / kLanes;
    while (block.warps.size() > warps) block.warps.pop_back();
    while (block.warps.size() < warps) block.warps.push_back(std::make_unique<Warp>());
    block.live_warps = warps == 32 ? ~0u : (1u << warps) - 1;
    for (std::uint32_t w = 0; w < warps; ++w) {
      start_warp(*block.warps[w], block, w);
      block.warps[w]->counts = counts;
    }
  }

  void retire() {
    active_.front().block->race.reset();
    if (spare_.size() < 4) spare_.push_back(std::move(active_.front().block));
    active_.pop_front();
  }

  struct Active {
    std::unique_ptr<Block> block;
    int turns = 0;
  };
  std::deque<Active> active_;
  std::vector<std::unique_ptr<Block>> spare_;
};

// Threads that help the calling one; they sleep between launches.
class Crew {
 public:
  static Crew& instance() {
    static Crew* crew = new Crew;  // its threads outlive static destructors
    return *crew;
  }

  void run(Job& job, int workers, const std::vector<LaunchCounts*>& counts) {
    while (static_cast<int>(workers_.size()) < workers) {
      workers_.push_back(std::make_unique<Worker>());
      const std::size_t index = workers_.size() - 1;
      if (index > 0) std::thread([this, index] { serve(index); }).detach();
    }
    {
      const std::lock_guard lock(mutex_);
      job_ = &job;
      counts_ = &counts;
      wanted_ = workers;
      running_ = workers - 1;
      ++round_;
    }
    if (workers > 1) start_.notify_all();
    workers_[0]->run(job, counts[0]);
    std::unique_lock lock(mutex_);
    end_.wait(lock, [&] { return running_ == 0; });
  }

 private:
  void serve(std::size_t index) {
    std::uint64_t seen = 0;
    for (;;) {
      std::unique_lock lock(mutex_);
      start_.wait(lock, [&] { return round_ != seen && static_cast<int>(index) < wanted_; });
      seen = round_;
      Job& job = *job_;
      LaunchCounts* counts = (*counts_)[index];
      lock.unlock();
      workers_[index]->run(job, counts);
      lock.lock();
      if (--running_ == 0) end_.notify_all();
    }
  }

  std::mutex mutex_;
  std::condition_variable start_, end_;
  std::deque<std::unique_ptr<Worker>> workers_;  // does not move its elements
  Job* job_ = nullptr;
  const std::vector<LaunchCounts*>* counts_ = nullptr;
  int wanted_ = 0, running_ = 0;
  std::uint64_t round_ = 0;
};

int worker_count(const Job& job) {
  if (options().race_check) return 1;  // its state is not made for threads
  int threads =
      options().threads != 0 ? options().threads : static_cast<int>(std::thread::hardware_concurrency());
  const std::uint64_t block_threads =
      std::uint64_t{job.launch.config.block[0]} * job.launch.config.block[1] * job.launch.config.block[2];
  if (job.blocks * block_threads < 4096) threads = 1;  // waking others costs more than it brings
  return static_cast<int>(
      std::clamp<std::uint64_t>(static_cast<std::uint64_t>(std::max(threads, 1)), 1, job.blocks));
}

void choose_order(Job& job) {
  if (options().order == Options::Order::forward) return;
  job.order.resize(job.blocks);
  std::iota(job.order.begin(), job.order.end(), 0u);
  if (options().order == Options::Order::reverse)
    std::reverse(job.order.begin(), job.order.end());
  else
    std::shuffle(job.order.begin(), job.order.end(), std::mt19937_64(options().seed + job.launch.number));
}

// What cooperative groups keep per grid: a size and the barrier's word, both zero at the start.
std::uint64_t grid_workspace() {
  constexpr std::uint64_t kBytes = 4096;
  static const std::uint64_t address =
      DeviceMemory::instance().allocate(kBytes, MemoryKind::heap, "the grid barrier");
  std::memset(DeviceMemory::instance().host(address, kBytes), 0, kBytes);
  DeviceMemory::instance().mark_initialized(address, kBytes);
  return address;
}

}  // namespace

LaunchResult run_kernel(const Kernel& kernel, const LaunchConfig& config,
                        std::span<const std::uint8_t> params) {
  static std::atomic<std::uint64_t> launches{0};
  Job job;
  job.launch.kernel = &kernel;
  job.launch.program = &kernel.program;
  job.launch.config = config;
  job.launch.params = params;
  job.launch.shared_bytes = (kernel.static_shared_end + config.dynamic_shared + 15) / 16 * 16;
  job.launch.number = ++launches;
  if (config.dynamic_shared == 0)
    job.launch.shared_bytes = (kReservedShared + kernel.info.static_shared + 3) / 4 * 4;
  if (config.cooperative) job.launch.grid_workspace = grid_workspace();
  job.blocks = std::uint64_t{config.grid[0]} * config.grid[1] * config.grid[2];
  if (options().race_check) job.races = std::make_unique<GlobalRaces>();
  choose_order(job);
  const int workers = worker_count(job);
  std::vector<std::unique_ptr<LaunchCounts>> counts;
  std::vector<LaunchCounts*> pointers(static_cast<std::size_t>(workers), nullptr);
  if (!options().counters.empty())
    for (LaunchCounts*& pointer : pointers) {
      counts.push_back(std::make_unique<LaunchCounts>(job.launch));
      pointer = counts.back().get();
    }
  Crew::instance().run(job, workers, pointers);
  if (!counts.empty()) finish_counts(job.launch, counts);
  return {job.error.load()};
}

void report(Warp& warp, FindingKind kind, int lane, std::uint64_t address, const std::string& message,
            int error) {
  Finding finding;
  finding.kind = kind;
  finding.fatal = error != 0;
  finding.kernel = warp.launch->kernel->info.demangled;
  const ptx::Instruction* source = warp.pc > 0 ? warp.frame->program->source[warp.pc - 1] : nullptr;
  if (source != nullptr) {
    const auto& files = warp.launch->kernel->module->files;
    if (source->source_line != 0 && source->file >= 0 &&
        static_cast<std::size_t>(source->file) < files.size())
      finding.file = files[static_cast<std::size_t>(source->file)];
    finding.line = source->source_line;
    finding.ptx_line = source->line;
  }
  const std::uint32_t thread = warp.index * kLanes + static_cast<std::uint32_t>(lane);
  const std::uint32_t* block = warp.launch->config.block;
  finding.thread[0] = thread % block[0];
  finding.thread[1] = thread / block[0] % block[1];
  finding.thread[2] = thread / (block[0] * block[1]);
  std::copy(warp.block->index, warp.block->index + 3, finding.block);
  finding.address = address;
  finding.message =
      message + (source != nullptr && source->source_line == 0 ? " (" + source->text() + ")" : "");
  report(finding);
  if (error != 0) throw KernelFault{error};
}

}  // namespace emulator
