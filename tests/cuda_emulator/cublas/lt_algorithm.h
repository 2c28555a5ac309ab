#pragma once

#include <vector>

#include "cublas/lt_problem.h"

namespace emulator::blas {

/// The two algorithms: one sequential sum over k without workspace, and one that splits k and keeps partial
/// sums in the workspace. The arithmetic is the same; what differs is what a program must provide.
constexpr int kSequential = 0, kSplitK = 1, kAlgorithms = 2;

/// Bytes that the algorithm needs for the problem.
std::size_t workspace_of(const AlgoObject& algo, const Gemm& gemm);

/// Throws Rejected (INVALID_VALUE) unless the algorithm was made for the problem's types and its
/// configuration is possible.
void require_fits(const AlgoObject& algo, const LtProblem& problem);

/// Algorithms for the problem within the preference, best first.
std::vector<AlgoObject> choose(const LtProblem& problem, const Gemm& gemm,
                               const PreferenceObject& preference);

}  // namespace emulator::blas
