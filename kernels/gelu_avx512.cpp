#include "kernels/gelu_avx512.h"

#if defined(__x86_64__)
// GCC 12 takes the undefined operands inside of its own intrinsics for mistakes.
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#endif

#include "kernels/bf16_pairs.h"

namespace dino::gelu_avx512 {
namespace {

using bf16_pairs::kLanes;

DINO_AVX512_BF16_INLINE __m512 set(float value) { return _mm512_set1_ps(value); }

struct Gaussian {
  __m512 cdf;              ///< Φ(x)
  __m512 exp_half_square;  ///< e^(−x²/2)
};

/// With z = |x|/√2 and t = 1/(1 + 0.3 z), erfc(z) = e^(−z²) · Q(t). Both polynomials are least squares fits with the largest relative
/// error made small: Q of degree 6 over [0.266, 1], 6.2e-6; 2^r of degree 4 over [-½, ½], 2.6e-6. Being relative, this serves both
/// tails; a value in bf16 is known to 2e-3.
DINO_AVX512_BF16_INLINE Gaussian gaussian(__m512 x) {
  const __m512 magnitude = _mm512_min_ps(set(17), _mm512_abs_ps(x));  // in this order a NaN stays; at 17 the power is 0
  const __m512 denominator = _mm512_fmadd_ps(magnitude, set(0.3f * 0.70710678f), set(1));
  const __m512 guess = _mm512_rcp14_ps(denominator);
  const __m512 t = _mm512_mul_ps(guess, _mm512_fnmadd_ps(denominator, guess, set(2)));  // Newton's step
  const __m512 power = _mm512_mul_ps(_mm512_mul_ps(magnitude, magnitude), set(-0.5f * 1.44269504f));
  const __m512 whole = _mm512_roundscale_ps(power, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC), rest = _mm512_sub_ps(power, whole);
  __m512 e = set(0.009569983f);
  e = _mm512_fmadd_ps(e, rest, set(0.05591772f));
  e = _mm512_fmadd_ps(e, rest, set(0.24024746f));
  e = _mm512_fmadd_ps(e, rest, set(0.69312183f));
  e = _mm512_fmadd_ps(e, rest, set(0.99999926f));
  e = _mm512_scalef_ps(e, whole);
  __m512 q = set(0.87417385f);
  q = _mm512_fmadd_ps(q, t, set(-1.35981278f));
  q = _mm512_fmadd_ps(q, t, set(1.51788188f));
  q = _mm512_fmadd_ps(q, t, set(-0.55257599f));
  q = _mm512_fmadd_ps(q, t, set(0.38310892f));
  q = _mm512_fmadd_ps(q, t, set(0.13493269f));
  q = _mm512_fmadd_ps(q, t, set(0.002285227f));
  const __m512 tail = _mm512_mul_ps(_mm512_mul_ps(q, e), set(0.5f));
  const __mmask16 negative = _mm512_movepi32_mask(_mm512_castps_si512(x));
  return {_mm512_mask_mov_ps(_mm512_sub_ps(set(1), tail), negative, tail), e};
}

DINO_AVX512_BF16_INLINE __m512 load(const BFloat16* from, __mmask16 exists) {
  const __m512i bits = _mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(exists, from));
  return _mm512_castsi512_ps(_mm512_slli_epi32(bits, 16));
}

DINO_AVX512_BF16_INLINE void store(__m512 value, BFloat16* to, __mmask16 exists) {
  _mm256_mask_storeu_epi16(to, exists, bf16_pairs::rounded(value));
}

DINO_AVX512_BF16_INLINE __mmask16 lanes(int64_t left) { return static_cast<__mmask16>(left >= kLanes ? 0xFFFF : 0xFFFF >> (kLanes - left)); }

DINO_AVX512_BF16 void run_forward(const BFloat16* x, BFloat16* y, int64_t n) {
  for (int64_t i = 0; i < n; i += kLanes) {
    const __mmask16 exists = lanes(n - i);
    const __m512 value = load(x + i, exists);
    store(_mm512_mul_ps(value, gaussian(value).cdf), y + i, exists);
  }
}

DINO_AVX512_BF16 void run_backward(const BFloat16* x, const BFloat16* dy, BFloat16* dx, int64_t n, bool add) {
  const __m512 density = _mm512_set1_ps(0.39894228f);
  for (int64_t i = 0; i < n; i += kLanes) {
    const __mmask16 exists = lanes(n - i);
    const __m512 value = load(x + i, exists);
    const Gaussian g = gaussian(value);
    const __m512 slope = _mm512_fmadd_ps(_mm512_mul_ps(value, g.exp_half_square), density, g.cdf);
    const __m512 before = add ? load(dx + i, exists) : _mm512_setzero_ps();
    store(_mm512_fmadd_ps(load(dy + i, exists), slope, before), dx + i, exists);
  }
}

}  // namespace

bool supported() { return bf16_pairs::supported(); }

void forward(const BFloat16* x, BFloat16* y, int64_t n) { run_forward(x, y, n); }

void backward(const BFloat16* x, const BFloat16* dy, BFloat16* dx, int64_t n, bool add) { run_backward(x, dy, dx, n, add); }

}  // namespace dino::gelu_avx512

#else

namespace dino::gelu_avx512 {

bool supported() { return false; }
void forward(const BFloat16*, BFloat16*, int64_t) {}
void backward(const BFloat16*, const BFloat16*, BFloat16*, int64_t, bool) {}

}  // namespace dino::gelu_avx512

#endif
