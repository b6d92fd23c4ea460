// The CPU kernels of torch's ops zoo::splat_* and zoo::ssim, which zoo/ops/rasterize_op.py and zoo/ops/ssim.py define
// and document.
//
// Work is handed to threads in small pieces whose results are added in the order of the pieces, never of the threads:
// images and gradients do not depend on the number of threads.

#include <algorithm>
#include <atomic>
#include <cmath>
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
      return {avx512_project, avx512_tiles, avx512_ssim, avx512_sweep};
    }
    if (avx2 && limit != "default") return {avx2_project, avx2_tiles, avx2_ssim, avx2_sweep};
    return {baseline_project, baseline_tiles, baseline_ssim, baseline_sweep};
  }();
#else
  static const Set best = {baseline_project, baseline_tiles, baseline_ssim, baseline_sweep};
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

// Holds on to the tensors whose memory the projection points to.
struct Projected {
  Projection p{};
  Tensor means, quats, scales, viewmats, intrinsics;

  Projected(const Tensor& m, const Tensor& q, const Tensor& s, const Tensor& v, const Tensor& k, int64_t width,
            int64_t height, double eps2d, bool antialiased)
      : means(floats(m, "means")),
        quats(floats(q, "quats")),
        scales(floats(s, "scales")),
        viewmats(floats(v, "viewmats")),
        intrinsics(floats(k, "Ks")) {
    p.means = read(means), p.quats = read(quats), p.scales = read(scales);
    p.viewmats = read(viewmats), p.intrinsics = read(intrinsics);
    p.gaussians = means.size(0), p.cameras = viewmats.size(0);
    p.width = width, p.height = height;
    p.eps2d = static_cast<float>(eps2d), p.antialiased = antialiased;
    STD_TORCH_CHECK(means.dim() == 2 && means.size(1) == 3 && quats.numel() == 4 * p.gaussians &&
                        scales.numel() == 3 * p.gaussians && viewmats.numel() == 16 * p.cameras &&
                        intrinsics.numel() == 9 * p.cameras,
                    "splat: shapes of Gaussians or cameras don't match");
  }
};

using Five = std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor>;

Five project(const Tensor& means, const Tensor& quats, const Tensor& scales, const Tensor& opacities,
             const Tensor& viewmats, const Tensor& Ks, int64_t width, int64_t height, double near, double far,
             double radius_clip, double eps2d, bool antialiased) {
  Projected held(means, quats, scales, viewmats, Ks, width, height, eps2d, antialiased);
  Projection& p = held.p;
  const Tensor dense = floats(opacities, "opacities");
  STD_TORCH_CHECK(dense.numel() == 0 || dense.numel() == p.gaussians, "splat: one opacity per Gaussian");
  p.opacities = dense.numel() > 0 ? read(dense) : nullptr;
  p.near = static_cast<float>(near), p.far = static_cast<float>(far), p.radius_clip = static_cast<float>(radius_clip);
  const int64_t c = p.cameras, n = p.gaussians;
  const Five out{torch::stable::new_empty(held.means, {c, n, 2}, ScalarType::Int),
                 torch::stable::new_empty(held.means, {c, n, 2}), torch::stable::new_empty(held.means, {c, n}),
                 torch::stable::new_empty(held.means, {c, n, 3}), torch::stable::new_empty(held.means, {c, n})};
  p.radii = write_ints(std::get<0>(out)), p.means2d = write(std::get<1>(out)), p.depths = write(std::get<2>(out));
  p.conics = write(std::get<3>(out)), p.compensations = write(std::get<4>(out));
  share_gaussians(n, [&](int64_t begin, int64_t end, int64_t) { kernels().project.project(p, begin, end); });
  return out;
}

// Adds up the pieces' sums.
Tensor add_up(const std::vector<double>& sums, int64_t pieces, int64_t cameras, int64_t rows, int64_t columns,
              const Tensor& like) {
  Tensor out = torch::stable::new_zeros(like, {cameras, rows, columns});
  const int64_t used = cameras * (rows == 4 ? 12 : rows * columns), per_camera = used / std::max<int64_t>(cameras, 1);
  for (int64_t c = 0; c < cameras; ++c) {
    for (int64_t i = 0; i < per_camera; ++i) {
      double sum = 0;
      for (int64_t piece = 0; piece < pieces; ++piece) sum += sums[piece * used + c * per_camera + i];
      write(out)[c * rows * columns + i] = static_cast<float>(sum);
    }
  }
  return out;
}

