// Masks over the lanes of a vector, the exponential function, and sums across lanes, for the instruction set at hand.
#pragma once

#include <utility>

#include "../common/simd.h"

namespace zoo::splat {

constexpr int kLanes = Lanes<float>::count;
typedef int32_t Ints __attribute__((vector_size(kVectorBytes)));

ZOO_INLINE Floats all(float x) { return x + Floats{}; }

#if defined(__AVX512F__)

using Mask = __mmask16;
ZOO_INLINE Floats least(Floats a, Floats b) { return (Floats)_mm512_min_ps((__m512)a, (__m512)b); }
ZOO_INLINE Floats largest(Floats a, Floats b) { return (Floats)_mm512_max_ps((__m512)a, (__m512)b); }
ZOO_INLINE Mask at_most(Floats a, Floats b) { return _mm512_cmp_ps_mask((__m512)a, (__m512)b, _CMP_LE_OQ); }
ZOO_INLINE Mask below(Floats a, Floats b) { return _mm512_cmp_ps_mask((__m512)a, (__m512)b, _CMP_LT_OQ); }
ZOO_INLINE Mask at_least(const int32_t* a, int32_t b) {
  return _mm512_cmpge_epi32_mask(_mm512_loadu_si512(a), _mm512_set1_epi32(b));
}
ZOO_INLINE Mask both(Mask a, Mask b) { return static_cast<Mask>(a & b); }
ZOO_INLINE Mask except(Mask a, Mask b) { return static_cast<Mask>(a & ~b); }
ZOO_INLINE Floats choose(Mask mask, Floats yes, Floats no) {
  return (Floats)_mm512_mask_blend_ps(mask, (__m512)no, (__m512)yes);
}
ZOO_INLINE Floats only(Mask mask, Floats x) { return (Floats)_mm512_maskz_mov_ps(mask, (__m512)x); }
ZOO_INLINE void store_where(Mask mask, int32_t* to, int32_t x) {
  _mm512_mask_storeu_epi32(to, mask, _mm512_set1_epi32(x));
}
ZOO_INLINE uint32_t bits(Mask mask) { return mask; }
ZOO_INLINE Mask first_lanes(int count) { return static_cast<Mask>((1u << count) - 1); }

// Within 2^-27: the processor's approximation and one step of Newton's method.
ZOO_INLINE Floats inverse(Floats x) {
  const Floats guess = (Floats)_mm512_rcp14_ps((__m512)x);
  return guess * (2.0f - x * guess);
}

#else

using Mask = Ints;
ZOO_INLINE Floats least(Floats a, Floats b) { return a < b ? a : b; }
ZOO_INLINE Floats largest(Floats a, Floats b) { return a > b ? a : b; }
ZOO_INLINE Mask at_most(Floats a, Floats b) { return a <= b; }
ZOO_INLINE Mask below(Floats a, Floats b) { return a < b; }
ZOO_INLINE Mask at_least(const int32_t* a, int32_t b) {
  Ints lanes;
  memcpy(&lanes, a, sizeof lanes);
  return lanes >= b;
}
ZOO_INLINE Mask both(Mask a, Mask b) { return a & b; }
ZOO_INLINE Mask except(Mask a, Mask b) { return a & ~b; }
ZOO_INLINE Floats choose(Mask mask, Floats yes, Floats no) { return mask ? yes : no; }
ZOO_INLINE Floats only(Mask mask, Floats x) { return (Floats)((Ints)x & mask); }
ZOO_INLINE void store_where(Mask mask, int32_t* to, int32_t x) {
  Ints lanes;
  memcpy(&lanes, to, sizeof lanes);
  lanes = mask ? x + Ints{} : lanes;
  memcpy(to, &lanes, sizeof lanes);
}
ZOO_INLINE uint32_t bits(Mask mask) {
#if defined(__AVX2__)
  return _mm256_movemask_ps((__m256)mask);
#elif defined(__SSE2__)
  return __builtin_ia32_movmskps((Floats)mask);
#else
  uint32_t found = 0;
  for (int i = 0; i < kLanes; ++i) found |= (mask[i] & 1u) << i;
  return found;
#endif
}
ZOO_INLINE Mask first_lanes(int count) {
  Ints mask;
  for (int i = 0; i < kLanes; ++i) mask[i] = i < count ? -1 : 0;
  return mask;
}
ZOO_INLINE Floats inverse(Floats x) { return 1.0f / x; }

#endif

ZOO_INLINE Floats root(Floats x) {
#if defined(__AVX512F__)
  return (Floats)_mm512_sqrt_ps((__m512)x);
#elif defined(__AVX2__)
  return (Floats)_mm256_sqrt_ps((__m256)x);
#else
  for (int i = 0; i < kLanes; ++i) x[i] = __builtin_sqrtf(x[i]);
  return x;
#endif
}

ZOO_INLINE Floats clamp(Floats x, Floats low, Floats high) { return least(largest(x, low), high); }

// exp(x) for x <= 0, within 3e-7 relative for x > -6; below -80 it stays at exp(-80).
ZOO_INLINE Floats exponential(Floats x) {
  const Floats bounded = largest(x, all(-80.0f)) * 1.44269504f;
  const float shift = 12582912.0f;  // 1.5 * 2^23: adding it rounds to an integer in the lowest bits
  const Floats shifted = bounded + shift;
  const Floats f = bounded - (shifted - shift);
  // 2^f with the smallest relative error over -1/2 .. 1/2.
  Floats p = all(1.326472066e-3f);
  p = p * f + 9.671513597e-3f;
  p = p * f + 5.550733770e-2f;
  p = p * f + 2.402224207e-1f;
  p = p * f + 6.931469776e-1f;
  p = p * f + 1.0f;
  return (Floats)((Words)p + ((Words)shifted << 23));
}

#if defined(__AVX512F__)

// Halves of two vectors, added: the sums of a in the lower half, those of b in the upper one.
ZOO_INLINE __m512 fold_halves(__m512 a, __m512 b) {
  return _mm512_add_ps(_mm512_shuffle_f32x4(a, b, 0x44), _mm512_shuffle_f32x4(a, b, 0xee));
}
ZOO_INLINE __m512 fold_quarters(__m512 a, __m512 b) {
  return _mm512_add_ps(_mm512_shuffle_f32x4(a, b, 0x88), _mm512_shuffle_f32x4(a, b, 0xdd));
}
ZOO_INLINE __m512 fold_lanes(__m512 a, __m512 b) {
  return _mm512_add_ps(_mm512_shuffle_ps(a, b, 0x88), _mm512_shuffle_ps(a, b, 0xdd));
}

// to[i] = the sum of the lanes of x[i]; up to 12 vectors at once.
template <int count>
ZOO_INLINE void store_totals(const Floats (&x)[count], float* to) {
  static_assert(count <= 12);
  const auto at = [&](int i) { return i < count ? (__m512)x[i] : _mm512_setzero_ps(); };
  __m512 folded[4];
  for (int i = 0; i < 4; ++i) {
    const __m512 low = fold_halves(at(i), at(i + 4));
    const __m512 high = i + 8 < count ? fold_halves(at(i + 8), _mm512_setzero_ps()) : _mm512_setzero_ps();
    folded[i] = fold_quarters(low, high);
  }
  const __m512 sums = fold_lanes(fold_lanes(folded[0], folded[1]), fold_lanes(folded[2], folded[3]));
  _mm512_mask_storeu_ps(to, first_lanes(count), sums);
}

#else

ZOO_INLINE float total(Floats x) {
#if defined(__AVX2__)
  const __m256 wide = (__m256)x;
  const __m128 four = _mm_add_ps(_mm256_castps256_ps128(wide), _mm256_extractf128_ps(wide, 1));
  const __m128 two = _mm_add_ps(four, _mm_movehl_ps(four, four));
  return _mm_cvtss_f32(_mm_add_ss(two, _mm_shuffle_ps(two, two, 1)));
#else
  float sum = 0;
  for (int i = 0; i < kLanes; ++i) sum += x[i];
  return sum;
#endif
}

template <int count>
ZOO_INLINE void store_totals(const Floats (&x)[count], float* to) {
  for (int i = 0; i < count; ++i) to[i] = total(x[i]);
}

#endif

// Rows of `width` numbers each as columns, one row to a lane; lanes from `count` on repeat the last row.
template <int width>
ZOO_INLINE void load_rows(const float* from, int count, Floats (&columns)[width]) {
  alignas(64) float lanes[width][kLanes];
  for (int i = 0; i < kLanes; ++i) {
    const float* row = from + width * (i < count ? i : count - 1);
    for (int j = 0; j < width; ++j) lanes[j][i] = row[j];
  }
  for (int j = 0; j < width; ++j) columns[j] = load(lanes[j]);
}

// And back; lanes from `count` on are left out.
template <int width>
ZOO_INLINE void store_rows(const Floats (&columns)[width], float* to, int count) {
  alignas(64) float lanes[width][kLanes];
  for (int j = 0; j < width; ++j) store(lanes[j], columns[j]);
  for (int i = 0; i < count; ++i) {
    for (int j = 0; j < width; ++j) to[width * i + j] = lanes[j][i];
  }
}

#if defined(__has_builtin)
#if __has_builtin(__builtin_shufflevector)
#define ZOO_HAS_SHUFFLES
#endif
#endif

#if defined(ZOO_HAS_SHUFFLES)

// Exchanges the upper lanes of a with the lower lanes of b in every stretch of 2 * step lanes.
template <int step, int... lane>
ZOO_INLINE void exchange(Floats& a, Floats& b, std::integer_sequence<int, lane...>) {
  const Floats first = __builtin_shufflevector(a, b, (lane & step ? kLanes + (lane ^ step) : lane)...);
  b = __builtin_shufflevector(a, b, (lane & step ? kLanes + lane : lane ^ step)...);
  a = first;
}

// Rows to columns of a square, exchanging ever larger squares within it.
template <int step = 1>
ZOO_INLINE void transpose(Floats (&x)[kLanes]) {
  for (int i = 0; i < kLanes; ++i) {
    if (!(i & step)) exchange<step>(x[i], x[i + step], std::make_integer_sequence<int, kLanes>{});
  }
  if constexpr (2 * step < kLanes) transpose<2 * step>(x);
}

#else

ZOO_INLINE void transpose(Floats (&x)[kLanes]) {
  for (int i = 0; i < kLanes; ++i) {
    for (int j = 0; j < i; ++j) {
      const float other = x[i][j];
      x[i][j] = x[j][i], x[j][i] = other;
    }
  }
}

#endif

// The lanes of Gaussians with a radius above zero, of those from `radii` (two numbers each) on.
ZOO_INLINE Mask with_radius(const int32_t* radii, int count) {
  alignas(64) int32_t lanes[kLanes] = {};
  for (int i = 0; i < count; ++i) lanes[i] = radii[2 * i];
  return at_least(lanes, 1);
}

}  // namespace zoo::splat
