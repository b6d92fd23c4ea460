// Projecting Gaussians onto images, and the derivative. Compiled once per instruction set.
//
// Zwicker et al., "EWA splatting", 2002; Kerbl et al. 2023, section 4; antialiasing: Yu et al., "Mip-Splatting", 2024.
// A lane of a vector is a Gaussian.

#include "cpu.h"
#include "vectors.h"

namespace zoo::splat {
namespace {

struct Camera {
  float w[3][3], t[3];  // world to camera
  float fx, fy, cx, cy;
  float low_x, high_x, low_y, high_y;  // limits of x / z and y / z in the derivative of the projection
};

Camera camera_of(const Projection& p, int64_t index) {
  Camera k;
  const float *e = p.viewmats + 16 * index, *i = p.intrinsics + 9 * index;
  for (int r = 0; r < 3; ++r) {
    for (int c = 0; c < 3; ++c) k.w[r][c] = e[4 * r + c];
    k.t[r] = e[4 * r + 3];
  }
  k.fx = i[0], k.fy = i[4], k.cx = i[2], k.cy = i[5];
  const float width = static_cast<float>(p.width), height = static_cast<float>(p.height);
  const float margin_x = 0.15f * width / k.fx, margin_y = 0.15f * height / k.fy;
  k.low_x = -(k.cx / k.fx + margin_x), k.high_x = (width - k.cx) / k.fx + margin_x;
  k.low_y = -(k.cy / k.fy + margin_y), k.high_y = (height - k.cy) / k.fy + margin_y;
  return k;
}

// Gaussians from their quaternions of any length and their scales.
struct Shape {
  Floats unit[4], inverse_norm;
  Floats rotation[3][3];
  Floats rs[3][3];  // R S
};

ZOO_INLINE Shape shape_of(const Floats (&quat)[4], const Floats (&scale)[3]) {
  Shape s;
  s.inverse_norm =
      1.0f / root(quat[0] * quat[0] + quat[1] * quat[1] + quat[2] * quat[2] + quat[3] * quat[3]);
  for (int i = 0; i < 4; ++i) s.unit[i] = quat[i] * s.inverse_norm;
  const Floats w = s.unit[0], x = s.unit[1], y = s.unit[2], z = s.unit[3];
  const Floats rotation[3][3] = {{1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)},
                                 {2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)},
                                 {2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)}};
  for (int r = 0; r < 3; ++r) {
    for (int c = 0; c < 3; ++c) s.rotation[r][c] = rotation[r][c], s.rs[r][c] = rotation[r][c] * scale[c];
  }
  return s;
}

// What Gaussians look like in one camera, up to the 2-D covariance; both passes go through it.
struct View {
  Floats m[3];          // the means in camera coordinates
  Floats rz, u, v;      // 1 / z; x / z and y / z, clamped
  Mask free_x, free_y;  // where the clamp let them be
  Floats jw[2][3];      // d pixel / d world
  Floats half[2][3];    // jw (R S): the 2-D covariance is this times its transpose
  Floats xx, xy, yy;    // without eps2d
};

ZOO_INLINE Mask equal(Floats a, Floats b) { return both(at_most(a, b), at_most(b, a)); }

ZOO_INLINE void look(View& k, const Camera& camera, const Floats (&mean)[3]) {
  for (int r = 0; r < 3; ++r) {
    k.m[r] = camera.w[r][0] * mean[0] + camera.w[r][1] * mean[1] + camera.w[r][2] * mean[2] + camera.t[r];
  }
}

ZOO_INLINE void spread(View& k, const Camera& camera, const Shape& shape) {
  k.rz = 1.0f / k.m[2];
  const Floats x = k.m[0] * k.rz, y = k.m[1] * k.rz;
  k.u = clamp(x, all(camera.low_x), all(camera.high_x)), k.v = clamp(y, all(camera.low_y), all(camera.high_y));
  k.free_x = equal(k.u, x), k.free_y = equal(k.v, y);
  const Floats by_x = camera.fx * k.rz, by_y = camera.fy * k.rz;
  for (int c = 0; c < 3; ++c) {
    k.jw[0][c] = by_x * (camera.w[0][c] - k.u * camera.w[2][c]);
    k.jw[1][c] = by_y * (camera.w[1][c] - k.v * camera.w[2][c]);
  }
  for (int r = 0; r < 2; ++r) {
    for (int c = 0; c < 3; ++c) {
      k.half[r][c] = k.jw[r][0] * shape.rs[0][c] + k.jw[r][1] * shape.rs[1][c] + k.jw[r][2] * shape.rs[2][c];
    }
  }
  k.xx = k.half[0][0] * k.half[0][0] + k.half[0][1] * k.half[0][1] + k.half[0][2] * k.half[0][2];
  k.xy = k.half[0][0] * k.half[1][0] + k.half[0][1] * k.half[1][1] + k.half[0][2] * k.half[1][2];
  k.yy = k.half[1][0] * k.half[1][0] + k.half[1][1] * k.half[1][1] + k.half[1][2] * k.half[1][2];
}

