// Vectors of the instruction set this file is compiled for, and loading and storing number formats.
//
// Everything here has internal linkage; see common/math.h.
#pragma once

#include <cstdint>
#include <cstring>

#if defined(__AVX2__)
#include <immintrin.h>
#endif

#include "math.h"

namespace zoo {

#if defined(__AVX512F__)
constexpr int kVectorBytes = 64;
#elif defined(__AVX2__)
constexpr int kVectorBytes = 32;
#else
constexpr int kVectorBytes = 16;
#endif

// Number formats in memory.
struct Half { uint16_t bits; };
struct BFloat16 { uint16_t bits; };

// What numbers of a format are computed in: float, but double for double.
template <class Stored>
struct Computed { using Scalar = float; };
template <>
struct Computed<double> { using Scalar = double; };

template <class Scalar>
struct Lanes {
  static constexpr int count = kVectorBytes / sizeof(Scalar);
  typedef Scalar Vector __attribute__((vector_size(kVectorBytes)));
};

template <class Stored>
using Vector = typename Lanes<typename Computed<Stored>::Scalar>::Vector;

using Floats = Vector<float>;
typedef uint32_t Words __attribute__((vector_size(kVectorBytes)));
typedef uint16_t HalfWords __attribute__((vector_size(kVectorBytes / 2)));

ZOO_INLINE Floats half_to_float(HalfWords bits);
ZOO_INLINE HalfWords float_to_half(Floats x);
ZOO_INLINE Floats bfloat16_to_float(HalfWords bits);
ZOO_INLINE HalfWords float_to_bfloat16(Floats x);

// One vector from unaligned memory.
template <class Stored>
ZOO_INLINE Vector<Stored> load(const Stored* from) {
  if constexpr (sizeof(Stored) == 2) {
    HalfWords bits;
    memcpy(&bits, from, sizeof bits);
    if constexpr (__is_same(Stored, BFloat16)) {
      return bfloat16_to_float(bits);
    } else {
      return half_to_float(bits);
    }
  } else {
    Vector<Stored> value;
    memcpy(&value, from, sizeof value);
    return value;
  }
}

template <class Stored>
ZOO_INLINE void store(Stored* to, Vector<Stored> value) {
  if constexpr (sizeof(Stored) == 2) {
    HalfWords bits;
    if constexpr (__is_same(Stored, BFloat16)) {
      bits = float_to_bfloat16(value);
    } else {
      bits = float_to_half(value);
    }
    memcpy(to, &bits, sizeof bits);
  } else {
    memcpy(to, &value, sizeof value);
  }
}

// The first `count` lanes only; the others are zero.
template <class Stored>
ZOO_INLINE Vector<Stored> load(const Stored* from, int count) {
  Stored lanes[sizeof(Vector<Stored>) / sizeof(typename Computed<Stored>::Scalar)] = {};
  memcpy(lanes, from, count * sizeof(Stored));
  return load(lanes);
}

template <class Stored>
ZOO_INLINE void store(Stored* to, Vector<Stored> value, int count) {
  Stored lanes[sizeof(Vector<Stored>) / sizeof(typename Computed<Stored>::Scalar)];
  store(lanes, value);
  memcpy(to, lanes, count * sizeof(Stored));
}

// bfloat16 is the upper half of a float, rounded to nearest, ties to even. A NaN must not have its lowest bits
// set, or rounding would carry it over into the sign: arithmetic makes none of that kind.
ZOO_INLINE Words round_to_bfloat16(Floats x) {
  const Words bits = (Words)x;
  return bits + 0x7fff + ((bits >> 16) & 1);
}

#if defined(__AVX512BW__)

ZOO_INLINE Floats bfloat16_to_float(HalfWords bits) {
  return (Floats)_mm512_slli_epi32(_mm512_cvtepu16_epi32((__m256i)bits), 16);
}
ZOO_INLINE HalfWords float_to_bfloat16(Floats x) {
  const __m512i odd_words = _mm512_set_epi16(0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,  //
                                             31, 29, 27, 25, 23, 21, 19, 17, 15, 13, 11, 9, 7, 5, 3, 1);
  const __m512i rounded = (__m512i)round_to_bfloat16(x);
  return (HalfWords)_mm512_castsi512_si256(_mm512_permutexvar_epi16(odd_words, rounded));
}
ZOO_INLINE Floats half_to_float(HalfWords bits) { return (Floats)_mm512_cvtph_ps((__m256i)bits); }
ZOO_INLINE HalfWords float_to_half(Floats x) {
  return (HalfWords)_mm512_cvtps_ph((__m512)x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
}

#elif defined(__AVX2__)

ZOO_INLINE Floats bfloat16_to_float(HalfWords bits) {
  return (Floats)_mm256_slli_epi32(_mm256_cvtepu16_epi32((__m128i)bits), 16);
}
ZOO_INLINE HalfWords float_to_bfloat16(Floats x) {
  const __m256i rounded = _mm256_srli_epi32((__m256i)round_to_bfloat16(x), 16);
  const __m256i packed = _mm256_packus_epi32(rounded, rounded);  // within each half of the vector
  return (HalfWords)_mm256_castsi256_si128(_mm256_permute4x64_epi64(packed, 0x08));
}
ZOO_INLINE Floats half_to_float(HalfWords bits) { return (Floats)_mm256_cvtph_ps((__m128i)bits); }
ZOO_INLINE HalfWords float_to_half(Floats x) {
  return (HalfWords)_mm256_cvtps_ph((__m256)x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
}

#else

ZOO_INLINE Floats bfloat16_to_float(HalfWords bits) {
  return (Floats)(__builtin_convertvector(bits, Words) << 16);
}
ZOO_INLINE HalfWords float_to_bfloat16(Floats x) {
  return __builtin_convertvector(round_to_bfloat16(x) >> 16, HalfWords);
}

ZOO_INLINE Floats half_to_float(HalfWords bits) {
  const Words wide = __builtin_convertvector(bits, Words);
  const Words sign = (wide & 0x8000) << 16, rest = wide & 0x7fff;
  // Exponent and mantissa moved into place have the wrong bias; a product with 2^112 mends it, for
  // subnormal numbers too.
  const Words finite = (Words)((Floats)(rest << 13) * 0x1p112f);
  return (Floats)(sign | (rest < 0x7c00 ? finite : (rest << 13 | 0x7f800000)));
}

ZOO_INLINE HalfWords float_to_half(Floats x) {
  const Words bits = (Words)x, sign = (bits >> 16) & 0x8000, rest = bits & 0x7fffffff;
  // Normal: change the bias and round the 13 lost bits to nearest even; overflow runs into infinity.
  const Words normal = (rest - (112u << 23) + 0xfff + ((rest >> 13) & 1)) >> 13;
  // Subnormal: adding 1/2 lets the adder shift and round.
  const Words subnormal = (Words)((Floats)rest + 0.5f) - 0x3f000000;
  const Words finite = rest < (113u << 23) ? subnormal : normal;
  const Words special = rest > 0x7f800000 ? (Words{} + 0x7e00) : (Words{} + 0x7c00);
  return __builtin_convertvector(sign | (rest < (143u << 23) ? finite : special), HalfWords);
}

#endif

}  // namespace zoo
