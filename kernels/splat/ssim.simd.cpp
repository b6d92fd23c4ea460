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

// A row with zeros before and after it, so that a filter needs not mind the border.
struct Padded {
  float* row;

  static inline __attribute__((always_inline)) Padded of(const Ssim& s, float* scratch) {
    const int64_t border = kRadius * s.step;
    memset(scratch, 0, border * sizeof(float));
    memset(scratch + border + s.row, 0, (ssim_padded(s) - border - s.row) * sizeof(float));
    return {scratch + border};
  }
};

// `out` = the padded row filtered along itself.
ZOO_INLINE void filter_row(Padded padded, float* out, int64_t length, int64_t step) {
  for (int64_t i = 0; i < length; i += kLanes) {
    const float* at = padded.row + i;
    Floats sum = load(at) * kWindow[0];
    for (int k = 1; k <= kRadius; ++k) sum += (load(at - k * step) + load(at + k * step)) * kWindow[k];
    if (length - i >= kLanes) {
      store(out + i, sum);
    } else {
      store(out + i, sum, static_cast<int>(length - i));
    }
  }
}

// The lanes from column i on, filtered across the rows around row y.
template <bool kWhole, bool kInside>
ZOO_INLINE Floats filter_column(const float* plane, const Ssim& s, int64_t y, int64_t i) {
  const auto at = [&](int64_t line) {
    const float* from = plane + line * s.row + i;
    return kWhole ? load(from) : load(from, static_cast<int>(s.row - i));
  };
  Floats sum = at(y) * kWindow[0];
  for (int k = 1; k <= kRadius; ++k) {
    if constexpr (kInside) {
      sum += (at(y - k) + at(y + k)) * kWindow[k];
    } else {
      if (y >= k) sum += at(y - k) * kWindow[k];
      if (y + k < s.height) sum += at(y + k) * kWindow[k];
    }
  }
  return sum;
}

// work(column, number of lanes, filter) along row y, where filter(plane) is the plane filtered across the rows there.
template <class Work>
ZOO_INLINE void along(const Ssim& s, int64_t y, const Work& work) {
  int64_t i = 0;
  if (y >= kRadius && y + kRadius < s.height) {
    for (; i + kLanes <= s.row; i += kLanes) {
      work(i, kLanes, [&](const float* plane) { return filter_column<true, true>(plane, s, y, i); });
    }
  }
  for (; i + kLanes <= s.row; i += kLanes) {
    work(i, kLanes, [&](const float* plane) { return filter_column<true, false>(plane, s, y, i); });
  }
  if (i < s.row) {
    const int count = static_cast<int>(s.row - i);
    work(i, count, [&](const float* plane) { return filter_column<false, false>(plane, s, y, i); });
  }
}

void rows(const Ssim& s, int64_t begin, int64_t end, float* scratch) {
  const int64_t plane = s.height * s.row;
  const Padded line = Padded::of(s, scratch);
  for (int64_t y = begin; y < end; ++y) {
    const float *x = s.image + y * s.row, *t = s.target + y * s.row;
    float* out = s.filtered + y * s.row;
    const auto filter = [&](int quantity, auto&& value) {
      for (int64_t i = 0; i < s.row; ++i) line.row[i] = value(i);
      filter_row(line, out + quantity * plane, s.row, s.step);
    };
    filter(0, [&](int64_t i) { return x[i]; });
    filter(1, [&](int64_t i) { return t[i]; });
    filter(2, [&](int64_t i) { return x[i] * x[i]; });
    filter(3, [&](int64_t i) { return t[i] * t[i]; });
    filter(4, [&](int64_t i) { return x[i] * t[i]; });
  }
}

double map(const Ssim& s, int64_t begin, int64_t end, float* scratch) {
  const int64_t plane = s.height * s.row;
  const Padded lines[3] = {Padded::of(s, scratch), Padded::of(s, scratch + ssim_padded(s)),
                           Padded::of(s, scratch + 2 * ssim_padded(s))};
  double sum = 0;
  for (int64_t y = begin; y < end; ++y) {
    Floats row_sum = {};
    along(s, y, [&](int64_t i, int count, auto&& filter) {
      Floats v[5];
      for (int q = 0; q < 5; ++q) v[q] = filter(s.filtered + q * plane);
      const Floats mx = v[0], mt = v[1];
      const Floats a = 2.0f * mx * mt + kC1, b = 2.0f * (v[4] - mx * mt) + kC2;
      const Floats c = mx * mx + mt * mt + kC1, d = (v[2] - mx * mx) + (v[3] - mt * mt) + kC2;
      const Floats by_c = 1.0f / c, by_d = 1.0f / d, scale = by_c * by_d;
      Floats ssim = a * b * scale;
      if (s.partials) {
        // With respect to the means, the mean squares and the mean products.
        store(lines[0].row + i, 2.0f * (mt * (b - a) * scale + mx * ssim * (by_d - by_c)), count);
        store(lines[1].row + i, -ssim * by_d, count);
        store(lines[2].row + i, 2.0f * a * scale, count);
      }
      for (int j = count; j < kLanes; ++j) ssim[j] = 0.0f;
      row_sum += ssim;
    });
    for (int j = 0; j < kLanes; ++j) sum += row_sum[j];
    if (s.partials) {
      for (int part = 0; part < 3; ++part) {
        filter_row(lines[part], s.partials + part * plane + y * s.row, s.row, s.step);
      }
    }
  }
  return sum;
}

void gradient(const Ssim& s, int64_t begin, int64_t end) {
  const int64_t plane = s.height * s.row;
  for (int64_t y = begin; y < end; ++y) {
    along(s, y, [&](int64_t i, int count, auto&& filter) {
      const int64_t at = y * s.row + i;
      const Floats x = load(s.image + at, count), t = load(s.target + at, count);
      const Floats by_mean = filter(s.partials), by_square = filter(s.partials + plane);
      store(s.gradient + at, by_mean + 2.0f * x * by_square + t * filter(s.partials + 2 * plane), count);
    });
  }
}

}  // namespace

extern const SsimKernels ZOO_JOIN(ZOO_ISA, _ssim) = {rows, map, gradient};

}  // namespace zoo::splat
