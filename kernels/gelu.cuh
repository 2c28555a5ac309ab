#pragma once

/// The Gaussian error linear unit in its two forms, and their slopes.
namespace dino::cuda {

/// x · Φ(x).
inline __device__ float gelu(float x) { return 0.5f * x * (1 + erff(x * 0.70710678118654752f)); }

/// Φ(x) + x · φ(x).
inline __device__ float gelu_slope(float x) {
  return 0.5f * (1 + erff(x * 0.70710678118654752f)) + x * 0.39894228040143268f * expf(-0.5f * x * x);
}

/// 2u for u = √(2/π) · (x + 0.044715 · x³).
inline __device__ float gelu_tanh_argument(float x) {
  return x * fmaf(x * x, 2 * 0.79788456080286536f * 0.044715f, 2 * 0.79788456080286536f);
}

/// x · (1 + tanh u) / 2, as x / (1 + e^(−2u)): 1 + tanh u would cancel for negative x.
inline __device__ float gelu_tanh(float x) { return x / (1 + expf(-gelu_tanh_argument(x))); }

/// With e = e^(−2|u|): the logistic function of 2u, and x times its slope e / (1 + e)² · 2u'. Beyond ±13 e is
/// 0.
inline __device__ float gelu_tanh_slope(float x) {
  const float magnitude = fminf(fabsf(x), 13.0f), e = expf(-gelu_tanh_argument(magnitude)),
              share = 1 / (1 + e);
  const float inner =
      fmaf(magnitude * magnitude, 6 * 0.79788456080286536f * 0.044715f, 2 * 0.79788456080286536f);
  return (x < 0 ? e : 1.0f) * share + x * (e * share * share * inner);
}

}  // namespace dino::cuda
