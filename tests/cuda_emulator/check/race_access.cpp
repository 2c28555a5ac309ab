#include <algorithm>

#include "check/race_lines.h"

namespace emulator {

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

std::string race_message(const Access& access, Who who, const std::string& other, const std::string& place,
                         const char* why) {
  return std::string(verb(who, access.kind == Access::Kind::write)) + " of " + std::to_string(access.bytes) +
         " bytes of " + (access.where == Access::Where::shared ? "shared" : "global") +
         " memory races with the " + other + (place.empty() ? "" : " at " + place) + " (" + why + ")";
}

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
  if (strong && access.kind != Access::Kind::read && (clock.fences || clock.pending || releases)) {
    each_lane(access.active,
              [&](int lane) { state.release(warp, clock, lane, access, access.address[lane]); });
    if (releases) ++state.all.now;
  }
}

}  // namespace emulator
