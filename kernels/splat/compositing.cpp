// Compositing as torch's ops zoo::splat_composite and zoo::splat_composite_backward, which zoo/ops/rasterize_op.py defines
// and documents.

#include <memory>

#include "host.h"
#include "lists.h"

namespace zoo::splat {
namespace {

// The inputs of the compositing, dense.
struct Composited {
  Tensor means2d, conics, colors, opacities, depths, radii;
  int64_t cameras, n;
  int channels;

  Composited(const Tensor& m, const Tensor& k, const Tensor& c, const Tensor& o, const Tensor& z, const Tensor& r)
      : means2d(floats(m, "means2d")),
        conics(floats(k, "conics")),
        colors(floats(c, "colors")),
        opacities(floats(o, "opacities")),
        depths(floats(z, "depths")),
        radii(checked(r, ScalarType::Int, "radii")),
        cameras(colors.size(0)),
        n(colors.size(1)),
        channels(static_cast<int>(colors.size(2))) {
    STD_TORCH_CHECK(channels >= 1 && channels <= kMaxChannels && means2d.numel() == 2 * cameras * n &&
                        conics.numel() == 3 * cameras * n && opacities.numel() == cameras * n &&
                        depths.numel() == cameras * n && radii.numel() == 2 * cameras * n,
                    "splat: (C, N, 1 to 4) colours and matching projections are needed");
  }

