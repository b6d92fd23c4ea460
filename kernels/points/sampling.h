// Furthest-point sampling as the kernels of both devices see it.
#pragma once

#include <cstdint>

namespace zoo::points {

// One cloud's, or on a GPU those of clouds that lie one after the other.
struct Sampling {
  const void* points;  // (count, 3)
  int64_t count, samples;
  double skip;      // points with |x|^2 <= skip are not taken, but for the first
  int64_t* chosen;  // (samples,)
};

}  // namespace zoo::points
