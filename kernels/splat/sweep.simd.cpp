// Plane sweep: the depth of every pixel of a view by comparing it with its neighbours' over a range of depths.
// Compiled once per instruction set.
//
// Collins, "A space-sweep approach to true multi-image matching", 1996, with zero-mean normalised cross-correlation
// over square windows, and the mean of the two best neighbours against occlusion.

#include "../common/simd.h"
#include "cpu.h"

namespace zoo::splat {
namespace {

constexpr int kLanes = Lanes<float>::count;
typedef int32_t Ints __attribute__((vector_size(kVectorBytes)));

ZOO_INLINE Floats all(float x) { return x + Floats{}; }

// 1 / sqrt(x) for x > 0, within 5e-6 relative: a guess from the bits and two of Newton's steps.
ZOO_INLINE Floats inverse_root(Floats x) {
  Floats y = (Floats)(0x5f3759df - ((Words)x >> 1));
  y = y * (1.5f - 0.5f * x * y * y);
  return y * (1.5f - 0.5f * x * y * y);
}

// A neighbour's row of colours as the reference sees it at one inverse depth; -1 in `inside` where it does not.
ZOO_INLINE void warp_row(const Sweep& s, int n, float inverse_depth, float y, float* out, float* inside) {
  const float *a = s.homographies + 9 * n, *b = s.offsets + 3 * n;
  const float* picture = s.neighbours + static_cast<int64_t>(n) * s.neighbour_height * s.neighbour_width;
  const float right = static_cast<float>(s.neighbour_width - 1), bottom = static_cast<float>(s.neighbour_height - 1);
  const float fixed[3] = {a[1] * y + a[2] + inverse_depth * b[0], a[4] * y + a[5] + inverse_depth * b[1],
                          a[7] * y + a[8] + inverse_depth * b[2]};
  Floats steps;
  for (int i = 0; i < kLanes; ++i) steps[i] = static_cast<float>(i) + 0.5f;
  for (int64_t x = 0; x < s.stride; x += kLanes) {
    const Floats column = steps + static_cast<float>(x);
    const Floats w = a[6] * column + fixed[2], scale = 1.0f / w;
    Floats u = (a[0] * column + fixed[0]) * scale - 0.5f, v = (a[3] * column + fixed[1]) * scale - 0.5f;
    const Ints seen = (w > 0.0f) & (u >= 0.0f) & (u <= right) & (v >= 0.0f) & (v <= bottom);
    u = seen ? u : all(0.0f), v = seen ? v : all(0.0f);
    Ints i = __builtin_convertvector(u, Ints), j = __builtin_convertvector(v, Ints);
    i = i < s.neighbour_width - 2 ? i : s.neighbour_width - 2 + Ints{};
    j = j < s.neighbour_height - 2 ? j : s.neighbour_height - 2 + Ints{};
    const Floats fu = u - __builtin_convertvector(i, Floats), fv = v - __builtin_convertvector(j, Floats);
    const Ints at = j * s.neighbour_width + i;
    Floats p00, p01, p10, p11;
    for (int k = 0; k < kLanes; ++k) {
      const float* p = picture + at[k];
      p00[k] = p[0], p01[k] = p[1], p10[k] = p[s.neighbour_width], p11[k] = p[s.neighbour_width + 1];
    }
    const Floats top = p00 + fu * (p01 - p00), low = p10 + fu * (p11 - p10);
    store(out + x, top + fv * (low - top));
    store(inside + x, (Floats)(seen & (Ints)all(1.0f)));
  }
  memset(out + s.width, 0, (s.stride - s.width) * sizeof(float));  // windows see zeros beyond the border
}

// Sums over 2 r + 1 neighbours along a row that has r zeros before and after it.
ZOO_INLINE void add_along(const float* row, float* out, int64_t length, int radius) {
  for (int64_t x = 0; x < length; x += kLanes) {
    Floats sum = load(row + x - radius);
    for (int k = 1 - radius; k <= radius; ++k) sum += load(row + x + k);
    store(out + x, sum);
  }
}

// Rows begin..end of the reference. Scratch is laid out as the code says; see sweep_scratch.
void sweep(const Sweep& s, int64_t begin, int64_t end, float* scratch) {
  const int r = s.radius;
  const int64_t margin = kSweepMargin, padded = s.stride + 2 * margin;
  const int64_t first = begin - r > 0 ? begin - r : 0, last = end + r < s.height ? end + r : s.height;
  const int64_t rows = last - first, band = end - begin;
  const int64_t row_numbers = kSweepRows + 2 * kSweepRadius, band_numbers = kSweepRows * s.stride;
  float *warped = scratch, *inside = warped + row_numbers * padded, *product = inside + row_numbers * s.stride;
  float* sums = product + padded;  // [3][rows][stride]: along rows
  float* state = sums + 3 * row_numbers * s.stride;
  float *best = state, *before = best + band_numbers, *after = before + band_numbers, *place = after + band_numbers;
  float *previous = place + band_numbers, *mean = previous + band_numbers, *inverse_sigma = mean + band_numbers;
  float *top = inverse_sigma + band_numbers, *second = top + band_numbers;
  const int64_t plane = row_numbers * s.stride;
  const float area = static_cast<float>((2 * r + 1) * (2 * r + 1));
  memset(product, 0, padded * sizeof(float));
  memset(warped, 0, row_numbers * padded * sizeof(float));

  const auto window = [&](int64_t quantity, int64_t y, int64_t x) {
    Floats sum = {};
    for (int64_t k = y - r; k <= y + r; ++k) {
      if (k >= first && k < last) sum += load(sums + quantity * plane + (k - first) * s.stride + x);
    }
    return sum;
  };

  // Mean and spread of the reference's windows.
  for (int64_t y = first; y < last; ++y) {
    const float* row = s.reference + y * s.stride;
    float* middle = product + margin;
    memcpy(middle, row, s.stride * sizeof(float));
    add_along(middle, sums + (y - first) * s.stride, s.stride, r);
    for (int64_t x = 0; x < s.stride; ++x) middle[x] = row[x] * row[x];
    add_along(middle, sums + plane + (y - first) * s.stride, s.stride, r);
  }
  for (int64_t y = begin; y < end; ++y) {
    for (int64_t x = 0; x < s.stride; x += kLanes) {
      const int64_t at = (y - begin) * s.stride + x;
      const Floats m = window(0, y, x) * (1.0f / area), v = window(1, y, x) * (1.0f / area) - m * m;
      store(mean + at, m);
      store(inverse_sigma + at, inverse_root(v > 1e-5f ? v : all(1e-5f)));
      store(best + at, all(-1.0f)), store(previous + at, all(-1.0f));
      store(before + at, all(-1.0f)), store(after + at, all(-1.0f));
      store(place + at, all(0.0f));
    }
  }
  for (int64_t p = 0; p < s.planes; ++p) {
    for (int64_t i = 0; i < band * s.stride; i += kLanes) store(top + i, all(-1.0f)), store(second + i, all(-1.0f));
    for (int n = 0; n < s.count; ++n) {
      for (int64_t y = first; y < last; ++y) {
        const float* reference = s.reference + y * s.stride;
        float *row = warped + (y - first) * padded + margin, *middle = product + margin;
        warp_row(s, n, s.inverse_depths[p], static_cast<float>(y) + 0.5f, row, inside + (y - first) * s.stride);
        add_along(row, sums + (y - first) * s.stride, s.stride, r);
        for (int64_t x = 0; x < s.stride; ++x) middle[x] = row[x] * row[x];
        add_along(middle, sums + plane + (y - first) * s.stride, s.stride, r);
        for (int64_t x = 0; x < s.stride; ++x) middle[x] = row[x] * reference[x];
        add_along(middle, sums + 2 * plane + (y - first) * s.stride, s.stride, r);
      }
      for (int64_t y = begin; y < end; ++y) {
        for (int64_t x = 0; x < s.stride; x += kLanes) {
          const int64_t at = (y - begin) * s.stride + x;
          const Floats m = window(0, y, x) * (1.0f / area), v = window(1, y, x) * (1.0f / area) - m * m;
          const Floats covariance = window(2, y, x) * (1.0f / area) - m * load(mean + at);
          Floats score = covariance * load(inverse_sigma + at) * inverse_root(v > 1e-5f ? v : all(1e-5f));
          const Floats visible = load(inside + (y - first) * s.stride + x);
          score = visible > 0.5f ? score : all(-1.0f);
          const Floats one = load(top + at), two = load(second + at);
          store(second + at, score > one ? one : score > two ? score : two);
          store(top + at, score > one ? score : one);
        }
      }
    }
    for (int64_t i = 0; i < band * s.stride; i += kLanes) {
      const Floats score = s.count > 1 ? 0.5f * (load(top + i) + load(second + i)) : load(top + i);
      const Floats old = load(best + i), where = load(place + i), last_score = load(previous + i);
      const Floats here = all(static_cast<float>(p));
      store(after + i, where == here - 1.0f ? score : load(after + i));
      const Ints better = score > old;
      store(best + i, better ? score : old);
      store(before + i, better ? last_score : load(before + i));
      store(place + i, better ? here : where);
      store(previous + i, score);
    }
  }
  const float step = s.planes > 1 ? s.inverse_depths[1] - s.inverse_depths[0] : 0.0f;
  for (int64_t y = begin; y < end; ++y) {
    for (int64_t x = 0; x < s.width; ++x) {
      const int64_t at = (y - begin) * s.stride + x;
      const float bend = before[at] - 2 * best[at] + after[at];
      const bool between = place[at] > 0 && place[at] < static_cast<float>(s.planes - 1) && bend < -1e-6f;
      const float shift = between ? 0.5f * (before[at] - after[at]) / bend : 0.0f;
      s.depth[y * s.width + x] = s.inverse_depths[static_cast<int64_t>(place[at])] + shift * step;
      s.score[y * s.width + x] = best[at];
    }
  }
}

int64_t sweep_scratch(const Sweep& s) {
  const int64_t padded = s.stride + 2 * kSweepMargin, rows = kSweepRows + 2 * kSweepRadius;
  return rows * padded + rows * s.stride + padded + 3 * rows * s.stride + 9 * kSweepRows * s.stride;
}

}  // namespace

extern const SweepKernels ZOO_JOIN(ZOO_ISA, _sweep) = {sweep, sweep_scratch};

}  // namespace zoo::splat
