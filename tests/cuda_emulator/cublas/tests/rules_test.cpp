#include <catch2/catch.hpp>
#include <functional>
#include <utility>

#include "cublas/tests/lt_case.h"

using test::LtCall;
using test::LtCase;

namespace {

/// A call that breaks one rule: what is changed, and what must come of it.
struct Broken {
  const char* words;  // part of the report
  std::function<void(LtCall&)> change;
  cublasStatus_t status = CUBLAS_STATUS_INVALID_VALUE;
  unsigned epilogue = CUBLASLT_EPILOGUE_DEFAULT;
  std::int64_t batch = 1;
};

void* moved(void* address, std::ptrdiff_t bytes) { return static_cast<char*>(address) + bytes; }

template <class Value>
std::function<void(LtCall&)> layout(int which, cublasLtMatrixLayoutAttribute_t attribute, Value value) {
  return [=](LtCall& call) { LtCall::set(call.layouts[which], attribute, value); };
}
template <class Value>
std::function<void(LtCall&)> matmul(cublasLtMatmulDescAttributes_t attribute, Value value) {
  return [=](LtCall& call) { call.set(attribute, value); };
}

/// The call must answer with the status and report the words; nothing may be queued.
void check(const Broken& broken) {
  LtCase c;
  c.epilogue = broken.epilogue;
  c.batch = broken.batch;
  c.beta = 1;
  LtCall call(c);
  mock::take_reports();
  broken.change(call);
  INFO(broken.words);
  REQUIRE(call.call() == broken.status);
  mock::synchronize();
  const std::vector<std::string> reports = mock::take_reports();
  REQUIRE(reports.size() == 1);
  INFO(reports[0]);
  REQUIRE(reports[0].starts_with("cublasLtMatmul: "));
  REQUIRE(test::contains(reports, broken.words));
  REQUIRE_FALSE(mock::written(call.d_array->address(), 4));
}

constexpr cublasStatus_t kLacking = CUBLAS_STATUS_NOT_SUPPORTED;

}  // namespace

TEST_CASE("cublasLtMatmul rejects impossible layouts") {
  const Broken cases[] = {
      {"A: leading dimension 23 is less than rows 24",
       layout(0, CUBLASLT_MATRIX_LAYOUT_LD, std::int64_t{23})},
      {"B: leading dimension 10 is less than columns 17",
       [](LtCall& call) {
         LtCall::set(call.layouts[1], CUBLASLT_MATRIX_LAYOUT_ORDER, std::int32_t{CUBLASLT_ORDER_ROW});
         LtCall::set(call.layouts[1], CUBLASLT_MATRIX_LAYOUT_LD, std::int64_t{10});
       }},
      {"B: has 0 rows", layout(1, CUBLASLT_MATRIX_LAYOUT_ROWS, std::uint64_t{0})},
      {"op(A) has 40 columns but op(B) has 39 rows",
       layout(1, CUBLASLT_MATRIX_LAYOUT_ROWS, std::uint64_t{39})},
      {"D is 23 x 17 but op(A) op(B) is 24 x 17", layout(3, CUBLASLT_MATRIX_LAYOUT_ROWS, std::uint64_t{23})},
      {"C is 24 x 16 but D is 24 x 17", layout(2, CUBLASLT_MATRIX_LAYOUT_COLS, std::uint64_t{16})},
      {"C is row-major but D is column-major",
       layout(2, CUBLASLT_MATRIX_LAYOUT_ORDER, std::int32_t{CUBLASLT_ORDER_ROW})},
      {"A: there is no order 77", layout(0, CUBLASLT_MATRIX_LAYOUT_ORDER, std::int32_t{77})},
      {"A: order 2 is not emulated",
       layout(0, CUBLASLT_MATRIX_LAYOUT_ORDER, std::int32_t{CUBLASLT_ORDER_COL32}), kLacking},
      {"A: batch count 2, but D has 1", layout(0, CUBLASLT_MATRIX_LAYOUT_BATCH_COUNT, std::int32_t{2})},
      {"A: batch count 0", layout(0, CUBLASLT_MATRIX_LAYOUT_BATCH_COUNT, std::int32_t{0})},
      {"A: the batch stride -1 is negative",
       layout(0, CUBLASLT_MATRIX_LAYOUT_STRIDED_BATCH_OFFSET, std::int64_t{-1})},
      {"planar complex", layout(0, CUBLASLT_MATRIX_LAYOUT_PLANE_OFFSET, std::int64_t{64}), kLacking},
      {"arrays of pointers",
       layout(0, CUBLASLT_MATRIX_LAYOUT_BATCH_MODE, std::uint32_t{CUBLASLT_BATCH_MODE_POINTER_ARRAY}),
       kLacking},
      {"A: 4294967296 x 40 is too large", layout(0, CUBLASLT_MATRIX_LAYOUT_ROWS, std::uint64_t{1} << 32),
       kLacking},
      {"D: the matrices of the batch overlap, the stride is 5 elements, one matrix takes 408",
       layout(3, CUBLASLT_MATRIX_LAYOUT_STRIDED_BATCH_OFFSET, std::int64_t{5}), CUBLAS_STATUS_INVALID_VALUE,
       CUBLASLT_EPILOGUE_DEFAULT, 2},
  };
  for (const Broken& broken : cases) check(broken);
}

