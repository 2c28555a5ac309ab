// Included once for each instruction set, as Highway's own headers are.
#if defined(DINO_FIRST_LANES_INL_H) == defined(HWY_TARGET_TOGGLE)
#ifdef DINO_FIRST_LANES_INL_H
#undef DINO_FIRST_LANES_INL_H
#else
#define DINO_FIRST_LANES_INL_H
#endif

#include <cstring>
#include <hwy/highway.h>

HWY_BEFORE_NAMESPACE();
namespace dino::first_lanes::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

// Where masks are not part of the instructions, Highway reads whole vectors, beyond the end of an array, and writes them back, over
// what another thread may just have written.
#if HWY_MEM_OPS_MIGHT_FAULT && HWY_TARGET != HWY_AVX2
#define DINO_FIRST_LANES_BY_COPY 1
#else
#define DINO_FIRST_LANES_BY_COPY 0
#endif

/// The values of the lanes of `mask`, which are the first ones; 0 in the others. Reads nothing else.
template <class D, class M>
HWY_INLINE hn::Vec<D> load(M mask, D d, const float* from) {
#if DINO_FIRST_LANES_BY_COPY
  HWY_ALIGN float lanes[hn::MaxLanes(D())] = {};
  std::memcpy(lanes, from, hn::CountTrue(d, mask) * sizeof(float));
  return hn::Load(d, lanes);
#else
  return hn::MaskedLoad(mask, d, from);
#endif
}

/// Writes the lanes of `mask`, which are the first ones, and nothing else.
template <class D, class M>
HWY_INLINE void store(hn::Vec<D> value, M mask, D d, float* to) {
#if DINO_FIRST_LANES_BY_COPY
  HWY_ALIGN float lanes[hn::MaxLanes(D())];
  hn::Store(value, d, lanes);
  std::memcpy(to, lanes, hn::CountTrue(d, mask) * sizeof(float));
#else
  hn::BlendedStore(value, mask, d, to);
#endif
}

#undef DINO_FIRST_LANES_BY_COPY

}  // namespace dino::first_lanes::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif
