// Projection, harmonics, SSIM and the plane sweep as torch's ops, which zoo/ops/rasterize_op.py and zoo/ops/ssim.py
// define and document; compositing.cpp has the others.

#include "host.h"

namespace zoo::splat {
namespace {

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
                  [&](int64_t begin, int64_t end, int64_t) { kernels().harmonics.harmonics(held.h, begin, end); });
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
    kernels().harmonics.harmonics_backward(h, up, begin, end, poses ? sums.data() + piece * h.cameras * 3 : nullptr);
  });
  const Tensor dp = poses ? add_up(sums, pieces, h.cameras, 1, 3, held.centres)
                          : torch::stable::new_empty(held.centres, {0});
  return {dm, dp, dc};
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
      std::vector<float> scratch(ssim_padded(s));
      rows(i, [&](int64_t begin, int64_t end) { kernels().ssim.rows(s, begin, end, scratch.data()); });
    });
    share(pieces, [&](int64_t i) {
      std::vector<float> scratch(3 * ssim_padded(s));
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
  m.impl("plane_sweep", TORCH_BOX(&zoo::splat::plane_sweep));
  m.impl("ssim_with_gradient", TORCH_BOX(&zoo::splat::ssim));
}
