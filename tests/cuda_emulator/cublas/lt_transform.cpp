#include <cublasLt.h>

#include <vector>

#include "cublas/context.h"
#include "cublas/lt_problem.h"

namespace emulator::blas {
namespace {

constexpr const char* kCall = "cublasLtMatrixTransform";

/// C = alpha op(A) + beta op(B), for every matrix of the batch.
struct Transform {
  Scalar alpha, beta;
  Matrix a, b, c;
  bool uses_a = false, uses_b = false, transpose_a = false, transpose_b = false;
};

/// values += factor * column `column` of op(matrix b of the batch).
void add_column(const Matrix& matrix, const void* host_address, std::int64_t b, bool transposed,
                std::int64_t column, double factor, std::vector<double>& values) {
  const std::int64_t along = transposed ? matrix.column_stride() : matrix.row_stride();
  const std::int64_t across = transposed ? matrix.row_stride() : matrix.column_stride();
  const std::int64_t offset =
      (b * matrix.batch_stride + column * across) * static_cast<std::int64_t>(bytes_of(matrix.type));
  std::vector<double> line(values.size());
  load(matrix.type, static_cast<const char*>(host_address) + offset, along,
       static_cast<std::int64_t>(line.size()), line.data());
  for (std::size_t i = 0; i < line.size(); ++i) values[i] += factor * line[i];
}

void run(const Transform& transform) {
  const Matrix& c = transform.c;
  const double alpha = transform.uses_a ? transform.alpha.read(kCall) : 0,
               beta = transform.uses_b ? transform.beta.read(kCall) : 0;
  void* to = backing(kCall, c);
  const void* a = transform.uses_a ? backing(kCall, transform.a) : to;
  const void* b = transform.uses_b ? backing(kCall, transform.b) : to;
  if (to == nullptr || a == nullptr || b == nullptr) return;
  if (transform.uses_a) check_initialized(kCall, transform.a);
  if (transform.uses_b) check_initialized(kCall, transform.b);
  for (std::int64_t i = 0; i < c.batch; ++i) {
    for (std::int64_t j = 0; j < c.columns; ++j) {
      std::vector<double> values(static_cast<std::size_t>(c.rows), 0.0);
      if (transform.uses_a) add_column(transform.a, a, i, transform.transpose_a, j, alpha, values);
      if (transform.uses_b) add_column(transform.b, b, i, transform.transpose_b, j, beta, values);
      const std::int64_t offset =
          (i * c.batch_stride + j * c.column_stride()) * static_cast<std::int64_t>(bytes_of(c.type));
      store(c.type, static_cast<char*>(to) + offset, c.row_stride(), c.rows, values.data());
    }
  }
  mark_written(c);
}

/// A or B, or nothing where the pointer is null.
bool set_input(const char* name, const void* address, cublasLtMatrixLayout_t layout, int operation,
               const Matrix& c, Matrix& matrix, bool& transposed) {
  if (address == nullptr) return false;
  matrix = matrix_of(name, unpack<LayoutObject>(layout, name));
  require_supported(matrix.type != Type::none, name, ": its type is not emulated");
  require_valid(operation >= CUBLAS_OP_N && operation <= CUBLAS_OP_C, name, ": there is no operation ",
                operation);
  transposed = operation != CUBLAS_OP_N;
  const std::int64_t rows = transposed ? matrix.columns : matrix.rows,
                     columns = transposed ? matrix.rows : matrix.columns;
  require_valid(rows == c.rows && columns == c.columns, name, ": op(", name, ") is ", rows, " x ", columns,
                " but C is ", c.rows, " x ", c.columns);
  require_valid(matrix.batch == c.batch, name, ": batch count ", matrix.batch, ", but C has ", c.batch);
  matrix.address = const_cast<void*>(address);
  require_memory(matrix);
  const bool in_place = address == c.address && !transposed && matrix.type == c.type && matrix.ld == c.ld &&
                        matrix.row_major == c.row_major && matrix.batch_stride == c.batch_stride;
  if (!in_place) require_disjoint(c, matrix);
  return true;
}

}  // namespace
}  // namespace emulator::blas

using namespace emulator::blas;

extern "C" cublasStatus_t cublasLtMatrixTransform(cublasLtHandle_t handle,
                                                  cublasLtMatrixTransformDesc_t descriptor, const void* alpha,
                                                  const void* a, cublasLtMatrixLayout_t a_layout,
                                                  const void* beta, const void* b,
                                                  cublasLtMatrixLayout_t b_layout, void* c,
                                                  cublasLtMatrixLayout_t c_layout, cudaStream_t stream) {
  return guarded(kCall, [&] {
    require_handle(handle);
    const auto object = unpack<TransformObject>(descriptor);
    const Type scale = type_of(object.scale_type);
    require_supported(scale == Type::f32 || scale == Type::f64, "scale type ", object.scale_type,
                      " (cudaDataType) is not emulated");
    require_supported(object.pointer_mode == CUBLASLT_POINTER_MODE_HOST ||
                          object.pointer_mode == CUBLASLT_POINTER_MODE_DEVICE,
                      "pointer mode ", object.pointer_mode, " is not emulated");
    const bool on_device = object.pointer_mode == CUBLASLT_POINTER_MODE_DEVICE;
    Transform transform;
    transform.c = matrix_of("C", unpack<LayoutObject>(c_layout, "the layout of C"));
    require_supported(transform.c.type != Type::none, "C: its type is not emulated");
    transform.c.address = c;
    require_memory(transform.c);
    transform.uses_a =
        set_input("A", a, a_layout, object.transpose_a, transform.c, transform.a, transform.transpose_a);
    transform.uses_b =
        set_input("B", b, b_layout, object.transpose_b, transform.c, transform.b, transform.transpose_b);
    require_valid(transform.uses_a || transform.uses_b, "A and B are both null");
    if (transform.uses_a) transform.alpha = scalar_argument("alpha", alpha, scale, on_device);
    if (transform.uses_b) transform.beta = scalar_argument("beta", beta, scale, on_device);
    queue(stream, kCall, [transform] { run(transform); });
  });
}
