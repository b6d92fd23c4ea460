// Arithmetic that reads the same for a scalar, a vector of lanes on a CPU and one thread of a GPU.
#pragma once

#include <cstdint>

#if defined(__AVX512F__)
#include <immintrin.h>
#endif

#if defined(__CUDACC__)
#define ZOO_INLINE static __host__ __device__ __forceinline__
#else
// Internal linkage matters: a file is compiled once per instruction set, and a function shared between the
// objects could be linked from the one this processor can't run.
#define ZOO_INLINE static inline __attribute__((always_inline))
#endif

namespace zoo {

#if defined(__CUDACC__)

ZOO_INLINE float magnitude(float x) { return fabsf(x); }
ZOO_INLINE double magnitude(double x) { return fabs(x); }

// The hardware's approximation is within 1 ulp; it takes q above 2^126 for infinite.
ZOO_INLINE float reciprocal(float q) {
#if defined(__CUDA_ARCH__)
  float r;
  asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(r) : "f"(q));
  return r;
#else
  return 1.0f / q;
#endif
}
ZOO_INLINE double reciprocal(double q) { return 1.0 / q; }

ZOO_INLINE float quotient(float p, float q) { return p * reciprocal(q); }
ZOO_INLINE double quotient(double p, double q) { return p / q; }

#else

template <class V>
ZOO_INLINE V magnitude(V x) {
  if constexpr (__is_same(V, float)) {
    return __builtin_fabsf(x);
  } else if constexpr (__is_same(V, double)) {
    return __builtin_fabs(x);
  } else {  // a vector: clear the sign bits
    using Integer = decltype(x < x);
    if constexpr (sizeof(x[0]) == 4) {
      return (V)((Integer)x & 0x7fffffff);
    } else {
      return (V)((Integer)x & 0x7fffffffffffffff);
    }
  }
}

template <class V>
ZOO_INLINE V reciprocal(V q) {
  return 1 / q;
}

template <class V>
ZOO_INLINE V quotient(V p, V q) {
  return p / q;
}

#endif

// t with its sign turned where x < 0; unlike copysign it takes -0 for +0.
template <class V>
ZOO_INLINE V times_sign(V t, V x) {
#if defined(__AVX512F__)
  // GCC needs one instruction more.
  if constexpr (sizeof(V) == 64 && sizeof(x[0]) == 4) {
    const __mmask16 negative = _mm512_cmp_ps_mask((__m512)x, __m512{}, _CMP_LT_OQ);
    return (V)_mm512_mask_sub_ps((__m512)t, negative, __m512{}, (__m512)t);
  }
#endif
  return x < 0 ? -t : t;
}

// c[0] + c[1] x + ... + c[N] x^N
template <int N, class V>
ZOO_INLINE V polynomial(const V* c, V x) {
  V p = c[N];
#if defined(__CUDACC__)
#pragma unroll
#endif
  for (int i = N - 1; i >= 0; --i) p = p * x + c[i];
  return p;
}

// The same, and its derivative on the way: Horner's rule applied to itself needs no coefficients of its own.
template <int N, class V>
ZOO_INLINE V polynomial(const V* c, V x, V& derivative) {
  V p = c[N], d = V{};
#if defined(__CUDACC__)
#pragma unroll
#endif
  for (int i = N - 1; i >= 0; --i) {
    d = i == N - 1 ? p : d * x + p;
    p = p * x + c[i];
  }
  derivative = d;
  return p;
}

}  // namespace zoo
