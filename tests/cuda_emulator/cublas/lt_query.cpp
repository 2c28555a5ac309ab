#include <cublasLt.h>

#include <algorithm>

#include "cublas/context.h"
#include "cublas/lt_algorithm.h"
#include "cublas/lt_attributes.h"
#include "cublas/lt_epilogue.h"

namespace emulator::blas {
namespace {

#define MEMBER(id, member, ...) \
  Attribute { id, offsetof(AlgoObject, member), sizeof(AlgoObject::member) __VA_OPT__(, ) __VA_ARGS__ }
constexpr Attribute kConfiguration[] = {
    MEMBER(CUBLASLT_ALGO_CONFIG_ID, id, true),
    MEMBER(CUBLASLT_ALGO_CONFIG_TILE_ID, tile),
    MEMBER(CUBLASLT_ALGO_CONFIG_SPLITK_NUM, splits),
    MEMBER(CUBLASLT_ALGO_CONFIG_REDUCTION_SCHEME, reduction),
    MEMBER(CUBLASLT_ALGO_CONFIG_CTA_SWIZZLING, swizzle),
    MEMBER(CUBLASLT_ALGO_CONFIG_CUSTOM_OPTION, custom),
    MEMBER(CUBLASLT_ALGO_CONFIG_STAGES_ID, stages),
    MEMBER(CUBLASLT_ALGO_CONFIG_INNER_SHAPE_ID, inner_shape),
    MEMBER(CUBLASLT_ALGO_CONFIG_CLUSTER_SHAPE_ID, cluster),
};
#undef MEMBER

/// As guarded(), but that something is not supported is an answer here, not a broken rule.
template <class Body>
cublasStatus_t answered(const char* call, Body body) {
  try {
    body();
    return CUBLAS_STATUS_SUCCESS;
  } catch (const Rejected& rejected) {
    if (rejected.status != CUBLAS_STATUS_NOT_SUPPORTED) report(call, rejected.sentence);
    return rejected.status;
  }
}

cublasLtMatmulHeuristicResult_t result_of(const AlgoObject& algo, const Gemm& gemm) {
  constexpr std::int64_t kTile = 128, kProcessors = 132;  // an H100
  cublasLtMatmulHeuristicResult_t result{};
  pack(algo, &result.algo);
  result.workspaceSize = workspace_of(algo, gemm);
  result.state = CUBLAS_STATUS_SUCCESS;
  const std::int64_t tiles =
      (gemm.m() + kTile - 1) / kTile * ((gemm.n() + kTile - 1) / kTile) * gemm.d.batch * algo.splits;
  result.wavesCount = static_cast<float>(tiles) / static_cast<float>(kProcessors);
  return result;
}

std::uint64_t implementation_flags(const AlgoObject& algo) {
  const Type type = type_of(algo.types[0]);
  if (type == Type::f64) {
    return CUBLASLT_NUMERICAL_IMPL_FLAGS_DMMA | CUBLASLT_NUMERICAL_IMPL_FLAGS_ACCUMULATOR_64F |
           CUBLASLT_NUMERICAL_IMPL_FLAGS_INPUT_64F;
  }
  if (type == Type::f32) {
    return CUBLASLT_NUMERICAL_IMPL_FLAGS_FMA | CUBLASLT_NUMERICAL_IMPL_FLAGS_ACCUMULATOR_32F |
           CUBLASLT_NUMERICAL_IMPL_FLAGS_INPUT_32F;
  }
  return CUBLASLT_NUMERICAL_IMPL_FLAGS_HMMA | CUBLASLT_NUMERICAL_IMPL_FLAGS_ACCUMULATOR_32F |
         (type == Type::f16 ? CUBLASLT_NUMERICAL_IMPL_FLAGS_INPUT_16F
                            : CUBLASLT_NUMERICAL_IMPL_FLAGS_INPUT_16BF);
}

void give_capability(const AlgoObject& algo, cublasLtMatmulAlgoCapAttributes_t attribute, void* value,
                     size_t bytes, size_t* written) {
  const auto give = [&](auto capability) {
    give_value(&capability, sizeof capability, value, bytes, written);
  };
  const auto give_list = [&](std::uint32_t only) {
    give_value(&only, sizeof only, value, bytes, written, true);
  };
  const auto element = [&](int matrix) {
    return static_cast<std::uint32_t>(bytes_of(type_of(algo.types[matrix])));
  };
  switch (attribute) {
    case CUBLASLT_ALGO_CAP_SPLITK_SUPPORT:
      return give(std::int32_t{algo.id == kSplitK});
    case CUBLASLT_ALGO_CAP_REDUCTION_SCHEME_MASK:
      return give(std::uint32_t{algo.id == kSplitK ? CUBLASLT_REDUCTION_SCHEME_MASK
                                                   : CUBLASLT_REDUCTION_SCHEME_NONE});
    case CUBLASLT_ALGO_CAP_CTA_SWIZZLING_SUPPORT:
      return give(std::uint32_t{1});
    case CUBLASLT_ALGO_CAP_STRIDED_BATCH_SUPPORT:
      return give(std::int32_t{1});
    case CUBLASLT_ALGO_CAP_OUT_OF_PLACE_RESULT_SUPPORT:
      return give(std::int32_t{1});
    case CUBLASLT_ALGO_CAP_UPLO_SUPPORT:
      return give(std::int32_t{0});
    case CUBLASLT_ALGO_CAP_TILE_IDS:
      return give_list(CUBLASLT_MATMUL_TILE_128x128);
    case CUBLASLT_ALGO_CAP_STAGES_IDS:
      return give_list(CUBLASLT_MATMUL_STAGES_64x3);
    case CUBLASLT_ALGO_CAP_CUSTOM_OPTION_MAX:
      return give(std::int32_t{0});
    case CUBLASLT_ALGO_CAP_CUSTOM_MEMORY_ORDER:
      return give(std::int32_t{0});
    case CUBLASLT_ALGO_CAP_POINTER_MODE_MASK:
      return give(std::uint32_t{CUBLASLT_POINTER_MODE_MASK_HOST | CUBLASLT_POINTER_MODE_MASK_DEVICE});
    case CUBLASLT_ALGO_CAP_EPILOGUE_MASK:
      return give(std::uint32_t{kEpilogueMask});
    case CUBLASLT_ALGO_CAP_LD_NEGATIVE:
      return give(std::int32_t{0});
    case CUBLASLT_ALGO_CAP_NUMERICAL_IMPL_FLAGS:
      return give(implementation_flags(algo));
    case CUBLASLT_ALGO_CAP_MIN_ALIGNMENT_A_BYTES:
      return give(element(0));
    case CUBLASLT_ALGO_CAP_MIN_ALIGNMENT_B_BYTES:
      return give(element(1));
    case CUBLASLT_ALGO_CAP_MIN_ALIGNMENT_C_BYTES:
      return give(element(2));
    case CUBLASLT_ALGO_CAP_MIN_ALIGNMENT_D_BYTES:
      return give(element(3));
    case CUBLASLT_ALGO_CAP_POINTER_ARRAY_BATCH_SUPPORT:
      return give(std::int32_t{0});
    case CUBLASLT_ALGO_CAP_FLOATING_POINT_EMULATION_SUPPORT:
      return give(std::int32_t{0});
  }
  throw Rejected{CUBLAS_STATUS_INVALID_VALUE, text("there is no capability ", static_cast<int>(attribute))};
}

}  // namespace
}  // namespace emulator::blas

