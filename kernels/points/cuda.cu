// Furthest-point sampling on a GPU.
//
// A block per cloud, and a thread for every so many points, whose distances to what is taken only it reads and writes.
// A step takes two barriers: between them 32 threads find the furthest point of a 32nd of the threads each, after them
// every thread the furthest of those 32. Of points equally far the first is taken, and every product and sum is rounded
// by itself: the same indices as by the reference.

#include "../common/device.cuh"
#include "cuda.h"

namespace zoo::points {
namespace {

constexpr int kThreads = 512;
constexpr int kLanes = 32;

ZOO_DEVICE float times(float a, float b) { return __fmul_rn(a, b); }
ZOO_DEVICE float plus(float a, float b) { return __fadd_rn(a, b); }
ZOO_DEVICE double times(double a, double b) { return __dmul_rn(a, b); }
ZOO_DEVICE double plus(double a, double b) { return __dadd_rn(a, b); }

template <class T>
ZOO_DEVICE T squared_length(T x, T y, T z) {
  return plus(plus(times(x, x), times(y, y)), times(z, z));
}

// A point and its distance to what is taken.
template <class T>
struct Far {
  T distance;
  int64_t index;
};

template <class T>
ZOO_DEVICE Far<T> further(Far<T> a, Far<T> b) {
  const bool second = b.distance > a.distance || (b.distance == a.distance && b.index < a.index);
  return second ? b : a;
}

template <class T>
__global__ void __launch_bounds__(kThreads) sample_kernel(const Sampling s, void* all_distances) {
  __shared__ Far<T> of_threads[kThreads];
  __shared__ Far<T> of_lanes[kLanes];
  const int thread = threadIdx.x;
  const int64_t cloud = blockIdx.x;
  const T* points = static_cast<const T*>(s.points) + cloud * s.count * 3;
  T* distances = static_cast<T*>(all_distances) + cloud * s.count;
  int64_t* chosen = s.chosen + cloud * s.samples;
  for (int64_t i = thread; i < s.count; i += kThreads) {
    const T* point = points + 3 * i;
    // A distance below zero stays the smallest: such a point is never the furthest.
    distances[i] = squared_length(point[0], point[1], point[2]) <= static_cast<T>(s.skip) ? T(-1) : T(1e10);
  }
  int64_t last = 0;
  if (thread == 0) chosen[0] = 0;
  for (int64_t taken = 1; taken < s.samples; ++taken) {
    const T x = points[3 * last], y = points[3 * last + 1], z = points[3 * last + 2];
    Far<T> best = {T(-1), 0};  // where nothing is left, the first point
    for (int64_t i = thread; i < s.count; i += kThreads) {
      const T* point = points + 3 * i;
      const T distance = squared_length(point[0] - x, point[1] - y, point[2] - z);
      const T least = distances[i] < distance ? distances[i] : distance;
      distances[i] = least;
      if (least > best.distance) best = {least, i};
    }
    of_threads[thread] = best;
    __syncthreads();
    if (thread < kLanes) {
      for (int other = thread + kLanes; other < kThreads; other += kLanes) best = further(best, of_threads[other]);
      of_lanes[thread] = best;
    }
    __syncthreads();
    best = of_lanes[0];
    for (int lane = 1; lane < kLanes; ++lane) best = further(best, of_lanes[lane]);
    last = best.index;
    if (thread == 0) chosen[taken] = last;
  }
}

}  // namespace

const char* cuda_sample(const Sampling& sampling, int64_t clouds, bool is_double, void* distances, void* stream) {
  launch(is_double ? sample_kernel<double> : sample_kernel<float>, clouds, kThreads, stream, sampling, distances);
  return launch_error();
}

}  // namespace zoo::points
