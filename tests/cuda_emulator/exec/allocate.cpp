#include "exec/allocate.h"

#include <algorithm>
#include <map>
#include <queue>
#include <string_view>
#include <unordered_set>

namespace emulator {
namespace {

using ptx::Function;
using ptx::Instruction;
using ptx::Operand;

// Opcodes whose first operand is written and not read. Any other opcode's first operand counts as read too,
// which can only lengthen a life.
const std::unordered_set<std::string_view>& writing_opcodes() {
  static const std::unordered_set<std::string_view> names = {
      "abs",  "activemask", "add",   "addc",     "and",  "atom",     "bfe",  "bfi",      "bfind",
      "brev", "clz",        "cnot",  "copysign", "cos",  "cvt",      "cvta", "div",      "dp2a",
      "dp4a", "elect",      "ex2",   "fma",      "fns",  "isspacep", "ld",   "ldmatrix", "ldu",
      "lg2",  "lop3",       "mad",   "mad24",    "madc", "match",    "max",  "min",      "mma",
      "mov",  "movmatrix",  "mul",   "mul24",    "neg",  "not",      "or",   "popc",     "prmt",
      "rcp",  "redux",      "rem",   "rsqrt",    "sad",  "selp",     "set",  "setp",     "shf",
      "shfl", "shl",        "shr",   "sin",      "slct", "sqrt",     "sub",  "subc",     "szext",
      "bmsk", "tanh",       "testp", "vote",     "wmma", "xor"};
  return names;
}

void collect(const Operand& operand, std::vector<int>& out) {
  if ((operand.kind == Operand::Kind::reg || operand.kind == Operand::Kind::address) && operand.index >= 0)
    out.push_back(operand.index);
  for (const Operand& element : operand.elements) collect(element, out);
}

struct Effects {
  std::vector<int> reads, writes;
};

Effects effects_of(const Instruction& instruction) {
  Effects effects;
  const bool stores =
      instruction.opcode == "wmma" && !instruction.modifiers.empty() && instruction.modifiers[0] == "store";
  const bool writes_first = writing_opcodes().count(instruction.opcode) != 0 && !stores;
  for (std::size_t i = 0; i < instruction.operands.size(); ++i) {
    const bool destination = i == 0 && writes_first && instruction.operands[0].kind != Operand::Kind::address;
    if (i == 0 && destination) {
      collect(instruction.operands[0], effects.writes);
      // A guarded write leaves the other lanes as they were.
      if (instruction.guard >= 0) effects.reads = effects.writes;
    } else {
      collect(instruction.operands[i], effects.reads);
      if (i == 0) collect(instruction.operands[i], effects.writes);
    }
  }
  if (instruction.guard >= 0) effects.reads.push_back(instruction.guard);
  return effects;
}

bool ends_block(const Instruction& instruction) {
  return instruction.opcode == "bra" || instruction.opcode == "brx" || instruction.opcode == "ret" ||
         instruction.opcode == "exit" || instruction.opcode == "trap";
}

struct BasicBlock {
  int begin = 0, end = 0;
  std::vector<int> successors;
  std::vector<std::uint64_t> use, def, in, out;
};

std::vector<int> branch_targets(const Function& function, const Instruction& instruction) {
  std::vector<int> targets;
  for (const Operand& operand : instruction.operands) {
    if (operand.kind == Operand::Kind::label) targets.push_back(operand.index);
    if (operand.kind == Operand::Kind::table)
      if (const auto found = function.tables.find(operand.name); found != function.tables.end())
        targets.insert(targets.end(), found->second.labels.begin(), found->second.labels.end());
  }
  return targets;
}

std::vector<BasicBlock> split_blocks(const Function& function, std::size_t words) {
  const int count = static_cast<int>(function.instructions.size());
  std::vector<char> leader(static_cast<std::size_t>(count) + 1, 0);
  leader[0] = 1;
  for (int i = 0; i < count; ++i) {
    const Instruction& instruction = function.instructions[static_cast<std::size_t>(i)];
    if (ends_block(instruction)) leader[static_cast<std::size_t>(i) + 1] = 1;
    for (const int target : branch_targets(function, instruction))
      leader[static_cast<std::size_t>(target)] = 1;
  }
  std::vector<BasicBlock> blocks;
  std::vector<int> block_of(static_cast<std::size_t>(count) + 1, -1);
  for (int i = 0; i < count; ++i) {
    if (leader[static_cast<std::size_t>(i)] != 0) {
      blocks.emplace_back();
      blocks.back().begin = i;
    }
    block_of[static_cast<std::size_t>(i)] = static_cast<int>(blocks.size()) - 1;
    blocks.back().end = i + 1;
  }
  for (BasicBlock& block : blocks) {
    block.use.assign(words, 0);
    block.def.assign(words, 0);
    block.in.assign(words, 0);
    block.out.assign(words, 0);
    const Instruction& last = function.instructions[static_cast<std::size_t>(block.end) - 1];
    for (const int target : branch_targets(function, last))
      if (target < count) block.successors.push_back(block_of[static_cast<std::size_t>(target)]);
    if ((!ends_block(last) || last.guard >= 0) && block.end < count)
      block.successors.push_back(block_of[static_cast<std::size_t>(block.end)]);
  }
  return blocks;
}

void flow_backwards(std::vector<BasicBlock>& blocks) {
  for (bool changed = true; changed;) {
    changed = false;
    for (auto block = blocks.rbegin(); block != blocks.rend(); ++block)
      for (std::size_t w = 0; w < block->in.size(); ++w) {
        std::uint64_t out = 0;
        for (const int successor : block->successors)
          out |= blocks[static_cast<std::size_t>(successor)].in[w];
        const std::uint64_t in = block->use[w] | (out & ~block->def[w]);
        changed = changed || in != block->in[w];
        block->out[w] = out;
        block->in[w] = in;
      }
  }
}

struct Interval {
  int first = -1, last = -1;
  void add(int position) {
    if (first < 0 || position < first) first = position;
    last = std::max(last, position);
  }
};

template <class F>
void each_bit(const std::vector<std::uint64_t>& bits, F&& f) {
  for (std::size_t w = 0; w < bits.size(); ++w)
    for (std::uint64_t rest = bits[w]; rest != 0; rest &= rest - 1)
      f(w * 64 + static_cast<std::size_t>(__builtin_ctzll(rest)));
}

void scan(const Function& function, const std::vector<Interval>& intervals, RegisterLayout& layout) {
  std::vector<int> order;
  for (std::size_t r = 0; r < intervals.size(); ++r)
    if (intervals[r].first >= 0) order.push_back(static_cast<int>(r));
  std::sort(order.begin(), order.end(), [&](int a, int b) {
    return intervals[static_cast<std::size_t>(a)].first < intervals[static_cast<std::size_t>(b)].first;
  });
  using End = std::pair<int, int>;  // last position, register
  std::priority_queue<End, std::vector<End>, std::greater<>> active;
  std::map<std::uint32_t, std::vector<std::uint32_t>> free_slots;  // by size
  int words = 0;
  for (const int r : order) {
    const Interval& interval = intervals[static_cast<std::size_t>(r)];
    while (!active.empty() && active.top().first < interval.first) {
      const auto ended = static_cast<std::size_t>(active.top().second);
      const std::uint32_t size = register_storage(function.registers[ended].type);
      free_slots[size].push_back(layout.offset[ended]);
      words -= ptx::bytes_of(function.registers[ended].type) / 4;
      active.pop();
    }
    const ptx::Type type = function.registers[static_cast<std::size_t>(r)].type;
    const std::uint32_t size = register_storage(type);
    auto& free = free_slots[size];
    if (free.empty()) {
      layout.offset[static_cast<std::size_t>(r)] = layout.bytes;
      layout.bytes += size;
    } else {
      layout.offset[static_cast<std::size_t>(r)] = free.back();
      free.pop_back();
    }
    active.emplace(interval.last, r);
    words += ptx::bytes_of(type) / 4;
    layout.peak_words = std::max(layout.peak_words, words);
  }
}

}  // namespace

std::uint32_t register_storage(ptx::Type type) {
  // Predicates take a whole cache line too, so that everything else stays aligned to one.
  return type == ptx::Type::pred ? 64u : static_cast<std::uint32_t>(std::max(2, ptx::bytes_of(type))) * 32u;
}

RegisterLayout allocate_registers(const Function& function) {
  RegisterLayout layout;
  const std::size_t registers = function.registers.size(), words = (registers + 63) / 64;
  layout.offset.assign(registers, 0);
  if (function.instructions.empty()) return layout;
  std::vector<BasicBlock> blocks = split_blocks(function, words);
  std::vector<Interval> intervals(registers);
  for (BasicBlock& block : blocks)
    for (int i = block.begin; i < block.end; ++i) {
      const Effects effects = effects_of(function.instructions[static_cast<std::size_t>(i)]);
      const auto bit = [](int r) { return std::uint64_t{1} << (r & 63); };
      for (const int r : effects.reads) {
        const auto w = static_cast<std::size_t>(r) / 64;
        if ((block.def[w] & bit(r)) == 0) block.use[w] |= bit(r);
        intervals[static_cast<std::size_t>(r)].add(i);
      }
      for (const int r : effects.writes) {
        block.def[static_cast<std::size_t>(r) / 64] |= bit(r);
        intervals[static_cast<std::size_t>(r)].add(i);
      }
    }
  flow_backwards(blocks);
  for (const BasicBlock& block : blocks) {
    each_bit(block.in, [&](std::size_t r) { intervals[r].add(block.begin); });
    each_bit(block.out, [&](std::size_t r) { intervals[r].add(block.end - 1); });
  }
  each_bit(blocks.front().in, [&](std::size_t r) { layout.live_at_entry.push_back(static_cast<int>(r)); });
  scan(function, intervals, layout);
  return layout;
}

}  // namespace emulator
