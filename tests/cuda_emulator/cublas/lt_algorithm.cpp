#include "cublas/lt_algorithm.h"

#include <algorithm>
#include <bit>

namespace emulator::blas {
namespace {

constexpr unsigned kMostAlignment = 16;  // no algorithm makes use of more

bool same_types(const AlgoObject& algo, const LtProblem& problem) {
  return algo.compute == problem.matmul.compute && algo.scale_type == problem.matmul.scale_type &&
         algo.types[0] == problem.a.type && algo.types[1] == problem.b.type &&
         algo.types[2] == problem.c.type && algo.types[3] == problem.d.type;
}

/// log2 of what the algorithm will count on: what the caller promises of the pointers, as far as leading
/// dimension and stride keep to it.
std::uint8_t counted_alignment(unsigned promised, const Matrix& matrix) {
  const auto size = static_cast<std::int64_t>(bytes_of(matrix.type));
  const auto pitch =
      static_cast<std::uint64_t>((matrix.ld | (matrix.batch > 1 ? matrix.batch_stride : 0)) * size);
  const int steps = std::countr_zero(pitch | kMostAlignment);
  const int wanted = std::bit_width(std::min(promised, kMostAlignment)) - 1;
  return static_cast<std::uint8_t>(std::min(steps, wanted));
}

AlgoObject algorithm(int id, const LtProblem& problem, const Gemm& gemm, const PreferenceObject& preference) {
  AlgoObject algo;
  algo.id = id;
  algo.tile = CUBLASLT_MATMUL_TILE_128x128;
  algo.stages = CUBLASLT_MATMUL_STAGES_64x3;
  if (id == kSplitK) {
    algo.splits = 4;
    algo.reduction = CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE;
  }
  algo.compute = problem.matmul.compute;
  algo.scale_type = problem.matmul.scale_type;
  const std::uint32_t types[4] = {problem.a.type, problem.b.type, problem.c.type, problem.d.type};
  const unsigned promised[4] = {preference.alignment_a, preference.alignment_b, preference.alignment_c,
                                preference.alignment_d};
  const Matrix* matrices[4] = {&gemm.a, &gemm.b, &gemm.c, &gemm.d};
  for (int i = 0; i < 4; ++i) {
    algo.types[i] = static_cast<std::uint8_t>(types[i]);
    algo.alignment[i] = counted_alignment(promised[i], *matrices[i]);
  }
  return algo;
}

void require_promise(const char* name, unsigned promised, const Matrix& matrix) {
  require_valid(std::has_single_bit(promised), "the preference promises ", promised, "-byte alignment of ",
                name, ", which is no power of two");
  require_supported(promised >= bytes_of(matrix.type), "the preference promises ", promised,
                    "-byte alignment of ", name, ", no algorithm works below the element size ",
                    bytes_of(matrix.type));
}

}  // namespace

std::size_t workspace_of(const AlgoObject& algo, const Gemm& gemm) {
  if (algo.splits <= 1 || algo.reduction == CUBLASLT_REDUCTION_SCHEME_NONE) return 0;
  const std::size_t element = algo.reduction == CUBLASLT_REDUCTION_SCHEME_OUTPUT_TYPE ? bytes_of(gemm.d.type)
                              : gemm.in_f64                                           ? 8
                                                                                      : 4;
  const auto sums = static_cast<std::size_t>(gemm.m() * gemm.n() * gemm.d.batch);
  if (algo.reduction == CUBLASLT_REDUCTION_SCHEME_INPLACE) return 4 * sums / (128 * 128) + 256;  // counters
  return element * sums * static_cast<std::size_t>(algo.splits);
}

void require_fits(const AlgoObject& algo, const LtProblem& problem) {
  require_valid(algo.id >= 0 && algo.id < kAlgorithms, "there is no algorithm ", algo.id);
  require_valid(same_types(algo, problem), "the algorithm was made for compute type ", algo.compute,
                " and types ", static_cast<int>(algo.types[0]), ", ", static_cast<int>(algo.types[1]), ", ",
                static_cast<int>(algo.types[2]), ", ", static_cast<int>(algo.types[3]), ", the call has ",
                problem.matmul.compute, " and ", problem.a.type, ", ", problem.b.type, ", ", problem.c.type,
                ", ", problem.d.type);
  require_valid(algo.splits >= 1, "the algorithm splits k into ", algo.splits, " parts");
  require_supported(algo.id == kSplitK || algo.splits == 1, "algorithm ", algo.id,
                    " cannot split k, it is told to make ", algo.splits, " parts");
  require_valid(algo.splits == 1 || algo.reduction != CUBLASLT_REDUCTION_SCHEME_NONE, "k is split into ",
                algo.splits, " parts but there is no reduction scheme");
  require_valid(algo.reduction == 0 || (std::has_single_bit(algo.reduction) && algo.reduction <= 4),
                "there is no reduction scheme ", algo.reduction);
  require_valid(algo.swizzle <= 1, "CTA swizzling ", algo.swizzle, " is not 0 or 1");
  require_valid(algo.custom == 0, "custom option ", algo.custom, " is more than the maximum 0");
}

std::vector<AlgoObject> choose(const LtProblem& problem, const Gemm& gemm,
                               const PreferenceObject& preference) {
  require_promise("A", preference.alignment_a, gemm.a);
  require_promise("B", preference.alignment_b, gemm.b);
  require_promise("C", preference.alignment_c, gemm.c);
  require_promise("D", preference.alignment_d, gemm.d);
  std::vector<AlgoObject> algorithms;
  algorithms.push_back(algorithm(kSequential, problem, gemm, preference));
  const AlgoObject split = algorithm(kSplitK, problem, gemm, preference);
  const bool allowed = (preference.reductions & split.reduction) != 0 &&
                       workspace_of(split, gemm) <= preference.workspace_bytes;
  const bool long_sum = gemm.k() >= 4 * std::max(gemm.m(), gemm.n());
  if (allowed && gemm.k() >= split.splits)
    algorithms.insert(long_sum ? algorithms.begin() : algorithms.end(), split);
  return algorithms;
}

}  // namespace emulator::blas
