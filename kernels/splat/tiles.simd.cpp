// Compositing the Gaussians of one tile, and its derivative. Compiled once per instruction set: ZOO_ISA names it.
//
// Kerbl et al., "3D Gaussian Splatting for Real-Time Radiance Field Rendering", 2023, section 6. A tile's state is
// held in arrays of 256 numbers; a row of 16 pixels is one vector of AVX-512 and two of AVX2.

#include "../common/simd.h"
#include "cpu.h"

namespace zoo::splat {
namespace {

constexpr int kLanes = Lanes<float>::count;
typedef int32_t Ints __attribute__((vector_size(kVectorBytes)));

ZOO_INLINE Floats all(float x) { return x + Floats{}; }
ZOO_INLINE Floats least(Floats a, Floats b) { return a < b ? a : b; }
ZOO_INLINE Floats only(Ints mask, Floats x) { return (Floats)((Ints)x & mask); }

ZOO_INLINE bool any(Ints mask) {
#if defined(__AVX512F__)
  return _mm512_movepi32_mask((__m512i)mask) != 0;
#elif defined(__AVX2__)
  return _mm256_movemask_ps((__m256)mask) != 0;
#else
  int32_t bits = 0;
  for (int i = 0; i < kLanes; ++i) bits |= mask[i];
  return bits != 0;
#endif
}

ZOO_INLINE float total(Floats x) {
#if defined(__AVX512F__)
  return _mm512_reduce_add_ps((__m512)x);
#else
  float sum = 0;
  for (int i = 0; i < kLanes; ++i) sum += x[i];
  return sum;
#endif
}

// exp(-x) for 0 <= x, within 3e-7 relative; beyond 80 it stays at exp(-80).
ZOO_INLINE Floats decay(Floats x) {
  const Floats power = least(x, all(80.0f)) * -1.44269504f;
  const float shift = 12582912.0f;  // 1.5 * 2^23: adding it rounds to an integer in the lowest bits
  const Floats shifted = power + shift;
  const Floats f = power - (shifted - shift);
  Floats p = all(1.5403530e-4f);
  p = p * f + 1.33335581e-3f;
  p = p * f + 9.61812911e-3f;
  p = p * f + 5.55041087e-2f;
  p = p * f + 2.40226507e-1f;
  p = p * f + 6.93147181e-1f;
  p = p * f + 1.0f;
  return (Floats)((Words)p + ((Words)shifted << 23));
}

ZOO_INLINE Floats ramp(float start) {
  Floats x;
  for (int i = 0; i < kLanes; ++i) x[i] = start + static_cast<float>(i);
  return x;
}

struct Rows { int begin, end; };

// The tile's rows that a Gaussian can reach.
ZOO_INLINE Rows rows_of(const Splat& s, const Tile& tile) {
  const float first = s.y - s.reach_y - static_cast<float>(tile.y0) - 0.5f;
  const float last = s.y + s.reach_y - static_cast<float>(tile.y0) - 0.5f;
  Rows rows{0, kTile};
  if (first > 0) rows.begin = first > kTile ? kTile : static_cast<int>(__builtin_ceilf(first));
  if (last < kTile - 1) rows.end = last < 0 ? 0 : static_cast<int>(last) + 1;
  return rows;
}

struct Span { float begin, end; };

// The x that a Gaussian can reach on the row `dy` below its centre, relative to the tile; empty if begin > end.
ZOO_INLINE Span span_of(const Splat& s, const Tile& tile, float dy) {
  const float room = 2.0f * s.limit - s.residual * dy * dy;
  const float half = room > 0 ? __builtin_sqrtf(room * s.inverse_a) : -1e9f;
  const float centre = s.x + s.slope * dy - static_cast<float>(tile.x0) - 0.5f;
  return {centre - half, centre + half};
}

struct Coverage {
  Floats dx, visibility, alpha;  // visibility = exp(-sigma), alpha not clamped
  Ints counts;
};

// A Gaussian on some pixels of one row; the same in both passes, or transmittance could not be recovered.
ZOO_INLINE Coverage cover(const Splat& s, Floats x, float dy) {
  Coverage v;
  v.dx = s.x - x;
  const Floats sigma = v.dx * (v.dx * (0.5f * s.a) + s.b * dy) + 0.5f * s.c * dy * dy;
  v.visibility = decay(sigma);
  v.alpha = v.visibility * s.opacity;
  v.counts = (sigma >= 0.0f) & (v.alpha >= kMinAlpha);
  return v;
}

template <int D>
struct State {
  alignas(64) float transmittance[kPixels];
  alignas(64) float color[D][kPixels];
  alignas(64) int32_t alive[kPixels];
  alignas(64) int32_t last[kPixels];
};

template <int D>
void composite(const Tile& tile) {
  State<D> state;
  bool row_alive[kTile];
  int rows_alive = 0;
  for (int r = 0; r < kTile; ++r) {
    row_alive[r] = tile.y0 + r < tile.height;
    rows_alive += row_alive[r];
    for (int c = 0; c < kTile; ++c) {
      const int i = r * kTile + c;
      state.transmittance[i] = 1.0f;
      for (int d = 0; d < D; ++d) state.color[d][i] = 0.0f;
      state.alive[i] = row_alive[r] && tile.x0 + c < tile.width ? -1 : 0;
      state.last[i] = static_cast<int32_t>(tile.begin - 1);
    }
  }
  const float x0 = static_cast<float>(tile.x0) + 0.5f, y0 = static_cast<float>(tile.y0) + 0.5f;
  for (int64_t k = tile.begin; k < tile.end && rows_alive > 0; ++k) {
    const Splat& s = tile.splats[tile.pair_splats[tile.pairs[k]]];
    const Rows rows = rows_of(s, tile);
    for (int r = rows.begin; r < rows.end; ++r) {
      if (!row_alive[r]) continue;
      const float dy = s.y - (y0 + static_cast<float>(r));
      const Span span = span_of(s, tile, dy);
      bool died = false;
      for (int c = 0; c < kTile; c += kLanes) {
        if (span.end < static_cast<float>(c) || span.begin > static_cast<float>(c + kLanes - 1)) continue;
        const int i = r * kTile + c;
        const Coverage v = cover(s, ramp(x0 + static_cast<float>(c)), dy);
        Ints alive;
        memcpy(&alive, state.alive + i, sizeof alive);
        const Ints counts = v.counts & alive;
        if (!any(counts)) continue;
        const Floats alpha = least(v.alpha, all(kMaxAlpha));
        const Floats before = load(state.transmittance + i);
        const Floats after = before * (1.0f - alpha);
        const Ints stops = counts & (after <= kMinTransmittance);
        const Ints adds = counts & ~stops;
        const Floats weight = only(adds, alpha * before);
        for (int d = 0; d < D; ++d) store(state.color[d] + i, load(state.color[d] + i) + weight * s.color[d]);
        store(state.transmittance + i, adds ? after : before);
        Ints last;
        memcpy(&last, state.last + i, sizeof last);
        last = adds ? static_cast<int32_t>(k) + Ints{} : last;
        memcpy(state.last + i, &last, sizeof last);
        if (any(stops)) {
          alive &= ~stops;
          memcpy(state.alive + i, &alive, sizeof alive);
          died = true;
        }
      }
      if (died) {
        int32_t left = 0;
        for (int c = 0; c < kTile; ++c) left |= state.alive[r * kTile + c];
        if (left == 0) row_alive[r] = false, --rows_alive;
      }
    }
  }
  const int64_t bottom = tile.height - tile.y0 < kTile ? tile.height - tile.y0 : kTile;
  const int64_t right = tile.width - tile.x0 < kTile ? tile.width - tile.x0 : kTile;
  for (int64_t r = 0; r < bottom; ++r) {
    for (int64_t c = 0; c < right; ++c) {
      const int64_t i = r * kTile + c, pixel = (tile.y0 + r) * tile.width + tile.x0 + c;
      for (int d = 0; d < D; ++d) tile.image[pixel * D + d] = state.color[d][i];
      tile.transmittance[pixel] = state.transmittance[i];
      tile.last[pixel] = state.last[i];
    }
  }
}

// What the pixels of a tile bring to the backward pass.
template <int D>
struct BackwardState {
  alignas(64) float transmittance[kPixels];  // behind the Gaussian at hand
  alignas(64) float behind[kPixels];         // upstream gradient times what is composited behind it
  alignas(64) float color[D][kPixels];       // upstream
  alignas(64) int32_t last[kPixels];
};

template <int D, bool kAbsgrad>
void differentiate(const Tile& tile, const TileGradients& gradients) {
  BackwardState<D> state;
  int32_t row_last[kTile], tile_last = static_cast<int32_t>(tile.begin - 1);
  for (int r = 0; r < kTile; ++r) {
    row_last[r] = static_cast<int32_t>(tile.begin - 1);
    for (int c = 0; c < kTile; ++c) {
      const int i = r * kTile + c;
      const bool inside = tile.y0 + r < tile.height && tile.x0 + c < tile.width;
      const int64_t pixel = inside ? (tile.y0 + r) * tile.width + tile.x0 + c : 0;
      state.transmittance[i] = inside ? tile.transmittance[pixel] : 1.0f;
      state.behind[i] = inside ? -state.transmittance[i] * gradients.alpha[pixel] : 0.0f;
      for (int d = 0; d < D; ++d) state.color[d][i] = inside ? gradients.image[pixel * D + d] : 0.0f;
      state.last[i] = inside ? tile.last[pixel] : static_cast<int32_t>(tile.begin - 1);
      if (state.last[i] > row_last[r]) row_last[r] = state.last[i];
    }
    if (row_last[r] > tile_last) tile_last = row_last[r];
  }
  constexpr int count = pair_numbers(D, kAbsgrad);
  const float x0 = static_cast<float>(tile.x0) + 0.5f, y0 = static_cast<float>(tile.y0) + 0.5f;
  for (int64_t k = tile.end - 1; k > tile_last; --k) {
    memset(gradients.pairs + static_cast<int64_t>(tile.pairs[k]) * count, 0, count * sizeof(float));
  }
  for (int64_t k = tile_last; k >= tile.begin; --k) {
    const Splat& s = tile.splats[tile.pair_splats[tile.pairs[k]]];
    const Rows rows = rows_of(s, tile);
    Floats color[D] = {}, plain = {}, by_x = {}, by_y = {}, by_xx = {}, by_xy = {}, by_yy = {}, abs_x = {}, abs_y = {};
    for (int r = rows.begin; r < rows.end; ++r) {
      if (row_last[r] < k) continue;
      const float dy = s.y - (y0 + static_cast<float>(r));
      const Span span = span_of(s, tile, dy);
      for (int c = 0; c < kTile; c += kLanes) {
        if (span.end < static_cast<float>(c) || span.begin > static_cast<float>(c + kLanes - 1)) continue;
        const int i = r * kTile + c;
        const Coverage v = cover(s, ramp(x0 + static_cast<float>(c)), dy);
        Ints last;
        memcpy(&last, state.last + i, sizeof last);
        const Ints counts = v.counts & (last >= static_cast<int32_t>(k));
        if (!any(counts)) continue;
        const Floats alpha = only(counts, least(v.alpha, all(kMaxAlpha)));
        const Floats inverse = 1.0f / (1.0f - alpha);
        const Floats before = load(state.transmittance + i) * inverse;
        store(state.transmittance + i, before);
        const Floats weight = alpha * before;
        Floats shade = {};
        for (int d = 0; d < D; ++d) {
          const Floats upstream = load(state.color[d] + i);
          color[d] += weight * upstream;
          shade += upstream * s.color[d];
        }
        const Floats behind = load(state.behind + i);
        const Floats by_alpha = before * shade - inverse * behind;
        store(state.behind + i, behind + weight * shade);
        // A clamped alpha depends on nothing.
        const Floats by_sigma = only(counts & (v.alpha <= kMaxAlpha), -v.alpha * by_alpha);
        plain += by_sigma;
        const Floats moment = by_sigma * v.dx;
        by_x += moment;
        by_y += by_sigma * dy;
        by_xx += moment * v.dx;
        by_xy += moment * dy;
        by_yy += by_sigma * (dy * dy);
        if constexpr (kAbsgrad) {
          abs_x += magnitude(by_sigma * (s.a * v.dx + s.b * dy));
          abs_y += magnitude(by_sigma * (s.b * v.dx + s.c * dy));
        }
      }
    }
    float* out = gradients.pairs + static_cast<int64_t>(tile.pairs[k]) * count;
    const float x = total(by_x), y = total(by_y);
    out[0] = s.a * x + s.b * y;
    out[1] = s.b * x + s.c * y;
    out[2] = 0.5f * total(by_xx);
    out[3] = total(by_xy);
    out[4] = 0.5f * total(by_yy);
    out[5] = -total(plain) / s.opacity;
    for (int d = 0; d < D; ++d) out[6 + d] = total(color[d]);
    if constexpr (kAbsgrad) out[6 + D] = total(abs_x), out[7 + D] = total(abs_y);
  }
}

void composite_any(const Tile& tile, int channels) {
  switch (channels) {
    case 1: return composite<1>(tile);
    case 2: return composite<2>(tile);
    case 3: return composite<3>(tile);
    default: return composite<4>(tile);
  }
}

template <int D>
void differentiate_with(const Tile& tile, const TileGradients& gradients) {
  if (gradients.absgrad) {
    differentiate<D, true>(tile, gradients);
  } else {
    differentiate<D, false>(tile, gradients);
  }
}

void differentiate_any(const Tile& tile, const TileGradients& gradients, int channels) {
  switch (channels) {
    case 1: return differentiate_with<1>(tile, gradients);
    case 2: return differentiate_with<2>(tile, gradients);
    case 3: return differentiate_with<3>(tile, gradients);
    default: return differentiate_with<4>(tile, gradients);
  }
}

}  // namespace

extern const TileKernels ZOO_JOIN(ZOO_ISA, _tiles) = {composite_any, differentiate_any};

}  // namespace zoo::splat
