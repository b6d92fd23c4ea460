// Runs CUDA kernels as plain C++, to test their index arithmetic and the order of their sums without a GPU: a
// thread per CUDA thread, one block after the other. Slow, and no proof of memory ordering or of speed.
#pragma once

#include <barrier>
#include <cstdint>
#include <memory>
#include <thread>
#include <vector>

#define __global__ static
#define __shared__ static
#define __launch_bounds__(...)
#define ZOO_DEVICE static inline
#define ZOO_PACKET_INLINE inline

struct alignas(16) uint4 { uint32_t x, y, z, w; };
struct alignas(8) uint2 { uint32_t x, y; };
struct Index { unsigned x; };

inline thread_local Index threadIdx, blockIdx, blockDim;
inline thread_local std::barrier<>* block_barrier;

inline void __syncthreads() { block_barrier->arrive_and_wait(); }

// Each rounded by itself, as they are where the compiler has no fused operations to use.
inline float __fmul_rn(float a, float b) { return a * b; }
inline float __fadd_rn(float a, float b) { return a + b; }
inline double __dmul_rn(double a, double b) { return a * b; }
inline double __dadd_rn(double a, double b) { return a + b; }

template <class T>
T __ldcs(const T* from) {
  return *from;
}

namespace zoo {

template <class... Parameters, class... Arguments>
void launch(void (*kernel)(Parameters...), int64_t blocks, int threads, void*, Arguments... arguments) {
  std::barrier barrier(threads);
  std::vector<std::jthread> running;
  for (int thread = 0; thread < threads; ++thread) {
    running.emplace_back([&, thread] {
      threadIdx.x = thread;
      blockDim.x = threads;
      block_barrier = &barrier;
      for (int64_t block = 0; block < blocks; ++block) {
        blockIdx.x = block;
        kernel(arguments...);
        barrier.arrive_and_wait();  // the next block uses the same shared memory
      }
    });
  }
}

inline const char* launch_error() { return nullptr; }

}  // namespace zoo