  Lists lists(int64_t camera, int64_t width, int64_t height) const {
    return Lists({read(means2d), read(conics), read(colors), read(opacities), read(depths), read_ints(radii), camera, n,
                  channels},
                 width, height);
  }
};

// Tiles from the middle of the lists' lengths down would be best; the longest first keeps threads from waiting.
std::vector<int32_t> longest_first(const Lists& lists) {
  std::vector<int32_t> order(lists.tiles.size() - 1);
  for (size_t i = 0; i < order.size(); ++i) order[i] = static_cast<int32_t>(i);
  std::stable_sort(order.begin(), order.end(), [&](int32_t a, int32_t b) {
    return lists.tiles[a + 1] - lists.tiles[a] > lists.tiles[b + 1] - lists.tiles[b];
  });
  return order;
}

// The lists of all cameras, kept for the backward pass as a tensor whose memory they are.
using KeptLists = std::vector<Lists>;

Tensor keep(KeptLists lists, const Tensor& like) {
  auto* kept = new KeptLists(std::move(lists));
  const int64_t size = sizeof(KeptLists), stride = 1;
  return torch::stable::from_blob(kept, {&size, 1}, {&stride, 1}, like.device(), ScalarType::Byte,
                                  [](void* memory) { delete static_cast<KeptLists*>(memory); });
}

std::tuple<Tensor, Tensor, Tensor, Tensor> composite(const Tensor& means2d, const Tensor& conics, const Tensor& colors,
                                             const Tensor& opacities, const Tensor& depths, const Tensor& radii,
                                             int64_t width, int64_t height) {
  const Composited in(means2d, conics, colors, opacities, depths, radii);
  const Tensor image = torch::stable::new_empty(in.means2d, {in.cameras, height, width, in.channels});
  // Transmittance is kept besides alpha, from which it could not be had to full precision.
  const Tensor clear = torch::stable::new_empty(in.means2d, {in.cameras, height, width, 1});
  const Tensor last = torch::stable::new_empty(in.means2d, {in.cameras, height, width}, ScalarType::Int);
  KeptLists all;
  for (int64_t camera = 0; camera < in.cameras; ++camera) {
    Lists& lists = all.emplace_back(in.lists(camera, width, height));
    const std::vector<int32_t> order = longest_first(lists);
    const int64_t pixels = camera * height * width;
    share(static_cast<int64_t>(order.size()), [&](int64_t i) {
      Tile tile = lists.tile(order[i], width, height);
      tile.image = write(image) + pixels * in.channels;
      tile.transmittance = write(clear) + pixels;
      tile.last = write_ints(last) + pixels;
      kernels().tiles.composite(tile, in.channels);
    });
  }
  return {image, clear, last, keep(std::move(all), in.means2d)};
}

Five composite_backward(const Tensor& means2d, const Tensor& conics, const Tensor& colors, const Tensor& opacities,
                        const Tensor& depths, const Tensor& radii, const Tensor& clear, const Tensor& last,
                        const Tensor& kept, const Tensor& v_image, const Tensor& v_alpha, int64_t width,
                        int64_t height, bool absgrad) {
  const Composited in(means2d, conics, colors, opacities, depths, radii);
  const Tensor t = floats(clear, "transmittance"), l = checked(last, ScalarType::Int, "last");
  const Tensor up_image = floats(v_image, "gradient"), up_alpha = floats(v_alpha, "gradient");
  const int64_t c = in.cameras, n = in.n;
  const int channels = in.channels, numbers = pair_numbers(channels, absgrad);
  const Five out{torch::stable::new_zeros(in.means2d, {c, n, 2}), torch::stable::new_zeros(in.means2d, {c, n, 3}),
                 torch::stable::new_zeros(in.means2d, {c, n, channels}), torch::stable::new_zeros(in.means2d, {c, n}),
                 torch::stable::new_zeros(in.means2d, {c, absgrad ? n : 0, 2})};
  float *to_centres = write(std::get<0>(out)), *to_conics = write(std::get<1>(out)), *to_colors = write(std::get<2>(out));
  float *to_opacities = write(std::get<3>(out)), *to_absolute = write(std::get<4>(out));
  const float* all_conics = read(in.conics);
  KeptLists& all = *static_cast<KeptLists*>(kept.mutable_data_ptr());
  for (int64_t camera = 0; camera < c; ++camera) {
    Lists& lists = all[camera];
    const std::vector<int32_t> order = longest_first(lists);
    const int64_t pixels = camera * height * width;
    const std::unique_ptr<float[]> buffer(new float[lists.pairs.size() * numbers]);  // not set to zero, for speed
    const TileGradients gradients{read(up_image) + pixels * channels, read(up_alpha) + pixels, buffer.get(), absgrad};
    share(static_cast<int64_t>(order.size()), [&](int64_t i) {
      Tile tile = lists.tile(order[i], width, height);
      tile.transmittance = const_cast<float*>(read(t)) + pixels;
      tile.last = const_cast<int32_t*>(read_ints(l)) + pixels;
      kernels().tiles.differentiate(tile, gradients, channels);
    });
    share_gaussians(static_cast<int64_t>(lists.splats.size()), [&](int64_t begin, int64_t end, int64_t) {
      for (int64_t i = begin; i < end; ++i) {
        float sum[6 + kMaxChannels + 2] = {};
        for (int64_t pair = lists.first_pair[i]; pair < lists.first_pair[i + 1]; ++pair) {
          if (lists.blocks[pair] == 0) continue;
          for (int k = 0; k < numbers; ++k) sum[k] += buffer[pair * numbers + k];
        }
        // Through sigma = (a dx^2 + c dy^2) / 2 + b dx dy.
        const int64_t at = lists.splats[i].index;
        const float *conic = all_conics + 3 * at, *color = sum + 6;
        to_centres[2 * at] = conic[0] * sum[0] + conic[1] * sum[1];
        to_centres[2 * at + 1] = conic[1] * sum[0] + conic[2] * sum[1];
        to_conics[3 * at] = 0.5f * sum[2], to_conics[3 * at + 1] = sum[3], to_conics[3 * at + 2] = 0.5f * sum[4];
        to_opacities[at] = -sum[5] / lists.splats[i].opacity;
        for (int k = 0; k < channels; ++k) to_colors[channels * at + k] = color[k];
        for (int k = 0; absgrad && k < 2; ++k) to_absolute[2 * at + k] = color[channels + k];
      }
    });
  }
  return out;
}

}  // namespace
}  // namespace zoo::splat

STABLE_TORCH_LIBRARY_IMPL(zoo, CPU, m) {
  m.impl("splat_composite", TORCH_BOX(&zoo::splat::composite));
  m.impl("splat_composite_backward", TORCH_BOX(&zoo::splat::composite_backward));
}
