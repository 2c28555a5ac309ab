#include <cublasLt.h>

#include <algorithm>
#include <cstddef>
#include <new>

#include "cublas/lt_attributes.h"
#include "cublas/lt_objects.h"

namespace emulator::blas {
namespace {

const Attribute& find(std::span<const Attribute> attributes, int id) {
  for (const Attribute& attribute : attributes) {
    if (attribute.id == id) return attribute;
  }
  throw Rejected{CUBLAS_STATUS_INVALID_VALUE, text("there is no attribute ", id)};
}

#define MEMBER(id, Object, member) \
  Attribute { id, offsetof(Object, member), sizeof(Object::member) }

constexpr Attribute kLayoutAttributes[] = {
    MEMBER(CUBLASLT_MATRIX_LAYOUT_TYPE, LayoutObject, type),
    MEMBER(CUBLASLT_MATRIX_LAYOUT_ORDER, LayoutObject, order),
    MEMBER(CUBLASLT_MATRIX_LAYOUT_ROWS, LayoutObject, rows),
    MEMBER(CUBLASLT_MATRIX_LAYOUT_COLS, LayoutObject, columns),
    MEMBER(CUBLASLT_MATRIX_LAYOUT_LD, LayoutObject, ld),
    MEMBER(CUBLASLT_MATRIX_LAYOUT_BATCH_COUNT, LayoutObject, batch),
    MEMBER(CUBLASLT_MATRIX_LAYOUT_STRIDED_BATCH_OFFSET, LayoutObject, batch_stride),
    MEMBER(CUBLASLT_MATRIX_LAYOUT_PLANE_OFFSET, LayoutObject, plane_offset),
    MEMBER(CUBLASLT_MATRIX_LAYOUT_BATCH_MODE, LayoutObject, batch_mode),
};

constexpr Attribute kMatmulAttributes[] = {
    MEMBER(CUBLASLT_MATMUL_DESC_COMPUTE_TYPE, MatmulObject, compute),
    MEMBER(CUBLASLT_MATMUL_DESC_SCALE_TYPE, MatmulObject, scale_type),
    MEMBER(CUBLASLT_MATMUL_DESC_POINTER_MODE, MatmulObject, pointer_mode),
    MEMBER(CUBLASLT_MATMUL_DESC_TRANSA, MatmulObject, transpose_a),
    MEMBER(CUBLASLT_MATMUL_DESC_TRANSB, MatmulObject, transpose_b),
    MEMBER(CUBLASLT_MATMUL_DESC_TRANSC, MatmulObject, transpose_c),
    MEMBER(CUBLASLT_MATMUL_DESC_FILL_MODE, MatmulObject, fill_mode),
    MEMBER(CUBLASLT_MATMUL_DESC_EPILOGUE, MatmulObject, epilogue),
    MEMBER(CUBLASLT_MATMUL_DESC_BIAS_POINTER, MatmulObject, bias),
    MEMBER(CUBLASLT_MATMUL_DESC_BIAS_BATCH_STRIDE, MatmulObject, bias_stride),
    MEMBER(CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_POINTER, MatmulObject, aux),
    MEMBER(CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_LD, MatmulObject, aux_ld),
    MEMBER(CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_BATCH_STRIDE, MatmulObject, aux_stride),
    MEMBER(CUBLASLT_MATMUL_DESC_ALPHA_VECTOR_BATCH_STRIDE, MatmulObject, alpha_stride),
    MEMBER(CUBLASLT_MATMUL_DESC_SM_COUNT_TARGET, MatmulObject, sm_count),
    MEMBER(CUBLASLT_MATMUL_DESC_A_SCALE_POINTER, MatmulObject, a_scale),
    MEMBER(CUBLASLT_MATMUL_DESC_B_SCALE_POINTER, MatmulObject, b_scale),
    MEMBER(CUBLASLT_MATMUL_DESC_C_SCALE_POINTER, MatmulObject, c_scale),
    MEMBER(CUBLASLT_MATMUL_DESC_D_SCALE_POINTER, MatmulObject, d_scale),
    MEMBER(CUBLASLT_MATMUL_DESC_AMAX_D_POINTER, MatmulObject, d_amax),
    MEMBER(CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_DATA_TYPE, MatmulObject, aux_type),
    MEMBER(CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_SCALE_POINTER, MatmulObject, aux_scale),
    MEMBER(CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_AMAX_POINTER, MatmulObject, aux_amax),
    MEMBER(CUBLASLT_MATMUL_DESC_FAST_ACCUM, MatmulObject, fast_accumulation),
    MEMBER(CUBLASLT_MATMUL_DESC_BIAS_DATA_TYPE, MatmulObject, bias_type),
    MEMBER(CUBLASLT_MATMUL_DESC_A_SCALE_MODE, MatmulObject, a_scale_mode),
    MEMBER(CUBLASLT_MATMUL_DESC_B_SCALE_MODE, MatmulObject, b_scale_mode),
    MEMBER(CUBLASLT_MATMUL_DESC_C_SCALE_MODE, MatmulObject, c_scale_mode),
    MEMBER(CUBLASLT_MATMUL_DESC_D_SCALE_MODE, MatmulObject, d_scale_mode),
    MEMBER(CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_SCALE_MODE, MatmulObject, aux_scale_mode),
    MEMBER(CUBLASLT_MATMUL_DESC_D_OUT_SCALE_POINTER, MatmulObject, d_out_scale),
    MEMBER(CUBLASLT_MATMUL_DESC_D_OUT_SCALE_MODE, MatmulObject, d_out_scale_mode),
    MEMBER(CUBLASLT_MATMUL_DESC_EMULATION_DESCRIPTOR, MatmulObject, emulation),
};

constexpr Attribute kTransformAttributes[] = {
    MEMBER(CUBLASLT_MATRIX_TRANSFORM_DESC_SCALE_TYPE, TransformObject, scale_type),
    MEMBER(CUBLASLT_MATRIX_TRANSFORM_DESC_POINTER_MODE, TransformObject, pointer_mode),
    MEMBER(CUBLASLT_MATRIX_TRANSFORM_DESC_TRANSA, TransformObject, transpose_a),
    MEMBER(CUBLASLT_MATRIX_TRANSFORM_DESC_TRANSB, TransformObject, transpose_b),
};

constexpr Attribute kPreferenceAttributes[] = {
    MEMBER(CUBLASLT_MATMUL_PREF_SEARCH_MODE, PreferenceObject, search_mode),
    MEMBER(CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, PreferenceObject, workspace_bytes),
    MEMBER(CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK, PreferenceObject, reductions),
    MEMBER(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, PreferenceObject, alignment_a),
    MEMBER(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, PreferenceObject, alignment_b),
    MEMBER(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, PreferenceObject, alignment_c),
    MEMBER(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, PreferenceObject, alignment_d),
    MEMBER(CUBLASLT_MATMUL_PREF_MAX_WAVES_COUNT, PreferenceObject, max_waves),
    MEMBER(CUBLASLT_MATMUL_PREF_IMPL_MASK, PreferenceObject, implementations),
};

constexpr Attribute kEmulationAttributes[] = {
    MEMBER(CUBLASLT_EMULATION_DESC_STRATEGY, EmulationObject, strategy),
    MEMBER(CUBLASLT_EMULATION_DESC_SPECIAL_VALUES_SUPPORT, EmulationObject, special_values),
    MEMBER(CUBLASLT_EMULATION_DESC_FIXEDPOINT_MANTISSA_CONTROL, EmulationObject, mantissa_control),
    MEMBER(CUBLASLT_EMULATION_DESC_FIXEDPOINT_MAX_MANTISSA_BIT_COUNT, EmulationObject, max_mantissa_bits),
    MEMBER(CUBLASLT_EMULATION_DESC_FIXEDPOINT_MANTISSA_BIT_OFFSET, EmulationObject, mantissa_offset),
    MEMBER(CUBLASLT_EMULATION_DESC_FIXEDPOINT_MANTISSA_BIT_COUNT_POINTER, EmulationObject, mantissa_bits),
};
#undef MEMBER

template <class Object, class Opaque>
void initialize(Opaque* opaque, std::size_t bytes, const Object& object) {
  require_valid(opaque != nullptr, "the place for ", Object::kName, " is null");
  require(bytes >= sizeof *opaque, CUBLAS_STATUS_ALLOC_FAILED, "the place for ", Object::kName, " has ",
          bytes, " bytes, ", sizeof *opaque, " are needed");
  pack(object, opaque);
}

template <class Opaque, class Object>
void create(Opaque** opaque, const Object& object) {
  require_valid(opaque != nullptr, "the pointer to ", Object::kName, " is null");
  *opaque = new Opaque;
  pack(object, *opaque);
}

template <class Object, class Opaque>
void destroy(Opaque* opaque) {
  if (opaque == nullptr) return;
  unpack<Object>(opaque);
  std::memset(static_cast<void*>(opaque), 0, sizeof *opaque);
  delete opaque;
}

template <class Object, class Opaque>
void set(std::span<const Attribute> attributes, Opaque* opaque, int id, const void* value,
         std::size_t bytes) {
  auto object = unpack<Object>(opaque);
  set_attribute(attributes, &object, id, value, bytes);
  pack(object, opaque);
}

template <class Object, class Opaque>
void get(std::span<const Attribute> attributes, const Opaque* opaque, int id, void* value, std::size_t bytes,
         std::size_t* written) {
  const auto object = unpack<Object>(opaque);
  get_attribute(attributes, &object, id, value, bytes, written);
}

LayoutObject layout(cudaDataType type, std::uint64_t rows, std::uint64_t columns, std::int64_t ld) {
  LayoutObject object;
  object.type = static_cast<std::uint32_t>(type);
  object.rows = rows;
  object.columns = columns;
  object.ld = ld;
  return object;
}

MatmulObject matmul(cublasComputeType_t compute, cudaDataType scale) {
  MatmulObject object;
  object.compute = compute;
  object.scale_type = scale;
  return object;
}

TransformObject transform(cudaDataType scale) {
  TransformObject object;
  object.scale_type = scale;
  return object;
}

}  // namespace

void set_attribute(std::span<const Attribute> attributes, void* object, int id, const void* value,
                   std::size_t bytes) {
  const Attribute& attribute = find(attributes, id);
  require_valid(!attribute.read_only, "attribute ", id, " can only be read");
  require_valid(value != nullptr, "the value for attribute ", id, " is null");
  require_valid(bytes == attribute.bytes, "attribute ", id, " has ", attribute.bytes,
                " bytes, the call passes ", bytes);
  std::memcpy(static_cast<char*>(object) + attribute.offset, value, bytes);
}

void get_attribute(std::span<const Attribute> attributes, const void* object, int id, void* value,
                   std::size_t bytes, std::size_t* written) {
  const Attribute& attribute = find(attributes, id);
  give_value(static_cast<const char*>(object) + attribute.offset, attribute.bytes, value, bytes, written);
}

void give_value(const void* from, std::size_t available, void* value, std::size_t bytes, std::size_t* written,
                bool array) {
  require_valid(bytes != 0 || written != nullptr,
                "the size is 0 and there is no place to say which is needed");
  if (bytes == 0) {
    *written = available;
    return;
  }
  require_valid(value != nullptr, "the buffer for ", bytes, " bytes is null");
  require_valid(array || bytes == available, "the attribute has ", available, " bytes, the buffer ", bytes);
  const std::size_t given = std::min(bytes, available);
  std::memcpy(value, from, given);
  if (written != nullptr) *written = given;
}

}  // namespace emulator::blas

