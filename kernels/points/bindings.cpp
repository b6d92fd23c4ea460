// The kernels of torch's ops that zoo/ops/points_op.py defines and documents.

#include <algorithm>
#include <cstdlib>
#include <memory>
#include <string>
#include <vector>

#include "../common/torch.h"
#include "cpu.h"
#ifdef ZOO_CUDA
#include "cuda.h"
#endif

namespace zoo::points {
namespace {

// The best instruction set of this processor, limited as torch's own by ATEN_CPU_CAPABILITY=default or avx2.
const Kernels& kernels() {
#if defined(__x86_64__)
  static const Kernels& best = []() -> const Kernels& {
    const char* set = std::getenv("ATEN_CPU_CAPABILITY");
    const std::string limit = set ? set : "";
    const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c");
    const bool avx512 = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                        __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
    if (avx2 && avx512 && limit != "avx2" && limit != "default") return avx512_kernels;
    return avx2 && limit != "default" ? avx2_kernels : baseline_kernels;
  }();
  return best;
#else
  return baseline_kernels;
#endif
}

bool is_double(const Tensor& t) {
  STD_TORCH_CHECK(t.scalar_type() == ScalarType::Float || t.scalar_type() == ScalarType::Double,
                  "points: float32 or float64 is expected");
  return t.scalar_type() == ScalarType::Double;
}

void check_cloud(const Tensor& points) {
  STD_TORCH_CHECK(points.dim() == 3 && points.size(2) == 3 && points.size(1) > 0, "points: (B, N, 3) is expected");
}

int64_t padded_to(int64_t count, int64_t lanes) { return (count + lanes - 1) / lanes * lanes; }

Tensor sample(const Tensor& points_any, int64_t samples, double skip) {
  check_cloud(points_any);
  const Tensor points = torch::stable::contiguous(points_any);
  const bool wide = is_double(points);
  const int64_t batch = points.size(0), count = points.size(1), bytes = wide ? 8 : 4;
  Tensor chosen = torch::stable::new_empty(points, {batch, samples}, ScalarType::Long);
  if (samples == 0) return chosen;
  torch::stable::parallel_for(0, batch, 1, [&](int64_t begin, int64_t end) {
    std::vector<char> scratch(4 * bytes * (count + kernels().lanes_float));
    for (int64_t b = begin; b < end; ++b) {
      const auto* cloud = static_cast<const char*>(points.const_data_ptr()) + b * count * 3 * bytes;
      auto* to = static_cast<int64_t*>(chosen.mutable_data_ptr()) + b * samples;
      kernels().sample({cloud, count, samples, skip, to}, wide, scratch.data());
    }
  });
  return chosen;
}

template <class T>
void query_centre(const T* cloud, int64_t count, const T* centre, T radius, int64_t slots, bool nearest, int64_t* to,
                  std::vector<std::pair<T, int64_t>>& found) {
  found.clear();
  for (int64_t i = 0; i < count; ++i) {
    const T dx = cloud[3 * i] - centre[0], dy = cloud[3 * i + 1] - centre[1], dz = cloud[3 * i + 2] - centre[2];
    const T squared = dx * dx + dy * dy + dz * dz;
    if (!(squared < radius * radius)) continue;  // what is no number is nowhere near
    found.emplace_back(squared, i);
    if (!nearest && static_cast<int64_t>(found.size()) == slots) break;
  }
  if (nearest) {
    const auto middle = found.begin() + std::min<int64_t>(slots, found.size());
    std::partial_sort(found.begin(), middle, found.end());
    found.erase(middle, found.end());
  }
  const int64_t size = found.size();
  for (int64_t k = 0; k < slots; ++k) to[k] = k < size ? found[k].second : -1;
}

Tensor query(const Tensor& points_any, const Tensor& centres_any, double radius, int64_t slots, bool nearest) {
  check_cloud(points_any);
  const Tensor points = torch::stable::contiguous(points_any), centres = torch::stable::contiguous(centres_any);
  STD_TORCH_CHECK(centres.dim() == 3 && centres.size(2) == 3 && centres.size(0) == points.size(0) &&
                      centres.scalar_type() == points.scalar_type(),
                  "points: the centres don't match the points");
  const bool wide = is_double(points);
  const int64_t batch = points.size(0), count = points.size(1), places = centres.size(1);
  Tensor neighbours = torch::stable::new_empty(points, {batch, places, slots}, ScalarType::Long);
  auto* to = static_cast<int64_t*>(neighbours.mutable_data_ptr());
  const auto run = [&](auto zero) {
    using T = decltype(zero);
    const T *clouds = static_cast<const T*>(points.const_data_ptr()),
            *all = static_cast<const T*>(centres.const_data_ptr());
    torch::stable::parallel_for(0, batch * places, 16, [&](int64_t begin, int64_t end) {
      std::vector<std::pair<T, int64_t>> found;
      for (int64_t i = begin; i < end; ++i) {
        query_centre(clouds + i / places * count * 3, count, all + 3 * i, static_cast<T>(radius), slots, nearest,
                     to + i * slots, found);
      }
    });
  };
  wide ? run(double{}) : run(float{});
  return neighbours;
}

// A gathering over a batch; holds on to the memory that it points to.
struct Prepared {
  Gathering gathering{};
  Tensor offsets, neighbours, table;
  std::vector<char> points;
  int64_t bytes;
  bool wide;

