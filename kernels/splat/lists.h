// The Gaussians of one camera, and which of them each tile has to composite.
#pragma once

#include <cmath>

#include "host.h"

namespace zoo::splat {
namespace {

// The projected Gaussians of some cameras, of which one is meant.
struct Projected2d {
  const float *means2d, *conics, *colors, *opacities, *depths;
  const int32_t* radii;
  int64_t camera, gaussians;
  int channels;

  std::vector<int32_t> visible() const {
    std::vector<int32_t> found;
    found.reserve(gaussians);
    for (int64_t at = camera * gaussians; at < (camera + 1) * gaussians; ++at) {
      if (radii[2 * at] > 0 && opacities[at] >= kMinAlpha) found.push_back(static_cast<int32_t>(at));
    }
    return found;
  }

  Splat splat(int32_t at) const {
    Splat s{};
    s.x = means2d[2 * at], s.y = means2d[2 * at + 1];
    s.xx = -0.5f * conics[3 * at], s.xy = -conics[3 * at + 1], s.yy = -0.5f * conics[3 * at + 2];
    s.opacity = opacities[at];
    s.floor = std::log(kMinAlpha / s.opacity);
    for (int d = 0; d < channels; ++d) s.color[d] = colors[static_cast<int64_t>(channels) * at + d];
    s.index = at;
    return s;
  }
};

// Positions in `indices` by the bits of their depths, which are positive: a stable radix sort.
std::vector<int32_t> by_depth(const std::vector<int32_t>& indices, const float* depths) {
  constexpr int kBits = 11, kBuckets = 1 << kBits;
  const size_t count = indices.size();
  std::vector<uint32_t> keys(count), other_keys(count);
  std::vector<int32_t> order(count), other(count);
  for (size_t i = 0; i < count; ++i) {
    std::memcpy(&keys[i], depths + indices[i], sizeof(float));
    order[i] = static_cast<int32_t>(i);
  }
  for (int shift = 0; shift < 32; shift += kBits) {
    int64_t places[kBuckets + 1] = {};
    for (const uint32_t key : keys) ++places[(key >> shift & (kBuckets - 1)) + 1];
    for (int b = 0; b < kBuckets; ++b) places[b + 1] += places[b];
    for (size_t i = 0; i < count; ++i) {
      const int64_t place = places[keys[i] >> shift & (kBuckets - 1)]++;
      other_keys[place] = keys[i], other[place] = order[i];
    }
    keys.swap(other_keys), order.swap(other);
  }
  return order;
}

// A pair is a Gaussian in a tile. Pairs are numbered by Gaussian, so that what a backward pass leaves per pair is
// added up per Gaussian from neighbouring memory; a tile's list holds numbers of pairs from front to back.
struct Lists {
  std::vector<Splat> splats;
  std::vector<int64_t> first_pair;  // per splat, and the end
  std::vector<int32_t> pair_splats, pairs;
  std::vector<uint16_t> blocks;  // per pair, see Tile
  std::vector<int64_t> tiles;    // begin of each tile's part of `pairs`, and the end
  int64_t across, down;

  Lists(const Projected2d& in, int64_t width, int64_t height)
      : across((width + kTile - 1) / kTile), down((height + kTile - 1) / kTile) {
    const std::vector<int32_t> visible = in.visible();
    const int64_t count = static_cast<int64_t>(visible.size());
    splats.resize(count), first_pair.assign(count + 1, 0);
    struct Found {
      std::vector<int32_t> tiles;
      std::vector<uint16_t> blocks;

      void resize(int64_t size) { tiles.resize(size), blocks.resize(size); }
    };
    std::vector<Found> found(pieces_of(count));
    share_gaussians(count, [&](int64_t begin, int64_t end, int64_t piece) {
      Found& own = found[piece];
      int64_t at = 0, size = 4 * (end - begin);
      own.resize(size);
      for (int64_t i = begin; i < end; ++i) {
        splats[i] = in.splat(visible[i]);
        const auto find = [&] {
          return kernels().tiles.find(splats[i], across, down, own.tiles.data() + at, own.blocks.data() + at, size - at);
        };
        first_pair[i + 1] = find();
        if (at + first_pair[i + 1] > size) {
          own.resize(size = 2 * (at + first_pair[i + 1]));
          find();
        }
        at += first_pair[i + 1];
      }
    });
    for (int64_t i = 0; i < count; ++i) first_pair[i + 1] += first_pair[i];
    const int64_t total = first_pair[count];
    STD_TORCH_CHECK(total < INT32_MAX, "splat: more than 2^31 pairs of Gaussians and tiles; render a smaller image");
    std::vector<int32_t> pair_tiles(total);
    pair_splats.resize(total), blocks.resize(total), pairs.resize(total);
    share_gaussians(count, [&](int64_t begin, int64_t end, int64_t piece) {
      const int64_t first = first_pair[begin], own = first_pair[end] - first;
      std::copy_n(found[piece].tiles.begin(), own, pair_tiles.begin() + first);
      std::copy_n(found[piece].blocks.begin(), own, blocks.begin() + first);
      for (int64_t i = begin; i < end; ++i) {
        for (int64_t pair = first_pair[i]; pair < first_pair[i + 1]; ++pair) pair_splats[pair] = static_cast<int32_t>(i);
      }
    });
    tiles.assign(across * down + 1, 0);
    for (const int32_t tile : pair_tiles) ++tiles[tile + 1];
    for (int64_t t = 0; t < across * down; ++t) tiles[t + 1] += tiles[t];
    std::vector<int64_t> place(tiles.begin(), tiles.end() - 1);
    for (const int32_t i : by_depth(visible, in.depths)) {
      for (int64_t pair = first_pair[i]; pair < first_pair[i + 1]; ++pair) {
        pairs[place[pair_tiles[pair]]++] = static_cast<int32_t>(pair);
      }
    }
  }

  Tile tile(int64_t t, int64_t width, int64_t height) {
    Tile tile{};
    tile.width = width, tile.height = height;
    tile.x0 = t % across * kTile, tile.y0 = t / across * kTile;
    tile.splats = splats.data(), tile.pair_splats = pair_splats.data(), tile.blocks = blocks.data();
    tile.pairs = pairs.data();
    tile.begin = tiles[t], tile.end = tiles[t + 1];
    return tile;
  }
};

}  // namespace
}  // namespace zoo::splat
