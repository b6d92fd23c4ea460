// Projecting Gaussians onto images and evaluating their colours, with the derivatives. Compiled once per instruction
// set.
//
// Zwicker et al., "EWA splatting", 2002; Kerbl et al. 2023, section 4; antialiasing: Yu et al., "Mip-Splatting", 2024.

#include "../common/math.h"
#include "cpu.h"

namespace zoo::splat {
namespace {

struct Vec3 { float v[3]; };
struct Mat3 { float v[3][3]; };

ZOO_INLINE float inverse_sqrt(float x) { return 1.0f / __builtin_sqrtf(x); }

ZOO_INLINE Mat3 rotation_of(const float* q) {
  const float w = q[0], x = q[1], y = q[2], z = q[3];
  return {{{1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)},
           {2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)},
           {2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)}}};
}

// What one Gaussian looks like in one camera, up to the 2-D covariance; both passes go through it.
struct View {
  float w[3][3], t[3];     // world to camera
  float fx, fy, cx, cy;
  float m[3];              // the mean in camera coordinates
  float tx, ty;            // clamped, times z
  bool free_x, free_y;     // whether the clamp let it be
  float j[2][3];           // d pixel / d camera coordinates
  float jw[2][3];          // j w
  float v[2][3];           // jw (R S): the 2-D covariance is v v^T
  float xx, xy, yy;        // without eps2d
};

ZOO_INLINE View look(const Projection& p, int64_t camera, const float* mean) {
  View k;
  const float *e = p.viewmats + 16 * camera, *i = p.intrinsics + 9 * camera;
  for (int r = 0; r < 3; ++r) {
    for (int c = 0; c < 3; ++c) k.w[r][c] = e[4 * r + c];
    k.t[r] = e[4 * r + 3];
    k.m[r] = k.w[r][0] * mean[0] + k.w[r][1] * mean[1] + k.w[r][2] * mean[2] + k.t[r];
  }
  k.fx = i[0], k.fy = i[4], k.cx = i[2], k.cy = i[5];
  return k;
}

ZOO_INLINE float clamp(float x, float low, float high) { return x < low ? low : x > high ? high : x; }

ZOO_INLINE void spread(const Projection& p, View& k, const Mat3& rs) {
  const float width = static_cast<float>(p.width), height = static_cast<float>(p.height);
  const float margin_x = 0.15f * width / k.fx, margin_y = 0.15f * height / k.fy;
  const float rz = 1.0f / k.m[2], x = k.m[0] * rz, y = k.m[1] * rz;
  const float u = clamp(x, -(k.cx / k.fx + margin_x), (width - k.cx) / k.fx + margin_x);
  const float v = clamp(y, -(k.cy / k.fy + margin_y), (height - k.cy) / k.fy + margin_y);
  k.free_x = u == x, k.free_y = v == y;
  k.tx = u * k.m[2], k.ty = v * k.m[2];
  k.j[0][0] = k.fx * rz, k.j[0][1] = 0, k.j[0][2] = -k.fx * u * rz;
  k.j[1][0] = 0, k.j[1][1] = k.fy * rz, k.j[1][2] = -k.fy * v * rz;
  for (int r = 0; r < 2; ++r) {
    for (int c = 0; c < 3; ++c) k.jw[r][c] = k.j[r][r] * k.w[r][c] + k.j[r][2] * k.w[2][c];
    for (int c = 0; c < 3; ++c) {
      k.v[r][c] = k.jw[r][0] * rs.v[0][c] + k.jw[r][1] * rs.v[1][c] + k.jw[r][2] * rs.v[2][c];
    }
  }
  k.xx = k.v[0][0] * k.v[0][0] + k.v[0][1] * k.v[0][1] + k.v[0][2] * k.v[0][2];
  k.xy = k.v[0][0] * k.v[1][0] + k.v[0][1] * k.v[1][1] + k.v[0][2] * k.v[1][2];
  k.yy = k.v[1][0] * k.v[1][0] + k.v[1][1] * k.v[1][1] + k.v[1][2] * k.v[1][2];
}