std::tuple<Tensor, Tensor, Tensor, Tensor> project_backward(
    const Tensor& means, const Tensor& quats, const Tensor& scales, const Tensor& viewmats, const Tensor& Ks,
    const Tensor& radii, const Tensor& conics, const Tensor& compensations, const Tensor& v_means2d,
    const Tensor& v_depths, const Tensor& v_conics, const Tensor& v_compensations, int64_t width, int64_t height,
    double eps2d, bool poses) {
  Projected held(means, quats, scales, viewmats, Ks, width, height, eps2d, false);
  Projection& p = held.p;
  const Tensor r = checked(radii, ScalarType::Int, "radii"), k = floats(conics, "conics");
  const Tensor rho = floats(compensations, "compensations");
  p.radii = const_cast<int32_t*>(read_ints(r));
  p.conics = const_cast<float*>(read(k)), p.compensations = const_cast<float*>(read(rho));
  const Tensor a = floats(v_means2d, "gradient"), b = floats(v_depths, "gradient"), c = floats(v_conics, "gradient");
  const Tensor d = floats(v_compensations, "gradient");
  const Tensor dm = torch::stable::empty_like(held.means), dq = torch::stable::empty_like(held.quats);
  const Tensor ds = torch::stable::empty_like(held.scales);
  const ProjectionGradients up{read(a), read(b), read(c), read(d), write(dm), write(dq), write(ds)};
  const int64_t pieces = pieces_of(p.gaussians);
  std::vector<double> sums(poses ? pieces * p.cameras * 12 : 0);
  share_gaussians(p.gaussians, [&](int64_t begin, int64_t end, int64_t piece) {
    kernels().project.project_backward(p, up, begin, end, poses ? sums.data() + piece * p.cameras * 12 : nullptr);
  });
  const Tensor dv = poses ? add_up(sums, pieces, p.cameras, 4, 4, held.viewmats)
                          : torch::stable::new_empty(held.viewmats, {0});
  return {dm, dq, ds, dv};
}

struct HarmonicsHeld {
  Harmonics h{};
  Tensor means, centres, coefficients, radii;

  HarmonicsHeld(const Tensor& m, const Tensor& c, const Tensor& s, const Tensor& r, int64_t degree)
      : means(floats(m, "means")),
        centres(floats(c, "camera centres")),
        coefficients(floats(s, "coefficients")),
        radii(checked(r, ScalarType::Int, "radii")) {
    h.means = read(means), h.centres = read(centres), h.coefficients = read(coefficients), h.radii = read_ints(radii);
    h.gaussians = means.size(0), h.cameras = centres.size(0), h.stride = coefficients.size(1);
    h.degree = static_cast<int>(degree);
    STD_TORCH_CHECK(degree >= 0 && degree <= 3 && (degree + 1) * (degree + 1) <= h.stride &&
                        coefficients.size(0) == h.gaussians && coefficients.size(2) == 3 &&
                        radii.numel() == 2 * h.cameras * h.gaussians,
                    "splat: (N, K, 3) coefficients with K >= (degree + 1)^2 and degree <= 3 are needed");
  }
};

Tensor harmonics(const Tensor& means, const Tensor& centres, const Tensor& coefficients, const Tensor& radii,
                 int64_t degree) {
  HarmonicsHeld held(means, centres, coefficients, radii, degree);
  const Tensor colors = torch::stable::new_empty(held.means, {held.h.cameras, held.h.gaussians, 3});
  held.h.colors = write(colors);
  share_gaussians(held.h.gaussians,
                  [&](int64_t begin, int64_t end, int64_t) { kernels().project.harmonics(held.h, begin, end); });
  return colors;
}