using namespace emulator::blas;

extern "C" {

cublasStatus_t cublasLtMatmulAlgoGetHeuristic(cublasLtHandle_t handle, cublasLtMatmulDesc_t matmul,
                                              cublasLtMatrixLayout_t a, cublasLtMatrixLayout_t b,
                                              cublasLtMatrixLayout_t c, cublasLtMatrixLayout_t d,
                                              cublasLtMatmulPreference_t preference, int requested,
                                              cublasLtMatmulHeuristicResult_t results[], int* returned) {
  return answered(__func__, [&] {
    require_handle(handle);
    require_valid(requested > 0, "the requested number of algorithms is ", requested);
    require_valid(results != nullptr && returned != nullptr,
                  "the place for the results or their count is null");
    *returned = 0;
    const LtProblem problem = unpack_problem(matmul, a, b, c, d);
    const Gemm gemm = gemm_of(problem);
    const auto wishes = unpack<PreferenceObject>(preference);
    require_valid(wishes.search_mode <= CUBLASLT_SEARCH_LIMITED_BY_ALGO_ID, "search mode ",
                  wishes.search_mode, " is reserved");
    const bool limited = wishes.search_mode == CUBLASLT_SEARCH_LIMITED_BY_ALGO_ID;
    const int only = limited ? unpack<AlgoObject>(&results[0].algo).id : -1;
    for (const AlgoObject& algo : choose(problem, gemm, wishes)) {
      if (*returned < requested && (!limited || algo.id == only))
        results[(*returned)++] = result_of(algo, gemm);
    }
    require_supported(*returned > 0, "no algorithm fits the preference");
  });
}

cublasStatus_t cublasLtMatmulAlgoGetIds(cublasLtHandle_t handle, cublasComputeType_t compute,
                                        cudaDataType_t scale, cudaDataType_t a, cudaDataType_t b,
                                        cudaDataType_t c, cudaDataType_t d, int requested, int ids[],
                                        int* returned) {
  return answered(__func__, [&] {
    require_handle(handle);
    require_valid(requested > 0, "the requested number of algorithms is ", requested);
    require_valid(ids != nullptr && returned != nullptr, "the place for the ids or their count is null");
    *returned = 0;
    require_types(compute, scale, a, b, c, d);
    for (int id = 0; id < std::min(requested, kAlgorithms); ++id) ids[(*returned)++] = id;
  });
}

cublasStatus_t cublasLtMatmulAlgoInit(cublasLtHandle_t handle, cublasComputeType_t compute,
                                      cudaDataType_t scale, cudaDataType_t a, cudaDataType_t b,
                                      cudaDataType_t c, cudaDataType_t d, int id,
                                      cublasLtMatmulAlgo_t* algo) {
  return answered(__func__, [&] {
    require_handle(handle);
    require_valid(algo != nullptr, "the place for the algorithm is null");
    require_valid(id >= 0 && id < kAlgorithms, "there is no algorithm ", id);
    require_types(compute, scale, a, b, c, d);
    AlgoObject object;
    object.id = id;
    object.compute = compute;
    object.scale_type = scale;
    const cudaDataType_t types[4] = {a, b, c, d};
    for (int i = 0; i < 4; ++i) object.types[i] = static_cast<std::uint8_t>(types[i]);
    pack(object, algo);
  });
}

cublasStatus_t cublasLtMatmulAlgoCheck(cublasLtHandle_t handle, cublasLtMatmulDesc_t matmul,
                                       cublasLtMatrixLayout_t a, cublasLtMatrixLayout_t b,
                                       cublasLtMatrixLayout_t c, cublasLtMatrixLayout_t d,
                                       const cublasLtMatmulAlgo_t* algo,
                                       cublasLtMatmulHeuristicResult_t* result) {
  return answered(__func__, [&] {
    require_handle(handle);
    require_valid(result != nullptr, "the place for the result is null");
    const LtProblem problem = unpack_problem(matmul, a, b, c, d);
    const Gemm gemm = gemm_of(problem);
    const auto object = unpack<AlgoObject>(algo);
    require_fits(object, problem);
    const cublasLtMatmulAlgo_t kept = result->algo;  // "algo field is never updated"
    *result = result_of(object, gemm);
    result->algo = kept;
  });
}

cublasStatus_t cublasLtMatmulAlgoCapGetAttribute(const cublasLtMatmulAlgo_t* algo,
                                                 cublasLtMatmulAlgoCapAttributes_t attribute, void* value,
                                                 size_t bytes, size_t* written) {
  return guarded(__func__,
                 [&] { give_capability(unpack<AlgoObject>(algo), attribute, value, bytes, written); });
}

cublasStatus_t cublasLtMatmulAlgoConfigSetAttribute(cublasLtMatmulAlgo_t* algo,
                                                    cublasLtMatmulAlgoConfigAttributes_t attribute,
                                                    const void* value, size_t bytes) {
  return guarded(__func__, [&] {
    auto object = unpack<AlgoObject>(algo);
    set_attribute(kConfiguration, &object, attribute, value, bytes);
    pack(object, algo);
  });
}

cublasStatus_t cublasLtMatmulAlgoConfigGetAttribute(const cublasLtMatmulAlgo_t* algo,
                                                    cublasLtMatmulAlgoConfigAttributes_t attribute,
                                                    void* value, size_t bytes, size_t* written) {
  return guarded(__func__, [&] {
    const auto object = unpack<AlgoObject>(algo);
    get_attribute(kConfiguration, &object, attribute, value, bytes, written);
  });
}

}  // extern "C"