using namespace emulator::blas;

/// Init, Create, Destroy, Set and Get of one kind of descriptor.
#define DESCRIPTOR(Kind, Object, init_parameters, create_parameters, value) \
  cublasStatus_t cublasLt##Kind##Init_internal init_parameters {            \
    return guarded(__func__, [&] { initialize(descriptor, size, value); }); \
  }                                                                         \
  cublasStatus_t cublasLt##Kind##Create create_parameters {                 \
    return guarded(__func__, [&] { create(descriptor, value); });           \
  }                                                                         \
  cublasStatus_t cublasLt##Kind##Destroy(cublasLt##Kind##_t descriptor) {   \
    return guarded(__func__, [&] { destroy<Object>(descriptor); });         \
  }

#define ATTRIBUTES(Kind, Enum, Object, attributes)                                                       \
  cublasStatus_t cublasLt##Kind##SetAttribute(cublasLt##Kind##_t descriptor, Enum id, const void* value, \
                                              size_t bytes) {                                            \
    return guarded(__func__, [&] { set<Object>(attributes, descriptor, id, value, bytes); });            \
  }                                                                                                      \
  cublasStatus_t cublasLt##Kind##GetAttribute(cublasLt##Kind##_t descriptor, Enum id, void* value,       \
                                              size_t bytes, size_t* written) {                           \
    return guarded(__func__, [&] { get<Object>(attributes, descriptor, id, value, bytes, written); });   \
  }

