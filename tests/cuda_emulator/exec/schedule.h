#pragma once

#include "exec/machine.h"

/// How lanes diverge and meet, how warps of a block take turns.
namespace emulator {

/// Branches that a warp may take before other warps get their turn; spinning lanes hand over when it is used
/// up.
inline constexpr std::uint32_t kWarpBudget = 20'000;
/// What is left of it to a warp that has found out that it waits for others.
inline constexpr std::uint32_t kSpinBudget = 64;

/// Runs a warp until all its lanes have exited, all wait, or its budget is used up.
enum class WarpState { done, waiting, unfinished };
WarpState run_warp(Warp& warp);

/// Makes a warp of a new block ready: registers, special registers, local memory.
void start_warp(Warp& warp, Block& block, std::uint32_t index);

/// Runs a block for one turn of each of its warps. spinning: some warp used up its budget, perhaps waiting
/// for another block. Throws KernelFault for a deadlock.
enum class BlockState { done, progress, spinning };
BlockState run_block(Block& block);

// --- for instructions ---

/// Lanes of the current group go to `pc` of the same frame; they leave the current group.
void split_off(Warp& warp, Mask lanes, std::uint32_t pc, Group::State state = Group::State::running);
/// Leaves the run loop after this instruction to choose a group anew.
inline void stop_after(Warp& warp) { warp.next_stop = 0; }
void branch(Warp& warp, Mask taken, std::uint32_t target);
/// The lanes end.
void exit_lanes(Warp& warp, Mask lanes);
/// A new frame of `program` for the lanes, whose caller is the current one; parameters are still to be
/// copied.
Frame* enter(Warp& warp, const Program* program, Mask lanes);
/// The lanes return; the frame goes when the last one does.
void leave(Warp& warp, Mask lanes);

/// Waits of a group at barrier `id` until `expected` threads (0: all live ones) have come.
void wait_at_barrier(Warp& warp, Mask lanes, std::uint32_t id, std::uint32_t expected);
/// bar.arrive: counts without waiting.
void arrive_at_barrier(Warp& warp, Mask lanes, std::uint32_t id, std::uint32_t expected);
/// Wakes the lanes of a barrier if everybody is there.
void complete_barrier(Block& block, std::uint32_t id);

void make_frame(Warp& warp, Frame& frame, const Program* program);
void use_frame(Warp& warp, Frame* frame);

}  // namespace emulator