TEST_CASE("cublasLtMatmul rejects types and modes that the library does not combine") {
  const auto types = [](int which, cudaDataType type) {
    return layout(which, CUBLASLT_MATRIX_LAYOUT_TYPE, std::uint32_t(type));
  };
  void* place = reinterpret_cast<void*>(std::uintptr_t{256});
  const Broken cases[] = {
      {"compute type 68, scale type 0, A 14, B 0", types(0, CUDA_R_16BF), kLacking},
      {"C 0, D 1", types(3, CUDA_R_64F), kLacking},
      {"A 28", types(0, CUDA_R_8F_E4M3), kLacking},
      {"scale type 1", matmul(CUBLASLT_MATMUL_DESC_SCALE_TYPE, std::int32_t{CUDA_R_64F}), kLacking},
      {"compute type 70", matmul(CUBLASLT_MATMUL_DESC_COMPUTE_TYPE, std::int32_t{CUBLAS_COMPUTE_64F}),
       kLacking},
      {"op(A): there is no operation 9", matmul(CUBLASLT_MATMUL_DESC_TRANSA, std::int32_t{9})},
      {"op(B): the operation CONJG", matmul(CUBLASLT_MATMUL_DESC_TRANSB, std::int32_t{CUBLAS_OP_CONJG}),
       kLacking},
      {"op(C) can only be N", matmul(CUBLASLT_MATMUL_DESC_TRANSC, std::int32_t{CUBLAS_OP_T}), kLacking},
      {"fill mode 0", matmul(CUBLASLT_MATMUL_DESC_FILL_MODE, std::int32_t{CUBLAS_FILL_MODE_LOWER}), kLacking},
      {"there is no pointer mode 5", matmul(CUBLASLT_MATMUL_DESC_POINTER_MODE, std::int32_t{5})},
      {"pointer mode 3", matmul(CUBLASLT_MATMUL_DESC_POINTER_MODE, std::int32_t{3}), kLacking},
      {"alpha vector's batch stride is 8",
       matmul(CUBLASLT_MATMUL_DESC_ALPHA_VECTOR_BATCH_STRIDE, std::int64_t{8})},
      {"scale pointers", matmul(CUBLASLT_MATMUL_DESC_A_SCALE_POINTER, place)},
      {"absolute maxima", matmul(CUBLASLT_MATMUL_DESC_AMAX_D_POINTER, place)},
      {"scale modes", matmul(CUBLASLT_MATMUL_DESC_A_SCALE_MODE, std::int32_t{1})},
      {"fixed point", matmul(CUBLASLT_MATMUL_DESC_EMULATION_DESCRIPTOR, place), kLacking},
  };
  for (const Broken& broken : cases) check(broken);
}

