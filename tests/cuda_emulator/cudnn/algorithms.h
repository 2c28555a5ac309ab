#pragma once

#include "cudnn/convolution.h"

namespace emulator::dnn {

/// One of the library's ways to compute a pass. All give the same here; the order is what a heuristic might say, with
/// one that is not deterministic in front, where there is one.
struct Algorithm {
  int id;
  bool deterministic;
};

/// How many algorithms a pass has, present or not.
int algorithm_count(Pass pass);

/// The algorithms that take this problem, best first; none where the library's documentation does not promise any.
std::vector<Algorithm> algorithms_for(const Convolution& convolution);

/// Bytes of workspace that an algorithm needs. Throws Rejected (NOT_SUPPORTED) if it does not take the problem.
std::size_t workspace_of(const Convolution& convolution, int id);

}  // namespace emulator::dnn
