// The rational function on a GPU.
//
// A thread owns a packet of neighbouring channels, at most 16 bytes, and walks down the rows. Its group, and
// with it its coefficients, never change: they stay in registers, as do its sums for the gradients of the
// coefficients. Sums meet in shared memory at the end of a block, and the blocks' sums in a second kernel, in
// an order that the shape alone decides: no atomics, the same bits in every run on every device.

#include <type_traits>

#include "../common/device.cuh"
#include "cuda.h"
#include "formula.h"

namespace zoo::rational {
namespace {

constexpr int kThreads = 256;
constexpr int kMinPasses = 8;      // rows of a thread: enough to pay for the end of the block ...
constexpr int kMaxPasses = 64;     // ... and few enough for the rounding errors of a float sum to stay small
constexpr int kBlocksWanted = 1024;

// How a problem is spread over blocks. A tile is a part of all rows: several groups, or a part of one.
//
// 64 bits only where they are needed: a division of such numbers takes a GPU a hundred instructions.
struct Plan {
  Layout layout;
  int packet;           // numbers
  int64_t packets;      // of a group in a row
  int groups_per_tile;  // one of these two is 1
  int tiles_per_group;
  int tiles;
  int width;       // packets of a tile in a row
  int height;      // rows that a block handles at a time
  int passes;      // how many times it does
  int64_t chunks;  // blocks below one another
  int64_t out_stride;                   // numbers from row to row, and ...
  int64_t x_step, grad_step, out_step;  // ... from pass to pass