std::tuple<Tensor, Tensor, Tensor> harmonics_backward(const Tensor& means, const Tensor& centres,
                                                      const Tensor& coefficients, const Tensor& radii,
                                                      const Tensor& colors, const Tensor& v_colors, int64_t degree,
                                                      bool poses) {
  HarmonicsHeld held(means, centres, coefficients, radii, degree);
  Harmonics& h = held.h;
  const Tensor rgb = floats(colors, "colors"), upstream = floats(v_colors, "gradient");
  h.colors = const_cast<float*>(read(rgb));
  const Tensor dm = torch::stable::empty_like(held.means), dc = torch::stable::empty_like(held.coefficients);
  const HarmonicsGradients up{read(upstream), write(dm), write(dc)};
  const int64_t pieces = pieces_of(h.gaussians);
  std::vector<double> sums(poses ? pieces * h.cameras * 3 : 0);
  share_gaussians(h.gaussians, [&](int64_t begin, int64_t end, int64_t piece) {
    kernels().project.harmonics_backward(h, up, begin, end, poses ? sums.data() + piece * h.cameras * 3 : nullptr);
  });
  const Tensor dp = poses ? add_up(sums, pieces, h.cameras, 1, 3, held.centres)
                          : torch::stable::new_empty(held.centres, {0});
  return {dm, dp, dc};
}

// The least exponent of a Gaussian over a rectangle of pixel centres is within its limit.
bool reaches(const Splat& s, float x0, float x1, float y0, float y1) {
  const float left = s.x - x1, right = s.x - x0, top = s.y - y1, bottom = s.y - y0;  // dx and dy over the rectangle
  const bool in_x = left <= 0 && right >= 0, in_y = top <= 0 && bottom >= 0;
  if (in_x && in_y) return true;
  float least = 1e30f;
  const auto value = [&](float dx, float dy) { return 0.5f * (s.a * dx * dx + s.c * dy * dy) + s.b * dx * dy; };
  if (!in_x) {
    const float dx = left > 0 ? left : right;
    least = std::min(least, value(dx, std::clamp(-s.b * dx / s.c, top, bottom)));
  }
  if (!in_y) {
    const float dy = top > 0 ? top : bottom;
    least = std::min(least, value(std::clamp(-s.b * dy / s.a, left, right), dy));
  }
  return least <= s.limit;
}

// Positions of the splats from front to back: a stable radix sort of the bits of their depths, which are positive.
std::vector<int32_t> by_depth(const std::vector<Splat>& splats, const float* depths) {
  constexpr int kBits = 11, kBuckets = 1 << kBits;
  const int64_t count = static_cast<int64_t>(splats.size());
  std::vector<uint32_t> keys(count), other_keys(count);
  std::vector<int32_t> order(count), other(count);
  for (int64_t i = 0; i < count; ++i) {
    std::memcpy(&keys[i], depths + splats[i].index, sizeof(float));
    order[i] = static_cast<int32_t>(i);
  }
  for (int shift = 0; shift < 32; shift += kBits) {
    int64_t places[kBuckets + 1] = {};
    for (const uint32_t key : keys) ++places[(key >> shift & (kBuckets - 1)) + 1];
    for (int b = 0; b < kBuckets; ++b) places[b + 1] += places[b];
    for (int64_t i = 0; i < count; ++i) {
      const int64_t place = places[keys[i] >> shift & (kBuckets - 1)]++;
      other_keys[place] = keys[i], other[place] = order[i];
    }
    keys.swap(other_keys), order.swap(other);
  }
  return order;
}

// The splats of one camera and their lists per tile.
//
// A pair is a Gaussian in a tile. Pairs are numbered by Gaussian, so that what a backward pass leaves per pair is
// added up per Gaussian from neighbouring memory; a tile's list holds numbers of pairs from front to back.
struct Lists {
  std::vector<Splat> splats;
  std::vector<int64_t> first_pair;  // per splat, and the end
  std::vector<int32_t> pair_splats, pairs;
  std::vector<int64_t> tiles;  // begin of each tile's part of `pairs`, and the end
  int64_t across, down;