extern "C" {

DESCRIPTOR(MatrixLayout, LayoutObject,
           (cublasLtMatrixLayout_t descriptor, size_t size, cudaDataType type, uint64_t rows,
            uint64_t columns, int64_t ld),
           (cublasLtMatrixLayout_t * descriptor, cudaDataType type, uint64_t rows, uint64_t columns,
            int64_t ld),
           layout(type, rows, columns, ld))
ATTRIBUTES(MatrixLayout, cublasLtMatrixLayoutAttribute_t, LayoutObject, kLayoutAttributes)

DESCRIPTOR(MatmulDesc, MatmulObject,
           (cublasLtMatmulDesc_t descriptor, size_t size, cublasComputeType_t compute, cudaDataType_t scale),
           (cublasLtMatmulDesc_t * descriptor, cublasComputeType_t compute, cudaDataType_t scale),
           matmul(compute, scale))
ATTRIBUTES(MatmulDesc, cublasLtMatmulDescAttributes_t, MatmulObject, kMatmulAttributes)

DESCRIPTOR(MatrixTransformDesc, TransformObject,
           (cublasLtMatrixTransformDesc_t descriptor, size_t size, cudaDataType scale),
           (cublasLtMatrixTransformDesc_t * descriptor, cudaDataType scale), transform(scale))
ATTRIBUTES(MatrixTransformDesc, cublasLtMatrixTransformDescAttributes_t, TransformObject,
           kTransformAttributes)

DESCRIPTOR(MatmulPreference, PreferenceObject, (cublasLtMatmulPreference_t descriptor, size_t size),
           (cublasLtMatmulPreference_t * descriptor), PreferenceObject{})
ATTRIBUTES(MatmulPreference, cublasLtMatmulPreferenceAttributes_t, PreferenceObject, kPreferenceAttributes)

DESCRIPTOR(EmulationDesc, EmulationObject, (cublasLtEmulationDesc_t descriptor, size_t size),
           (cublasLtEmulationDesc_t * descriptor), EmulationObject{})
ATTRIBUTES(EmulationDesc, cublasLtEmulationDescAttributes_t, EmulationObject, kEmulationAttributes)

}  // extern "C"
