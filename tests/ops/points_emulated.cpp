// The CUDA kernel of kernels/points, run by cuda_emulation.h and called from test_points_cuda.py.

#include "cuda_emulation.h"

#include "cuda.cu"

extern "C" void sample(const void* points, int64_t clouds, int64_t count, int64_t samples, double skip, bool is_double,
                       void* distances, int64_t* chosen) {
  zoo::points::cuda_sample({points, count, samples, skip, chosen}, clouds, is_double, distances, nullptr);
}
