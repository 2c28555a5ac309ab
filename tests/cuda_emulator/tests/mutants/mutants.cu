// Kernels with one seeded mistake each, next to their correct twins.
//   mutants          lists them: name, finding, outcome, kernel, how streams run
//   mutants NAME     runs one; exit status 0: right, 3: wrong result, 4: a CUDA error, whose number is printed
//   mutants good     runs all correct twins
// check.sh runs each in a process of its own and compares.
#include <cstdio>
#include <cstring>

#include "async.cuh"
#include "barriers.cuh"
#include "host.cuh"
#include "memory.cuh"

namespace {

struct Mutant {
  const char* name;
  const char* finding;  // its kind, with _ for blanks; "-": the emulator cannot tell, the result must be wrong
  const char* outcome;  // "right", "wrong", "any", or the number of a CUDA error
  const char* kernel;   // that the finding must name; "-": a mistake of the host
  const char* streams;  // CUDA_EMULATOR_STREAMS
  bool (*bad)();
  bool (*good)();
};

#define MUTANT(name, scenario, finding, outcome, kernel, streams) \
  {#name, finding, outcome, kernel, streams, &scenario<Bug::name>, &scenario<Bug::none>}

const Mutant kMutants[] = {
    MUTANT(row_guard_write, row_fill, "out_of_bounds", "700", "fill_rows", "eager"),
    MUTANT(row_guard_read, row_sums, "out_of_bounds", "700", "sum_rows", "eager"),
    MUTANT(vector_guard, vectors, "out_of_bounds", "700", "double_vectors", "eager"),
    MUTANT(misaligned_vector, quads, "misaligned", "716", "sum_quads", "eager"),
    MUTANT(uninitialized_global, partials, "uninitialized", "wrong", "add_partials", "eager"),
    MUTANT(uninitialized_accumulator, accumulation, "uninitialized", "wrong", "accumulate", "eager"),
    MUTANT(uninitialized_shared, smoothing, "uninitialized", "wrong", "smooth", "eager"),
    MUTANT(uninitialized_local, ring, "uninitialized", "any", "ring_maximum", "eager"),
    MUTANT(local_out_of_bounds, ring, "out_of_bounds", "700", "ring_maximum", "eager"),
    MUTANT(small_dynamic_shared, reversal, "out_of_bounds", "700", "reverse_block", "eager"),
    MUTANT(endless_recursion, tree, "out_of_bounds", "700", "depths", "eager"),
    MUTANT(constant_write, table, "out_of_bounds", "700", "read_table", "eager"),
    MUTANT(plain_add, accumulation, "race", "any", "accumulate", "eager"),

    MUTANT(no_sync_after_load, block_sums, "race", "any", "sum_in_block", "eager"),
    MUTANT(no_sync_in_reduction, block_sums, "race", "any", "sum_in_block", "eager"),
    MUTANT(no_sync_before_reuse, block_sums, "race", "any", "sum_in_block", "eager"),
    MUTANT(shuffle_in_branch, pair_sums, "barrier", "any", "sum_pairs", "eager"),
    MUTANT(wrong_member_mask, pair_sums, "barrier", "any", "sum_pairs", "eager"),
    MUTANT(sync_in_branch, shifting, "barrier", "any", "shift_some", "eager"),
    MUTANT(early_exit_at_barrier, shifting, "barrier", "719", "shift_some", "eager"),
    MUTANT(large_barrier_count, pair_exchange, "barrier", "719", "exchange_pair", "eager"),
    MUTANT(no_threadfence, last_block, "race", "any", "sum_of_blocks", "eager"),
    MUTANT(no_syncwarp, lane_rotation, "race", "any", "rotate_lanes", "eager"),
    MUTANT(double_arrival, mbarrier_phase, "race", "any", "through_mbarrier", "eager"),

    MUTANT(zero_fill_guard, pipeline, "out_of_bounds", "700", "reverse_rows", "eager"),
    MUTANT(no_commit, pipeline, "uninitialized", "wrong", "reverse_rows", "eager"),
    MUTANT(wait_for_too_few, pipeline, "uninitialized", "wrong", "reverse_rows", "eager"),
    MUTANT(no_wait, pipeline, "uninitialized", "wrong", "reverse_rows", "eager"),
    MUTANT(no_sync_after_wait, pipeline, "race", "any", "reverse_rows", "eager"),
    MUTANT(misaligned_async_copy, pipeline, "misaligned", "716", "reverse_rows", "eager"),
    MUTANT(no_sync_before_refill, one_stage, "race", "any", "reverse_through_one_stage", "eager"),
    MUTANT(ldmatrix_without_trans, product, "-", "wrong", "multiply", "eager"),
    MUTANT(ldmatrix_misaligned, product, "misaligned", "716", "multiply", "eager"),

    MUTANT(use_after_free, plain_launch, "out_of_bounds", "700", "add_one", "eager"),
    MUTANT(host_pointer, plain_launch, "out_of_bounds", "700", "add_one", "eager"),
    MUTANT(long_copy, plain_launch, "api", "1", "-", "eager"),
    MUTANT(too_many_threads, plain_launch, "api", "9", "-", "eager"),
    MUTANT(no_shared_attribute, large_shared, "api", "1", "-", "eager"),
    MUTANT(no_stream_sync, two_streams, "-", "wrong", "-", "late"),
    MUTANT(no_event, two_streams, "-", "wrong", "-", "late"),
    MUTANT(pinned_reuse, refill, "-", "wrong", "-", "late"),
    MUTANT(failed_assert, assertion, "assertion", "710", "checked_copy", "eager"),
};

int run(const char* name, bool (*scenario)()) {
  try {
    if (scenario()) return 0;
    std::printf("%s: wrong result\n", name);
    return 3;
  } catch (const CudaError& error) {
    std::printf("%s: error %d %s\n", name, static_cast<int>(error.code), cudaGetErrorName(error.code));
    return 4;
  }
}

}  // namespace

int main(int count, char** words) {
  const bool good = count == 2 && std::strcmp(words[1], "good") == 0;
  int status = count == 1 || good ? 0 : 2;
  for (const Mutant& mutant : kMutants) {
    if (count == 1) std::printf("%s %s %s %s %s\n", mutant.name, mutant.finding, mutant.outcome, mutant.kernel, mutant.streams);
    if (good && run(mutant.name, mutant.good) != 0) status = 1;
    if (!good && count == 2 && std::strcmp(words[1], mutant.name) == 0) return run(mutant.name, mutant.bad);
  }
  return status;
}