TEST_CASE("cublasLtMatmul rejects null, misplaced, misaligned and overlapping memory") {
  const Broken cases[] = {
      {"A: the pointer is null", [](LtCall& call) { call.a_address = nullptr; }},
      {"D: the pointer is null", [](LtCall& call) { call.d_address = nullptr; }},
      {"C: the pointer is null", [](LtCall& call) { call.c_address = nullptr; }},
      {"is not a multiple of the 4-byte element",
       [](LtCall& call) { call.b_address = moved(call.b_array->address(), 2); }},
      {"A: 3840 bytes at", [](LtCall& call) { call.a_address = moved(call.a_array->address(), 4); }},
      {"do not lie in one live allocation", [](LtCall& call) { call.a_address = call.a.data(); }},
      {"D [", [](LtCall& call) { call.d_address = call.a_array->address(); }},
      {"D [",
       [](LtCall& call) {
         call.c_address = call.d_array->address(), call.d_address = moved(call.d_array->address(), 4);
         LtCall::set(call.layouts[2], CUBLASLT_MATRIX_LAYOUT_COLS, std::uint64_t{16});
         LtCall::set(call.layouts[3], CUBLASLT_MATRIX_LAYOUT_COLS, std::uint64_t{16});
         LtCall::set(call.layouts[1], CUBLASLT_MATRIX_LAYOUT_COLS, std::uint64_t{16});
       }},
      {"C is D, but C's leading dimension is 30 and D's 24",
       [](LtCall& call) {
         call.c_address = call.d_address;
         LtCall::set(call.layouts[2], CUBLASLT_MATRIX_LAYOUT_LD, std::int64_t{30});
       }},
      {"but the pointer mode is HOST", [](LtCall& call) { call.alpha = call.a_array->address(); }},
      {"alpha: 4 bytes at",
       [](LtCall& call) {
         call.set(CUBLASLT_MATMUL_DESC_POINTER_MODE, std::int32_t{CUBLASLT_POINTER_MODE_DEVICE});
       }},
      {"is not a multiple of 256 bytes",
       [](LtCall& call) { call.workspace = moved(call.a_array->address(), 16), call.workspace_bytes = 64; }},
      {"the workspace",
       [](LtCall& call) { call.workspace = call.a_array->address(), call.workspace_bytes = 64; }},
      {"the workspace: 100000 bytes",
       [](LtCall& call) { call.workspace = mock::allocate(64), call.workspace_bytes = 100000; }},
  };
  for (const Broken& broken : cases) check(broken);
}

TEST_CASE("cublasLtMatmul rejects epilogues that lack something") {
  constexpr auto kInvalid = CUBLAS_STATUS_INVALID_VALUE;
  void* const nothing = nullptr;
  const auto aux_ld = [](std::int64_t value) { return matmul(CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_LD, value); };
  const Broken cases[] = {
      {"there is no epilogue 3", matmul(CUBLASLT_MATMUL_DESC_EPILOGUE, 3u)},
      {"needs a bias pointer", matmul(CUBLASLT_MATMUL_DESC_BIAS_POINTER, nothing), kInvalid,
       CUBLASLT_EPILOGUE_BIAS},
      {"needs an auxiliary pointer", matmul(CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_POINTER, nothing), kInvalid,
       CUBLASLT_EPILOGUE_GELU_AUX},
      {"the bias type 14", matmul(CUBLASLT_MATMUL_DESC_BIAS_DATA_TYPE, std::int32_t{CUDA_R_16BF}), kInvalid,
       CUBLASLT_EPILOGUE_BIAS},
      {"the bias: the address",
       [](LtCall& call) {
         call.set(CUBLASLT_MATMUL_DESC_BIAS_POINTER, moved(call.bias_array->address(), 2));
       },
       kInvalid, CUBLASLT_EPILOGUE_BIAS},
      {"auxiliary leading dimension 0 is less than D's rows 24", aux_ld(0), kInvalid,
       CUBLASLT_EPILOGUE_GELU_AUX},
      {"auxiliary leading dimension 26 is not a multiple of 8", aux_ld(26), kInvalid,
       CUBLASLT_EPILOGUE_GELU_AUX},
      {"auxiliary leading dimension 64 is not a multiple of 128", aux_ld(64), kInvalid,
       CUBLASLT_EPILOGUE_RELU_AUX},
      {"the auxiliary type 14",
       matmul(CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_DATA_TYPE, std::int32_t{CUDA_R_16BF}), kInvalid,
       CUBLASLT_EPILOGUE_DGELU},
      {"the ReLU mask has no data type",
       matmul(CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_DATA_TYPE, std::int32_t{CUDA_R_32F}), kInvalid,
       CUBLASLT_EPILOGUE_DRELU},
      {"is not a multiple of 16 bytes",
       [](LtCall& call) {
         call.set(CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_POINTER, moved(call.aux_array->address(), 8));
       },
       kInvalid, CUBLASLT_EPILOGUE_RELU_AUX},
      {"the auxiliary batch stride 12 is not a multiple of 8",
       matmul(CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_BATCH_STRIDE, std::int64_t{12}), kInvalid,
       CUBLASLT_EPILOGUE_GELU_AUX, 2},
      {"is less than one auxiliary matrix, 408",
       matmul(CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_BATCH_STRIDE, std::int64_t{8}), kInvalid,
       CUBLASLT_EPILOGUE_GELU_AUX, 2},
      {"the bias gradients of the batch overlap",
       matmul(CUBLASLT_MATMUL_DESC_BIAS_BATCH_STRIDE, std::int64_t{0}), kInvalid, CUBLASLT_EPILOGUE_BGRADB,
       2},
      {"the auxiliary matrix [",
       [](LtCall& call) { call.set(CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_POINTER, call.d_array->address()); },
       kInvalid, CUBLASLT_EPILOGUE_GELU_AUX},
      {"the ReLU mask: 272 bytes",
       [](LtCall& call) {
         call.set(CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_POINTER, moved(call.aux_array->address(), 16));
       },
       kInvalid, CUBLASLT_EPILOGUE_DRELU},
      {"need a column-major D",
       [](LtCall& call) {
         for (int i = 2; i < 4; ++i)
           LtCall::set(call.layouts[i], CUBLASLT_MATRIX_LAYOUT_ORDER, std::int32_t{CUBLASLT_ORDER_ROW});
       },
       kLacking, CUBLASLT_EPILOGUE_GELU_AUX},
      {"needs a compute type of 32 bits",
       [](LtCall& call) {
         call.set(CUBLASLT_MATMUL_DESC_COMPUTE_TYPE, std::int32_t{CUBLAS_COMPUTE_64F});
         call.set(CUBLASLT_MATMUL_DESC_SCALE_TYPE, std::int32_t{CUDA_R_64F});
         for (cublasLtMatrixLayout_t each : call.layouts)
           LtCall::set(each, CUBLASLT_MATRIX_LAYOUT_TYPE, std::uint32_t{CUDA_R_64F});
       },
       kLacking, CUBLASLT_EPILOGUE_BGRADA},
  };
  for (const Broken& broken : cases) check(broken);
}

