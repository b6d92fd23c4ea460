// The CUDA kernels of kernels/rational, run by cuda_emulation.h and called from test_rational_cuda.py.

#include "cuda_emulation.h"

#include "device.cuh"

namespace zoo {

// _Float16 rounds to nearest even, as the GPU's conversions do; bfloat16 is the upper half of a float.
inline void unpack_pair(uint32_t bits, Half, float& low, float& high) {
  _Float16 halves[2];
  memcpy(halves, &bits, sizeof bits);
  low = halves[0];
  high = halves[1];
}
inline uint32_t pack_pair(float low, float high, Half) {
  const _Float16 halves[2] = {static_cast<_Float16>(low), static_cast<_Float16>(high)};
  uint32_t bits;
  memcpy(&bits, halves, sizeof bits);
  return bits;
}
inline void unpack_pair(uint32_t bits, BFloat16, float& low, float& high) {
  const uint32_t low_bits = bits << 16, high_bits = bits & 0xffff0000u;
  memcpy(&low, &low_bits, 4);
  memcpy(&high, &high_bits, 4);
}
inline uint32_t pack_pair(float low, float high, BFloat16) {
  uint32_t bits[2];
  memcpy(&bits[0], &low, 4);
  memcpy(&bits[1], &high, 4);
  for (uint32_t& b : bits) b = (b + 0x7fff + (b >> 16 & 1)) >> 16;
  return bits[1] << 16 | bits[0];
}

}  // namespace zoo

#include "cuda.cu"

using namespace zoo::rational;

extern "C" {

Problem* new_problem(const int64_t* layout, int format, const void* const* pointers, const int64_t* strides,
                     const int64_t* coefficients) {
  auto* p = new Problem{};
  p->layout = {layout[0], layout[1], layout[2]};
  p->format = static_cast<Format>(format);
  p->x = pointers[0];
  p->grad = pointers[1];
  p->out = const_cast<void*>(pointers[2]);
  p->numerator = pointers[3];
  p->denominator = pointers[4];
  p->numerator_grad = const_cast<void*>(pointers[5]);
  p->denominator_grad = const_cast<void*>(pointers[6]);
  p->x_stride = strides[0];
  p->grad_stride = strides[1];
  p->numerator_rows = coefficients[0];
  p->numerator_count = coefficients[1];
  p->denominator_rows = coefficients[2];
  p->denominator_count = coefficients[3];
  return p;
}
void delete_problem(Problem* p) { delete p; }

void evaluate(const Problem* p) { cuda_evaluate(*p, nullptr); }
void differentiate(const Problem* p, void* workspace) { cuda_differentiate(*p, workspace, nullptr); }
int64_t workspace_bytes(const Problem* p) { return static_cast<int64_t>(cuda_workspace(*p)); }

// packet, tiles, groups per tile, tiles per group, width, height, passes, chunks
void describe_plan(const Problem* p, int64_t* into) {
  with_format(*p, [&](auto, auto packet) {
    const Plan plan = make_plan(*p, packet);
    const int64_t values[] = {plan.packet, plan.tiles, plan.groups_per_tile, plan.tiles_per_group,
                              plan.width, plan.height, plan.passes, plan.chunks};
    memcpy(into, values, sizeof values);
  });
}
}
