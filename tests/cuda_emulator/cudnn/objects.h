#pragma once

#include <cudnn.h>

#include <cstddef>
#include <cstdint>

#include "cublas/element.h"
#include "cudnn/report.h"

/// What handles and descriptors of cuDNN point to. Live ones start with the tag of their kind.
struct cudnnContext {
  static constexpr std::uint64_t kTag = 0x656c646e6148446e;
  static constexpr const char* kName = "the handle";
  std::uint64_t tag = kTag;
  cudaStream_t stream = nullptr;
};

struct cudnnTensorStruct {
  static constexpr std::uint64_t kTag = 0x726f736e6554446e;
  static constexpr const char* kName = "the tensor descriptor";
  std::uint64_t tag = kTag;
  bool is_set = false;
  cudnnDataType_t type = CUDNN_DATA_FLOAT;
  int extent[4] = {};  // n, c, h, w
  int stride[4] = {};  // in elements
};

struct cudnnFilterStruct {
  static constexpr std::uint64_t kTag = 0x7265746c6946446e;
  static constexpr const char* kName = "the filter descriptor";
  std::uint64_t tag = kTag;
  bool is_set = false;
  cudnnDataType_t type = CUDNN_DATA_FLOAT;
  cudnnTensorFormat_t format = CUDNN_TENSOR_NCHW;
  int extent[4] = {};  // k, c, h, w
};

struct cudnnConvolutionStruct {
  static constexpr std::uint64_t kTag = 0x766e6f43446e;
  static constexpr const char* kName = "the convolution descriptor";
  std::uint64_t tag = kTag;
  bool is_set = false;
  int pad[2] = {}, stride[2] = {1, 1}, dilation[2] = {1, 1};  // h, w
  cudnnConvolutionMode_t mode = CUDNN_CONVOLUTION;
  cudnnDataType_t compute = CUDNN_DATA_FLOAT;
  cudnnMathType_t math = CUDNN_DEFAULT_MATH;
  int groups = 1;
};

namespace emulator::dnn {

/// The object behind a handle or descriptor; throws Rejected if it is null or not live.
template <class Object>
Object& live(Object* object, const char* which = Object::kName) {
  constexpr bool is_handle = std::is_same_v<Object, cudnnContext>;
  require(object != nullptr, is_handle ? CUDNN_STATUS_NOT_INITIALIZED : CUDNN_STATUS_BAD_PARAM_NULL_POINTER, which,
          " is null");
  require(object->tag == Object::kTag, is_handle ? CUDNN_STATUS_NOT_INITIALIZED : CUDNN_STATUS_BAD_PARAM, which, " ",
          static_cast<const void*>(object), " was not created, or was destroyed");
  return *object;
}

/// As live(), of a descriptor that has been set.
template <class Object>
const Object& filled(const Object* object, const char* which = Object::kName) {
  const Object& descriptor = live(const_cast<Object*>(object), which);
  require_valid(descriptor.is_set, which, " was created but not set");
  return descriptor;
}

/// The element type that a cuDNN type stands for; `none` where it is not emulated.
inline blas::Type type_of(cudnnDataType_t type) {
  switch (type) {
    case CUDNN_DATA_FLOAT:
      return blas::Type::f32;
    case CUDNN_DATA_HALF:
      return blas::Type::f16;
    case CUDNN_DATA_BFLOAT16:
      return blas::Type::bf16;
    default:
      return blas::Type::none;
  }
}

}  // namespace emulator::dnn