// Standard deviations after which a Gaussian is below kMinAlpha; for lanes that don't show, anything.
ZOO_INLINE Floats extents(Floats opacity, Mask shows) {
  Floats extent = all(kMaxExtent);
  const uint32_t lanes = bits(shows);
  for (int i = 0; i < kLanes; ++i) {
    if (lanes >> i & 1) extent[i] = 2.0f * __builtin_logf(255.0f * opacity[i]);
  }
  return least(root(extent), all(kMaxExtent));
}

void project(const Projection& p, int64_t begin, int64_t end) {
  for (int64_t g = begin; g < end; g += kLanes) {
    const int count = end - g < kLanes ? static_cast<int>(end - g) : kLanes;
    Floats mean[3], quat[4], scale[3], opacity[1] = {};
    load_rows(p.means + 3 * g, count, mean);
    load_rows(p.quats + 4 * g, count, quat);
    load_rows(p.scales + 3 * g, count, scale);
    if (p.opacities) load_rows(p.opacities + g, count, opacity);
    const Shape shape = shape_of(quat, scale);
    for (int64_t index = 0; index < p.cameras; ++index) {
      const Camera camera = camera_of(p, index);
      View k;
      look(k, camera, mean);
      // NaN fails all comparisons.
      Mask seen = both(at_most(all(p.near), k.m[2]), at_most(k.m[2], all(p.far)));
      spread(k, camera, shape);
      const Floats before = k.xx * k.yy - k.xy * k.xy;
      const Floats xx = k.xx + p.eps2d, yy = k.yy + p.eps2d, det = xx * yy - k.xy * k.xy;
      seen = both(seen, both(below(Floats{}, det), below(det, all(1e30f))));
      const Floats compensation = root(largest(before / det, all(kMinCompensation * kMinCompensation)));
      Floats extent = all(kMaxExtent);
      if (p.opacities) {
        const Floats shown = p.antialiased ? opacity[0] * compensation : opacity[0];
        seen = both(seen, at_most(all(kMinAlpha), shown));
        extent = extents(shown, seen);
      }
      const Floats x = camera.fx * k.m[0] / k.m[2] + camera.cx, y = camera.fy * k.m[1] / k.m[2] + camera.cy;
      const Floats numbers[7] = {x, y, k.m[2], yy / det, -k.xy / det, xx / det, compensation};
      const Floats reach[2] = {extent * root(xx), extent * root(yy)};
      float rows[7 * kLanes], reaches[2 * kLanes];
      store_rows(numbers, rows, kLanes);
      store_rows(reach, reaches, kLanes);
      for (int i = 0; i < count; ++i) {
        const int64_t at = index * p.gaussians + g + i;
        const float* own = rows + 7 * i;
        const float rx = __builtin_ceilf(reaches[2 * i]), ry = __builtin_ceilf(reaches[2 * i + 1]);
        const bool shows = (bits(seen) >> i & 1) && rx < 1e9f && ry < 1e9f && (rx > p.radius_clip || ry > p.radius_clip) &&
                           own[0] + rx > 0 && own[0] - rx < static_cast<float>(p.width) && own[1] + ry > 0 &&
                           own[1] - ry < static_cast<float>(p.height);
        p.radii[2 * at] = shows ? static_cast<int32_t>(rx) : 0, p.radii[2 * at + 1] = shows ? static_cast<int32_t>(ry) : 0;
        p.means2d[2 * at] = shows ? own[0] : 0, p.means2d[2 * at + 1] = shows ? own[1] : 0;
        p.depths[at] = shows ? own[2] : 0, p.compensations[at] = shows ? own[6] : 0;
        for (int j = 0; j < 3; ++j) p.conics[3 * at + j] = shows ? own[3 + j] : 0;
      }
    }
  }
}