  Prepared(const Tensor& offsets_any, const Tensor& neighbours_any, const Tensor& points_any, const Tensor& table_any,
           int64_t channels, double sigma)
      : offsets(torch::stable::contiguous(offsets_any)),
        neighbours(torch::stable::contiguous(neighbours_any)),
        table(torch::stable::contiguous(table_any)),
        wide(is_double(offsets_any)) {
    const Tensor from = torch::stable::contiguous(points_any);
    STD_TORCH_CHECK(offsets.dim() == 4 && offsets.size(3) == 3 && neighbours.dim() == 3 &&
                        neighbours.size(0) == offsets.size(0) && neighbours.size(1) == offsets.size(1) &&
                        neighbours.size(2) == offsets.size(2),
                    "points: offsets (B, P, n, 3) and neighbours (B, P, n) are expected");
    STD_TORCH_CHECK(table.dim() == 2 && from.dim() == 2 && from.size(1) == 3, "points: kernel points (M, 3) and their "
                    "table (A, K) are expected");
    STD_TORCH_CHECK(neighbours.scalar_type() == ScalarType::Long && table.scalar_type() == ScalarType::Long &&
                        from.scalar_type() == offsets.scalar_type(),
                    "points: indices are int64, kernel points of the offsets' dtype");
    bytes = wide ? 8 : 4;
    Gathering& g = gathering;
    g.centres = offsets.size(1);
    g.slots = offsets.size(2);
    g.rotations = table.size(0);
    g.kernel = table.size(1);
    g.channels = channels;
    g.sigma = sigma;
    g.table = static_cast<const int64_t*>(table.const_data_ptr());
    const int64_t count = from.size(0), lanes = wide ? kernels().lanes_double : kernels().lanes_float;
    for (int64_t i = 0; i < g.rotations * g.kernel; ++i) {
      STD_TORCH_CHECK(g.table[i] >= 0 && g.table[i] < count, "points: the table names no kernel point");
    }
    g.shared = count <= 4 * g.kernel;
    g.padded = padded_to(g.shared ? count : g.kernel, lanes);
    g.total = g.shared ? g.padded : g.rotations * g.padded;
    points.resize(3 * g.total * bytes);
    wide ? fill<double>(from, count) : fill<float>(from, count);
    g.points = points.data();
  }

  template <class T>
  void fill(const Tensor& from, int64_t count) {
    const Gathering& g = gathering;
    const T* source = static_cast<const T*>(from.const_data_ptr());
    T* target = reinterpret_cast<T*>(points.data());
    for (int64_t i = 0; i < g.total; ++i) {
      const int64_t rotation = i / g.padded, k = i % g.padded;
      const int64_t index = g.shared ? std::min(i, count - 1) : g.table[rotation * g.kernel + std::min(k, g.kernel - 1)];
      for (int axis = 0; axis < 3; ++axis) target[axis * g.total + i] = source[3 * index + axis];
    }
  }

  Gathering of(int64_t item) const {
    Gathering g = gathering;
    g.offsets = static_cast<const char*>(offsets.const_data_ptr()) + item * g.centres * g.slots * 3 * bytes;
    g.neighbours = static_cast<const int64_t*>(neighbours.const_data_ptr()) + item * g.centres * g.slots;
    return g;
  }

  size_t scratch() const { return bytes * (gathering.slots + 1) * gathering.padded; }

