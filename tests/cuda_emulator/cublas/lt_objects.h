#pragma once

#include <cublasLt.h>

#include <cstdint>
#include <cstring>

#include "cublas/report.h"

/// What the opaque descriptors of cuBLASLt hold here. They are copied in and out of the caller's memory, tag
/// first.
namespace emulator::blas {

struct LayoutObject {
  static constexpr std::uint64_t kTag = 0x74756f79614c;
  static constexpr const char* kName = "the matrix layout";
  std::uint64_t tag = kTag;
  std::uint64_t rows = 0, columns = 0;
  std::int64_t ld = 0, batch_stride = 0, plane_offset = 0;
  std::uint32_t type = CUDA_R_32F;
  std::int32_t order = CUBLASLT_ORDER_COL;
  std::int32_t batch = 1;
  std::uint32_t batch_mode = CUBLASLT_BATCH_MODE_STRIDED;
};

struct MatmulObject {
  static constexpr std::uint64_t kTag = 0x6c756d74614d;
  static constexpr const char* kName = "the matmul descriptor";
  std::uint64_t tag = kTag;
  std::int32_t compute = CUBLAS_COMPUTE_32F, scale_type = CUDA_R_32F;
  std::int32_t pointer_mode = CUBLASLT_POINTER_MODE_HOST;
  std::int32_t transpose_a = CUBLAS_OP_N, transpose_b = CUBLAS_OP_N, transpose_c = CUBLAS_OP_N;
  std::int32_t fill_mode = CUBLAS_FILL_MODE_FULL;
  std::uint32_t epilogue = CUBLASLT_EPILOGUE_DEFAULT;
  void *bias = nullptr, *aux = nullptr;
  std::int64_t bias_stride = 0, aux_ld = 0, aux_stride = 0, alpha_stride = 0;
  void *a_scale = nullptr, *b_scale = nullptr, *c_scale = nullptr, *d_scale = nullptr, *d_out_scale = nullptr;
  void *d_amax = nullptr, *aux_scale = nullptr, *aux_amax = nullptr, *emulation = nullptr;
  std::int32_t sm_count = 0, aux_type = -1, bias_type = -1;
  std::int32_t a_scale_mode = 0, b_scale_mode = 0, c_scale_mode = 0, d_scale_mode = 0, aux_scale_mode = 0,
               d_out_scale_mode = 0;
  std::int8_t fast_accumulation = 0;
};

struct TransformObject {
  static constexpr std::uint64_t kTag = 0x6d726f66736e;
  static constexpr const char* kName = "the transform descriptor";
  std::uint64_t tag = kTag;
  std::int32_t scale_type = CUDA_R_32F, pointer_mode = CUBLASLT_POINTER_MODE_HOST;
  std::int32_t transpose_a = CUBLAS_OP_N, transpose_b = CUBLAS_OP_N;
};

struct PreferenceObject {
  static constexpr std::uint64_t kTag = 0x726566657250;
  static constexpr const char* kName = "the matmul preference";
  std::uint64_t tag = kTag;
  std::uint64_t workspace_bytes = 0, implementations = ~std::uint64_t{0};
  std::uint32_t search_mode = CUBLASLT_SEARCH_BEST_FIT, reductions = CUBLASLT_REDUCTION_SCHEME_MASK;
  std::uint32_t alignment_a = 256, alignment_b = 256, alignment_c = 256, alignment_d = 256;
  float max_waves = 0;
};

struct EmulationObject {
  static constexpr std::uint64_t kTag = 0x6574616c756d;
  static constexpr const char* kName = "the emulation descriptor";
  std::uint64_t tag = kTag;
  std::int32_t strategy = 0, special_values = 0xFFFF, mantissa_control = 0, max_mantissa_bits = 0,
               mantissa_offset = 0;
  void* mantissa_bits = nullptr;
};

/// One algorithm with its configuration. `alignment` are powers of two (log2, in bytes) that A, B, C, D were
/// promised to have.
struct AlgoObject {
  static constexpr std::uint64_t kTag = 0x6f676c41;
  static constexpr const char* kName = "the algorithm";
  std::uint64_t tag = kTag;
  std::int32_t id = 0;
  std::uint32_t tile = CUBLASLT_MATMUL_TILE_UNDEFINED;
  std::int32_t splits = 1;
  std::uint32_t reduction = CUBLASLT_REDUCTION_SCHEME_NONE, swizzle = 0, custom = 0,
                stages = CUBLASLT_MATMUL_STAGES_UNDEFINED;
  std::uint16_t inner_shape = 0, cluster = 0;
  std::int32_t compute = 0, scale_type = 0;
  std::uint8_t types[4] = {};  // cudaDataType of A, B, C, D
  std::uint8_t alignment[4] = {};
};

/// The object that a caller's descriptor holds; throws Rejected if there is none.
template <class Object, class Opaque>
Object unpack(const Opaque* opaque, const char* which = Object::kName) {
  static_assert(sizeof(Object) <= sizeof(Opaque));
  require_valid(opaque != nullptr, which, " is null");
  Object object;
  std::memcpy(static_cast<void*>(&object), opaque, sizeof object);
  require_valid(object.tag == Object::kTag, which, " at ", static_cast<const void*>(opaque),
                " was not initialised, or was destroyed");
  return object;
}

template <class Object, class Opaque>
void pack(const Object& object, Opaque* opaque) {
  std::memset(static_cast<void*>(opaque), 0, sizeof *opaque);
  std::memcpy(static_cast<void*>(opaque), &object, sizeof object);
}

}  // namespace emulator::blas
