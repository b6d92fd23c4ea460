// The colours of Gaussians from spherical harmonics, and the derivative. Compiled once per instruction set.
//
// Kerbl et al. 2023, section 4. A lane of a vector is a Gaussian; coefficients are transposed on their way.

#include "cpu.h"
#include "vectors.h"

namespace zoo::splat {
namespace {

constexpr int kNumbers = 48;  // of a Gaussian at degree 3
constexpr int kChunks = (kNumbers + kLanes - 1) / kLanes;

struct Vec3 { Floats v[3]; };

// The real spherical harmonics up to degree 3 at a unit vector, with the signs of 3DGS.
ZOO_INLINE void basis(int degree, const Vec3& d, Floats* y) {
  const Floats x = d.v[0], yy = d.v[1], z = d.v[2];
  y[0] = all(0.28209479177387814f);
  if (degree < 1) return;
  y[1] = -0.48860251190291992f * yy, y[2] = 0.48860251190291992f * z, y[3] = -0.48860251190291992f * x;
  if (degree < 2) return;
  const Floats x2 = x * x, y2 = yy * yy, z2 = z * z;
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
ZOO_INLINE Vec3 basis_backward(int degree, const Vec3& d, const Floats* s) {
  const Floats x = d.v[0], y = d.v[1], z = d.v[2];
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
  const Floats x2 = x * x, y2 = y * y, z2 = z * z;
  g.v[0] += -6 * c33 * x * y * s[9] + c32 * y * z * s[10] + 2 * c31 * x * y * s[11] - 6 * c30 * x * z * s[12] -
            c31 * (4 * z2 - 3 * x2 - y2) * s[13] + 2 * c3 * x * z * s[14] - 3 * c33 * (x2 - y2) * s[15];
  g.v[1] += -3 * c33 * (x2 - y2) * s[9] + c32 * x * z * s[10] - c31 * (4 * z2 - x2 - 3 * y2) * s[11] -
            6 * c30 * y * z * s[12] + 2 * c31 * x * y * s[13] - 2 * c3 * y * z * s[14] + 6 * c33 * x * y * s[15];
  g.v[2] += c32 * x * y * s[10] - 8 * c31 * y * z * s[11] + 3 * c30 * (2 * z2 - x2 - y2) * s[12] -
            8 * c31 * x * z * s[13] + c3 * (x2 - y2) * s[14];
  return g;
}

// The unit vectors from a camera's centre to Gaussians, and 1 / distance.
ZOO_INLINE Vec3 direction(const Floats (&means)[3], const float* centre, Floats& inverse) {
  Vec3 d;
  Floats square = {};
  for (int i = 0; i < 3; ++i) d.v[i] = means[i] - centre[i], square += d.v[i] * d.v[i];
  inverse = only(below(Floats{}, square), 1.0f / root(square));
  for (Floats& v : d.v) v *= inverse;
  return d;
}

// The first `used` coefficients of the Gaussians from g on. Memory is read and written in its order, which is what
// takes the time here.
ZOO_INLINE void load_coefficients(const Harmonics& h, int64_t g, int count, int used, Floats (&c)[kChunks * kLanes]) {
  const int64_t row = 3 * h.stride;
  const float* end = h.coefficients + row * h.gaussians;
  Floats squares[kChunks][kLanes];
  for (int i = 0; i < kLanes; ++i) {
    for (int chunk = 0; chunk * kLanes < used; ++chunk) {
      const float* from = h.coefficients + row * (g + (i < count ? i : count - 1)) + chunk * kLanes;
      squares[chunk][i] = end - from >= kLanes ? load(from) : load(from, static_cast<int>(end - from));
    }
  }
  for (int chunk = 0; chunk * kLanes < used; ++chunk) {
    transpose(squares[chunk]);
    for (int i = 0; i < kLanes; ++i) c[chunk * kLanes + i] = squares[chunk][i];
  }
}

ZOO_INLINE void store_coefficients(const Harmonics& h, int64_t g, int count, int used, const Floats* c, float* to) {
  const int64_t row = 3 * h.stride;
  Floats squares[kChunks][kLanes];
  for (int chunk = 0; chunk * kLanes < used; ++chunk) {
    for (int i = 0; i < kLanes; ++i) squares[chunk][i] = c[chunk * kLanes + i];
    transpose(squares[chunk]);
  }
  for (int i = 0; i < count; ++i) {
    float* at = to + row * (g + i);
    for (int chunk = 0; chunk * kLanes < used; ++chunk) {
      const int left = used - chunk * kLanes;
      if (left >= kLanes) {
        store(at + chunk * kLanes, squares[chunk][i]);
      } else {
        store(at + chunk * kLanes, squares[chunk][i], left);
      }
    }
    if (used < row) memset(at + used, 0, (row - used) * sizeof(float));
  }
}

void harmonics(const Harmonics& h, int64_t begin, int64_t end) {
  const int functions = (h.degree + 1) * (h.degree + 1);
  for (int64_t camera = 0; camera < h.cameras; ++camera) {
    for (int64_t g = begin; g < end; g += kLanes) {
      const int count = end - g < kLanes ? static_cast<int>(end - g) : kLanes;
      const int64_t at = camera * h.gaussians + g;
      const Mask here = with_radius(h.radii + 2 * at, count);
      Floats color[3] = {};
      if (bits(here)) {
        Floats means[3], inverse, y[16], c[kChunks * kLanes];
        load_rows(h.means + 3 * g, count, means);
        load_coefficients(h, g, count, 3 * functions, c);
        basis(h.degree, direction(means, h.centres + 3 * camera, inverse), y);
        for (int i = 0; i < 3; ++i) {
          Floats sum = all(0.5f);
          for (int k = 0; k < functions; ++k) sum += y[k] * c[3 * k + i];
          color[i] = only(here, largest(sum, Floats{}));
        }
      }
      store_rows(color, h.colors + 3 * at, count);
    }
  }
}

void harmonics_backward(const Harmonics& h, const HarmonicsGradients& up, int64_t begin, int64_t end, double* centres) {
  const int functions = (h.degree + 1) * (h.degree + 1);
  for (int64_t g = begin; g < end; g += kLanes) {
    const int count = end - g < kLanes ? static_cast<int>(end - g) : kLanes;
    Floats means[3], d_mean[3] = {}, c[kChunks * kLanes], d_c[kChunks * kLanes] = {};
    load_rows(h.means + 3 * g, count, means);
    bool loaded = false;
    for (int64_t camera = 0; camera < h.cameras; ++camera) {
      const int64_t at = camera * h.gaussians + g;
      const Mask here = with_radius(h.radii + 2 * at, count);
      if (!bits(here)) continue;
      if (!loaded) load_coefficients(h, g, count, 3 * functions, c);
      loaded = true;
      Floats color[3], upstream[3], inverse, y[16], s[16];
      load_rows(h.colors + 3 * at, count, color);
      load_rows(up.colors + 3 * at, count, upstream);
      // A colour clamped at zero depends on nothing.
      for (int i = 0; i < 3; ++i) upstream[i] = only(both(here, below(Floats{}, color[i])), upstream[i]);
      const Vec3 d = direction(means, h.centres + 3 * camera, inverse);
      basis(h.degree, d, y);
      for (int k = 0; k < functions; ++k) {
        s[k] = Floats{};
        for (int i = 0; i < 3; ++i) {
          d_c[3 * k + i] += only(here, y[k] * upstream[i]);
          s[k] += c[3 * k + i] * upstream[i];
        }
      }
      const Vec3 by = basis_backward(h.degree, d, s);
      const Floats along = by.v[0] * d.v[0] + by.v[1] * d.v[1] + by.v[2] * d.v[2];
      for (int i = 0; i < 3; ++i) {
        const Floats by_mean = only(here, (by.v[i] - along * d.v[i]) * inverse);
        d_mean[i] += by_mean;
        for (int lane = 0; centres && lane < kLanes; ++lane) centres[3 * camera + i] -= by_mean[lane];
      }
    }
    store_coefficients(h, g, count, 3 * functions, d_c, up.coefficients);
    store_rows(d_mean, up.means + 3 * g, count);
  }
}

}  // namespace

extern const HarmonicsKernels ZOO_JOIN(ZOO_ISA, _harmonics) = {harmonics, harmonics_backward};

}  // namespace zoo::splat
