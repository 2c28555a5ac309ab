#pragma once

#include <deque>
#include <memory>
#include <vector>

#include "check/race.h"
#include "exec/kernel.h"
#include "exec/machine.h"

namespace emulator {

/// A launch whose blocks and warps exist but run nothing: for tests of what watches them. Its program has
/// instructions at "line" 1, 2, ….
struct HandBuilt {
  static constexpr int kInstructions = 4096;
  Kernel kernel;
  ptx::Module module;
  Program& program = kernel.program;
  Launch launch;
  std::deque<ptx::Instruction> instructions;
  std::vector<std::unique_ptr<Block>> blocks;

  HandBuilt(std::uint32_t count, std::uint32_t threads) {
    program.name = "hand_built";
    program.code.resize(kInstructions);
    program.classes.resize(kInstructions, Class::other);
    for (int i = 0; i < kInstructions; ++i) {
      ptx::Instruction& instruction = instructions.emplace_back();
      instruction.line = instruction.source_line = i + 1;
      program.source.push_back(&instruction);
    }
    kernel.info.name = kernel.info.demangled = program.name;
    kernel.module = &module;
    launch.kernel = &kernel;
    launch.program = &program;
    launch.config.grid[0] = count;
    launch.config.block[0] = threads;
    for (std::uint32_t i = 0; i < count; ++i) {
      auto block = std::make_unique<Block>();
      block->index[0] = i;
      block->linear = i;
      block->threads = threads;
      block->launch = &launch;
      block->shared.resize(48 << 10);
      for (std::uint32_t first = 0; first < threads; first += kLanes)
        block->warps.push_back(make_warp(*block, first, threads));
      blocks.push_back(std::move(block));
    }
  }

 private:
  std::unique_ptr<Warp> make_warp(Block& block, std::uint32_t first, std::uint32_t threads) {
    auto warp = std::make_unique<Warp>();
    warp->index = first / kLanes;
    warp->block = &block;
    warp->launch = &launch;
    warp->code = program.code.data();
    warp->pc = 1;
    warp->live = warp->mask = threads - first >= kLanes ? ~0u : (1u << (threads - first)) - 1;
    auto frame = std::make_unique<Frame>();
    frame->program = &program;
    frame->lanes = warp->live;
    warp->frame = frame.get();
    warp->frames.push_back(std::move(frame));
    return warp;
  }
};

}  // namespace emulator