  int threads() const { return (width * height + 31) / 32 * 32; }
  int64_t blocks() const { return tiles * chunks; }
  int64_t slots() const { return static_cast<int64_t>(tiles) * groups_per_tile; }  // of sums per coefficient and chunk
};

Plan make_plan(const Problem& p, int packet) {
  const Layout& layout = p.layout;
  Plan plan;
  plan.layout = layout;
  plan.packet = packet;
  plan.packets = layout.length / packet;
  if (plan.packets <= kThreads) {
    const int64_t fit = kThreads / plan.packets;
    plan.tiles_per_group = 1;
    plan.tiles = static_cast<int>((layout.groups + fit - 1) / fit);
    plan.groups_per_tile = static_cast<int>((layout.groups + plan.tiles - 1) / plan.tiles);
    plan.width = static_cast<int>(plan.groups_per_tile * plan.packets);
  } else {
    plan.groups_per_tile = 1;
    plan.tiles_per_group = static_cast<int>((plan.packets + kThreads - 1) / kThreads);
    plan.tiles = static_cast<int>(layout.groups * plan.tiles_per_group);
    plan.width = static_cast<int>((plan.packets + plan.tiles_per_group - 1) / plan.tiles_per_group);
  }
  plan.height = kThreads / plan.width;
  const int64_t heights = (layout.rows + plan.height - 1) / plan.height;
  const int64_t passes = heights * plan.tiles / kBlocksWanted;
  plan.passes = static_cast<int>(passes > kMaxPasses ? kMaxPasses : passes < kMinPasses ? kMinPasses : passes);
  plan.chunks = (heights + plan.passes - 1) / plan.passes;
  plan.out_stride = columns_of(layout);
  plan.x_step = p.x_stride * plan.height;
  plan.grad_step = p.grad_stride * plan.height;
  plan.out_step = plan.out_stride * plan.height;
  return plan;
}

// What a thread of a plan works on: `count` rows, of which the first is `row` and the others follow every
// `height`.
struct Place {
  int64_t group, column, row;
  int count;
};

ZOO_DEVICE Place find_place(const Plan& plan) {
  const int tile = blockIdx.x % plan.tiles, chunk = blockIdx.x / plan.tiles;
  const int across = threadIdx.x % plan.width, down = threadIdx.x / plan.width;
  Place place;
  int64_t packet;  // within the group
  if (plan.tiles_per_group == 1) {
    const int packets = static_cast<int>(plan.packets);
    place.group = static_cast<int64_t>(tile) * plan.groups_per_tile + across / packets;
    packet = across % packets;
  } else {
    place.group = tile / plan.tiles_per_group;
    packet = static_cast<int64_t>(tile % plan.tiles_per_group) * plan.width + across;
  }
  place.column = place.group * plan.layout.length + packet * plan.packet;
  place.row = static_cast<int64_t>(chunk) * (plan.passes * plan.height) + down;
  const int64_t below = plan.layout.rows - place.row;  // rows from the first on
  const int left = static_cast<int>(below < plan.passes * plan.height ? below : plan.passes * plan.height);
  const bool active = place.group < plan.layout.groups && packet < plan.packets && down < plan.height && below > 0;
  place.count = active ? (left + plan.height - 1) / plan.height : 0;
  return place;
}

// Rows whose loads a thread issues together; two of eight numbers each would need too many registers.
template <int kPacket>
constexpr int kInFlight = kPacket == 8 ? 1 : 2;

template <int M, int N, class Scalar>
ZOO_DEVICE Coefficients<M, N, Scalar> load_coefficients(const Problem& p, int64_t group) {
  const Scalar* from_a = static_cast<const Scalar*>(p.numerator);
  const Scalar* from_b = static_cast<const Scalar*>(p.denominator);
  if (p.numerator_rows > 1) from_a += group * p.numerator_count;
  if (p.denominator_rows > 1) from_b += group * p.denominator_count;
  Coefficients<M, N, Scalar> c;
#pragma unroll
  for (int i = 0; i <= M; ++i) c.a[i] = i < p.numerator_count ? from_a[i] : Scalar(0);
  c.b[0] = 1;
#pragma unroll
  for (int j = 0; j < N; ++j) c.b[j + 1] = j < p.denominator_count ? magnitude(from_b[j]) : Scalar(0);
  return c;
}

template <int M, int N, class Stored, int kPacket>
__global__ void __launch_bounds__(kThreads) evaluate_kernel(const Plan plan, const Problem p) {
  using P = Packet<Stored, kPacket>;
  using Scalar = typename P::Scalar;
  const Place place = find_place(plan);
  if (place.count == 0) return;
  const auto c = load_coefficients<M, N, Scalar>(p, place.group);
  const Stored* x = static_cast<const Stored*>(p.x) + place.row * p.x_stride + place.column;
  Stored* y = static_cast<Stored*>(p.out) + place.row * plan.out_stride + place.column;
  const auto rows = [&](auto size) {
    constexpr int in_flight = decltype(size)::value;
    P packets[in_flight];
#pragma unroll
    for (int k = 0; k < in_flight; ++k) packets[k] = P::load(x + k * plan.x_step);
#pragma unroll
    for (int k = 0; k < in_flight; ++k) {
      Scalar numbers[kPacket];
      packets[k].unpack(numbers);
#pragma unroll
      for (int i = 0; i < kPacket; ++i) numbers[i] = evaluate(c, numbers[i]);
      P::pack(numbers).store(y + k * plan.out_step);
    }
    x += in_flight * plan.x_step;
    y += in_flight * plan.out_step;
  };
  int left = place.count;
  for (; left >= 4; left -= 4) rows(std::integral_constant<int, 4>{});
  for (; left > 0; --left) rows(std::integral_constant<int, 1>{});
}

// Where the workspace holds a sum: [coefficient][slot][chunk], so that the sums of one coefficient of a group, or of
// all groups, lie side by side.
ZOO_DEVICE int64_t place_of_sum(const Plan& plan, int64_t coefficient, int64_t slot, int64_t chunk) {
  return (coefficient * plan.tiles * plan.groups_per_tile + slot) * plan.chunks + chunk;
}

// Adds up the block's sums per group and writes them to the workspace.
template <int kSums, class Scalar>
ZOO_DEVICE void reduce_block(const Plan& plan, const Scalar (&mine)[kSums], Scalar* workspace) {
  constexpr int kPitch = kThreads + 1;  // coefficients of one thread lie in different banks
  __shared__ Scalar sums[kSums * kPitch];
  __shared__ Scalar partial[kThreads];
  const int64_t tile = blockIdx.x % plan.tiles, chunk = blockIdx.x / plan.tiles;
  const int groups = plan.groups_per_tile, width = plan.width / groups;  // of one group
  const int pairs = kSums * groups;  // (coefficient, group)
  const int threads = blockDim.x, thread = threadIdx.x;
  const int parts = threads > pairs ? threads / pairs : 1;
  const int entries = width * plan.height;

#pragma unroll
  for (int k = 0; k < kSums; ++k) sums[k * kPitch + thread] = mine[k];
  __syncthreads();
  for (int task = thread; task < pairs * parts; task += threads) {
    const int pair = task % pairs, part = task / pairs;
    const int group = pair % groups, k = pair / groups;
    const int begin = entries * part / parts, end = entries * (part + 1) / parts;
    int across = begin % width;
    const Scalar* from = sums + k * kPitch + begin / width * plan.width + group * width;
    Scalar total = 0;
    for (int entry = begin; entry < end; ++entry) {
      total += from[across];
      if (++across == width) {
        across = 0;
        from += plan.width;
      }
    }
    if (parts == 1) {
      workspace[place_of_sum(plan, k, tile * groups + group, chunk)] = total;
    } else {
      partial[task] = total;
    }
  }
  if (parts == 1) return;
  __syncthreads();
  if (thread < pairs) {
    Scalar total = 0;
    for (int part = 0; part < parts; ++part) total += partial[part * pairs + thread];
    workspace[place_of_sum(plan, thread / groups, tile * groups + thread % groups, chunk)] = total;
  }
}

// Four blocks per multiprocessor leave 64 registers, which the usual orders need just not to spill.
template <int M, int N, class Stored>
constexpr int kBlocks = sizeof(Stored) == 8 ? 1 : M == kSmallNumerator && N == kSmallDenominator ? 4 : 2;

template <int M, int N, class Stored, int kPacket>
__global__ void __launch_bounds__(kThreads, (kBlocks<M, N, Stored>))
    differentiate_kernel(const Plan plan, const Problem p, void* workspace) {
  using P = Packet<Stored, kPacket>;
  using Scalar = typename P::Scalar;
  const Place place = find_place(plan);
  Sums<M, N, Scalar> sums = {};
  if (place.count > 0) {
    const auto c = load_coefficients<M, N, Scalar>(p, place.group);
    const Stored* x = static_cast<const Stored*>(p.x) + place.row * p.x_stride + place.column;
    const Stored* g = static_cast<const Stored*>(p.grad) + place.row * p.grad_stride + place.column;
    Stored* dx = static_cast<Stored*>(p.out) + place.row * plan.out_stride + place.column;
    const auto rows = [&](auto size) {
      constexpr int in_flight = decltype(size)::value;
      P x_packets[in_flight], g_packets[in_flight];
#pragma unroll
      for (int k = 0; k < in_flight; ++k) {
        x_packets[k] = P::load(x + k * plan.x_step);
        g_packets[k] = P::load_once(g + k * plan.grad_step);
      }
#pragma unroll
      for (int k = 0; k < in_flight; ++k) {
        Scalar numbers[kPacket], grads[kPacket];
        x_packets[k].unpack(numbers);
        g_packets[k].unpack(grads);
#pragma unroll
        for (int i = 0; i < kPacket; ++i) numbers[i] = differentiate(c, numbers[i], grads[i], sums);
        P::pack(numbers).store(dx + k * plan.out_step);
      }
      x += in_flight * plan.x_step;
      g += in_flight * plan.grad_step;
      dx += in_flight * plan.out_step;
    };
    int left = place.count;
    constexpr int in_flight = kInFlight<kPacket>;
    for (; left >= in_flight; left -= in_flight) rows(std::integral_constant<int, in_flight>{});
    for (; left > 0; --left) rows(std::integral_constant<int, 1>{});
  }
  constexpr int kSums = M + 1 + N;
  Scalar mine[kSums];
#pragma unroll
  for (int i = 0; i <= M; ++i) mine[i] = sums.a[i];
#pragma unroll
  for (int j = 0; j < N; ++j) mine[M + 1 + j] = sums.b[j];
  reduce_block<kSums>(plan, mine, static_cast<Scalar*>(workspace));
}

// One block per coefficient adds up the blocks' sums in double.
template <int M, int N, class Scalar>
__global__ void __launch_bounds__(kThreads) finish_kernel(const Plan plan, const Problem p, const void* workspace) {
  __shared__ double totals[kThreads];
  const int thread = threadIdx.x;
  const int64_t numerators = p.numerator_rows * p.numerator_count;
  const bool of_numerator = blockIdx.x < numerators;
  const int64_t index = of_numerator ? blockIdx.x : blockIdx.x - numerators;
  const int64_t count = of_numerator ? p.numerator_count : p.denominator_count;
  const bool shared = (of_numerator ? p.numerator_rows : p.denominator_rows) == 1;
  const int64_t k = of_numerator ? index % count : M + 1 + index % count;
  const int64_t group_begin = shared ? 0 : index / count, group_end = shared ? plan.layout.groups : group_begin + 1;
  // A group's slots: its part of one tile, or all of several tiles.
  const Scalar* sums = static_cast<const Scalar*>(workspace);
  const int64_t begin = place_of_sum(plan, k, group_begin * plan.tiles_per_group, 0);
  const int64_t end = place_of_sum(plan, k, group_end * plan.tiles_per_group, 0);
  double total = 0;
#pragma unroll 4
  for (int64_t at = begin + thread; at < end; at += kThreads) total += sums[at];
  totals[thread] = total;
  for (int half = kThreads / 2; half > 0; half /= 2) {
    __syncthreads();
    if (thread < half) totals[thread] += totals[thread + half];
  }
  if (thread == 0) {
    if (of_numerator) {
      static_cast<Scalar*>(p.numerator_grad)[index] = static_cast<Scalar>(totals[0]);
    } else {
      const Scalar b = static_cast<const Scalar*>(p.denominator)[index];
      static_cast<Scalar*>(p.denominator_grad)[index] = static_cast<Scalar>(b < 0 ? -totals[0] : totals[0]);
    }
  }
}

template <class Stored>
bool fits(const Problem& p, int packet) {
  const int64_t bytes = packet * sizeof(Stored);
  const auto aligned = [&](const void* pointer, int64_t stride) {
    return reinterpret_cast<uintptr_t>(pointer) % bytes == 0 && stride * sizeof(Stored) % bytes == 0;
  };
  return p.layout.length % packet == 0 && aligned(p.x, p.x_stride) && aligned(p.out, 0) &&
         (p.grad == nullptr || aligned(p.grad, p.grad_stride));
}

// Calls body(Stored{}, integral constant of the packet's size): 16 bytes where the layout allows it.
template <class Stored, class Body>
auto with_packet(const Problem& p, Body body) {
  constexpr int kFull = 16 / sizeof(Stored);
  if (fits<Stored>(p, kFull)) return body(Stored{}, std::integral_constant<int, kFull>{});
  if constexpr (sizeof(Stored) == 2) {
    if (fits<Stored>(p, 2)) return body(Stored{}, std::integral_constant<int, 2>{});
  }
  return body(Stored{}, std::integral_constant<int, 1>{});
}

template <class Body>
auto with_format(const Problem& p, Body body) {
  switch (p.format) {
    case Format::kDouble: return with_packet<double>(p, body);
    case Format::kHalf: return with_packet<Half>(p, body);
    case Format::kBFloat16: return with_packet<BFloat16>(p, body);
    default: return with_packet<float>(p, body);
  }
}

template <int M, int N>
void launch_evaluate(const Problem& p, void* stream) {
  with_format(p, [&](auto stored, auto packet) {
    const Plan plan = make_plan(p, packet);
    launch(evaluate_kernel<M, N, decltype(stored), packet>, plan.blocks(), plan.threads(), stream, plan, p);
  });
}

template <int M, int N>
void launch_differentiate(const Problem& p, void* workspace, void* stream) {
  with_format(p, [&](auto stored, auto packet) {
    using Stored = decltype(stored);
    const Plan plan = make_plan(p, packet);
    launch(differentiate_kernel<M, N, Stored, packet>, plan.blocks(), plan.threads(), stream, plan, p, workspace);
    const int64_t coefficients = p.numerator_rows * p.numerator_count + p.denominator_rows * p.denominator_count;
    launch(finish_kernel<M, N, typename Computed<Stored>::Scalar>, coefficients, kThreads, stream, plan, p, workspace);
  });
}

}  // namespace

const char* cuda_evaluate(const Problem& p, void* stream) {
  if (has_small_orders(p)) {
    launch_evaluate<kSmallNumerator, kSmallDenominator>(p, stream);
  } else {
    launch_evaluate<kMaxNumerator, kMaxDenominator>(p, stream);
  }
  return launch_error();
}

const char* cuda_differentiate(const Problem& p, void* workspace, void* stream) {
  if (has_small_orders(p)) {
    launch_differentiate<kSmallNumerator, kSmallDenominator>(p, workspace, stream);
  } else {
    launch_differentiate<kMaxNumerator, kMaxDenominator>(p, workspace, stream);
  }
  return launch_error();
}

size_t cuda_workspace(const Problem& p) {
  return with_format(p, [&](auto stored, auto packet) {
    const Plan plan = make_plan(p, packet);
    return plan.slots() * plan.chunks * sums_of(p) * sizeof(typename Computed<decltype(stored)>::Scalar);
  });
}

}  // namespace zoo::rational
