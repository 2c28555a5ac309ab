#include "cudnn/objects.h"

namespace emulator::dnn {
namespace {

template <class Object>
cudnnStatus_t create(const char* call, Object** descriptor) {
  return guarded(call, [&] {
    require(descriptor != nullptr, CUDNN_STATUS_BAD_PARAM_NULL_POINTER, "the place for ", Object::kName, " is null");
    *descriptor = new Object;
  });
}

template <class Object>
cudnnStatus_t destroy(const char* call, Object* descriptor) {
  return guarded(call, [&] {
    live(descriptor).tag = 0;
    delete descriptor;
  });
}

template <class Value>
void give(Value* place, Value value) {
  require(place != nullptr, CUDNN_STATUS_BAD_PARAM_NULL_POINTER, "a place for a result is null");
  *place = value;
}

void require_extents(const char* names, const int (&extent)[4]) {
  for (int axis = 0; axis < 4; ++axis)
    require_valid(extent[axis] > 0, "the extent ", names[axis], " is ", extent[axis]);
}

void require_type(cudnnDataType_t type) {
  require_valid(type >= CUDNN_DATA_FLOAT && type <= CUDNN_DATA_COMPLEX_FP64, "there is no data type ",
                static_cast<int>(type));
}

void require_format(cudnnTensorFormat_t format) {
  require_valid(format >= CUDNN_TENSOR_NCHW && format <= CUDNN_TENSOR_NCHW_VECT_C, "there is no format ",
                static_cast<int>(format));
  require_supported(format != CUDNN_TENSOR_NCHW_VECT_C, "the format NCHW_VECT_C is not emulated");
}

void set_tensor(cudnnTensorStruct& tensor, cudnnDataType_t type, const int (&extent)[4], const int (&stride)[4]) {
  require_type(type);
  require_extents("nchw", extent);
  for (int axis = 0; axis < 4; ++axis) {
    require_valid(stride[axis] > 0, "the stride of ", "nchw"[axis], " is ", stride[axis]);
    tensor.extent[axis] = extent[axis];
    tensor.stride[axis] = stride[axis];
  }
  tensor.type = type;
  tensor.is_set = true;
}

std::size_t bytes(cudnnDataType_t type, std::int64_t elements) {
  const blas::Type element = type_of(type);
  require_supported(element != blas::Type::none, "the data type ", static_cast<int>(type), " is not emulated");
  return static_cast<std::size_t>(elements) * blas::bytes_of(element);
}

}  // namespace
}  // namespace emulator::dnn

using namespace emulator::dnn;