// Of the 2-D covariances' numbers xx, xy (both places together), yy.
struct ByCovariance { Floats xx, xy, yy; };

ZOO_INLINE ByCovariance by_covariance(const Projection& p, const View& k, const Floats (&conic)[3], const Floats (&up)[3],
                                      Floats compensation, Floats by_compensation) {
  // The conic is the inverse of the covariance: -C G C, with half of b's gradient on either side.
  const Floats a = conic[0], b = conic[1], c = conic[2], ga = up[0], gb = 0.5f * up[1], gc = up[2];
  const Floats ua = a * ga + b * gb, ub = a * gb + b * gc, va = b * ga + c * gb, vb = b * gb + c * gc;
  ByCovariance d = {-(ua * a + ub * b), -(ua * b + ub * c) - (va * a + vb * b), -(va * b + vb * c)};
  const Mask free = below(all(kMinCompensation), compensation);
  // compensation^2 = before / after, the determinants without and with eps2d.
  const Floats xx = k.xx + p.eps2d, yy = k.yy + p.eps2d, after = xx * yy - k.xy * k.xy;
  const Floats by_before = only(free, by_compensation / (2 * compensation * after));
  const Floats by_after = -by_before * compensation * compensation;
  d.xx += by_before * k.yy + by_after * yy;
  d.yy += by_before * k.xx + by_after * xx;
  d.xy -= 2 * k.xy * (by_before + by_after);
  return d;
}

// The gradients of quaternions from that of R S.
ZOO_INLINE void by_quaternion(const Shape& shape, const Floats (&d)[3][3], Floats (&d_quat)[4]) {
  const Floats w = shape.unit[0], x = shape.unit[1], y = shape.unit[2], z = shape.unit[3];
  const Floats d_unit[4] = {
      2 * (x * (d[2][1] - d[1][2]) + y * (d[0][2] - d[2][0]) + z * (d[1][0] - d[0][1])),
      2 * (-2 * x * (d[1][1] + d[2][2]) + y * (d[1][0] + d[0][1]) + z * (d[2][0] + d[0][2]) + w * (d[2][1] - d[1][2])),
      2 * (x * (d[1][0] + d[0][1]) - 2 * y * (d[0][0] + d[2][2]) + z * (d[2][1] + d[1][2]) + w * (d[0][2] - d[2][0])),
      2 * (x * (d[2][0] + d[0][2]) + y * (d[2][1] + d[1][2]) - 2 * z * (d[0][0] + d[1][1]) + w * (d[1][0] - d[0][1]))};
  Floats along = {};
  for (int i = 0; i < 4; ++i) along += d_unit[i] * shape.unit[i];
  for (int i = 0; i < 4; ++i) d_quat[i] = (d_unit[i] - along * shape.unit[i]) * shape.inverse_norm;
}

