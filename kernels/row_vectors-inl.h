// Included once for each instruction set, as Highway's own headers are.
#if defined(DINO_ROW_VECTORS_INL_H) == defined(HWY_TARGET_TOGGLE)
#ifdef DINO_ROW_VECTORS_INL_H
#undef DINO_ROW_VECTORS_INL_H
#else
#define DINO_ROW_VECTORS_INL_H
#endif

#include <cstdint>
#include <cstring>
#include <hwy/highway.h>

HWY_BEFORE_NAMESPACE();
namespace dino::row_vectors::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

// Where masks are not part of the instructions, Highway reads whole vectors, beyond the end of an array, and writes them back, over
// what another thread may just have written.
#if HWY_MEM_OPS_MIGHT_FAULT && HWY_TARGET != HWY_AVX2
#define DINO_TAILS_BY_COPY 1
#else
#define DINO_TAILS_BY_COPY 0
#endif

/// The values of the lanes of `mask`, which are the first ones; 0 in the others. Reads nothing else.
template <class D, class M>
HWY_INLINE hn::Vec<D> load_first(M mask, D d, const float* from) {
#if DINO_TAILS_BY_COPY
  HWY_ALIGN float lanes[hn::MaxLanes(D())] = {};
  std::memcpy(lanes, from, hn::CountTrue(d, mask) * sizeof(float));
  return hn::Load(d, lanes);
#else
  return hn::MaskedLoad(mask, d, from);
#endif
}

/// Writes the lanes of `mask`, which are the first ones, and nothing else.
template <class D, class M>
HWY_INLINE void store_first(hn::Vec<D> value, M mask, D d, float* to) {
#if DINO_TAILS_BY_COPY
  HWY_ALIGN float lanes[hn::MaxLanes(D())];
  hn::Store(value, d, lanes);
  std::memcpy(to, lanes, hn::CountTrue(d, mask) * sizeof(float));
#else
  hn::BlendedStore(value, mask, d, to);
#endif
}

#undef DINO_TAILS_BY_COPY

/// Calls body(i, load, store, mask) so that a row of any length is covered: load(x) and store(value, y) move the vector of x + i and
/// y + i, in the last one only the lanes of `mask`, which exist.
template <class Body>
HWY_INLINE void for_vectors(int64_t n, const Body& body) {
  const hn::ScalableTag<float> d;
  using V = hn::Vec<decltype(d)>;
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(d));
  int64_t i = 0;
  for (; i + lanes <= n; i += lanes)
    body(i, [&](const float* p) HWY_ATTR { return hn::LoadU(d, p + i); },
         [&](V v, float* p) HWY_ATTR { hn::StoreU(v, d, p + i); }, hn::FirstN(d, static_cast<size_t>(lanes)));
  if (i < n) {
    const auto mask = hn::FirstN(d, static_cast<size_t>(n - i));
    body(i, [&](const float* p) HWY_ATTR { return load_first(mask, d, p + i); },
         [&](V v, float* p) HWY_ATTR { store_first(v, mask, d, p + i); }, mask);
  }
}

}  // namespace dino::row_vectors::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif
