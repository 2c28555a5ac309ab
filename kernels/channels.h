#pragma once

#include <cstdint>

namespace dino::channels {

/// Arithmetic on dense blocks [rows, channels] with numbers [channels] that hold for a whole column. As in
/// rows.h, the double overloads define the results and the float ones are the same in vectors.

/// sum[c] += Σ x and square[c] += Σ x² of x − origin over the rows.
void add_moments(const float* x, const float* origin, int64_t rows, int64_t channels, float* sum,
                 float* square);
void add_moments(const double* x, const double* origin, int64_t rows, int64_t channels, double* sum,
                 double* square);

/// y = (x − mean) · scale + shift, plus residual [rows, channels] unless that is null.
void scale_shift(const float* x, const float* mean, const float* scale, const float* shift,
                 const float* residual, int64_t rows, int64_t channels, float* y);
void scale_shift(const double* x, const double* mean, const double* scale, const double* shift,
                 const double* residual, int64_t rows, int64_t channels, double* y);

/// sum[c] += Σ g and sum_x[c] += Σ g · (x − mean) over the rows.
void add_grad_sums(const float* x, const float* mean, const float* g, int64_t rows, int64_t channels,
                   float* sum, float* sum_x);
void add_grad_sums(const double* x, const double* mean, const double* g, int64_t rows, int64_t channels,
                   double* sum, double* sum_x);

/// dx = or += g · scale − constant − (x − mean) · slope.
void centered_grad(const float* x, const float* mean, const float* g, const float* scale,
                   const float* constant, const float* slope, int64_t rows, int64_t channels, float* dx,
                   bool add);
void centered_grad(const double* x, const double* mean, const double* g, const double* scale,
                   const double* constant, const double* slope, int64_t rows, int64_t channels, double* dx,
                   bool add);

/// Where x > best or x is NaN: best = x and index = position. All [channels].
void keep_max(const float* x, int32_t position, int64_t channels, float* best, int32_t* index);
void keep_max(const double* x, int32_t position, int64_t channels, double* best, int32_t* index);

}  // namespace dino::channels