  void check_neighbours(int64_t support) const {
    const auto* index = static_cast<const int64_t*>(neighbours.const_data_ptr());
    const int64_t count = neighbours.numel();
    STD_TORCH_CHECK(std::all_of(index, index + count, [&](int64_t i) { return i >= -1 && i < support; }),
                    "points: a neighbour is out of range");
  }
};

Tensor gather(const Tensor& features_any, const Tensor& offsets, const Tensor& neighbours, const Tensor& points,
              const Tensor& table, double sigma) {
  const Tensor features = torch::stable::contiguous(features_any);
  STD_TORCH_CHECK(features.dim() == 4 && features.size(2) == table.size(0) && features.size(0) == offsets.size(0) &&
                      features.scalar_type() == offsets.scalar_type(),
                  "points: features (B, S, A, C) of the offsets' dtype are expected");
  const Prepared prepared(offsets, neighbours, points, table, features.size(3), sigma);
  prepared.check_neighbours(features.size(1));
  const Gathering& g = prepared.gathering;
  const int64_t batch = features.size(0), item = features.size(1) * g.rotations * g.channels * prepared.bytes;
  Tensor out = torch::stable::new_empty(features, {batch, g.centres, g.rotations, g.kernel, g.channels});
  const int64_t out_item = g.centres * g.rotations * g.kernel * g.channels * prepared.bytes;
  torch::stable::parallel_for(0, batch * g.centres, 1, [&](int64_t begin, int64_t end) {
    std::vector<char> scratch(prepared.scratch());
    while (begin < end) {
      const int64_t b = begin / g.centres, first = begin - b * g.centres, last = std::min(g.centres, end - b * g.centres);
      kernels().gather(prepared.of(b), prepared.wide, static_cast<const char*>(features.const_data_ptr()) + b * item,
                       static_cast<char*>(out.mutable_data_ptr()) + b * out_item, first, last, scratch.data());
      begin += last - first;
    }
  });
  return out;
}

Tensor scatter(const Tensor& grad_any, const Tensor& offsets, const Tensor& neighbours, const Tensor& points,
               const Tensor& table, double sigma, int64_t support) {
  const Tensor grad = torch::stable::contiguous(grad_any);
  STD_TORCH_CHECK(grad.dim() == 5 && grad.size(0) == offsets.size(0) && grad.size(1) == offsets.size(1) &&
                      grad.size(2) == table.size(0) && grad.size(3) == table.size(1) &&
                      grad.scalar_type() == offsets.scalar_type(),
                  "points: a gradient (B, P, A, K, C) of the offsets' dtype is expected");
  const Prepared prepared(offsets, neighbours, points, table, grad.size(4), sigma);
  prepared.check_neighbours(support);
  const Gathering& g = prepared.gathering;
  const int64_t batch = grad.size(0), item = g.centres * g.rotations * g.kernel * g.channels * prepared.bytes;
  Tensor out = torch::stable::new_zeros(grad, {batch, support, g.rotations, g.channels});
  const int64_t out_item = support * g.rotations * g.channels * prepared.bytes;
  // Rotations don't meet in memory, so that every sum has one thread and one order.
  torch::stable::parallel_for(0, batch * g.rotations, 1, [&](int64_t begin, int64_t end) {
    std::vector<char> scratch(prepared.scratch());
    while (begin < end) {
      const int64_t b = begin / g.rotations, first = begin - b * g.rotations,
                    last = std::min(g.rotations, end - b * g.rotations);
      kernels().scatter(prepared.of(b), prepared.wide, static_cast<const char*>(grad.const_data_ptr()) + b * item,
                        static_cast<char*>(out.mutable_data_ptr()) + b * out_item, first, last, scratch.data());
      begin += last - first;
    }
  });
  return out;
}

#ifdef ZOO_CUDA

Tensor sample_cuda(const Tensor& points_any, int64_t samples, double skip) {
  check_cloud(points_any);
  const torch::stable::accelerator::DeviceGuard guard(points_any.get_device_index());
  const Tensor points = torch::stable::contiguous(points_any);
  const bool wide = is_double(points);
  const int64_t batch = points.size(0), count = points.size(1);
  Tensor chosen = torch::stable::new_empty(points, {batch, samples}, ScalarType::Long);
  if (chosen.numel() == 0) return chosen;
  Tensor distances = torch::stable::new_empty(points, {batch, count});
  auto* to = static_cast<int64_t*>(chosen.mutable_data_ptr());
  const char* error = cuda_sample({points.const_data_ptr(), count, samples, skip, to}, batch, wide,
                                  distances.mutable_data_ptr(), current_cuda_stream(points.get_device_index()));
  STD_TORCH_CHECK(error == nullptr, "points: ", error == nullptr ? "" : error);
  return chosen;
}

#endif

}  // namespace
}  // namespace zoo::points

// The instruction set that the CPU kernels use, for `python -m zoo.ops info`.
extern "C" __attribute__((visibility("default"))) const char* zoo_instruction_set() {
  return zoo::points::kernels().name;
}

STABLE_TORCH_LIBRARY_IMPL(zoo, CPU, m) {
  m.impl("furthest_points", TORCH_BOX(&zoo::points::sample));
  m.impl("ball_query", TORCH_BOX(&zoo::points::query));
  m.impl("rotation_gather", TORCH_BOX(&zoo::points::gather));
  m.impl("rotation_scatter", TORCH_BOX(&zoo::points::scatter));
}

#ifdef ZOO_CUDA
STABLE_TORCH_LIBRARY_IMPL(zoo, CUDA, m) { m.impl("furthest_points", TORCH_BOX(&zoo::points::sample_cuda)); }
#endif