void project_backward(const Projection& p, const ProjectionGradients& up, int64_t begin, int64_t end, double* poses) {
  for (int64_t g = begin; g < end; g += kLanes) {
    const int count = end - g < kLanes ? static_cast<int>(end - g) : kLanes;
    Floats mean[3], quat[4], scale[3], d_mean[3] = {}, d_rs[3][3] = {};
    load_rows(p.means + 3 * g, count, mean);
    load_rows(p.quats + 4 * g, count, quat);
    load_rows(p.scales + 3 * g, count, scale);
    const Shape shape = shape_of(quat, scale);
    Floats ever = {};  // 1 for a Gaussian that some camera sees
    for (int64_t index = 0; index < p.cameras; ++index) {
      const int64_t at = index * p.gaussians + g;
      const Mask seen = with_radius(p.radii + 2 * at, count);
      if (!bits(seen)) continue;
      ever = choose(seen, all(1.0f), ever);
      const Camera camera = camera_of(p, index);
      View k;
      look(k, camera, mean);
      spread(k, camera, shape);
      Floats conic[3], d_conic[3], d_centre[2], d_depth[1], compensation[1], d_compensation[1];
      load_rows(p.conics + 3 * at, count, conic);
      load_rows(p.compensations + at, count, compensation);
      load_rows(up.conics + 3 * at, count, d_conic);
      load_rows(up.means2d + 2 * at, count, d_centre);
      load_rows(up.depths + at, count, d_depth);
      load_rows(up.compensations + at, count, d_compensation);
      const ByCovariance d = by_covariance(p, k, conic, d_conic, compensation[0], d_compensation[0]);
      Floats d_jw[2][3] = {};
      for (int c = 0; c < 3; ++c) {
        const Floats d_half[2] = {2 * d.xx * k.half[0][c] + d.xy * k.half[1][c],
                                  2 * d.yy * k.half[1][c] + d.xy * k.half[0][c]};
        for (int r = 0; r < 2; ++r) {
          for (int i = 0; i < 3; ++i) {
            d_jw[r][i] += d_half[r] * shape.rs[i][c];
            d_rs[i][c] += only(seen, k.jw[r][i] * d_half[r]);
          }
        }
      }
      // jw = (fx / z) (w_x - u w_z), and the like for y, with u and v clamped.
      Floats along_x = {}, along_y = {}, along_zx = {}, along_zy = {};
      for (int i = 0; i < 3; ++i) {
        along_x += d_jw[0][i] * camera.w[0][i], along_zx += d_jw[0][i] * camera.w[2][i];
        along_y += d_jw[1][i] * camera.w[1][i], along_zy += d_jw[1][i] * camera.w[2][i];
      }
      const Floats by_x = camera.fx * k.rz, by_y = camera.fy * k.rz;
      const Floats du = -only(k.free_x, by_x * along_zx), dv = -only(k.free_y, by_y * along_zy);
      Floats d_m[3];
      d_m[0] = by_x * d_centre[0] + du * k.rz;
      d_m[1] = by_y * d_centre[1] + dv * k.rz;
      d_m[2] = d_depth[0] - (by_x * (k.m[0] * d_centre[0]) + by_y * (k.m[1] * d_centre[1])) * k.rz;
      d_m[2] -= (by_x * (along_x - k.u * along_zx) + by_y * (along_y - k.v * along_zy) + du * k.u + dv * k.v) * k.rz;
      for (int i = 0; i < 3; ++i) {
        d_m[i] = only(seen, d_m[i]);
        for (int c = 0; c < 2; ++c) d_jw[c][i] = only(seen, d_jw[c][i]);
      }
      for (int i = 0; i < 3; ++i) {
        for (int r = 0; r < 3; ++r) d_mean[i] += camera.w[r][i] * d_m[r];
      }
      if (!poses) continue;
      double* pose = poses + 12 * index;
      for (int i = 0; i < 3; ++i) {
        const Floats d_w[3] = {
            d_m[0] * mean[i] + by_x * d_jw[0][i],
            d_m[1] * mean[i] + by_y * d_jw[1][i],
            d_m[2] * mean[i] - by_x * k.u * d_jw[0][i] - by_y * k.v * d_jw[1][i],
        };
        for (int r = 0; r < 3; ++r) {
          const Floats only_seen = only(seen, d_w[r]);
          for (int lane = 0; lane < kLanes; ++lane) pose[4 * r + i] += only_seen[lane];
        }
        for (int lane = 0; lane < kLanes; ++lane) pose[4 * i + 3] += d_m[i][lane];
      }
    }
    const Mask mask = below(Floats{}, ever);
    Floats d_scale[3] = {}, d_quat[4], d[3][3];
    for (int i = 0; i < 3; ++i) {
      for (int c = 0; c < 3; ++c) {
        d_scale[c] += shape.rotation[i][c] * d_rs[i][c];
        d[i][c] = d_rs[i][c] * scale[c];
      }
    }
    by_quaternion(shape, d, d_quat);
    for (Floats& x : d_scale) x = only(mask, x);
    for (Floats& x : d_quat) x = only(mask, x);
    store_rows(d_mean, up.means + 3 * g, count);
    store_rows(d_scale, up.scales + 3 * g, count);
    store_rows(d_quat, up.quats + 4 * g, count);
  }
}

}  // namespace

#define ZOO_STRING_(a) #a
#define ZOO_STRING(a) ZOO_STRING_(a)

extern const ProjectKernels ZOO_JOIN(ZOO_ISA, _project) = {ZOO_STRING(ZOO_ISA), project, project_backward};

}  // namespace zoo::splat
