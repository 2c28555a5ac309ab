#include "cublas/blas_vector.h"

#include <algorithm>
#include <cmath>
#include <cstdlib>

#include "cublas/report.h"

namespace emulator::blas {

Vector vector_argument(const char* name, const void* address, Type type, std::int64_t n,
                       std::int64_t increment) {
  require_valid(increment != 0, name, ": the increment is 0");
  Vector vector{{.name = name,
                 .address = const_cast<void*>(address),
                 .type = type,
                 .rows = std::max<std::int64_t>(n, 0),
                 .columns = 1,
                 .ld = std::abs(increment),
                 .row_major = true},
                increment < 0};
  require_memory(vector.place);
  return vector;
}

std::vector<double> read(const char* call, const Vector& vector) {
  const Matrix& place = vector.place;
  std::vector<double> values(static_cast<std::size_t>(place.rows));
  if (place.rows == 0) return values;
  const void* from = backing(call, place);
  if (from == nullptr) return values;
  check_initialized(call, place);
  load(place.type, from, place.ld, place.rows, values.data());
  if (vector.reversed) std::reverse(values.begin(), values.end());
  return values;
}

void write(const char* call, const Vector& vector, const std::vector<double>& values) {
  const Matrix& place = vector.place;
  void* to = place.rows == 0 ? nullptr : backing(call, place);
  if (to == nullptr) return;
  std::vector<double> ordered = values;
  if (vector.reversed) std::reverse(ordered.begin(), ordered.end());
  store(place.type, to, place.ld, place.rows, ordered.data());
  mark_written(place);
}

Result result_argument(const cublasContext* handle, void* address, Type type, bool is_index, bool wide) {
  require_valid(address != nullptr, "the place for the result is null");
  const bool on_device = handle->pointer_mode == CUBLAS_POINTER_MODE_DEVICE;
  const std::size_t bytes = is_index ? (wide ? 8 : 4) : bytes_of(type);
  require_valid(!on_device || host::device_range(address, bytes) != nullptr, "the result at ", address,
                " does not lie in live memory of the device, but the pointer mode is DEVICE");
  require_valid(on_device || !host::is_device_pointer(address), "the result at ", address,
                " is an address of the device, but the pointer mode is HOST");
  return {address, on_device, is_index, wide, type};
}

void Result::set(const char* call, double value) const {
  const std::size_t bytes = is_index ? (wide ? 8 : 4) : bytes_of(type);
  void* to = on_device ? host::device_range(address, bytes) : address;
  if (to == nullptr)
    return report(call, "the place for the result was live at the call but not when the work ran");
  if (!is_index) {
    store(type, to, 1, 1, &value);
  } else if (wide) {
    *static_cast<std::int64_t*>(to) = static_cast<std::int64_t>(value);
  } else {
    *static_cast<int*>(to) = static_cast<int>(value);
  }
  if (on_device) host::mark_initialized(address, bytes);
}

namespace {

/// Sums are taken in f64 and rounded once.
double dot(const std::vector<double>& x, const std::vector<double>& y) {
  double sum = 0;
  for (std::size_t i = 0; i < x.size(); ++i) sum += x[i] * y[i];
  return sum;
}
double norm(const std::vector<double>& x, const std::vector<double>&) { return std::sqrt(dot(x, x)); }
double absolute_sum(const std::vector<double>& x, const std::vector<double>&) {
  double sum = 0;
  for (const double value : x) sum += std::abs(value);
  return sum;
}
/// From 1; 0 of an empty vector.
double index_of_largest(const std::vector<double>& x, const std::vector<double>&) {
  const auto less = [](double a, double b) { return std::abs(a) < std::abs(b); };
  return x.empty() ? 0 : static_cast<double>(std::max_element(x.begin(), x.end(), less) - x.begin() + 1);
}
double index_of_smallest(const std::vector<double>& x, const std::vector<double>&) {
  const auto less = [](double a, double b) { return std::abs(a) < std::abs(b); };
  return x.empty() ? 0 : static_cast<double>(std::min_element(x.begin(), x.end(), less) - x.begin() + 1);
}

using Reduction = double (*)(const std::vector<double>& x, const std::vector<double>& y);

cublasStatus_t reduce(const char* call, cublasHandle_t handle, Reduction reduction, Type type, std::int64_t n,
                      const void* x, std::int64_t x_increment, const void* y, std::int64_t y_increment,
                      void* result, bool is_index, bool wide) {
  return guarded(call, [&] {
    require_handle(handle);
    require_valid(reduction != dot || y != nullptr || n <= 0, "y: the pointer is null");
    const Vector first = vector_argument("x", x, type, n, x_increment);
    const Vector second = y == nullptr ? Vector{} : vector_argument("y", y, type, n, y_increment);
    const Result to = result_argument(handle, result, type, is_index, wide);
    queue(handle->stream, call, [=] { to.set(call, reduction(read(call, first), read(call, second))); });
    if (!to.on_device) synchronize(handle->stream);
  });
}

/// y = alpha x + (adds ? y : 0); x may be y.
cublasStatus_t combine(const char* call, cublasHandle_t handle, Type type, std::int64_t n, const void* alpha,
                       const void* x, std::int64_t x_increment, void* y, std::int64_t y_increment,
                       bool adds) {
  return guarded(call, [&] {
    require_handle(handle);
    const Scalar factor = alpha == nullptr && !adds ? Scalar{.value = 1, .type = type}
                                                    : scalar_argument(handle, "alpha", alpha, type);
    if (n <= 0) return;
    const Vector from = vector_argument("x", x, type, n, x_increment),
                 to = vector_argument("y", y, type, n, y_increment);
    if (x != y || x_increment != y_increment) require_disjoint(to.place, from.place);
    queue(handle->stream, call, [=] {
      const double scale = factor.read(call);
      const std::vector<double> input = read(call, from);
      std::vector<double> output(input.size());
      if (adds) output = read(call, to);
      for (std::size_t i = 0; i < input.size(); ++i) output[i] += scale * input[i];
      write(call, to, output);
    });
  });
}

}  // namespace
}  // namespace emulator::blas