  Lists(int64_t camera, int64_t n, int64_t width, int64_t height, int channels, const float* means2d,
        const float* conics, const float* colors, const float* opacities, const float* depths, const int32_t* radii)
      : across((width + kTile - 1) / kTile), down((height + kTile - 1) / kTile) {
    struct Box { int32_t x0, x1, y0, y1; };
    std::vector<Box> boxes;
    splats.reserve(n), boxes.reserve(n);
    for (int64_t g = 0; g < n; ++g) {
      const int64_t at = camera * n + g;
      if (radii[2 * at] <= 0 || !(opacities[at] >= kMinAlpha)) continue;
      Splat s;
      s.x = means2d[2 * at], s.y = means2d[2 * at + 1];
      s.a = conics[3 * at], s.b = conics[3 * at + 1], s.c = conics[3 * at + 2];
      s.opacity = opacities[at];
      s.limit = std::log(255.0f * s.opacity) + kMargin;
      s.inverse_a = 1.0f / s.a, s.slope = s.b * s.inverse_a;
      s.residual = s.c - s.b * s.slope;
      if (!(s.residual > 0)) s.residual = 0;  // a needle, to rounding: it reaches as far as it likes
      s.reach_y = s.residual > 0 ? std::sqrt(2.0f * s.limit / s.residual) : 1e9f;
      for (int d = 0; d < channels; ++d) s.color[d] = colors[channels * at + d];
      s.index = static_cast<int32_t>(at);
      const float rx = static_cast<float>(radii[2 * at]), ry = static_cast<float>(radii[2 * at + 1]);
      const auto tile = [](float x, int64_t limit) {
        return static_cast<int32_t>(std::clamp<float>(x, 0.0f, static_cast<float>(limit)));
      };
      boxes.push_back({tile(std::floor((s.x - rx) / kTile), across), tile(std::ceil((s.x + rx) / kTile), across),
                       tile(std::floor((s.y - ry) / kTile), down), tile(std::ceil((s.y + ry) / kTile), down)});
      splats.push_back(s);
    }
    const int64_t count = static_cast<int64_t>(splats.size());
    first_pair.assign(count + 1, 0);
    const auto visit = [&](int64_t i, auto&& found) {
      const Box& box = boxes[i];
      const bool one = box.x1 - box.x0 <= 1 && box.y1 - box.y0 <= 1;
      for (int32_t y = box.y0; y < box.y1; ++y) {
        for (int32_t x = box.x0; x < box.x1; ++x) {
          const float left = static_cast<float>(x * kTile) + 0.5f, top = static_cast<float>(y * kTile) + 0.5f;
          if (one || reaches(splats[i], left, left + kTile - 1, top, top + kTile - 1)) {
            found(static_cast<int32_t>(y * across + x));
          }
        }
      }
    };
    share_gaussians(count, [&](int64_t begin, int64_t end, int64_t) {
      for (int64_t i = begin; i < end; ++i) visit(i, [&](int32_t) { ++first_pair[i + 1]; });
    });
    for (int64_t i = 0; i < count; ++i) first_pair[i + 1] += first_pair[i];
    const int64_t total = first_pair[count];
    STD_TORCH_CHECK(total < INT32_MAX, "splat: more than 2^31 pairs of Gaussians and tiles; render a smaller image");
    std::vector<int32_t> pair_tiles(total);
    pair_splats.resize(total), pairs.resize(total);
    share_gaussians(count, [&](int64_t begin, int64_t end, int64_t) {
      for (int64_t i = begin; i < end; ++i) {
        int64_t at = first_pair[i];
        visit(i, [&](int32_t tile) { pair_tiles[at] = tile, pair_splats[at++] = static_cast<int32_t>(i); });
      }
    });
    tiles.assign(across * down + 1, 0);
    for (const int32_t tile : pair_tiles) ++tiles[tile + 1];
    for (int64_t t = 0; t < across * down; ++t) tiles[t + 1] += tiles[t];
    std::vector<int64_t> place(tiles.begin(), tiles.end() - 1);
    for (const int32_t i : by_depth(splats, depths)) {
      for (int64_t pair = first_pair[i]; pair < first_pair[i + 1]; ++pair) {
        pairs[place[pair_tiles[pair]]++] = static_cast<int32_t>(pair);
      }
    }
  }

  Tile tile(int64_t t, int64_t width, int64_t height) const {
    Tile tile{};
    tile.width = width, tile.height = height;
    tile.x0 = t % across * kTile, tile.y0 = t / across * kTile;
    tile.splats = splats.data(), tile.pair_splats = pair_splats.data(), tile.pairs = pairs.data();
    tile.begin = tiles[t], tile.end = tiles[t + 1];
    return tile;
  }
};

