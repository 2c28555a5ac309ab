#include <cublasLt.h>

#include "cublas/context.h"
#include "cublas/lt_algorithm.h"
#include "cublas/lt_epilogue.h"

namespace emulator::blas {
namespace {

constexpr std::size_t kWorkspaceAlignment = 256;

void require_alignment(const Matrix& matrix, unsigned log2_bytes) {
  const std::uintptr_t bytes = std::uintptr_t{1} << log2_bytes;
  require_valid(reinterpret_cast<std::uintptr_t>(matrix.address) % bytes == 0, matrix.name, ": the address ",
                matrix.address, " is not a multiple of the ", bytes,
                " bytes that the algorithm counts on (as promised to the heuristic)");
}

void require_alignments(const AlgoObject& algo, const Gemm& gemm) {
  require_alignment(gemm.a, algo.alignment[0]);
  require_alignment(gemm.b, algo.alignment[1]);
  if (gemm.reads_c()) require_alignment(gemm.c, algo.alignment[2]);
  require_alignment(gemm.d, algo.alignment[3]);
}

void set_workspace(void* workspace, std::size_t bytes, std::size_t needed, Gemm& gemm) {
  require_valid(bytes >= needed, "the algorithm needs ", needed, " bytes of workspace, the call gives ",
                bytes);
  require_valid(workspace != nullptr || needed == 0, "the workspace is null, the algorithm needs ", needed,
                " bytes");
  if (workspace == nullptr || bytes == 0) return;
  require_valid(reinterpret_cast<std::uintptr_t>(workspace) % kWorkspaceAlignment == 0, "the workspace ",
                workspace, " is not a multiple of ", kWorkspaceAlignment, " bytes");
  gemm.workspace = workspace;
  gemm.workspace_bytes = static_cast<std::int64_t>(bytes);
}

/// An in-place result must be described as the matrix that it replaces.
void require_in_place(const Gemm& gemm) {
  if (gemm.c.address != gemm.d.address || !gemm.reads_c()) return;
  require_valid(gemm.c.ld == gemm.d.ld, "C is D, but C's leading dimension is ", gemm.c.ld, " and D's ",
                gemm.d.ld);
  require_valid(gemm.d.batch == 1 || gemm.c.batch_stride == gemm.d.batch_stride,
                "C is D, but C's batch stride is ", gemm.c.batch_stride, " and D's ", gemm.d.batch_stride);
}

}  // namespace
}  // namespace emulator::blas

using namespace emulator::blas;

extern "C" cublasStatus_t cublasLtMatmul(cublasLtHandle_t handle, cublasLtMatmulDesc_t matmul,
                                         const void* alpha, const void* a, cublasLtMatrixLayout_t a_layout,
                                         const void* b, cublasLtMatrixLayout_t b_layout, const void* beta,
                                         const void* c, cublasLtMatrixLayout_t c_layout, void* d,
                                         cublasLtMatrixLayout_t d_layout, const cublasLtMatmulAlgo_t* algo,
                                         void* workspace, size_t workspace_bytes, cudaStream_t stream) {
  return guarded("cublasLtMatmul", [&] {
    require_handle(handle);
    const LtProblem problem = unpack_problem(matmul, a_layout, b_layout, c_layout, d_layout);
    Gemm gemm = gemm_of(problem);
    gemm.call = "cublasLtMatmul";
    const bool on_device = problem.matmul.pointer_mode == CUBLASLT_POINTER_MODE_DEVICE;
    gemm.alpha = scalar_argument("alpha", alpha, type_of(problem.matmul.scale_type), on_device);
    gemm.beta = scalar_argument("beta", beta, type_of(problem.matmul.scale_type), on_device);
    gemm.a.address = const_cast<void*>(a);
    gemm.b.address = const_cast<void*>(b);
    gemm.c.address = const_cast<void*>(c);
    gemm.d.address = d;
    require_epilogue_pointers(gemm, problem.matmul);
    std::size_t needed = 0;
    if (algo != nullptr) {
      const auto object = unpack<AlgoObject>(algo);
      require_fits(object, problem);
      require_alignments(object, gemm);
      needed = workspace_of(object, gemm);
    }
    set_workspace(workspace, workspace_bytes, needed, gemm);
    require_in_place(gemm);
    require_memory(gemm);
    queue(stream, gemm.call, [gemm] { run(gemm); });
  });
}
