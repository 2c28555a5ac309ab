#include "cublas/epilogue.h"

#include <cmath>
#include <numbers>

namespace emulator::blas {
namespace {

constexpr double kCubic = 0.044715;

template <class Real>
Real gelu_scale() {
  return static_cast<Real>(std::numbers::sqrt2 * std::numbers::inv_sqrtpi);  // sqrt(2 / pi)
}

template <class Real>
Real gelu_of(Real x) {
  return Real{0.5} * x * (1 + std::tanh(gelu_scale<Real>() * (x + static_cast<Real>(kCubic) * x * x * x)));
}

template <class Real>
Real gelu_derivative_of(Real x) {
  const Real t = std::tanh(gelu_scale<Real>() * (x + static_cast<Real>(kCubic) * x * x * x));
  const Real slope = gelu_scale<Real>() * (1 + 3 * static_cast<Real>(kCubic) * x * x);
  return Real{0.5} * (1 + t) + Real{0.5} * x * (1 - t * t) * slope;
}

const char* at(const Matrix& matrix, const void* base, std::int64_t row, std::int64_t column) {
  const std::int64_t offset = row * matrix.row_stride() + column * matrix.column_stride();
  return static_cast<const char*>(base) + offset * static_cast<std::int64_t>(bytes_of(matrix.type));
}
char* at(const Matrix& matrix, void* base, std::int64_t row, std::int64_t column) {
  return const_cast<char*>(at(matrix, static_cast<const void*>(base), row, column));
}

/// Rows [row, row + values.size()) of one column on their way from sums to D.
template <class Real>
struct Stretch {
  Epilogue& epilogue;
  std::int64_t row, column;
  std::vector<Real> values, other;

  std::int64_t count() const { return static_cast<std::int64_t>(values.size()); }
  /// other = the same stretch of `matrix`.
  void load_other(const Matrix& matrix, const void* base, std::int64_t at_column) {
    load(matrix.type, at(matrix, base, row, at_column), matrix.row_stride(), count(), other.data());
  }
};

template <class Real>
void scale(Stretch<Real>& stretch, const double* sums) {
  const Epilogue& epilogue = stretch.epilogue;
  const auto alpha = static_cast<Real>(epilogue.alpha), beta = static_cast<Real>(epilogue.beta);
  for (std::size_t i = 0; i < stretch.values.size(); ++i)
    stretch.values[i] = alpha * static_cast<Real>(sums[i]);
  if (epilogue.c != nullptr) {
    stretch.load_other(epilogue.gemm.c, epilogue.c, stretch.column);
    for (std::size_t i = 0; i < stretch.values.size(); ++i) stretch.values[i] += beta * stretch.other[i];
  }
  if (epilogue.gemm.bias_use == BiasUse::add) {
    stretch.load_other(epilogue.gemm.bias, epilogue.bias, 0);
    for (std::size_t i = 0; i < stretch.values.size(); ++i) stretch.values[i] += stretch.other[i];
  }
}

template <class Real>
void relu(Stretch<Real>& stretch) {
  const Epilogue& epilogue = stretch.epilogue;
  const std::int64_t first = stretch.column * epilogue.gemm.mask_ld_bits + stretch.row;
  for (std::int64_t i = 0; i < stretch.count(); ++i) {
    Real& value = stretch.values[static_cast<std::size_t>(i)];
    if (epilogue.mask != nullptr) {
      std::uint8_t& byte = epilogue.mask[(first + i) / 8];
      const auto bit = static_cast<std::uint8_t>(1u << ((first + i) % 8));
      byte = static_cast<std::uint8_t>(value > 0 ? byte | bit : byte & ~bit);
    }
    value = value < 0 ? Real{0} : value;  // NaN stays
  }
}

template <class Real>
void relu_gradient(Stretch<Real>& stretch) {
  const Epilogue& epilogue = stretch.epilogue;
  const std::int64_t first = stretch.column * epilogue.gemm.mask_ld_bits + stretch.row;
  for (std::int64_t i = 0; i < stretch.count(); ++i) {
    const bool passes = (epilogue.mask[(first + i) / 8] >> ((first + i) % 8) & 1) != 0;
    if (!passes) stretch.values[static_cast<std::size_t>(i)] = 0;
  }
}

template <class Real>
void activate(Stretch<Real>& stretch) {
  const Epilogue& epilogue = stretch.epilogue;
  const Gemm& gemm = epilogue.gemm;
  switch (gemm.activation) {
    case Activation::none:
      return;
    case Activation::relu:
      return relu(stretch);
    case Activation::relu_gradient:
      return relu_gradient(stretch);
    case Activation::gelu:
      if (gemm.writes_aux) {
        store(gemm.aux.type, at(gemm.aux, epilogue.aux, stretch.row, stretch.column), 1, stretch.count(),
              stretch.values.data());
      }
      for (Real& value : stretch.values) value = gelu_of(value);
      return;
    case Activation::gelu_gradient:
      stretch.load_other(gemm.aux, epilogue.aux, stretch.column);
      for (std::size_t i = 0; i < stretch.values.size(); ++i)
        stretch.values[i] *= gelu_derivative_of(stretch.other[i]);
      return;
  }
}

template <class Real>
void apply_in(Epilogue& epilogue, const Tile& tile) {
  const auto rows = static_cast<std::size_t>(tile.rows);
  Stretch<Real> stretch{epilogue, tile.row, tile.column, std::vector<Real>(rows), std::vector<Real>(rows)};
  for (std::int64_t j = 0; j < tile.columns; ++j) {
    stretch.column = tile.column + j;
    scale(stretch, tile.sums + j * tile.stride);
    activate(stretch);
    if (epilogue.gemm.bias_use == BiasUse::gradient_of_d) {
      double* sums = epilogue.row_sums.data() + tile.row;
      for (std::size_t i = 0; i < rows; ++i) sums[i] += static_cast<double>(stretch.values[i]);
    }
    const Matrix& d = epilogue.gemm.d;
    store(d.type, at(d, epilogue.d, tile.row, stretch.column), d.row_stride(), tile.rows,
          stretch.values.data());
  }
}

}  // namespace

void apply(Epilogue& epilogue, const Tile& tile) {
  epilogue.gemm.in_f64 ? apply_in<double>(epilogue, tile) : apply_in<float>(epilogue, tile);
}

double gelu(double x) { return gelu_of(x); }
double gelu_derivative(double x) { return gelu_derivative_of(x); }

}  // namespace emulator::blas