// The inputs of the compositing, dense.
struct Composited {
  Tensor means2d, conics, colors, opacities, depths, radii;
  int64_t cameras, n;
  int channels;

  Composited(const Tensor& m, const Tensor& k, const Tensor& c, const Tensor& o, const Tensor& z, const Tensor& r)
      : means2d(floats(m, "means2d")),
        conics(floats(k, "conics")),
        colors(floats(c, "colors")),
        opacities(floats(o, "opacities")),
        depths(floats(z, "depths")),
        radii(checked(r, ScalarType::Int, "radii")),
        cameras(colors.size(0)),
        n(colors.size(1)),
        channels(static_cast<int>(colors.size(2))) {
    STD_TORCH_CHECK(channels >= 1 && channels <= kMaxChannels && means2d.numel() == 2 * cameras * n &&
                        conics.numel() == 3 * cameras * n && opacities.numel() == cameras * n &&
                        depths.numel() == cameras * n && radii.numel() == 2 * cameras * n,
                    "splat: (C, N, 1 to 4) colours and matching projections are needed");
  }

  Lists lists(int64_t camera, int64_t width, int64_t height) const {
    return Lists(camera, n, width, height, channels, read(means2d), read(conics), read(colors), read(opacities),
                 read(depths), read_ints(radii));
  }
};

// Tiles from the middle of the lists' lengths down would be best; the longest first keeps threads from waiting.
std::vector<int32_t> longest_first(const Lists& lists) {
  std::vector<int32_t> order(lists.tiles.size() - 1);
  for (size_t i = 0; i < order.size(); ++i) order[i] = static_cast<int32_t>(i);
  std::stable_sort(order.begin(), order.end(), [&](int32_t a, int32_t b) {
    return lists.tiles[a + 1] - lists.tiles[a] > lists.tiles[b + 1] - lists.tiles[b];
  });
  return order;
}

// The lists of all cameras, kept for the backward pass as a tensor whose memory they are.
using KeptLists = std::vector<Lists>;

Tensor keep(KeptLists lists, const Tensor& like) {
  auto* kept = new KeptLists(std::move(lists));
  const int64_t size = sizeof(KeptLists), stride = 1;
  return torch::stable::from_blob(kept, {&size, 1}, {&stride, 1}, like.device(), ScalarType::Byte,
                                  [](void* memory) { delete static_cast<KeptLists*>(memory); });
}

std::tuple<Tensor, Tensor, Tensor, Tensor> composite(const Tensor& means2d, const Tensor& conics, const Tensor& colors,
                                             const Tensor& opacities, const Tensor& depths, const Tensor& radii,
                                             int64_t width, int64_t height) {
  const Composited in(means2d, conics, colors, opacities, depths, radii);
  const Tensor image = torch::stable::new_empty(in.means2d, {in.cameras, height, width, in.channels});
  // Transmittance is kept besides alpha, from which it could not be had to full precision.
  const Tensor clear = torch::stable::new_empty(in.means2d, {in.cameras, height, width, 1});
  const Tensor last = torch::stable::new_empty(in.means2d, {in.cameras, height, width}, ScalarType::Int);
  KeptLists all;
  for (int64_t camera = 0; camera < in.cameras; ++camera) {
    const Lists& lists = all.emplace_back(in.lists(camera, width, height));
    const std::vector<int32_t> order = longest_first(lists);
    const int64_t pixels = camera * height * width;
    share(static_cast<int64_t>(order.size()), [&](int64_t i) {
      Tile tile = lists.tile(order[i], width, height);
      tile.image = write(image) + pixels * in.channels;
      tile.transmittance = write(clear) + pixels;
      tile.last = write_ints(last) + pixels;
      kernels().tiles.composite(tile, in.channels);
    });
  }
  return {image, clear, last, keep(std::move(all), in.means2d)};
}

