// What the torch ops of this folder share: the kernels for this processor, threads, access to tensors.
//
// Work is handed to threads in small pieces whose results are added in the order of the pieces, never of the threads:
// images and gradients do not depend on the number of threads.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <cstring>
#include <string>
#include <vector>

#include "../common/torch.h"
#include "cpu.h"

namespace zoo::splat {
namespace {

struct Set {
  const ProjectKernels& project;
  const HarmonicsKernels& harmonics;
  const TileKernels& tiles;
  const SsimKernels& ssim;
  const SweepKernels& sweep;
};

// The best instruction set of this processor, limited as torch's own by ATEN_CPU_CAPABILITY=default or avx2.
const Set& kernels() {
#if defined(__x86_64__)
  static const Set best = []() -> Set {
    const char* set = std::getenv("ATEN_CPU_CAPABILITY");
    const std::string limit = set ? set : "";
    const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c");
    const bool avx512 = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                        __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
    if (avx2 && avx512 && limit != "avx2" && limit != "default") {
      return {avx512_project, avx512_harmonics, avx512_tiles, avx512_ssim, avx512_sweep};
    }
    if (avx2 && limit != "default") return {avx2_project, avx2_harmonics, avx2_tiles, avx2_ssim, avx2_sweep};
    return {baseline_project, baseline_harmonics, baseline_tiles, baseline_ssim, baseline_sweep};
  }();
#else
  static const Set best = {baseline_project, baseline_harmonics, baseline_tiles, baseline_ssim, baseline_sweep};
#endif
  return best;
}

// Runs `work(piece)` for every piece; a thread that is done takes the next.
template <class Work>
void share(int64_t pieces, const Work& work) {
  const int64_t threads = std::min<int64_t>(torch::stable::get_num_threads(), pieces);
  if (threads <= 1) {
    for (int64_t i = 0; i < pieces; ++i) work(i);
    return;
  }
  std::atomic<int64_t> next{0};
  torch::stable::parallel_for(0, threads, 1, [&](int64_t, int64_t) {
    for (int64_t i = next++; i < pieces; i = next++) work(i);
  });
}

constexpr int64_t kPiece = 512;  // Gaussians

int64_t pieces_of(int64_t count) { return (count + kPiece - 1) / kPiece; }

template <class Work>
void share_gaussians(int64_t count, const Work& work) {
  share(pieces_of(count), [&](int64_t i) { work(i * kPiece, std::min(count, (i + 1) * kPiece), i); });
}

Tensor checked(const Tensor& t, ScalarType type, const char* what) {
  STD_TORCH_CHECK(t.scalar_type() == type, "splat: ", what, " has the wrong dtype");
  return torch::stable::contiguous(t);
}

Tensor floats(const Tensor& t, const char* what) { return checked(t, ScalarType::Float, what); }

const float* read(const Tensor& t) { return static_cast<const float*>(t.const_data_ptr()); }
float* write(const Tensor& t) { return static_cast<float*>(t.mutable_data_ptr()); }
const int32_t* read_ints(const Tensor& t) { return static_cast<const int32_t*>(t.const_data_ptr()); }
int32_t* write_ints(const Tensor& t) { return static_cast<int32_t*>(t.mutable_data_ptr()); }

using Five = std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor>;

}  // namespace
}  // namespace zoo::splat
