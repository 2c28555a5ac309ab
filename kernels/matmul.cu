#include "kernels/matmul.cuh"

#include <cublasLt.h>

#include <algorithm>
#include <array>
#include <limits>
#include <map>

#include "kernels/launch.cuh"

// Row-major D = A B is column-major Dᵀ = Bᵀ Aᵀ, so the library's first operand is our B and its second is our A.
namespace dino::cuda {
inline namespace matmul_cu {

void check(cublasStatus_t status, const char* what) {
  if (status != CUBLAS_STATUS_SUCCESS) throw Error(str("matmul: ", what, ": ", cublasLtGetStatusString(status)));
}

cudaDataType_t type_of(Dtype dtype) {
  dino::check(dtype == Dtype::f32 || dtype == Dtype::bf16, "matmul: matrices must be f32 or bf16; got ",
              name_of(dtype));
  return dtype == Dtype::bf16 ? CUDA_R_16BF : CUDA_R_32F;
}

/// The largest power of two, up to 256, that divides an address: what kernels of the library may count on.
uint32_t alignment_of(const void* address) {
  const auto bits = reinterpret_cast<uintptr_t>(address) | 256;
  return static_cast<uint32_t>(bits & (~bits + 1));
}

/// One call, in our terms.
struct Product {
  int64_t m, n, k;
  float alpha;
  Matrix a, b;
  float beta;
  Target d;
  cublasLtEpilogue_t epilogue;
  const void* vector;  ///< the epilogue's: bias or sums

  /// All that the choice of an algorithm may depend on.
  using Key = std::array<int64_t, 16>;
  Key key() const {
    return {m,
            n,
            k,
            a.row_stride,
            b.row_stride,
            d.row_stride,
            a.transposed,
            b.transposed,
            static_cast<int64_t>(a.dtype),
            static_cast<int64_t>(d.dtype),
            epilogue,
            alignment_of(a.data),
            alignment_of(b.data),
            alignment_of(d.data),
            alignment_of(vector),
            beta != 0};
  }
};

/// A product's descriptors and the algorithm that the library chose for it, if it has any.
struct Plan {
  cublasLtMatmulDescOpaque_t operation;
  cublasLtMatrixLayoutOpaque_t a, b, d;
  cublasLtMatmulAlgo_t algorithm;
  bool found = false;
};

template <class T>
void set(cublasLtMatmulDescOpaque_t& operation, cublasLtMatmulDescAttributes_t attribute, const T& value) {
  check(cublasLtMatmulDescSetAttribute(&operation, attribute, &value, sizeof value), "descriptor");
}

template <class T>
void set(cublasLtMatmulPreferenceOpaque_t& preference, cublasLtMatmulPreferenceAttributes_t attribute, const T& value) {
  check(cublasLtMatmulPreferenceSetAttribute(&preference, attribute, &value, sizeof value), "preference");
}

/// Rows and columns are those of the matrix in memory, row-major.
void set_layout(cublasLtMatrixLayoutOpaque_t& layout, Dtype dtype, int64_t rows, int64_t cols, int64_t row_stride) {
  check(cublasLtMatrixLayoutInit(&layout, type_of(dtype), static_cast<uint64_t>(cols), static_cast<uint64_t>(rows),
                                 row_stride),
        "layout");
}

void describe(const Product& p, Plan& plan) {
  // COMPUTE_32F keeps f32 inputs whole: TF32 has a compute type of its own.
  check(cublasLtMatmulDescInit(&plan.operation, CUBLAS_COMPUTE_32F, CUDA_R_32F), "descriptor");
  set(plan.operation, CUBLASLT_MATMUL_DESC_TRANSA, p.b.transposed ? CUBLAS_OP_T : CUBLAS_OP_N);
  set(plan.operation, CUBLASLT_MATMUL_DESC_TRANSB, p.a.transposed ? CUBLAS_OP_T : CUBLAS_OP_N);
  if (p.epilogue != CUBLASLT_EPILOGUE_DEFAULT) {
    set(plan.operation, CUBLASLT_MATMUL_DESC_EPILOGUE, p.epilogue);
    set(plan.operation, CUBLASLT_MATMUL_DESC_BIAS_POINTER, p.vector);
  }
  set_layout(plan.a, p.a.dtype, p.a.transposed ? p.k : p.m, p.a.transposed ? p.m : p.k, p.a.row_stride);
  set_layout(plan.b, p.b.dtype, p.b.transposed ? p.n : p.k, p.b.transposed ? p.k : p.n, p.b.row_stride);
  set_layout(plan.d, p.d.dtype, p.m, p.n, p.d.row_stride);
}

/// cuBLASLt on one stream. Asking for an algorithm takes longer than a small product, so answers are kept.
class Library {
 public:
  Library() { check(cublasLtCreate(&handle_), "cublasLtCreate"); }
  ~Library() { cublasLtDestroy(handle_); }
  Library(const Library&) = delete;
  Library& operator=(const Library&) = delete;

  /// False if the library has no algorithm for it.
  bool run(CudaStream& stream, const Product& p) {
    constexpr int64_t kMost = std::numeric_limits<int32_t>::max();
    if (std::max({p.m, p.n, p.k}) > kMost) return false;
    const auto [entry, is_new] = plans_.try_emplace(p.key());
    Plan& plan = entry->second;
    if (is_new) choose(p, plan);
    if (!plan.found) return false;
    if (p.epilogue != CUBLASLT_EPILOGUE_DEFAULT) set(plan.operation, CUBLASLT_MATMUL_DESC_BIAS_POINTER, p.vector);
    check(cublasLtMatmul(handle_, &plan.operation, &p.alpha, p.b.data, &plan.b, p.a.data, &plan.a, &p.beta, p.d.data,
                         &plan.d, p.d.data, &plan.d, &plan.algorithm, stream.workspace(), CudaStream::kWorkspaceBytes,
                         stream.handle()),
          "cublasLtMatmul");
    check_launch(stream, "matmul");
    return true;
  }

 private:
  void choose(const Product& p, Plan& plan) {
    describe(p, plan);
    cublasLtMatmulPreferenceOpaque_t preference;
    check(cublasLtMatmulPreferenceInit(&preference), "preference");
    set(preference, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, uint64_t{CudaStream::kWorkspaceBytes});
    // Where k is split, the parts are added in f32 and in a fixed order.
    set(preference, CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK, uint32_t{CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE});
    set(preference, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, alignment_of(p.b.data));
    set(preference, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, alignment_of(p.a.data));
    set(preference, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, alignment_of(p.d.data));
    set(preference, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, alignment_of(p.d.data));
    constexpr int kAsked = 4;
    cublasLtMatmulHeuristicResult_t answers[kAsked];
    int given = 0;
    const cublasStatus_t status = cublasLtMatmulAlgoGetHeuristic(handle_, &plan.operation, &plan.b, &plan.a, &plan.d,
                                                                 &plan.d, &preference, kAsked, answers, &given);
    // "not supported" and "no such kernel" are answers: there is our own.
    for (int i = 0; status == CUBLAS_STATUS_SUCCESS && i < given && !plan.found; ++i) {
      plan.found = answers[i].state == CUBLAS_STATUS_SUCCESS && answers[i].workspaceSize <= CudaStream::kWorkspaceBytes;
      plan.algorithm = answers[i].algo;
    }
  }

  cublasLtHandle_t handle_ = nullptr;
  std::map<Product::Key, Plan> plans_;
};

void check_call(const Matrix& a, const Matrix& b, const Target& d) {
  dino::check(a.dtype == b.dtype, "matmul: A and B must have one dtype; got ", name_of(a.dtype), " and ",
              name_of(b.dtype));
  dino::check(type_of(d.dtype) == CUDA_R_32F || a.dtype == Dtype::bf16,
              "matmul: the product of f32 matrices must be f32; got ", name_of(d.dtype));
}

}  // namespace matmul_cu

void matmul(CudaStream& stream, int64_t m, int64_t n, int64_t k, float alpha, const Matrix& a, const Matrix& b,
            float beta, const Target& d, const void* bias) {
  check_call(a, b, d);
  if (m == 0 || n == 0) return;
  const auto epilogue = bias ? CUBLASLT_EPILOGUE_BIAS : CUBLASLT_EPILOGUE_DEFAULT;
  if (k > 0 && stream.cache<Library>().run(stream, {m, n, k, alpha, a, b, beta, d, epilogue, bias})) return;
  matmul_without_library(stream, m, n, k, alpha, a, b, beta, d, bias);
}

bool matmul_with_sums(CudaStream& stream, int64_t m, int64_t n, int64_t k, float alpha, const Matrix& a,
                      const Matrix& b, float beta, const Target& d, float* a_sums) {
  check_call(a, b, d);
  dino::check(d.dtype == Dtype::f32, "matmul: sums need an f32 product; got ", name_of(d.dtype));
  if (m == 0 || n == 0 || k == 0) return false;
  return stream.cache<Library>().run(stream, {m, n, k, alpha, a, b, beta, d, CUBLASLT_EPILOGUE_BGRADB, a_sums});
}

}  // namespace dino::cuda