Five composite_backward(const Tensor& means2d, const Tensor& conics, const Tensor& colors, const Tensor& opacities,
                        const Tensor& depths, const Tensor& radii, const Tensor& clear, const Tensor& last,
                        const Tensor& kept, const Tensor& v_image, const Tensor& v_alpha, int64_t width,
                        int64_t height, bool absgrad) {
  const Composited in(means2d, conics, colors, opacities, depths, radii);
  const Tensor t = floats(clear, "transmittance"), l = checked(last, ScalarType::Int, "last");
  const Tensor up_image = floats(v_image, "gradient"), up_alpha = floats(v_alpha, "gradient");
  const int64_t c = in.cameras, n = in.n;
  const int channels = in.channels, numbers = pair_numbers(channels, absgrad);
  const Five out{torch::stable::new_zeros(in.means2d, {c, n, 2}), torch::stable::new_zeros(in.means2d, {c, n, 3}),
                 torch::stable::new_zeros(in.means2d, {c, n, channels}), torch::stable::new_zeros(in.means2d, {c, n}),
                 torch::stable::new_zeros(in.means2d, {c, absgrad ? n : 0, 2})};
  const KeptLists& all = *static_cast<const KeptLists*>(kept.const_data_ptr());
  for (int64_t camera = 0; camera < c; ++camera) {
    const Lists& lists = all[camera];
    const std::vector<int32_t> order = longest_first(lists);
    const int64_t pixels = camera * height * width;
    std::vector<float> buffer(lists.pairs.size() * numbers);
    const TileGradients gradients{read(up_image) + pixels * channels, read(up_alpha) + pixels, buffer.data(), absgrad};
    share(static_cast<int64_t>(order.size()), [&](int64_t i) {
      Tile tile = lists.tile(order[i], width, height);
      tile.transmittance = const_cast<float*>(read(t)) + pixels;
      tile.last = const_cast<int32_t*>(read_ints(l)) + pixels;
      kernels().tiles.differentiate(tile, gradients, channels);
    });
    share_gaussians(static_cast<int64_t>(lists.splats.size()), [&](int64_t begin, int64_t end, int64_t) {
      for (int64_t i = begin; i < end; ++i) {
        float sum[6 + kMaxChannels + 2] = {};
        for (int64_t pair = lists.first_pair[i]; pair < lists.first_pair[i + 1]; ++pair) {
          for (int k = 0; k < numbers; ++k) sum[k] += buffer[pair * numbers + k];
        }
        const int64_t at = lists.splats[i].index;
        for (int k = 0; k < 2; ++k) write(std::get<0>(out))[2 * at + k] = sum[k];
        for (int k = 0; k < 3; ++k) write(std::get<1>(out))[3 * at + k] = sum[2 + k];
        write(std::get<3>(out))[at] = sum[5];
        for (int k = 0; k < channels; ++k) write(std::get<2>(out))[channels * at + k] = sum[6 + k];
        if (absgrad) {
          for (int k = 0; k < 2; ++k) write(std::get<4>(out))[2 * at + k] = sum[6 + channels + k];
        }
      }
    });
  }
  return out;
}

// Mean SSIM of (P, H, W, S) images, P planes whose S numbers per pixel lie side by side; and its gradient.
std::tuple<Tensor, Tensor> ssim(const Tensor& image, const Tensor& target, bool with_gradient) {
  const Tensor x = floats(image, "image"), t = floats(target, "target");
  STD_TORCH_CHECK(x.dim() == 4 && x.numel() == t.numel() && x.numel() > 0, "ssim: two images (P, H, W, S) are needed");
  Ssim s{};
  s.height = x.size(1), s.step = x.size(3), s.row = x.size(2) * s.step;
  const int64_t planes = x.size(0), plane = s.height * s.row;
  const Tensor gradient = torch::stable::new_empty(x, {with_gradient ? planes : 0, s.height, x.size(2), s.step});
  std::vector<float> filtered(5 * plane), partials(with_gradient ? 3 * plane : 0);
  constexpr int64_t kRows = 8;
  const int64_t pieces = (s.height + kRows - 1) / kRows;
  double total = 0;
  for (int64_t p = 0; p < planes; ++p) {
    s.image = read(x) + p * plane, s.target = read(t) + p * plane;
    s.filtered = filtered.data();
    s.partials = with_gradient ? partials.data() : nullptr;
    s.gradient = with_gradient ? write(gradient) + p * plane : nullptr;
    std::vector<double> sums(pieces);
    const auto rows = [&](int64_t i, auto&& work) { work(i * kRows, std::min(s.height, (i + 1) * kRows)); };
    share(pieces, [&](int64_t i) {
      std::vector<float> scratch(s.row);
      rows(i, [&](int64_t begin, int64_t end) { kernels().ssim.rows(s, begin, end, scratch.data()); });
    });
    share(pieces, [&](int64_t i) {
      std::vector<float> scratch(3 * s.row);
      rows(i, [&](int64_t begin, int64_t end) { sums[i] = kernels().ssim.map(s, begin, end, scratch.data()); });
    });
    if (with_gradient) {
      share(pieces, [&](int64_t i) {
        rows(i, [&](int64_t begin, int64_t end) { kernels().ssim.gradient(s, begin, end); });
      });
    }
    for (const double sum : sums) total += sum;
  }
  Tensor mean = torch::stable::new_empty(x, {1});
  write(mean)[0] = static_cast<float>(total / static_cast<double>(planes * plane));
  return {mean, gradient};
}

