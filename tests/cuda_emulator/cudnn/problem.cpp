#include <algorithm>

#include "cudnn/convolution.h"

namespace emulator::dnn {
namespace {

constexpr std::size_t kAlignment = 16;  // what kernels for tensor cores load at once

bool has_strides(const Volume& volume, const int (&order)[4]) {
  std::int64_t stride = 1;
  for (const int axis : order) {
    if (volume.extent[axis] != 1 && volume.stride[axis] != stride) return false;
    stride *= volume.extent[axis];
  }
  return true;
}

Volume volume_of(const char* name, const cudnnTensorStruct& tensor) {
  Volume volume{.name = name, .type = type_of(tensor.type)};
  std::copy_n(tensor.extent, 4, volume.extent);
  std::copy_n(tensor.stride, 4, volume.stride);
  require_supported(volume.is_nchw() || volume.is_nhwc(), name, ": gaps between elements are not emulated");
  return volume;
}

Volume volume_of(const char* name, const cudnnFilterStruct& filter) {
  Volume volume{.name = name, .type = type_of(filter.type)};
  std::copy_n(filter.extent, 4, volume.extent);
  const std::int64_t c = filter.extent[1], h = filter.extent[2], w = filter.extent[3];
  const std::int64_t krsc[4] = {c * h * w, 1, w * c, c}, kcrs[4] = {c * h * w, h * w, w, 1};
  std::copy_n(filter.format == CUDNN_TENSOR_NHWC ? krsc : kcrs, 4, volume.stride);
  return volume;
}

void require_types(const Convolution& convolution, const cudnnConvolutionStruct& conv) {
  const blas::Type type = convolution.x.type;
  require_valid(convolution.w.type == type && convolution.y.type == type,
                "the tensors and the filter have data types of their own, they must have one");
  require_supported(type != blas::Type::none, "only data in FLOAT, HALF and BFLOAT16 is emulated");
  require_supported(conv.compute == CUDNN_DATA_FLOAT, "the compute type ", static_cast<int>(conv.compute),
                    " is not emulated, only FLOAT (the *_CONFIGs that accumulate in f32)");
}

std::uintptr_t begin_of(const void* address) { return reinterpret_cast<std::uintptr_t>(address); }

void require_range(const char* name, const void* address, std::size_t bytes) {
  require(address != nullptr, CUDNN_STATUS_BAD_PARAM_NULL_POINTER, name, ": the pointer is null");
  require(begin_of(address) % kAlignment == 0, CUDNN_STATUS_BAD_PARAM_MISALIGNED_POINTER, name, ": the address ",
          address, " is not a multiple of ", kAlignment, " bytes");
  require_valid(host::device_range(address, bytes) != nullptr, name, ": ", bytes, " bytes at ", address,
                " do not lie in one live allocation of the device");
}

void require_disjoint(const char* name, const void* address, std::size_t bytes, const char* other_name,
                      const void* other_address, std::size_t other_bytes) {
  const std::uintptr_t begin = begin_of(address), other_begin = begin_of(other_address);
  require_valid(begin + bytes <= other_begin || other_begin + other_bytes <= begin, name, " overlaps ", other_name);
}

}  // namespace

bool Volume::is_nchw() const { return has_strides(*this, {3, 2, 1, 0}); }
bool Volume::is_nhwc() const { return has_strides(*this, {1, 3, 2, 0}); }

std::vector<Volume> Convolution::inputs() const {
  if (pass == Pass::forward) return {x, w};
  if (pass == Pass::data) return {w, y};
  return {x, y};
}

int output_extent(const cudnnConvolutionStruct& conv, int in, int filter, int axis) {
  const int reach = (filter - 1) * conv.dilation[axis] + 1, padded = in + 2 * conv.pad[axis];
  require_valid(padded >= reach, "the filter reaches over ", reach, " pixels, the padded image has ", padded);
  return (padded - reach) / conv.stride[axis] + 1;
}

Convolution convolution_of(const char* call, Pass pass, const cudnnTensorStruct* x, const cudnnFilterStruct* w,
                           const cudnnConvolutionStruct* conv, const cudnnTensorStruct* y) {
  const bool gradients = pass != Pass::forward;
  const cudnnTensorStruct& from = filled(x, "the descriptor of x");
  const cudnnFilterStruct& filter = filled(w, "the descriptor of w");
  const cudnnConvolutionStruct& how = filled(conv);
  const cudnnTensorStruct& to = filled(y, "the descriptor of y");
  Convolution convolution;
  convolution.call = call;
  convolution.pass = pass;
  convolution.x = volume_of(pass == Pass::data ? "dx" : "x", from);
  convolution.w = volume_of(pass == Pass::filter ? "dw" : "w", filter);
  convolution.y = volume_of(gradients ? "dy" : "y", to);
  for (int axis = 0; axis < 2; ++axis) {
    convolution.pad[axis] = how.pad[axis];
    convolution.stride[axis] = how.stride[axis];
    convolution.dilation[axis] = how.dilation[axis];
  }
  require_types(convolution, how);
  require_supported(how.mode == CUDNN_CROSS_CORRELATION, "the mode CONVOLUTION (a filter upside down) is not emulated");
  require_supported(how.groups == 1, how.groups, " groups are not emulated");
  require_valid(from.extent[1] == filter.extent[1], "x has ", from.extent[1], " channels, the filter ",
                filter.extent[1]);
  require_valid(to.extent[0] == from.extent[0], "y has ", to.extent[0], " images, x ", from.extent[0]);
  require_valid(to.extent[1] == filter.extent[0], "y has ", to.extent[1], " channels, there are ", filter.extent[0],
                " filters");
  for (int axis = 0; axis < 2; ++axis) {
    const int extent = output_extent(how, from.extent[2 + axis], filter.extent[2 + axis], axis);
    require_valid(to.extent[2 + axis] == extent, "the extent ", "hw"[axis], " of y is ", to.extent[2 + axis],
                  ", the result's is ", extent);
  }
  require_supported(filter.format != CUDNN_TENSOR_NHWC || (convolution.x.is_nhwc() && convolution.y.is_nhwc()),
                    "an NHWC filter needs NHWC tensors");
  return convolution;
}

void require_memory(const Convolution& convolution) {
  const Volume& output = convolution.output();
  require_range(output.name, output.address, output.bytes());
  for (const Volume& input : convolution.inputs()) {
    require_range(input.name, input.address, input.bytes());
    require_disjoint(output.name, output.address, output.bytes(), input.name, input.address, input.bytes());
  }
  if (convolution.workspace_bytes == 0) return;
  require_range("the workspace", convolution.workspace, convolution.workspace_bytes);
  for (const Volume* volume : {&convolution.x, &convolution.w, &convolution.y})
    require_disjoint(volume->name, volume->address, volume->bytes(), "the workspace", convolution.workspace,
                     convolution.workspace_bytes);
}

}  // namespace emulator::dnn
