// Sampling and gathering points on a CPU. Compiled once per instruction set: ZOO_ISA names it.

#include "../common/simd.h"
#include "cpu.h"

namespace zoo::points {
namespace {

template <class T>
constexpr int kLanes = Lanes<T>::count;

template <class V>
ZOO_INLINE V smaller(V a, V b) {
  return a < b ? a : b;
}
template <class V>
ZOO_INLINE V larger(V a, V b) {
  return a > b ? a : b;
}

template <class T>
void sample(const Sampling& s, void* scratch) {
  using V = Vector<T>;
  const T* points = static_cast<const T*>(s.points);
  const int64_t padded = (s.count + kLanes<T> - 1) / kLanes<T> * kLanes<T>;
  T* x = static_cast<T*>(scratch);
  T *y = x + padded, *z = y + padded, *distance = z + padded;
  for (int64_t i = 0; i < padded; ++i) {
    const T* point = points + 3 * (i < s.count ? i : 0);
    x[i] = point[0];
    y[i] = point[1];
    z[i] = point[2];
    const T squared = x[i] * x[i] + y[i] * y[i] + z[i] * z[i];
    // A distance below zero stays the smallest: such a point is never the furthest.
    distance[i] = i >= s.count || squared <= static_cast<T>(s.skip) ? T(-1) : T(1e10);
  }
  int64_t last = 0;
  s.chosen[0] = 0;
  for (int64_t taken = 1; taken < s.samples; ++taken) {
    const V cx = x[last] + V{}, cy = y[last] + V{}, cz = z[last] + V{};
    V best = T(-1) + V{};
    for (int64_t i = 0; i < padded; i += kLanes<T>) {
      const V dx = load(x + i) - cx, dy = load(y + i) - cy, dz = load(z + i) - cz;
      const V d = smaller(load(distance + i), dx * dx + dy * dy + dz * dz);
      store(distance + i, d);
      best = larger(best, d);
    }
    T furthest = T(-1);
    for (int lane = 0; lane < kLanes<T>; ++lane) furthest = larger(furthest, best[lane]);
    last = 0;
    if (furthest > T(-1)) {
      while (distance[last] != furthest) ++last;
    }
    s.chosen[taken] = last;
  }
}

// Neighbours of a centre that are there: their slots, at most `slots` of them.
ZOO_INLINE int64_t present(const Gathering& g, int64_t centre) {
  const int64_t* neighbours = g.neighbours + centre * g.slots;
  int64_t count = 0;
  while (count < g.slots && neighbours[count] >= 0) ++count;
  return count;
}

// weights[j][m] = max(0, 1 - |offset_j - point_m|^2 / sigma) of `padded` points from `first` on.
template <class T>
ZOO_INLINE void weigh(const Gathering& g, int64_t centre, int64_t count, int64_t first, T* weights) {
  using V = Vector<T>;
  const T* offset = static_cast<const T*>(g.offsets) + centre * g.slots * 3;
  const T* x = static_cast<const T*>(g.points) + first;
  const T *y = x + g.total, *z = y + g.total;
  const T scale = static_cast<T>(1 / g.sigma);
  for (int64_t j = 0; j < count; ++j) {
    for (int64_t m = 0; m < g.padded; m += kLanes<T>) {
      const V dx = offset[3 * j] - load(x + m), dy = offset[3 * j + 1] - load(y + m),
              dz = offset[3 * j + 2] - load(z + m);
      store(weights + j * g.padded + m, larger(V{}, 1 - (dx * dx + dy * dy + dz * dz) * scale));
    }
  }
}

// to[k][c] = sum_j w(k, j) from(j)[c] for `rows` kernel points and `columns` vectors, the last of `last` lanes.
template <int rows, int columns, class T, class Weight, class From>
ZOO_INLINE void product(int64_t count, Weight weight, From from, T* to, int64_t stride, int last, bool add) {
  using V = Vector<T>;
  V sums[rows][columns] = {};
  const bool whole = last == kLanes<T>;
  for (int64_t j = 0; j < count; ++j) {
    const T* source = from(j);
    V f[columns];
    for (int c = 0; c + 1 < columns; ++c) f[c] = load(source + c * kLanes<T>);
    f[columns - 1] = whole ? load(source + (columns - 1) * kLanes<T>) : load(source + (columns - 1) * kLanes<T>, last);
    for (int r = 0; r < rows; ++r) {
      const T w = weight(r, j);
      for (int c = 0; c < columns; ++c) sums[r][c] += w * f[c];
    }
  }
  for (int r = 0; r < rows; ++r) {
    for (int c = 0; c < columns; ++c) {
      T* target = to + r * stride + c * kLanes<T>;
      const int lanes = c + 1 < columns ? kLanes<T> : last;
      if (lanes == kLanes<T>) {
        store(target, add ? load(target) + sums[r][c] : sums[r][c]);
      } else {
        store(target, add ? load(target, lanes) + sums[r][c] : sums[r][c], lanes);
      }
    }
  }
}

// The same for any number of channels.
template <int rows, class T, class Weight, class From>
ZOO_INLINE void product_all(int64_t channels, int64_t count, Weight weight, From from, T* to, int64_t stride,
                            bool add) {
  int64_t c = 0;
  for (; c + 2 * kLanes<T> <= channels; c += 2 * kLanes<T>) {
    product<rows, 2>(count, weight, [&](int64_t j) { return from(j) + c; }, to + c, stride, kLanes<T>, add);
  }
  for (; c < channels; c += kLanes<T>) {
    const int64_t left = channels - c;
    const int last = left < kLanes<T> ? static_cast<int>(left) : kLanes<T>;
    product<rows, 1>(count, weight, [&](int64_t j) { return from(j) + c; }, to + c, stride, last, add);
  }
}

// Where the weight of rotation a's kernel point k stands in a row of the weights.
struct Columns {
  const int64_t* table;  // null: in order
  __attribute__((always_inline)) int64_t operator()(int64_t k) const { return table ? table[k] : k; }
};

ZOO_INLINE Columns columns_of(const Gathering& g, int64_t rotation) {
  return {g.shared ? g.table + rotation * g.kernel : nullptr};
}

template <class T>
void gather(const Gathering& g, const T* features, T* out, int64_t begin, int64_t end, T* weights) {
  using V = Vector<T>;
  const int64_t row = g.rotations * g.channels;
  T* sums = weights + g.slots * g.padded;
  for (int64_t p = begin; p < end; ++p) {
    const int64_t count = present(g, p);
    const int64_t* neighbours = g.neighbours + p * g.slots;
    if (g.shared) weigh(g, p, count, 0, weights);
    for (int64_t a = 0; a < g.rotations; ++a) {
      if (!g.shared) weigh(g, p, count, a * g.padded, weights);
      const Columns column = columns_of(g, a);
      T* to = out + (p * g.rotations + a) * g.kernel * g.channels;
      if (g.channels == 1) {
        for (int64_t m = 0; m < g.padded; m += kLanes<T>) {
          V sum = {};
          for (int64_t j = 0; j < count; ++j) {
            sum += features[neighbours[j] * row + a] * load(weights + j * g.padded + m);
          }
          store(sums + m, sum);
        }
        for (int64_t k = 0; k < g.kernel; ++k) to[k] = sums[column(k)];
        continue;
      }
      const auto from = [&](int64_t j) { return features + neighbours[j] * row + a * g.channels; };
      int64_t k = 0;
      for (; k + 4 <= g.kernel; k += 4) {
        const int64_t at[4] = {column(k), column(k + 1), column(k + 2), column(k + 3)};
        const auto weight = [&](int r, int64_t j) { return weights[j * g.padded + at[r]]; };
        product_all<4>(g.channels, count, weight, from, to + k * g.channels, g.channels, false);
      }
      for (; k < g.kernel; ++k) {
        const int64_t at = column(k);
        const auto weight = [&](int, int64_t j) { return weights[j * g.padded + at]; };
        product_all<1>(g.channels, count, weight, from, to + k * g.channels, g.channels, false);
      }
    }
  }
}

template <class T>
void scatter(const Gathering& g, const T* grad, T* grad_features, int64_t begin, int64_t end, T* weights) {
  const int64_t row = g.rotations * g.channels;
  for (int64_t p = 0; p < g.centres; ++p) {
    const int64_t count = present(g, p);
    const int64_t* neighbours = g.neighbours + p * g.slots;
    if (g.shared) weigh(g, p, count, 0, weights);
    for (int64_t a = begin; a < end; ++a) {
      if (!g.shared) weigh(g, p, count, a * g.padded, weights);
      const Columns column = columns_of(g, a);
      const T* source = grad + (p * g.rotations + a) * g.kernel * g.channels;
      const auto from = [&](int64_t k) { return source + k * g.channels; };
      for (int64_t j = 0; j < count; ++j) {
        const T* weight_row = weights + j * g.padded;
        const auto weight = [&](int, int64_t k) { return weight_row[column(k)]; };
        product_all<1>(g.channels, g.kernel, weight, from, grad_features + neighbours[j] * row + a * g.channels, 0,
                       true);
      }
    }
  }
}

void sample_any(const Sampling& s, bool is_double, void* scratch) {
  is_double ? sample<double>(s, scratch) : sample<float>(s, scratch);
}

void gather_any(const Gathering& g, bool is_double, const void* features, void* out, int64_t begin, int64_t end,
                void* scratch) {
  if (is_double) {
    gather(g, static_cast<const double*>(features), static_cast<double*>(out), begin, end,
           static_cast<double*>(scratch));
  } else {
    gather(g, static_cast<const float*>(features), static_cast<float*>(out), begin, end, static_cast<float*>(scratch));
  }
}

void scatter_any(const Gathering& g, bool is_double, const void* grad, void* grad_features, int64_t begin, int64_t end,
                 void* scratch) {
  if (is_double) {
    scatter(g, static_cast<const double*>(grad), static_cast<double*>(grad_features), begin, end,
            static_cast<double*>(scratch));
  } else {
    scatter(g, static_cast<const float*>(grad), static_cast<float*>(grad_features), begin, end,
            static_cast<float*>(scratch));
  }
}

}  // namespace

#define ZOO_JOIN_(a, b) a##b
#define ZOO_JOIN(a, b) ZOO_JOIN_(a, b)
#define ZOO_STRING_(a) #a
#define ZOO_STRING(a) ZOO_STRING_(a)

extern const Kernels ZOO_JOIN(ZOO_ISA, _kernels) = {ZOO_STRING(ZOO_ISA), kLanes<float>, kLanes<double>, sample_any,
                                                    gather_any, scatter_any};

}  // namespace zoo::points
