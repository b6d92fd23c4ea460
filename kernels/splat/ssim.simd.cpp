// Structural similarity with its gradient in three passes over rows. Compiled once per instruction set.
//
// Wang et al., "Image quality assessment: from error visibility to structural similarity", 2004, with the window of
// 11 x 11, sigma 1.5, and zeros beyond the border.

#include "../common/simd.h"
#include "cpu.h"

namespace zoo::splat {
namespace {

constexpr int kRadius = 5;
constexpr int kLanes = Lanes<float>::count;
constexpr float kC1 = 0.01f * 0.01f, kC2 = 0.03f * 0.03f;
// exp(-k^2 / (2 * 1.5^2)), normalised over k = -5 .. 5.
constexpr float kWindow[kRadius + 1] = {0.26601172486179436f, 0.21300553771125370f, 0.10936068950970002f,
                                        0.03600077212843083f, 0.00759875813523919f, 0.00102838008447911f};

// `out` = the row filtered along itself.
ZOO_INLINE void filter_row(const float* row, float* out, int64_t length, int64_t step) {
  const int64_t border = kRadius * step;
  int64_t i = 0;
  const auto careful = [&](int64_t at) {
    float sum = kWindow[0] * row[at];
    for (int k = 1; k <= kRadius; ++k) {
      if (at - k * step >= 0) sum += kWindow[k] * row[at - k * step];
      if (at + k * step < length) sum += kWindow[k] * row[at + k * step];
    }
    out[at] = sum;
  };
  for (; i < border && i < length; ++i) careful(i);
  for (; i + kLanes <= length - border; i += kLanes) {
    Floats sum = load(row + i) * kWindow[0];
    for (int k = 1; k <= kRadius; ++k) sum += (load(row + i - k * step) + load(row + i + k * step)) * kWindow[k];
    store(out + i, sum);
  }
  for (; i < length; ++i) careful(i);
}

// The `kLanes` numbers (or `count` of them) from column i on, filtered across the rows around row y.
ZOO_INLINE Floats filter_column(const float* plane, int64_t height, int64_t row, int64_t y, int64_t i, int count) {
  const auto at = [&](int64_t line) {
    return count == kLanes ? load(plane + line * row + i) : load(plane + line * row + i, count);
  };
  Floats sum = at(y) * kWindow[0];
  for (int k = 1; k <= kRadius; ++k) {
    if (y >= k) sum += at(y - k) * kWindow[k];
    if (y + k < height) sum += at(y + k) * kWindow[k];
  }
  return sum;
}

void rows(const Ssim& s, int64_t begin, int64_t end, float* scratch) {
  const int64_t plane = s.height * s.row;
  for (int64_t y = begin; y < end; ++y) {
    const float *x = s.image + y * s.row, *t = s.target + y * s.row;
    float* out = s.filtered + y * s.row;
    filter_row(x, out, s.row, s.step);
    filter_row(t, out + plane, s.row, s.step);
    for (int64_t i = 0; i < s.row; ++i) scratch[i] = x[i] * x[i];
    filter_row(scratch, out + 2 * plane, s.row, s.step);
    for (int64_t i = 0; i < s.row; ++i) scratch[i] = t[i] * t[i];
    filter_row(scratch, out + 3 * plane, s.row, s.step);
    for (int64_t i = 0; i < s.row; ++i) scratch[i] = x[i] * t[i];
    filter_row(scratch, out + 4 * plane, s.row, s.step);
  }
}

double map(const Ssim& s, int64_t begin, int64_t end, float* scratch) {
  const int64_t plane = s.height * s.row;
  double sum = 0;
  for (int64_t y = begin; y < end; ++y) {
    Floats row_sum = {};
    for (int64_t i = 0; i < s.row; i += kLanes) {
      const int count = s.row - i < kLanes ? static_cast<int>(s.row - i) : kLanes;
      Floats v[5];
      for (int q = 0; q < 5; ++q) v[q] = filter_column(s.filtered + q * plane, s.height, s.row, y, i, count);
      const Floats mx = v[0], mt = v[1];
      const Floats a = 2.0f * mx * mt + kC1, b = 2.0f * (v[4] - mx * mt) + kC2;
      const Floats c = mx * mx + mt * mt + kC1, d = (v[2] - mx * mx) + (v[3] - mt * mt) + kC2;
      const Floats scale = 1.0f / (c * d);
      Floats ssim = a * b * scale;
      if (s.partials) {
        // With respect to the means, the mean squares and the mean products.
        store(scratch + i, 2.0f * (mt * (b - a) * scale + mx * ssim * (1.0f / d - 1.0f / c)), count);
        store(scratch + s.row + i, -ssim / d, count);
        store(scratch + 2 * s.row + i, 2.0f * a * scale, count);
      }
      for (int j = count; j < kLanes; ++j) ssim[j] = 0.0f;
      row_sum += ssim;
    }
    for (int j = 0; j < kLanes; ++j) sum += row_sum[j];
    if (s.partials) {
      for (int part = 0; part < 3; ++part) {
        filter_row(scratch + part * s.row, s.partials + part * plane + y * s.row, s.row, s.step);
      }
    }
  }
  return sum;
}

void gradient(const Ssim& s, int64_t begin, int64_t end) {
  const int64_t plane = s.height * s.row;
  for (int64_t y = begin; y < end; ++y) {
    for (int64_t i = 0; i < s.row; i += kLanes) {
      const int count = s.row - i < kLanes ? static_cast<int>(s.row - i) : kLanes;
      Floats v[3];
      for (int q = 0; q < 3; ++q) v[q] = filter_column(s.partials + q * plane, s.height, s.row, y, i, count);
      const int64_t at = y * s.row + i;
      const Floats x = load(s.image + at, count), t = load(s.target + at, count);
      store(s.gradient + at, v[0] + 2.0f * x * v[1] + t * v[2], count);
    }
  }
}

}  // namespace

extern const SsimKernels ZOO_JOIN(ZOO_ISA, _ssim) = {rows, map, gradient};

}  // namespace zoo::splat
