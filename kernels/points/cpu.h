// What bindings.cpp and the CPU kernels of each instruction set agree on.
#pragma once

#include "sampling.h"

namespace zoo::points {

// Features gathered about one cloud's centres, see zoo/ops/points.py: for rotation a and kernel point k
//   out[p, a, k, :] = sum_j max(0, 1 - |offset[p, j] - point[table[a, k]]|^2 / sigma) f[neighbour[p, j], a, :]
struct Gathering {
  const void* offsets;        // (centres, slots, 3)
  const int64_t* neighbours;  // (centres, slots), -1 for none
  const void* points;         // three rows of `padded` numbers: x, y, z of the kernel points, see `shared`
  const int64_t* table;       // (rotations, kernel), used where the points are shared
  int64_t centres, slots, rotations, kernel, channels;
  // All rotations share `padded` points, which each finds by its row of the table; or each has its own `padded`
  // points, in the order of the kernel, beginning at rotation * padded.
  bool shared;
  int64_t padded;
  int64_t total;  // points in a row of x, y or z
  double sigma;
};

struct Kernels {
  const char* name;
  int64_t lanes_float, lanes_double;
  // `scratch` holds 4 * (count + lanes) numbers.
  void (*sample)(const Sampling&, bool is_double, void* scratch);
  // Centres [begin, end); `scratch` holds slots * padded numbers and as many more as the kernel has points.
  void (*gather)(const Gathering&, bool is_double, const void* features, void* out, int64_t begin, int64_t end,
                 void* scratch);
  // Its transpose for the rotations [begin, end): adds to grad_features, with the same scratch.
  void (*scatter)(const Gathering&, bool is_double, const void* grad, void* grad_features, int64_t begin, int64_t end,
                  void* scratch);
};

extern const Kernels baseline_kernels;
extern const Kernels avx2_kernels;
extern const Kernels avx512_kernels;

}  // namespace zoo::points