// R S of a Gaussian, from its quaternion of any length; also the unit quaternion and 1 / length.
ZOO_INLINE Mat3 shape_of(const float* quat, const float* scale, Mat3& rotation, float* unit, float& inverse_norm) {
  inverse_norm =
      inverse_sqrt(quat[0] * quat[0] + quat[1] * quat[1] + quat[2] * quat[2] + quat[3] * quat[3]);
  for (int i = 0; i < 4; ++i) unit[i] = quat[i] * inverse_norm;
  rotation = rotation_of(unit);
  Mat3 rs;
  for (int r = 0; r < 3; ++r) {
    for (int c = 0; c < 3; ++c) rs.v[r][c] = rotation.v[r][c] * scale[c];
  }
  return rs;
}

ZOO_INLINE float extent_of(float opacity) {
  const float e = __builtin_sqrtf(2.0f * __builtin_logf(255.0f * opacity));
  return e < kMaxExtent ? e : kMaxExtent;
}

void project(const Projection& p, int64_t begin, int64_t end) {
  for (int64_t g = begin; g < end; ++g) {
    const float *mean = p.means + 3 * g, *scale = p.scales + 3 * g;
    float unit[4], inverse_norm;
    Mat3 rotation;
    const Mat3 rs = shape_of(p.quats + 4 * g, scale, rotation, unit, inverse_norm);
    for (int64_t camera = 0; camera < p.cameras; ++camera) {
      const int64_t at = camera * p.gaussians + g;
      int32_t* radii = p.radii + 2 * at;
      float *centre = p.means2d + 2 * at, *conic = p.conics + 3 * at;
      radii[0] = radii[1] = 0;
      centre[0] = centre[1] = conic[0] = conic[1] = conic[2] = p.depths[at] = p.compensations[at] = 0;
      View k = look(p, camera, mean);
      // The comparisons are written so that NaN fails them.
      if (!(k.m[2] >= p.near && k.m[2] <= p.far)) continue;
      spread(p, k, rs);
      const float before = k.xx * k.yy - k.xy * k.xy;
      const float xx = k.xx + p.eps2d, yy = k.yy + p.eps2d, det = xx * yy - k.xy * k.xy;
      if (!(det > 0 && det < 1e30f)) continue;
      const float ratio = before / det, floor = kMinCompensation * kMinCompensation;
      const float compensation = __builtin_sqrtf(ratio > floor ? ratio : floor);
      float extent = kMaxExtent;
      if (p.opacities) {
        const float opacity = p.opacities[g] * (p.antialiased ? compensation : 1.0f);
        if (!(opacity >= kMinAlpha)) continue;
        extent = extent_of(opacity);
      }
      const float rx = __builtin_ceilf(extent * __builtin_sqrtf(xx)), ry = __builtin_ceilf(extent * __builtin_sqrtf(yy));
      const float x = k.fx * k.m[0] / k.m[2] + k.cx, y = k.fy * k.m[1] / k.m[2] + k.cy;
      if (!(rx < 1e9f && ry < 1e9f) || (rx <= p.radius_clip && ry <= p.radius_clip)) continue;
      if (!(x + rx > 0 && x - rx < static_cast<float>(p.width))) continue;
      if (!(y + ry > 0 && y - ry < static_cast<float>(p.height))) continue;
      radii[0] = static_cast<int32_t>(rx), radii[1] = static_cast<int32_t>(ry);
      centre[0] = x, centre[1] = y;
      p.depths[at] = k.m[2];
      conic[0] = yy / det, conic[1] = -k.xy / det, conic[2] = xx / det;
      p.compensations[at] = compensation;
    }
  }
}