extern "C" {

cudnnStatus_t cudnnCreateTensorDescriptor(cudnnTensorDescriptor_t* tensor) { return create(__func__, tensor); }
cudnnStatus_t cudnnDestroyTensorDescriptor(cudnnTensorDescriptor_t tensor) { return destroy(__func__, tensor); }
cudnnStatus_t cudnnCreateFilterDescriptor(cudnnFilterDescriptor_t* filter) { return create(__func__, filter); }
cudnnStatus_t cudnnDestroyFilterDescriptor(cudnnFilterDescriptor_t filter) { return destroy(__func__, filter); }
cudnnStatus_t cudnnCreateConvolutionDescriptor(cudnnConvolutionDescriptor_t* conv) { return create(__func__, conv); }
cudnnStatus_t cudnnDestroyConvolutionDescriptor(cudnnConvolutionDescriptor_t conv) { return destroy(__func__, conv); }

cudnnStatus_t cudnnSetTensor4dDescriptor(cudnnTensorDescriptor_t tensor, cudnnTensorFormat_t format,
                                         cudnnDataType_t type, int n, int c, int h, int w) {
  return guarded(__func__, [&] {
    require_format(format);
    const bool channels_last = format == CUDNN_TENSOR_NHWC;
    const int chw[4] = {c * h * w, h * w, w, 1}, hwc[4] = {c * h * w, 1, w * c, c};
    set_tensor(live(tensor), type, {n, c, h, w}, channels_last ? hwc : chw);
  });
}

cudnnStatus_t cudnnSetTensor4dDescriptorEx(cudnnTensorDescriptor_t tensor, cudnnDataType_t type, int n, int c, int h,
                                           int w, int n_stride, int c_stride, int h_stride, int w_stride) {
  return guarded(__func__, [&] {
    set_tensor(live(tensor), type, {n, c, h, w}, {n_stride, c_stride, h_stride, w_stride});
  });
}

cudnnStatus_t cudnnGetTensor4dDescriptor(const cudnnTensorDescriptor_t tensor, cudnnDataType_t* type, int* n, int* c,
                                         int* h, int* w, int* n_stride, int* c_stride, int* h_stride, int* w_stride) {
  return guarded(__func__, [&] {
    const cudnnTensorStruct& from = filled(tensor);
    give(type, from.type);
    int *const extents[4] = {n, c, h, w}, *const strides[4] = {n_stride, c_stride, h_stride, w_stride};
    for (int axis = 0; axis < 4; ++axis) {
      give(extents[axis], from.extent[axis]);
      give(strides[axis], from.stride[axis]);
    }
  });
}

cudnnStatus_t cudnnGetTensorSizeInBytes(const cudnnTensorDescriptor_t tensor, size_t* size) {
  return guarded(__func__, [&] {
    const cudnnTensorStruct& from = filled(tensor);
    std::int64_t last = 0;
    for (int axis = 0; axis < 4; ++axis) last += std::int64_t{from.extent[axis] - 1} * from.stride[axis];
    give(size, bytes(from.type, last + 1));
  });
}

cudnnStatus_t cudnnSetFilter4dDescriptor(cudnnFilterDescriptor_t filter, cudnnDataType_t type,
                                         cudnnTensorFormat_t format, int k, int c, int h, int w) {
  return guarded(__func__, [&] {
    cudnnFilterStruct& to = live(filter);
    require_type(type);
    require_format(format);
    const int extent[4] = {k, c, h, w};
    require_extents("kchw", extent);
    std::copy_n(extent, 4, to.extent);
    to.type = type;
    to.format = format;
    to.is_set = true;
  });
}

cudnnStatus_t cudnnGetFilter4dDescriptor(const cudnnFilterDescriptor_t filter, cudnnDataType_t* type,
                                         cudnnTensorFormat_t* format, int* k, int* c, int* h, int* w) {
  return guarded(__func__, [&] {
    const cudnnFilterStruct& from = filled(filter);
    give(type, from.type);
    give(format, from.format);
    int* const extents[4] = {k, c, h, w};
    for (int axis = 0; axis < 4; ++axis) give(extents[axis], from.extent[axis]);
  });
}

cudnnStatus_t cudnnGetFilterSizeInBytes(const cudnnFilterDescriptor_t filter, size_t* size) {
  return guarded(__func__, [&] {
    const cudnnFilterStruct& from = filled(filter);
    std::int64_t elements = 1;
    for (const int extent : from.extent) elements *= extent;
    give(size, bytes(from.type, elements));
  });
}

cudnnStatus_t cudnnSetConvolution2dDescriptor(cudnnConvolutionDescriptor_t conv, int pad_h, int pad_w, int u, int v,
                                              int dilation_h, int dilation_w, cudnnConvolutionMode_t mode,
                                              cudnnDataType_t compute) {
  return guarded(__func__, [&] {
    cudnnConvolutionStruct& to = live(conv);
    require_valid(pad_h >= 0 && pad_w >= 0, "the paddings are ", pad_h, " and ", pad_w);
    require_valid(u > 0 && v > 0, "the strides are ", u, " and ", v);
    require_valid(dilation_h > 0 && dilation_w > 0, "the dilations are ", dilation_h, " and ", dilation_w);
    require_valid(mode == CUDNN_CONVOLUTION || mode == CUDNN_CROSS_CORRELATION, "there is no mode ",
                  static_cast<int>(mode));
    require_type(compute);
    to.pad[0] = pad_h, to.pad[1] = pad_w;
    to.stride[0] = u, to.stride[1] = v;
    to.dilation[0] = dilation_h, to.dilation[1] = dilation_w;
    to.mode = mode;
    to.compute = compute;
    to.is_set = true;
  });
}

cudnnStatus_t cudnnGetConvolution2dDescriptor(const cudnnConvolutionDescriptor_t conv, int* pad_h, int* pad_w, int* u,
                                              int* v, int* dilation_h, int* dilation_w, cudnnConvolutionMode_t* mode,
                                              cudnnDataType_t* compute) {
  return guarded(__func__, [&] {
    const cudnnConvolutionStruct& from = filled(conv);
    give(pad_h, from.pad[0]);
    give(pad_w, from.pad[1]);
    give(u, from.stride[0]);
    give(v, from.stride[1]);
    give(dilation_h, from.dilation[0]);
    give(dilation_w, from.dilation[1]);
    give(mode, from.mode);
    give(compute, from.compute);
  });
}

cudnnStatus_t cudnnSetConvolutionMathType(cudnnConvolutionDescriptor_t conv, cudnnMathType_t math) {
  return guarded(__func__, [&] {
    require_valid(math >= CUDNN_DEFAULT_MATH && math <= CUDNN_FMA_MATH, "there is no math type ",
                  static_cast<int>(math));
    live(conv).math = math;
  });
}

cudnnStatus_t cudnnGetConvolutionMathType(cudnnConvolutionDescriptor_t conv, cudnnMathType_t* math) {
  return guarded(__func__, [&] { give(math, live(conv).math); });
}

cudnnStatus_t cudnnSetConvolutionGroupCount(cudnnConvolutionDescriptor_t conv, int groups) {
  return guarded(__func__, [&] {
    require_valid(groups > 0, "the number of groups is ", groups);
    live(conv).groups = groups;
  });
}

cudnnStatus_t cudnnGetConvolutionGroupCount(cudnnConvolutionDescriptor_t conv, int* groups) {
  return guarded(__func__, [&] { give(groups, live(conv).groups); });
}

}  // extern "C"