using namespace emulator::blas;

#define REDUCTION(Name, Real, type, Int, function)                                                      \
  cublasStatus_t Name(cublasHandle_t handle, Int n, const Real* x, Int increment, Real* result) {       \
    return reduce(__func__, handle, function, type, n, x, increment, nullptr, 1, result, false, false); \
  }
#define INDEX(Name, Real, type, Int, function)                                                   \
  cublasStatus_t Name(cublasHandle_t handle, Int n, const Real* x, Int increment, Int* result) { \
    return reduce(__func__, handle, function, type, n, x, increment, nullptr, 1, result, true,   \
                  sizeof(Int) == 8);                                                             \
  }
#define LEVEL_1(L, l, Suffix, Real, type, Int)                                                           \
  REDUCTION(cublas##L##nrm2##Suffix, Real, type, Int, norm)                                              \
  REDUCTION(cublas##L##asum##Suffix, Real, type, Int, absolute_sum)                                      \
  INDEX(cublasI##l##amax##Suffix, Real, type, Int, index_of_largest)                                     \
  INDEX(cublasI##l##amin##Suffix, Real, type, Int, index_of_smallest)                                    \
  cublasStatus_t cublas##L##dot##Suffix(cublasHandle_t handle, Int n, const Real* x, Int x_increment,    \
                                        const Real* y, Int y_increment, Real* result) {                  \
    return reduce(__func__, handle, dot, type, n, x, x_increment, y, y_increment, result, false, false); \
  }                                                                                                      \
  cublasStatus_t cublas##L##axpy##Suffix(cublasHandle_t handle, Int n, const Real* alpha, const Real* x, \
                                         Int x_increment, Real* y, Int y_increment) {                    \
    return combine(__func__, handle, type, n, alpha, x, x_increment, y, y_increment, true);              \
  }                                                                                                      \
  cublasStatus_t cublas##L##scal##Suffix(cublasHandle_t handle, Int n, const Real* alpha, Real* x,       \
                                         Int increment) {                                                \
    if (alpha == nullptr)                                                                                \
      return guarded(__func__, [] { require_valid(false, "alpha: the pointer is null"); });              \
    return combine(__func__, handle, type, n, alpha, x, increment, x, increment, false);                 \
  }                                                                                                      \
  cublasStatus_t cublas##L##copy##Suffix(cublasHandle_t handle, Int n, const Real* x, Int x_increment,   \
                                         Real* y, Int y_increment) {                                     \
    return combine(__func__, handle, type, n, nullptr, x, x_increment, y, y_increment, false);           \
  }

extern "C" {

LEVEL_1(S, s, _v2, float, Type::f32, int)
LEVEL_1(S, s, _v2_64, float, Type::f32, std::int64_t)
LEVEL_1(D, d, _v2, double, Type::f64, int)
LEVEL_1(D, d, _v2_64, double, Type::f64, std::int64_t)

}  // extern "C"