void project_backward(const Projection& p, const ProjectionGradients& up, int64_t begin, int64_t end, double* poses) {
  for (int64_t g = begin; g < end; ++g) {
    const float *mean = p.means + 3 * g, *scale = p.scales + 3 * g;
    float d_mean[3] = {}, d_rs[3][3] = {};
    float unit[4], inverse_norm;
    Mat3 rotation, rs;
    bool seen = false;
    for (int64_t camera = 0; camera < p.cameras; ++camera) {
      const int64_t at = camera * p.gaussians + g;
      if (p.radii[2 * at] <= 0) continue;
      if (!seen) rs = shape_of(p.quats + 4 * g, scale, rotation, unit, inverse_norm);
      seen = true;
      View k = look(p, camera, mean);
      spread(p, k, rs);
      const float *conic = p.conics + 3 * at, *d_conic = up.conics + 3 * at;
      const float a = conic[0], b = conic[1], c = conic[2];
      // The conic is the inverse of the covariance: -C G C, with half of b's gradient on either side.
      const float ga = d_conic[0], gb = 0.5f * d_conic[1], gc = d_conic[2];
      const float ua = a * ga + b * gb, ub = a * gb + b * gc, va = b * ga + c * gb, vb = b * gb + c * gc;
      float d_xx = -(ua * a + ub * b), d_xy = -(ua * b + ub * c) - (va * a + vb * b), d_yy = -(va * b + vb * c);
      const float compensation = p.compensations[at], d_compensation = up.compensations[at];
      if (d_compensation != 0 && compensation > kMinCompensation) {
        // compensation^2 = before / after, the determinants without and with eps2d.
        const float xx = k.xx + p.eps2d, yy = k.yy + p.eps2d, after = xx * yy - k.xy * k.xy;
        const float by_before = d_compensation / (2 * compensation * after);
        const float by_after = -by_before * compensation * compensation;
        d_xx += by_before * k.yy + by_after * yy;
        d_yy += by_before * k.xx + by_after * xx;
        d_xy -= 2 * k.xy * (by_before + by_after);
      }
      float d_jw[2][3] = {}, d_v[2][3];
      for (int i = 0; i < 3; ++i) {
        d_v[0][i] = 2 * d_xx * k.v[0][i] + d_xy * k.v[1][i];
        d_v[1][i] = 2 * d_yy * k.v[1][i] + d_xy * k.v[0][i];
      }
      for (int r = 0; r < 2; ++r) {
        for (int i = 0; i < 3; ++i) {
          for (int c2 = 0; c2 < 3; ++c2) {
            d_jw[r][i] += d_v[r][c2] * rs.v[i][c2];
            d_rs[i][c2] += k.jw[r][i] * d_v[r][c2];
          }
        }
      }
      float d_j[2][3] = {};
      for (int r = 0; r < 2; ++r) {
        for (int i = 0; i < 3; ++i) {
          d_j[r][r] += d_jw[r][i] * k.w[r][i];
          d_j[r][2] += d_jw[r][i] * k.w[2][i];
        }
      }
      const float rz = 1.0f / k.m[2], rz2 = rz * rz, rz3 = rz2 * rz;
      const float du = up.means2d[2 * at], dv = up.means2d[2 * at + 1];
      float d_m[3];
      d_m[0] = k.fx * rz * du;
      d_m[1] = k.fy * rz * dv;
      d_m[2] = up.depths[at] - (k.fx * k.m[0] * du + k.fy * k.m[1] * dv) * rz2;
      d_m[2] -= k.fx * rz2 * d_j[0][0] + k.fy * rz2 * d_j[1][1];
      // j[0][2] = -fx x / z^2, or -fx limit / z where x / z was clamped.
      d_m[2] += (k.free_x ? 2.0f : 1.0f) * k.fx * k.tx * rz3 * d_j[0][2];
      d_m[2] += (k.free_y ? 2.0f : 1.0f) * k.fy * k.ty * rz3 * d_j[1][2];
      if (k.free_x) d_m[0] -= k.fx * rz2 * d_j[0][2];
      if (k.free_y) d_m[1] -= k.fy * rz2 * d_j[1][2];
      for (int i = 0; i < 3; ++i) {
        for (int r = 0; r < 3; ++r) d_mean[i] += k.w[r][i] * d_m[r];
      }
      if (poses) {
        double* pose = poses + 12 * camera;
        for (int r = 0; r < 3; ++r) {
          for (int i = 0; i < 3; ++i) {
            float d_w = d_m[r] * mean[i];
            d_w += r < 2 ? k.j[r][r] * d_jw[r][i] : k.j[0][2] * d_jw[0][i] + k.j[1][2] * d_jw[1][i];
            pose[4 * r + i] += d_w;
          }
          pose[4 * r + 3] += d_m[r];
        }
      }
    }
    float d_scale[3] = {}, d_quat[4] = {};
    if (seen) {
      float d[3][3];
      for (int i = 0; i < 3; ++i) {
        for (int c = 0; c < 3; ++c) {
          d_scale[c] += rotation.v[i][c] * d_rs[i][c];
          d[i][c] = d_rs[i][c] * scale[c];
        }
      }
      const float w = unit[0], x = unit[1], y = unit[2], z = unit[3];
      const float d_unit[4] = {
          2 * (x * (d[2][1] - d[1][2]) + y * (d[0][2] - d[2][0]) + z * (d[1][0] - d[0][1])),
          2 * (-2 * x * (d[1][1] + d[2][2]) + y * (d[1][0] + d[0][1]) + z * (d[2][0] + d[0][2]) +
               w * (d[2][1] - d[1][2])),
          2 * (x * (d[1][0] + d[0][1]) - 2 * y * (d[0][0] + d[2][2]) + z * (d[2][1] + d[1][2]) +
               w * (d[0][2] - d[2][0])),
          2 * (x * (d[2][0] + d[0][2]) + y * (d[2][1] + d[1][2]) - 2 * z * (d[0][0] + d[1][1]) +
               w * (d[1][0] - d[0][1]))};
      float along = 0;
      for (int i = 0; i < 4; ++i) along += d_unit[i] * unit[i];
      for (int i = 0; i < 4; ++i) d_quat[i] = (d_unit[i] - along * unit[i]) * inverse_norm;
    }
    for (int i = 0; i < 3; ++i) up.means[3 * g + i] = d_mean[i], up.scales[3 * g + i] = d_scale[i];
    for (int i = 0; i < 4; ++i) up.quats[4 * g + i] = d_quat[i];
  }
}

