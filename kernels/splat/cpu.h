// What bindings.cpp and the CPU kernels of each instruction set agree on.
#pragma once

#include <cstdint>

namespace zoo::splat {

constexpr int kTile = 16;           // pixels along a tile's side
constexpr int kPixels = kTile * kTile;
constexpr int kBlock = 4;           // pixels along the side of a tile's blocks
constexpr int kBlockPixels = kBlock * kBlock;
constexpr int kMaxChannels = 4;     // colours with more channels are rendered a few at a time
constexpr float kMinAlpha = 1.0f / 255.0f;
constexpr float kMaxAlpha = 0.99f;
constexpr float kMinTransmittance = 1e-4f;
constexpr float kMinCompensation = 0.005f;
constexpr float kMaxExtent = 3.33f;  // standard deviations after which even an opaque Gaussian is below kMinAlpha
constexpr float kMargin = 0.01f;     // on the exponent, so that rounding never drops a block that counts

// The Gaussians and the cameras, for the projection. All arrays are dense.
struct Projection {
  const float *means, *quats, *scales;
  const float* opacities;              // null: a Gaussian's extent does not depend on its opacity
  const float *viewmats, *intrinsics;  // (C, 4, 4), (C, 3, 3)
  int64_t gaussians, cameras;
  int64_t width, height;
  float near, far, radius_clip, eps2d;
  bool antialiased;
  // Outputs of the forward pass, inputs of the backward pass; [camera][gaussian].
  int32_t* radii;  // 2 numbers, 0 where culled
  float *means2d, *depths, *conics, *compensations;
};

struct ProjectionGradients {
  const float *means2d, *depths, *conics, *compensations;  // upstream
  float *means, *quats, *scales;
};

// Spherical harmonics, (N, stride, 3) coefficients of which the first (degree + 1)^2 count.
struct Harmonics {
  const float *means, *centres, *coefficients;
  const int32_t* radii;
  int64_t gaussians, cameras, stride;
  int degree;
  float* colors;  // (C, N, 3)
};

struct HarmonicsGradients {
  const float* colors;  // upstream
  float *means, *coefficients;
};

// A projected Gaussian as the tiles use it: one cache line.
//
// Its alpha at (dx, dy) from its centre is opacity * exp(xx dx^2 + xy dx dy + yy dy^2); it counts while the exponent is
// between `floor` and 0.
struct alignas(64) Splat {
  float x, y;  // centre
  float xx, xy, yy;
  float opacity, floor;
  float color[kMaxChannels];
  int32_t index;  // camera * N + gaussian
};

// One tile: the pixels from (x0, y0) on, cut off at the image's border.
struct Tile {
  int64_t width, height;          // of the image
  int64_t x0, y0;
  const Splat* splats;
  const int32_t* pair_splats;     // pair -> position in splats
  uint16_t* blocks;               // pair -> a bit per block: reached, and after compositing, counted
  const int32_t* pairs;           // all tiles' lists
  int64_t begin, end;             // this tile's part of it
  float *image, *transmittance;   // of this camera
  int32_t* last;                  // position in `pairs` of the last Gaussian that counted, or begin - 1
};

struct TileGradients {
  const float *image, *alpha;  // upstream
  // Per pair, summed over pixels: the gradient of sigma times dx, dy, dx^2, dx dy, dy^2 and 1; that of the colour
  // (channels); and with absgrad those of |x| and |y|. Only of pairs with blocks that counted.
  float* pairs;
  bool absgrad;
};

static constexpr int pair_numbers(int channels, bool absgrad) { return 6 + channels + (absgrad ? 2 : 0); }

// Images as rows of width * channels numbers, for SSIM.
struct Ssim {
  const float *image, *target;
  int64_t height, row;  // row = width * step
  int64_t step;         // distance between neighbours along a row
  float* filtered;      // [5][height][row]
  float* partials;      // [3][height][row]; null if no gradient is wanted
  float* gradient;      // [height][row]
};

// Numbers of a row with five pixels before and after it, and room for a whole vector.
static constexpr int64_t ssim_padded(const Ssim& s) { return s.row + 10 * s.step + 16; }

constexpr int64_t kSweepRows = 16;    // of the reference at a time
constexpr int kSweepRadius = 5;       // the largest of a window
constexpr int64_t kSweepMargin = 16;  // numbers before and after a row, a multiple of all vectors

// One view and its neighbours, grey.
struct Sweep {
  const float* reference;   // (height, stride), zeros beyond the width
  const float* neighbours;  // (count, neighbour_height, neighbour_width)
  // Pixel (x, y) at inverse depth w lies in neighbour n at A (x, y, 1) + w b, up to scale.
  const float *homographies, *offsets;
  const float* inverse_depths;  // at even distances
  int64_t planes, height, width, stride;  // stride: the width rounded up to a multiple of 16
  int neighbour_height, neighbour_width, count, radius;
  float *depth, *score;  // (height, width): inverse depth, and the correlation that speaks for it
};

// Each is compiled per instruction set.

struct SweepKernels {
  void (*sweep)(const Sweep&, int64_t begin, int64_t end, float* scratch);  // at most kSweepRows rows
  int64_t (*scratch)(const Sweep&);                                       // numbers
};

struct ProjectKernels {
  const char* name;  // of the instruction set
  // Gaussians begin..end for all cameras. `poses` takes the sums for the view matrices, 12 per camera, or is null.
  void (*project)(const Projection&, int64_t begin, int64_t end);
  void (*project_backward)(const Projection&, const ProjectionGradients&, int64_t begin, int64_t end, double* poses);
};

struct HarmonicsKernels {
  // Gaussians begin..end for all cameras. `centres` takes the sums for the camera centres, 3 per camera, or is null.
  void (*harmonics)(const Harmonics&, int64_t begin, int64_t end);
  void (*harmonics_backward)(const Harmonics&, const HarmonicsGradients&, int64_t begin, int64_t end, double* centres);
};

struct TileKernels {
  // The tiles of an image of across x down that a Gaussian reaches, and the blocks there; their number. If that is more
  // than `room`, the rest is not written.
  int64_t (*find)(const Splat&, int64_t across, int64_t down, int32_t* tiles, uint16_t* blocks, int64_t room);
  void (*composite)(const Tile&, int channels);
  void (*differentiate)(const Tile&, const TileGradients&, int channels);
};

// Three passes, each over rows begin..end; `map` gives the sum of SSIM over its rows. Scratch: three padded rows.
struct SsimKernels {
  void (*rows)(const Ssim&, int64_t begin, int64_t end, float* scratch);
  double (*map)(const Ssim&, int64_t begin, int64_t end, float* scratch);
  void (*gradient)(const Ssim&, int64_t begin, int64_t end);
};

#define ZOO_JOIN_(a, b) a##b
#define ZOO_JOIN(a, b) ZOO_JOIN_(a, b)

extern const ProjectKernels baseline_project, avx2_project, avx512_project;
extern const HarmonicsKernels baseline_harmonics, avx2_harmonics, avx512_harmonics;
extern const TileKernels baseline_tiles, avx2_tiles, avx512_tiles;
extern const SweepKernels baseline_sweep, avx2_sweep, avx512_sweep;
extern const SsimKernels baseline_ssim, avx2_ssim, avx512_ssim;

}  // namespace zoo::splat
