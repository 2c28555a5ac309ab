#pragma once

#include <array>
#include <cstdint>

#include "kernels/device.h"
#include "kernels/error.h"

namespace dino {

/// How the packed token matrix [tokens, dim] divides into sequences: groups of equal images one after the other, the
/// largest resolution usually first. A sequence is one CLS token followed by rows × cols patch tokens in row-major
/// order. It is a small plain value, so that kernels take it as an argument on any device.
struct Sequences {
  static constexpr int kMaxGroups = 4;

  struct Group {
    int64_t count = 0;  ///< images
    int64_t rows = 0;   ///< patches from top to bottom
    int64_t cols = 0;   ///< patches from left to right
    DINO_HOST_DEVICE int64_t patches() const { return rows * cols; }
    DINO_HOST_DEVICE int64_t length() const { return rows * cols + 1; }
    bool operator==(const Group&) const = default;
  };

  std::array<Group, kMaxGroups> group{};
  int groups = 0;

  /// Appends `count` images of rows × cols patches.
  void append(int64_t count, int64_t rows, int64_t cols) {
    check<UsageError>(groups < kMaxGroups, "sequences: at most ", kMaxGroups, " resolutions in one batch");
    group[static_cast<size_t>(groups++)] = {count, rows, cols};
  }

  DINO_HOST_DEVICE int64_t count() const {
    int64_t sum = 0;
    for (int g = 0; g < groups; ++g) sum += group[static_cast<size_t>(g)].count;
    return sum;
  }
  DINO_HOST_DEVICE int64_t tokens() const {
    int64_t sum = 0;
    for (int g = 0; g < groups; ++g) sum += group[static_cast<size_t>(g)].count * group[static_cast<size_t>(g)].length();
    return sum;
  }
  DINO_HOST_DEVICE int64_t patches() const { return tokens() - count(); }
  /// Length of the sequences of one image of every group: the rows of a packed table of positions.
  DINO_HOST_DEVICE int64_t positions() const {
    int64_t sum = 0;
    for (int g = 0; g < groups; ++g) sum += group[static_cast<size_t>(g)].length();
    return sum;
  }

  /// Where a sequence lies.
  struct Place {
    int group;
    int64_t first_token;     ///< row of its CLS token in the packed matrix
    int64_t first_position;  ///< row of its CLS entry in the packed table of positions
    int64_t length;          ///< tokens, with CLS
  };
  DINO_HOST_DEVICE Place place(int64_t sequence) const {
    int64_t token = 0, position = 0;
    int g = 0;
    while (sequence >= group[static_cast<size_t>(g)].count) {
      sequence -= group[static_cast<size_t>(g)].count;
      token += group[static_cast<size_t>(g)].count * group[static_cast<size_t>(g)].length();
      position += group[static_cast<size_t>(g)].length();
      ++g;
    }
    const int64_t length = group[static_cast<size_t>(g)].length();
    return {g, token + sequence * length, position, length};
  }

  /// The sequence that token `token` of the packed matrix belongs to.
  DINO_HOST_DEVICE int64_t sequence_of(int64_t token) const {
    int64_t before = 0;
    int g = 0;
    while (token >= group[static_cast<size_t>(g)].count * group[static_cast<size_t>(g)].length()) {
      token -= group[static_cast<size_t>(g)].count * group[static_cast<size_t>(g)].length();
      before += group[static_cast<size_t>(g)].count;
      ++g;
    }
    return before + token / group[static_cast<size_t>(g)].length();
  }

  bool operator==(const Sequences&) const = default;
};

}  // namespace dino