// The real spherical harmonics up to degree 3 at a unit vector, with the signs of 3DGS.
ZOO_INLINE void basis(int degree, const float* d, float* y) {
  const float x = d[0], yy = d[1], z = d[2];
  y[0] = 0.28209479177387814f;
  if (degree < 1) return;
  y[1] = -0.48860251190291992f * yy, y[2] = 0.48860251190291992f * z, y[3] = -0.48860251190291992f * x;
  if (degree < 2) return;
  const float x2 = x * x, y2 = yy * yy, z2 = z * z;
  y[4] = 1.0925484305920792f * x * yy, y[5] = -1.0925484305920792f * yy * z;
  y[6] = 0.31539156525252005f * (2 * z2 - x2 - y2);
  y[7] = -1.0925484305920792f * x * z, y[8] = 0.54627421529603959f * (x2 - y2);
  if (degree < 3) return;
  y[9] = -0.59004358992664352f * yy * (3 * x2 - y2), y[10] = 2.8906114426405538f * x * yy * z;
  y[11] = -0.45704579946446577f * yy * (4 * z2 - x2 - y2);
  y[12] = 0.37317633259011546f * z * (2 * z2 - 3 * x2 - 3 * y2);
  y[13] = -0.45704579946446577f * x * (4 * z2 - x2 - y2);
  y[14] = 1.4453057213202769f * z * (x2 - y2), y[15] = -0.59004358992664352f * x * (x2 - 3 * y2);
}

// The gradient with respect to the vector, of the sum of s[k] times the k-th function.
ZOO_INLINE Vec3 basis_backward(int degree, const float* d, const float* s) {
  const float x = d[0], y = d[1], z = d[2];
  Vec3 g = {};
  if (degree < 1) return g;
  const float c1 = 0.48860251190291992f;
  g = {{-c1 * s[3], -c1 * s[1], c1 * s[2]}};
  if (degree < 2) return g;
  const float c2 = 1.0925484305920792f, c20 = 0.31539156525252005f, c22 = 0.54627421529603959f;
  g.v[0] += c2 * y * s[4] - 2 * c20 * x * s[6] - c2 * z * s[7] + 2 * c22 * x * s[8];
  g.v[1] += c2 * x * s[4] - c2 * z * s[5] - 2 * c20 * y * s[6] - 2 * c22 * y * s[8];
  g.v[2] += -c2 * y * s[5] + 4 * c20 * z * s[6] - c2 * x * s[7];
  if (degree < 3) return g;
  const float c33 = 0.59004358992664352f, c32 = 2.8906114426405538f, c31 = 0.45704579946446577f;
  const float c30 = 0.37317633259011546f, c3 = 1.4453057213202769f;
  const float x2 = x * x, y2 = y * y, z2 = z * z;
  g.v[0] += -6 * c33 * x * y * s[9] + c32 * y * z * s[10] + 2 * c31 * x * y * s[11] - 6 * c30 * x * z * s[12] -
            c31 * (4 * z2 - 3 * x2 - y2) * s[13] + 2 * c3 * x * z * s[14] - 3 * c33 * (x2 - y2) * s[15];
  g.v[1] += -3 * c33 * (x2 - y2) * s[9] + c32 * x * z * s[10] - c31 * (4 * z2 - x2 - 3 * y2) * s[11] -
            6 * c30 * y * z * s[12] + 2 * c31 * x * y * s[13] - 2 * c3 * y * z * s[14] + 6 * c33 * x * y * s[15];
  g.v[2] += c32 * x * y * s[10] - 8 * c31 * y * z * s[11] + 3 * c30 * (2 * z2 - x2 - y2) * s[12] -
            8 * c31 * x * z * s[13] + c3 * (x2 - y2) * s[14];
  return g;
}