// Inverse depth and correlation of every pixel of a grey view (H, W) from its neighbours (n, H', W').
std::tuple<Tensor, Tensor> plane_sweep(const Tensor& reference, const Tensor& neighbours, const Tensor& homographies,
                                       const Tensor& offsets, const Tensor& inverse_depths, int64_t radius) {
  const Tensor view = floats(reference, "reference"), others = floats(neighbours, "neighbours");
  const Tensor a = floats(homographies, "homographies"), b = floats(offsets, "offsets");
  const Tensor w = floats(inverse_depths, "inverse depths");
  Sweep s{};
  s.height = view.size(0), s.width = view.size(1), s.stride = (s.width + 15) / 16 * 16;
  s.count = static_cast<int>(others.size(0)), s.planes = w.numel(), s.radius = static_cast<int>(radius);
  s.neighbour_height = static_cast<int>(others.size(1)), s.neighbour_width = static_cast<int>(others.size(2));
  STD_TORCH_CHECK(view.dim() == 2 && others.dim() == 3 && s.count >= 1 && a.numel() == 9 * s.count &&
                      b.numel() == 3 * s.count && s.planes >= 1 && radius >= 1 && radius <= kSweepRadius &&
                      s.neighbour_height >= 2 && s.neighbour_width >= 2,
                  "plane_sweep: a grey view, grey neighbours of 2 x 2 or more, and a window radius of 1 to 5 are needed");
  std::vector<float> rows(s.height * s.stride);
  for (int64_t y = 0; y < s.height; ++y) {
    std::memcpy(rows.data() + y * s.stride, read(view) + y * s.width, s.width * sizeof(float));
  }
  const Tensor depth = torch::stable::new_empty(view, {s.height, s.width}), score = torch::stable::empty_like(depth);
  s.reference = rows.data(), s.neighbours = read(others), s.homographies = read(a), s.offsets = read(b);
  s.inverse_depths = read(w), s.depth = write(depth), s.score = write(score);
  share((s.height + kSweepRows - 1) / kSweepRows, [&](int64_t i) {
    std::vector<float> scratch(kernels().sweep.scratch(s));
    kernels().sweep.sweep(s, i * kSweepRows, std::min(s.height, (i + 1) * kSweepRows), scratch.data());
  });
  return {depth, score};
}

}  // namespace
}  // namespace zoo::splat

// The instruction set that the CPU kernels use, for `python -m zoo.ops info`.
extern "C" __attribute__((visibility("default"))) const char* zoo_instruction_set() {
  return zoo::splat::kernels().project.name;
}

STABLE_TORCH_LIBRARY_IMPL(zoo, CPU, m) {
  m.impl("splat_project", TORCH_BOX(&zoo::splat::project));
  m.impl("splat_project_backward", TORCH_BOX(&zoo::splat::project_backward));
  m.impl("splat_harmonics", TORCH_BOX(&zoo::splat::harmonics));
  m.impl("splat_harmonics_backward", TORCH_BOX(&zoo::splat::harmonics_backward));
  m.impl("splat_composite", TORCH_BOX(&zoo::splat::composite));
  m.impl("splat_composite_backward", TORCH_BOX(&zoo::splat::composite_backward));
  m.impl("plane_sweep", TORCH_BOX(&zoo::splat::plane_sweep));
  m.impl("ssim_with_gradient", TORCH_BOX(&zoo::splat::ssim));
}
