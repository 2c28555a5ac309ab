#pragma once

#include <cstdint>

#include "kernels/error.h"
#include "kernels/sequences.h"
#include "kernels/view.h"

/// How kernels find out which sequence a row of the packed token matrix belongs to.
namespace dino::cuda {

/// The rows of a packed token matrix, in 32-bit arithmetic and without arrays that are indexed at run time:
/// those would put kernel arguments into local memory.
struct TokenRows {
  static constexpr int kGroups = Sequences::kMaxGroups;
  uint32_t first_row[kGroups], first_sequence[kGroups], length[kGroups];

  /// With `cls_only` each row is the CLS token of one sequence.
  explicit TokenRows(const Sequences& sequences, bool cls_only = false) {
    dino::check(sequences.tokens() < int64_t{1} << 31, "cuda: too many tokens; got ", sequences.tokens());
    int64_t row = 0, sequence = 0;
    for (int g = 0; g < kGroups; ++g) {
      const bool present = cls_only ? g == 0 : g < sequences.groups;
      first_row[g] = present ? static_cast<uint32_t>(row) : ~0u;
      first_sequence[g] = static_cast<uint32_t>(sequence);
      length[g] = 1;
      if (!present || cls_only) continue;
      const Sequences::Group& group = sequences.group[static_cast<size_t>(g)];
      length[g] = static_cast<uint32_t>(group.length());
      row += group.count * group.length();
      sequence += group.count;
    }
  }

  struct Place {
    uint32_t sequence;
    uint32_t token;  ///< of the sequence; 0 is CLS
  };
  __device__ Place place(int64_t row_of_matrix) const {
    const uint32_t row = static_cast<uint32_t>(row_of_matrix);
    uint32_t first = first_row[0], sequence = first_sequence[0], tokens = length[0];
#pragma unroll
    for (int g = 1; g < kGroups; ++g)
      if (row >= first_row[g]) {
        first = first_row[g];
        sequence = first_sequence[g];
        tokens = length[g];
      }
    const uint32_t image = (row - first) / tokens;
    return {sequence + image, row - first - image * tokens};
  }

  struct Span {
    int64_t cls_row;
    uint32_t tokens;  ///< with CLS
  };
  __device__ Span span(int64_t sequence_of_batch) const {
    const uint32_t number = static_cast<uint32_t>(sequence_of_batch);
    uint32_t first = first_row[0], sequence = first_sequence[0], tokens = length[0];
#pragma unroll
    for (int g = 1; g < kGroups; ++g)
      if (first_row[g] != ~0u && number >= first_sequence[g]) {
        first = first_row[g];
        sequence = first_sequence[g];
        tokens = length[g];
      }
    return {int64_t{first} + int64_t{number - sequence} * tokens, tokens};
  }
};

/// What the groups of a batch need in one launch for all of them: each has some blocks that follow each
/// other. `Group` has a member `first_block`.
template <class Group>
struct GroupBlocks {
  static constexpr int kGroups = Sequences::kMaxGroups;
  Group group[kGroups] = {};
  unsigned blocks = 0;  ///< of all groups

  /// Adds group number `g`; groups without blocks are never found.
  void add(int g, Group added, int64_t its_blocks) {
    added.first_block = blocks;
    dino::check(blocks + its_blocks < int64_t{1} << 31, "cuda: too many blocks for one launch");
    blocks += static_cast<unsigned>(its_blocks);
    for (int rest = g; rest < kGroups; ++rest) {
      group[rest] = added;
      if (rest > g) group[rest].first_block = ~0u;
    }
  }
  /// The group of a block, without an index that is known only at run time.
  __device__ Group of(unsigned block) const {
    Group found = group[0];
#pragma unroll
    for (int g = 1; g < kGroups; ++g)
      if (block >= group[g].first_block) found = group[g];
    return found;
  }
};

/// The factors of drop path: one per sequence, or 1 for all.
struct RowScale {
  const float* scale;
  TokenRows rows;

  RowScale(const View& scale, const Sequences& sequences, bool cls_only)
      : scale(scale.as<const float>()), rows(scale.defined() ? sequences : Sequences(), cls_only) {}

  __device__ float of(int64_t row) const { return scale ? scale[rows.place(row).sequence] : 1.0f; }
};

}  // namespace dino::cuda