TEST_CASE("cublasLtMatmul rejects null and stale handles and descriptors") {
  LtCall call(LtCase{});
  std::swap(call.layouts[0], call.layouts[3]);
  cublasLtMatrixLayout_t kept = std::exchange(call.layouts[1], nullptr);
  REQUIRE(call.call() == CUBLAS_STATUS_INVALID_VALUE);
  REQUIRE(test::contains(mock::take_reports(), "the layout of B is null"));
  call.layouts[1] = kept;
  cublasLtMatrixLayoutOpaque_t blank{};
  kept = std::exchange(call.layouts[2], &blank);
  REQUIRE(call.call() == CUBLAS_STATUS_INVALID_VALUE);
  REQUIRE(test::contains(mock::take_reports(), "was not initialised"));
  call.layouts[2] = kept;
  cublasLtHandle_t handle = std::exchange(call.handle, nullptr);
  REQUIRE(call.call() == CUBLAS_STATUS_NOT_INITIALIZED);
  REQUIRE(test::contains(mock::take_reports(), "the handle is null"));
  call.handle = handle;
}

TEST_CASE(
    "cublasLtMatmul reports, but survives, inputs that nobody wrote and memory that goes before the work "
    "runs") {
  LtCase c;
  c.beta = 1;
  LtCall call(c);
  call.c_array.emplace(c.output, call.c_values.size());
  call.c_address = call.c_array->address();
  REQUIRE(call.call() == CUBLAS_STATUS_SUCCESS);
  mock::synchronize();
  REQUIRE(test::contains(mock::take_reports(), "cublasLtMatmul: C: reads bytes that nobody wrote"));
  REQUIRE(mock::written(call.d_array->address(), call.d_array->bytes()));
  call.c_array->write(call.c_values);
  REQUIRE(call.call() == CUBLAS_STATUS_SUCCESS);
  call.b_array.reset();
  mock::synchronize();
  REQUIRE(test::contains(mock::take_reports(), "B: 2720 bytes at"));
}
