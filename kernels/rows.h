#pragma once

#include <cstdint>

#include "kernels/activation.h"
#include "kernels/bfloat16.h"

namespace dino::rows {

/// Arithmetic on dense rows. The double overloads are plain loops and define the results; the float overloads are the
/// same in vectors (Highway, with the widest instructions of the processor chosen at run time), also
/// where some rows are bf16. `add` says whether a
/// target is overwritten or added to. Targets may be one of the sources.

/// y = x in the other type; to bf16 by rounding to the nearest, ties to even.
void convert(const BFloat16* x, float* y, int64_t n);
void convert(const float* x, BFloat16* y, int64_t n);

float sum(const float* x, int64_t n);
double sum(const double* x, int64_t n);

float dot(const float* x, const float* y, int64_t n);
double dot(const double* x, const double* y, int64_t n);

float max(const float* x, int64_t n);
double max(const double* x, int64_t n);

/// Σ (x − mean)².
float squared_deviation(const float* x, float mean, int64_t n);
double squared_deviation(const double* x, double mean, int64_t n);

/// y = or += a · x.
void axpy(float a, const float* x, float* y, int64_t n, bool add);
void axpy(float a, const float* x, BFloat16* y, int64_t n, bool add);
void axpy(float a, const BFloat16* x, float* y, int64_t n, bool add);
void axpy(double a, const double* x, double* y, int64_t n, bool add);

/// z = x + a · y.
void add_scaled(const float* x, float a, const float* y, float* z, int64_t n);
void add_scaled(const float* x, float a, const BFloat16* y, float* z, int64_t n);
void add_scaled(const double* x, double a, const double* y, double* z, int64_t n);

/// y = exp(scale · x − shift); returns Σ y.
float exp_sum(const float* x, float scale, float shift, float* y, int64_t n);
double exp_sum(const double* x, double scale, double shift, double* y, int64_t n);

/// y = (x − mean) · rstd · gamma + beta.
void normalize(const float* x, float mean, float rstd, const float* gamma, const float* beta, float* y, int64_t n);
void normalize(const float* x, float mean, float rstd, const float* gamma, const float* beta, BFloat16* y, int64_t n);
void normalize(const double* x, double mean, double rstd, const double* gamma, const double* beta, double* y, int64_t n);

/// Sums that layer norm's backward needs of one row, with x̂ = (x − mean) · rstd: returns {Σ dy·gamma, Σ dy·gamma·x̂} and
/// adds dy·x̂ to dgamma and dy to dbeta unless these are null.
template <class T>
struct NormSums {
  T grad, grad_times_x;
};
NormSums<float> normalize_backward_sums(const float* x, float mean, float rstd, const float* gamma, const float* dy,
                                        float* dgamma, float* dbeta, int64_t n);
NormSums<float> normalize_backward_sums(const float* x, float mean, float rstd, const float* gamma, const BFloat16* dy,
                                        float* dgamma, float* dbeta, int64_t n);
NormSums<double> normalize_backward_sums(const double* x, double mean, double rstd, const double* gamma,
                                         const double* dy, double* dgamma, double* dbeta, int64_t n);

/// dx = or += rstd · (dy·gamma − mean_grad − x̂ · mean_grad_x).
void normalize_backward(const float* x, float mean, float rstd, const float* gamma, const float* dy, float mean_grad,
                        float mean_grad_x, float* dx, int64_t n, bool add);
void normalize_backward(const float* x, float mean, float rstd, const float* gamma, const BFloat16* dy, float mean_grad,
                        float mean_grad_x, float* dx, int64_t n, bool add);
void normalize_backward(const double* x, double mean, double rstd, const double* gamma, const double* dy,
                        double mean_grad, double mean_grad_x, double* dx, int64_t n, bool add);

/// y = x · Φ(x), the exact Gaussian error linear unit (Hendrycks, Gimpel, 2016).
void gelu(const float* x, float* y, int64_t n);
void gelu(const BFloat16* x, BFloat16* y, int64_t n);
void gelu(const double* x, double* y, int64_t n);

/// dx = or += dy · (Φ(x) + x · φ(x)).
void gelu_backward(const float* x, const float* dy, float* dx, int64_t n, bool add);
void gelu_backward(const BFloat16* x, const BFloat16* dy, BFloat16* dx, int64_t n, bool add);
void gelu_backward(const double* x, const double* dy, double* dx, int64_t n, bool add);

/// √(2/π).
inline constexpr double kGeluTanhScale = 0.79788456080286535588;

/// y = x · (1 + tanh(√(2/π) · (x + 0.044715 · x³))) / 2, its approximation of the same authors.
void gelu_tanh(const float* x, float* y, int64_t n);
void gelu_tanh(const BFloat16* x, BFloat16* y, int64_t n);
void gelu_tanh(const double* x, double* y, int64_t n);
void gelu_tanh_backward(const float* x, const float* dy, float* dx, int64_t n, bool add);
void gelu_tanh_backward(const BFloat16* x, const BFloat16* dy, BFloat16* dx, int64_t n, bool add);
void gelu_tanh_backward(const double* x, const double* dy, double* dx, int64_t n, bool add);

/// GELU in the form that is wanted, which is gelu or gelu_tanh.
template <class T>
void gelu(Activation form, const T* x, T* y, int64_t n) {
  if (form == Activation::gelu) return gelu(x, y, n);
  gelu_tanh(x, y, n);
}
template <class T>
void gelu_backward(Activation form, const T* x, const T* dy, T* dx, int64_t n, bool add) {
  if (form == Activation::gelu) return gelu_backward(x, dy, dx, n, add);
  gelu_tanh_backward(x, dy, dx, n, add);
}

/// y = max(x, 0); NaN stays NaN.
void relu(const float* x, float* y, int64_t n);
void relu(const double* x, double* y, int64_t n);

/// dx = or += dy where y > 0, else 0.
void relu_backward(const float* y, const float* dy, float* dx, int64_t n, bool add);
void relu_backward(const double* y, const double* dy, double* dx, int64_t n, bool add);

/// ds = p · (dp − delta) · scale: the gradient through softmax (in place on dp allowed).
void softmax_backward(const float* p, const float* dp, float delta, float scale, float* ds, int64_t n);
void softmax_backward(const double* p, const double* dp, double delta, double scale, double* ds, int64_t n);

/// One AdamW update of n weights (Loshchilov, Hutter, 2019); see kernels/adamw.h for the meaning of the numbers.
struct AdamWScalars {
  double grad_scale, beta1, beta2, eps;
  double keep;            ///< 1 − learning rate · decay
  double step_size;       ///< learning rate / (1 − beta1^t)
  double inv_sqrt_bias2;  ///< 1 / √(1 − beta2^t)
};
void adamw(const AdamWScalars& s, const float* grad, float* weight, float* m, float* v, int64_t n);
void adamw(const AdamWScalars& s, const double* grad, double* weight, double* m, double* v, int64_t n);

/// target = momentum · target + (1 − momentum) · source.
void ema(double momentum, const float* source, float* target, int64_t n);
void ema(double momentum, const double* source, double* target, int64_t n);

}  // namespace dino::rows
