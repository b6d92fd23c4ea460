// The rational function on a CPU. Compiled once per instruction set: ZOO_ISA names it.

#include "../common/simd.h"
#include "cpu.h"
#include "formula.h"

namespace zoo::rational {
namespace {

template <class Stored>
using Scalar = typename Computed<Stored>::Scalar;

template <class Stored>
constexpr int kLanes = Lanes<Scalar<Stored>>::count;

// Rows that are walked through tile by tile: few enough that they and the next block, which is fetched in
// advance, stay in the first-level cache; enough to pay for loading a tile's coefficients and sums.
ZOO_INLINE int64_t rows_per_block(const Chunk& chunk) {
  const int64_t rows = 1024 / (chunk.column_end - chunk.column_begin);
  return rows < 2 ? 2 : rows > 8 ? 8 : rows;
}

// A tile is a part of all rows for which one set of coefficient vectors serves.
//
// Where groups are wide or a multiple of a vector, it is (a part of) a group, and all lanes hold the same
// coefficients. Else it is one vector of channels, and each lane holds its own channel's.
template <int M, int N, class Stored>
struct Tile {
  Coefficients<M, N, Vector<Stored>> coefficients;
  Sums<M, N, Vector<Stored>> sums;
  int64_t begin, end, first_group;
  bool lanes_differ;
};

ZOO_INLINE bool lanes_differ(const Layout& layout, int lanes) {
  // In a wide group the one vector that its end cuts short matters less than coefficients loaded per vector.
  return layout.groups > 1 && layout.length % lanes != 0 && layout.length < 8 * lanes;
}

template <class Stored>
ZOO_INLINE int64_t count_tiles(const Problem& p, const Chunks& chunks) {
  return lanes_differ(p.layout, kLanes<Stored>) ? (chunks.columns + kLanes<Stored> - 1) / kLanes<Stored> : chunks.slots;
}

template <int M, int N, class Stored>
ZOO_INLINE void set_coefficients(Tile<M, N, Stored>& tile, const Problem& p, int lane, int64_t group) {
  const Scalar<Stored>* a = static_cast<const Scalar<Stored>*>(p.numerator);
  const Scalar<Stored>* b = static_cast<const Scalar<Stored>*>(p.denominator);
  if (p.numerator_rows > 1) a += group * p.numerator_count;
  if (p.denominator_rows > 1) b += group * p.denominator_count;
  for (int i = 0; i < p.numerator_count; ++i) tile.coefficients.a[i][lane] = a[i];
  for (int j = 0; j < p.denominator_count; ++j) tile.coefficients.b[j + 1][lane] = magnitude(b[j]);
}

// Divides a chunk into tiles with their coefficients, and sums of zero; returns how many.
template <int M, int N, class Stored>
ZOO_INLINE int64_t make_tiles(const Problem& p, const Chunk& chunk, Tile<M, N, Stored>* tiles) {
  const int64_t length = p.layout.length;
  const bool differ = lanes_differ(p.layout, kLanes<Stored>);
  int64_t count = 0, end;
  for (int64_t begin = chunk.column_begin; begin < chunk.column_end; begin = end) {
    const int64_t group = begin / length;
    end = differ ? begin + kLanes<Stored> : (group + 1) * length;
    if (end > chunk.column_end) end = chunk.column_end;
    Tile<M, N, Stored>& tile = tiles[count++];
    tile = {{}, {}, begin, end, group, differ};
    tile.coefficients.b[0] += 1;
    if (differ) {
      int64_t lane_group = group, next = (group + 1) * length;
      for (int lane = 0; lane < end - begin; ++lane) {
        if (begin + lane == next) ++lane_group, next += length;
        set_coefficients(tile, p, lane, lane_group);
      }
    } else {
      set_coefficients(tile, p, 0, group);
      for (auto& a : tile.coefficients.a) a = a[0] + Vector<Stored>{};
      for (auto& b : tile.coefficients.b) b = b[0] + Vector<Stored>{};
    }
  }
  return count;
}

template <class V>
ZOO_INLINE double sum_of_lanes(V v) {
  constexpr int kCount = sizeof(V) / sizeof(v[0]);
  double lanes[kCount];
  for (int lane = 0; lane < kCount; ++lane) lanes[lane] = v[lane];
  for (int half = kCount / 2; half > 0; half /= 2) {
    for (int lane = 0; lane < half; ++lane) lanes[lane] += lanes[lane + half];
  }
  return lanes[0];
}

template <int M, int N, class Stored>
ZOO_INLINE void add_sums(const Tile<M, N, Stored>& tile, const Problem& p, const Chunk& chunk, double* totals) {
  double* to = totals + (tile.first_group - chunk.first_group) * (M + 1 + N);
  if (tile.lanes_differ) {
    int64_t next = (tile.first_group + 1) * p.layout.length;
    for (int lane = 0; lane < tile.end - tile.begin; ++lane) {
      if (tile.begin + lane == next) to += M + 1 + N, next += p.layout.length;
      for (int i = 0; i <= M; ++i) to[i] += tile.sums.a[i][lane];
      for (int j = 0; j < N; ++j) to[M + 1 + j] += tile.sums.b[j][lane];
    }
  } else {
    for (int i = 0; i <= M; ++i) to[i] += sum_of_lanes(tile.sums.a[i]);
    for (int j = 0; j < N; ++j) to[M + 1 + j] += sum_of_lanes(tile.sums.b[j]);
  }
}

// Calls body(tile, first row, end row) for a chunk, block of rows after block of rows.
template <class Tile, class Body>
ZOO_INLINE void for_each_tile(const Chunk& chunk, Tile* tiles, int64_t count, Body body) {
  const int64_t step = rows_per_block(chunk);
  for (int64_t row = chunk.row_begin; row < chunk.row_end; row += step) {
    const int64_t row_end = row + step < chunk.row_end ? row + step : chunk.row_end;
    for (int64_t k = 0; k < count; ++k) body(tiles[k], row, row_end);
  }
}

// Fetches the same place in the next block of rows. Past the end of the memory this does nothing.
template <class Stored>
ZOO_INLINE void fetch_ahead(const Stored* input, int64_t stride, int64_t rows) {
  __builtin_prefetch(input + rows * stride);
}
template <class Stored>
ZOO_INLINE void fetch_ahead_to_write(Stored* output, int64_t stride, int64_t rows) {
  __builtin_prefetch(output + rows * stride, 1);
}

// Calls at(row, column, lanes) for the vectors of a tile; `lanes` is a constant but for the last of a row.
template <int lanes, class Tile, class At>
ZOO_INLINE void for_each_vector(const Tile& tile, int64_t row, int64_t row_end, At at) {
  const int64_t begin = tile.begin, width = tile.end - begin, whole = begin + width / lanes * lanes;
  if (width == lanes) {
    for (; row < row_end; ++row) at(row, begin, lanes);
    return;
  }
  const int rest = width % lanes;
  for (; row < row_end; ++row) {
    for (int64_t column = begin; column < whole; column += lanes) at(row, column, lanes);
    if (rest) at(row, whole, rest);
  }
}

template <int M, int N, class Stored>
void evaluate_chunk(const Problem& p, const Chunk& chunk, void* scratch) {
  auto* tiles = static_cast<Tile<M, N, Stored>*>(scratch);
  const int64_t count = make_tiles(p, chunk, tiles), x_stride = p.x_stride, y_stride = columns_of(p.layout);
  const int64_t ahead = rows_per_block(chunk);
  const Stored* x_base = static_cast<const Stored*>(p.x);
  Stored* y_base = static_cast<Stored*>(p.out);
  for_each_tile(chunk, tiles, count, [=](const Tile<M, N, Stored>& tile, int64_t row_begin, int64_t row_end) {
    const auto c = tile.coefficients;
    for_each_vector<kLanes<Stored>>(tile, row_begin, row_end, [&](int64_t row, int64_t column, int lanes) {
      const Stored* x = x_base + row * x_stride + column;
      Stored* y = y_base + row * y_stride + column;
      if (lanes == kLanes<Stored>) {
        fetch_ahead(x, x_stride, ahead);
        fetch_ahead_to_write(y, y_stride, ahead);
        store(y, evaluate(c, load(x)));
      } else {
        store(y, evaluate(c, load(x, lanes)), lanes);
      }
    });
  });
}

template <int M, int N, class Stored>
void differentiate_chunk(const Problem& p, const Chunk& chunk, void* scratch, double* totals) {
  auto* tiles = static_cast<Tile<M, N, Stored>*>(scratch);
  const int64_t count = make_tiles(p, chunk, tiles);
  const int64_t x_stride = p.x_stride, g_stride = p.grad_stride, dx_stride = columns_of(p.layout);
  const int64_t ahead = rows_per_block(chunk);
  const Stored* x_base = static_cast<const Stored*>(p.x);
  const Stored* g_base = static_cast<const Stored*>(p.grad);
  Stored* dx_base = static_cast<Stored*>(p.out);
  for_each_tile(chunk, tiles, count, [=](Tile<M, N, Stored>& tile, int64_t row_begin, int64_t row_end) {
    const auto c = tile.coefficients;
    auto sums = tile.sums;
    for_each_vector<kLanes<Stored>>(tile, row_begin, row_end, [&](int64_t row, int64_t column, int lanes) {
      const Stored* x = x_base + row * x_stride + column;
      const Stored* g = g_base + row * g_stride + column;
      Stored* dx = dx_base + row * dx_stride + column;
      if (lanes == kLanes<Stored>) {
        fetch_ahead(x, x_stride, ahead);
        fetch_ahead(g, g_stride, ahead);
        fetch_ahead_to_write(dx, dx_stride, ahead);
        store(dx, differentiate(c, load(x), load(g), sums));
      } else {
        // Lanes without data hold x = g = 0 and add nothing to the sums.
        store(dx, differentiate(c, load(x, lanes), load(g, lanes), sums), lanes);
      }
    });
    tile.sums = sums;
  });
  for (int64_t k = 0; k < count; ++k) add_sums(tiles[k], p, chunk, totals);
}

// Calls body(number format, highest power of P, of Q).
template <int order>
struct Order { static constexpr int value = order; };

template <class Stored, class Body>
ZOO_INLINE auto with_orders(const Problem& p, Body body) {
  if (has_small_orders(p)) return body(Stored{}, Order<kSmallNumerator>{}, Order<kSmallDenominator>{});
  return body(Stored{}, Order<kMaxNumerator>{}, Order<kMaxDenominator>{});
}

template <class Body>
ZOO_INLINE auto specialised(const Problem& p, Body body) {
  switch (p.format) {
    case Format::kDouble: return with_orders<double>(p, body);
    case Format::kHalf: return with_orders<Half>(p, body);
    case Format::kBFloat16: return with_orders<BFloat16>(p, body);
    default: return with_orders<float>(p, body);
  }
}

int64_t scratch_any(const Problem& p, const Chunks& chunks) {
  return specialised(p, [&](auto stored, auto m, auto n) {
    using Stored = decltype(stored);
    return count_tiles<Stored>(p, chunks) * static_cast<int64_t>(sizeof(Tile<m.value, n.value, Stored>));
  });
}

void evaluate_any(const Problem& p, const Chunk& chunk, void* scratch) {
  specialised(p, [&](auto stored, auto m, auto n) {
    evaluate_chunk<m.value, n.value, decltype(stored)>(p, chunk, scratch);
  });
}

void differentiate_any(const Problem& p, const Chunk& chunk, void* scratch, double* sums) {
  specialised(p, [&](auto stored, auto m, auto n) {
    differentiate_chunk<m.value, n.value, decltype(stored)>(p, chunk, scratch, sums);
  });
}

}  // namespace

#define ZOO_JOIN_(a, b) a##b
#define ZOO_JOIN(a, b) ZOO_JOIN_(a, b)
#define ZOO_STRING_(a) #a
#define ZOO_STRING(a) ZOO_STRING_(a)

extern const Kernels ZOO_JOIN(ZOO_ISA, _kernels) = {ZOO_STRING(ZOO_ISA), scratch_any, evaluate_any, differentiate_any};

}  // namespace zoo::rational
