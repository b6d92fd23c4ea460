// Finding the tiles of 16 x 16 pixels that a Gaussian reaches, compositing the Gaussians of one tile, and its
// derivative. Compiled once per instruction set: ZOO_ISA names it.
//
// Kerbl et al., "3D Gaussian Splatting for Real-Time Radiance Field Rendering", 2023, section 6. A tile is 16 blocks of
// 4 x 4 pixels. A pair of a Gaussian and a tile comes with a bit per block: at first whether the Gaussian reaches it,
// after compositing whether it counted there, so that neither pass looks at more blocks than it must. A block is one
// vector of AVX-512, two of AVX2; the state of its pixels lies together.

#include "cpu.h"
#include "vectors.h"

namespace zoo::splat {
namespace {

constexpr int kParts = kBlockPixels / kLanes;  // vectors of a block
constexpr int32_t kOutside = -2;  // a pixel beyond the image's border, in place of its last Gaussian

// Lanes of the part-th vector of 16 things in rows of 4: their column and row.
ZOO_INLINE Floats columns(int part) {
  Floats x;
  for (int i = 0; i < kLanes; ++i) x[i] = static_cast<float>((part * kLanes + i) % kBlock);
  return x;
}
ZOO_INLINE Floats rows(int part) {
  Floats y;
  for (int i = 0; i < kLanes; ++i) y[i] = static_cast<float>((part * kLanes + i) / kBlock);
  return y;
}

ZOO_INLINE Floats exponent(const Splat& s, Floats dx, Floats dy) {
  return dx * (s.xx * dx + s.xy * dy) + s.yy * (dy * dy);
}

// The blocks of a tile where the largest exponent of a Gaussian is above its least that counts, with kMargin.
ZOO_INLINE uint32_t reached(const Splat& s, float slope_x, float slope_y, float tile_x, float tile_y) {
  uint32_t found = 0;
  for (int part = 0; part < kParts; ++part) {
    // dx and dy over a block's pixel centres are between low and high.
    const Floats high_x = s.x - tile_x - 0.5f - kBlock * columns(part), low_x = high_x - (kBlock - 1);
    const Floats high_y = s.y - tile_y - 0.5f - kBlock * rows(part), low_y = high_y - (kBlock - 1);
    // The maximum lies at the centre, or on the edges nearest to it.
    const Floats near_x = clamp(Floats{}, low_x, high_x), near_y = clamp(Floats{}, low_y, high_y);
    const Floats on_column = exponent(s, near_x, clamp(slope_y * near_x, low_y, high_y));
    const Floats on_row = exponent(s, clamp(slope_x * near_y, low_x, high_x), near_y);
    found |= bits(at_most(all(s.floor - kMargin), largest(on_column, on_row))) << (part * kLanes);
  }
  return found;
}

int64_t find(const Splat& s, int64_t across, int64_t down, int32_t* tiles, uint16_t* blocks, int64_t room) {
  // Along a column the exponent is largest at dy = slope_y dx, along a row at dx = slope_x dy.
  const float slope_x = -0.5f * s.xy / s.xx, slope_y = -0.5f * s.xy / s.yy;
  const float floor = s.floor - kMargin;
  // Beyond these distances it is below its floor; a needle, to rounding, reaches as far as it likes.
  const float narrow_x = s.xx + 0.5f * s.xy * slope_y, narrow_y = s.yy + 0.5f * s.xy * slope_x;
  const float reach_x = narrow_x < 0 ? __builtin_sqrtf(floor / narrow_x) : 1e9f;
  const float reach_y = narrow_y < 0 ? __builtin_sqrtf(floor / narrow_y) : 1e9f;
  const auto tile = [](float x, int64_t limit) {
    const float t = __builtin_floorf((x - 0.5f) / kTile);
    return t < 0 ? int64_t{-1} : t < static_cast<float>(limit) ? static_cast<int64_t>(t) : limit;
  };
  const int64_t x0 = tile(s.x - reach_x, across), x1 = tile(s.x + reach_x, across);
  const int64_t y0 = tile(s.y - reach_y, down), y1 = tile(s.y + reach_y, down);
  int64_t count = 0;
  for (int64_t y = y0 < 0 ? 0 : y0; y <= y1 && y < down; ++y) {
    for (int64_t x = x0 < 0 ? 0 : x0; x <= x1 && x < across; ++x) {
      const uint32_t hit = reached(s, slope_x, slope_y, static_cast<float>(x * kTile), static_cast<float>(y * kTile));
      if (hit == 0) continue;
      if (count < room) tiles[count] = static_cast<int32_t>(y * across + x), blocks[count] = static_cast<uint16_t>(hit);
      ++count;
    }
  }
  return count;
}

struct Coverage {
  Floats dx, dy, alpha;  // not clamped
  Mask counts;
};

// A Gaussian on some pixels of a block; the same in both passes, or transmittance could not be recovered.
ZOO_INLINE Coverage cover(const Splat& s, Floats dx, Floats dy) {
  const Floats e = exponent(s, dx, dy);
  return {dx, dy, s.opacity * exponential(e), static_cast<Mask>(at_most(e, Floats{}) & at_most(all(s.floor), e))};
}

ZOO_INLINE const Splat& splat_of(const Tile& tile, int64_t k) { return tile.splats[tile.pair_splats[tile.pairs[k]]]; }

// The list is read in order, the Gaussians are not.
ZOO_INLINE void prefetch(const Tile& tile, int64_t k) {
  if (k >= tile.begin && k < tile.end) __builtin_prefetch(&splat_of(tile, k));
}

// The pixels of a tile that are in the image: work(place in the state, pixel).
template <class Work>
ZOO_INLINE void each_pixel(const Tile& tile, const Work& work) {
  const int64_t bottom = tile.height - tile.y0 < kTile ? tile.height - tile.y0 : kTile;
  const int64_t right = tile.width - tile.x0 < kTile ? tile.width - tile.x0 : kTile;
  for (int64_t r = 0; r < bottom; ++r) {
    for (int64_t c = 0; c < right; ++c) {
      const int64_t block = r / kBlock * kBlock + c / kBlock;
      work(block * kBlockPixels + r % kBlock * kBlock + c % kBlock, (tile.y0 + r) * tile.width + tile.x0 + c);
    }
  }
}

template <int D>
struct State {
  alignas(64) float transmittance[kPixels];
  alignas(64) float color[D][kPixels];
  alignas(64) int32_t last[kPixels];
  Mask open[kPixels / kLanes];  // pixels that take more Gaussians
};

template <int D>
void composite(const Tile& tile) {
  State<D> state;
  for (int i = 0; i < kPixels; ++i) state.transmittance[i] = 1.0f, state.last[i] = kOutside;
  memset(state.color, 0, sizeof state.color);
  each_pixel(tile, [&](int64_t i, int64_t) { state.last[i] = static_cast<int32_t>(tile.begin - 1); });
  uint32_t open_blocks = 0;
  for (int v = 0; v < kPixels / kLanes; ++v) {
    state.open[v] = at_least(state.last + v * kLanes, kOutside + 1);
    if (bits(state.open[v])) open_blocks |= 1u << v / kParts;
  }
  const float x0 = static_cast<float>(tile.x0) + 0.5f, y0 = static_cast<float>(tile.y0) + 0.5f;
  for (int64_t k = tile.begin; k < tile.end; ++k) {
    prefetch(tile, k + 8);
    uint16_t& blocks = tile.blocks[tile.pairs[k]];
    const Splat& s = splat_of(tile, k);
    uint32_t counted = 0;
    for (uint32_t left = blocks & open_blocks; left != 0; left &= left - 1) {
      const int block = __builtin_ctz(left);
      const float x = s.x - x0 - static_cast<float>(block % kBlock * kBlock);
      const float y = s.y - y0 - static_cast<float>(block / kBlock * kBlock);
      uint32_t closed = 0;
      for (int part = 0; part < kParts; ++part) {
        const int v = block * kParts + part, i = v * kLanes;
        const Coverage c = cover(s, x - columns(part), y - rows(part));
        const Mask counts = c.counts & state.open[v];
        const Floats alpha = least(c.alpha, all(kMaxAlpha));
        const Floats before = load(state.transmittance + i);
        const Floats after = before * (1.0f - alpha);
        const Mask stops = counts & at_most(after, all(kMinTransmittance));
        const Mask adds = except(counts, stops);
        const Floats weight = only(adds, alpha * before);
        for (int d = 0; d < D; ++d) store(state.color[d] + i, load(state.color[d] + i) + weight * s.color[d]);
        store(state.transmittance + i, choose(adds, after, before));
        store_where(adds, state.last + i, static_cast<int32_t>(k));
        if (bits(adds)) counted |= 1u << block;
        closed |= bits(stops);
        state.open[v] = except(state.open[v], stops);
      }
      if (closed) {
        uint32_t open = 0;
        for (int part = 0; part < kParts; ++part) open |= bits(state.open[block * kParts + part]);
        if (open == 0) open_blocks &= ~(1u << block);
      }
    }
    blocks = static_cast<uint16_t>(counted);
  }
  each_pixel(tile, [&](int64_t i, int64_t pixel) {
    for (int d = 0; d < D; ++d) tile.image[pixel * D + d] = state.color[d][i];
    tile.transmittance[pixel] = state.transmittance[i];
    tile.last[pixel] = state.last[i];
  });
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
  memset(&state, 0, sizeof state);
  for (int i = 0; i < kPixels; ++i) state.last[i] = kOutside;
  each_pixel(tile, [&](int64_t i, int64_t pixel) {
    state.transmittance[i] = tile.transmittance[pixel];
    state.behind[i] = -tile.transmittance[pixel] * gradients.alpha[pixel];
    for (int d = 0; d < D; ++d) state.color[d][i] = gradients.image[pixel * D + d];
    state.last[i] = tile.last[pixel];
  });
  constexpr int count = pair_numbers(D, kAbsgrad);
  const float x0 = static_cast<float>(tile.x0) + 0.5f, y0 = static_cast<float>(tile.y0) + 0.5f;
  for (int64_t k = tile.end - 1; k >= tile.begin; --k) {
    prefetch(tile, k - 8);
    const int32_t pair = tile.pairs[k];
    uint32_t left = tile.blocks[pair];
    if (left == 0) continue;
    const Splat& s = splat_of(tile, k);
    Floats sums[count] = {};
    for (; left != 0; left &= left - 1) {
      const int block = __builtin_ctz(left);
      const float x = s.x - x0 - static_cast<float>(block % kBlock * kBlock);
      const float y = s.y - y0 - static_cast<float>(block / kBlock * kBlock);
      for (int part = 0; part < kParts; ++part) {
        const int i = (block * kParts + part) * kLanes;
        const Coverage c = cover(s, x - columns(part), y - rows(part));
        const Mask counts = c.counts & at_least(state.last + i, static_cast<int32_t>(k));
        const Floats alpha = only(counts, least(c.alpha, all(kMaxAlpha)));
        const Floats inverse_rest = inverse(1.0f - alpha);
        const Floats after = load(state.transmittance + i), before = after * inverse_rest;
        store(state.transmittance + i, before);
        const Floats weight = alpha * before;
        Floats shade = {};
        for (int d = 0; d < D; ++d) {
          const Floats upstream = load(state.color[d] + i);
          sums[6 + d] += weight * upstream;
          shade += upstream * s.color[d];
        }
        const Floats behind = load(state.behind + i);
        store(state.behind + i, behind + weight * shade);
        const Floats by_alpha = inverse_rest * (after * shade - behind);
        // A clamped alpha depends on nothing.
        const Floats by_sigma = only(at_most(c.alpha, all(kMaxAlpha)), -alpha * by_alpha);
        const Floats moment_x = by_sigma * c.dx, moment_y = by_sigma * c.dy;
        sums[0] += moment_x;
        sums[1] += moment_y;
        sums[2] += moment_x * c.dx;
        sums[3] += moment_x * c.dy;
        sums[4] += moment_y * c.dy;
        sums[5] += by_sigma;
        if constexpr (kAbsgrad) {
          sums[6 + D] += magnitude(by_sigma * (2.0f * s.xx * c.dx + s.xy * c.dy));
          sums[7 + D] += magnitude(by_sigma * (s.xy * c.dx + 2.0f * s.yy * c.dy));
        }
      }
    }
    store_totals(sums, gradients.pairs + static_cast<int64_t>(pair) * count);
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

extern const TileKernels ZOO_JOIN(ZOO_ISA, _tiles) = {find, composite_any, differentiate_any};

}  // namespace zoo::splat