// The unit vector from a camera's centre to a Gaussian, and 1 / distance.
ZOO_INLINE Vec3 direction(const float* mean, const float* centre, float& inverse) {
  Vec3 d;
  float square = 0;
  for (int i = 0; i < 3; ++i) d.v[i] = mean[i] - centre[i], square += d.v[i] * d.v[i];
  inverse = square > 0 ? inverse_sqrt(square) : 0;
  for (float& v : d.v) v *= inverse;
  return d;
}

void harmonics(const Harmonics& h, int64_t begin, int64_t end) {
  const int count = (h.degree + 1) * (h.degree + 1);
  for (int64_t camera = 0; camera < h.cameras; ++camera) {
    for (int64_t g = begin; g < end; ++g) {
      const int64_t at = camera * h.gaussians + g;
      float* color = h.colors + 3 * at;
      color[0] = color[1] = color[2] = 0;
      if (h.radii[2 * at] <= 0) continue;
      float inverse, y[16];
      const Vec3 d = direction(h.means + 3 * g, h.centres + 3 * camera, inverse);
      basis(h.degree, d.v, y);
      const float* c = h.coefficients + 3 * h.stride * g;
      float sum[3] = {0.5f, 0.5f, 0.5f};
      for (int k = 0; k < count; ++k) {
        for (int i = 0; i < 3; ++i) sum[i] += y[k] * c[3 * k + i];
      }
      for (int i = 0; i < 3; ++i) color[i] = sum[i] > 0 ? sum[i] : 0;
    }
  }
}

void harmonics_backward(const Harmonics& h, const HarmonicsGradients& up, int64_t begin, int64_t end, double* centres) {
  const int count = (h.degree + 1) * (h.degree + 1);
  for (int64_t g = begin; g < end; ++g) {
    float* d_c = up.coefficients + 3 * h.stride * g;
    float d_mean[3] = {};
    __builtin_memset(d_c, 0, 3 * h.stride * sizeof(float));
    const float* c = h.coefficients + 3 * h.stride * g;
    for (int64_t camera = 0; camera < h.cameras; ++camera) {
      const int64_t at = camera * h.gaussians + g;
      if (h.radii[2 * at] <= 0) continue;
      float upstream[3];
      for (int i = 0; i < 3; ++i) upstream[i] = h.colors[3 * at + i] > 0 ? up.colors[3 * at + i] : 0;
      float inverse, y[16], s[16];
      const Vec3 d = direction(h.means + 3 * g, h.centres + 3 * camera, inverse);
      basis(h.degree, d.v, y);
      for (int k = 0; k < count; ++k) {
        s[k] = 0;
        for (int i = 0; i < 3; ++i) {
          d_c[3 * k + i] += y[k] * upstream[i];
          s[k] += c[3 * k + i] * upstream[i];
        }
      }
      const Vec3 by = basis_backward(h.degree, d.v, s);
      const float along = by.v[0] * d.v[0] + by.v[1] * d.v[1] + by.v[2] * d.v[2];
      for (int i = 0; i < 3; ++i) {
        const float by_mean = (by.v[i] - along * d.v[i]) * inverse;
        d_mean[i] += by_mean;
        if (centres) centres[3 * camera + i] -= by_mean;
      }
    }
    for (int i = 0; i < 3; ++i) up.means[3 * g + i] = d_mean[i];
  }
}

}  // namespace

#define ZOO_STRING_(a) #a
#define ZOO_STRING(a) ZOO_STRING_(a)

extern const ProjectKernels ZOO_JOIN(ZOO_ISA, _project) = {ZOO_STRING(ZOO_ISA), project, project_backward, harmonics,
                                                           harmonics_backward};

}  // namespace zoo::splat
