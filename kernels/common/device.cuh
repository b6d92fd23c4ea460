// What a CUDA kernel of ours needs beyond the language: launching, and packets of numbers in one memory access.
//
// The kernels can be compiled as plain C++ too, to test their index arithmetic on a machine without a GPU:
// tests/ops/cuda_emulation.h then stands in for the language.
#pragma once

#include <cstdint>
#include <cstring>

#if defined(__CUDACC__)
#include <cuda_runtime.h>
#define ZOO_DEVICE static __device__ __forceinline__
#define ZOO_PACKET_INLINE __device__ __forceinline__
#endif

#include "math.h"

namespace zoo {

struct Half { uint16_t bits; };
struct BFloat16 { uint16_t bits; };

// What numbers of a format are computed in: float, but double for double.
template <class Stored>
struct Computed { using Scalar = float; };
template <>
struct Computed<double> { using Scalar = double; };

#if defined(__CUDACC__)

template <class... Parameters, class... Arguments>
void launch(void (*kernel)(Parameters...), int64_t blocks, int threads, void* stream, Arguments... arguments) {
  kernel<<<dim3(static_cast<unsigned>(blocks)), threads, 0, static_cast<cudaStream_t>(stream)>>>(arguments...);
}

// Null, or what went wrong with the launches so far.
inline const char* launch_error() {
  const cudaError_t error = cudaGetLastError();
  return error == cudaSuccess ? nullptr : cudaGetErrorString(error);
}

ZOO_DEVICE void unpack_pair(uint32_t bits, BFloat16, float& low, float& high) {
  low = __uint_as_float(bits << 16);
  high = __uint_as_float(bits & 0xffff0000u);
}
ZOO_DEVICE void unpack_pair(uint32_t bits, Half, float& low, float& high) {
  asm("{.reg .f16 l, h; mov.b32 {l, h}, %2; cvt.f32.f16 %0, l; cvt.f32.f16 %1, h;}"
      : "=f"(low), "=f"(high) : "r"(bits));
}
ZOO_DEVICE uint32_t pack_pair(float low, float high, BFloat16) {
  uint32_t bits;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(bits) : "f"(high), "f"(low));
  return bits;
}
ZOO_DEVICE uint32_t pack_pair(float low, float high, Half) {
  uint32_t bits;
  asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(bits) : "f"(high), "f"(low));
  return bits;
}

#endif

template <int bytes> struct Raw;
template <> struct Raw<16> { using Type = uint4; };
template <> struct Raw<8> { using Type = uint2; };
template <> struct Raw<4> { using Type = uint32_t; };
template <> struct Raw<2> { using Type = uint16_t; };

// `count` numbers next to one another, read and written at once; the address is a multiple of their size.
template <class Stored, int count>
struct Packet {
  using Scalar = typename Computed<Stored>::Scalar;
  typename Raw<count * sizeof(Stored)>::Type raw;

  static ZOO_PACKET_INLINE Packet load(const Stored* from) {
    return {*reinterpret_cast<const decltype(raw)*>(from)};
  }
  // For what is not read again: leaves the cache first.
  static ZOO_PACKET_INLINE Packet load_once(const Stored* from) {
    return {__ldcs(reinterpret_cast<const decltype(raw)*>(from))};
  }
  ZOO_PACKET_INLINE void store(Stored* to) const { *reinterpret_cast<decltype(raw)*>(to) = raw; }

  ZOO_PACKET_INLINE void unpack(Scalar (&x)[count]) const {
    if constexpr (sizeof(Stored) > 2) {
      memcpy(x, &raw, sizeof raw);
    } else {
      uint32_t pairs[(count + 1) / 2] = {};
      memcpy(pairs, &raw, sizeof raw);
      float unused;
#pragma unroll
      for (int i = 0; i < count; i += 2) unpack_pair(pairs[i / 2], Stored{}, x[i], i + 1 < count ? x[i + 1] : unused);
    }
  }
  static ZOO_PACKET_INLINE Packet pack(const Scalar (&x)[count]) {
    Packet packet;
    if constexpr (sizeof(Stored) > 2) {
      memcpy(&packet.raw, x, sizeof packet.raw);
    } else {
      uint32_t pairs[(count + 1) / 2];
#pragma unroll
      for (int i = 0; i < count; i += 2) pairs[i / 2] = pack_pair(x[i], i + 1 < count ? x[i + 1] : 0.0f, Stored{});
      memcpy(&packet.raw, pairs, sizeof packet.raw);
    }
    return packet;
  }
};

}  // namespace zoo
