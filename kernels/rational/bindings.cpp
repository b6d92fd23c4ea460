// The kernels of torch's ops zoo::rational and zoo::rational_backward, which zoo/ops/rational_op.py defines and
// documents. Those named ..._kernel are the same without a derivative.

#include <algorithm>
#include <cstdlib>
#include <memory>
#include <string>
#include <vector>

#include "../common/torch.h"
#include "cpu.h"
#ifdef ZOO_CUDA
#include "cuda.h"
#endif

namespace zoo::rational {
namespace {

Format format_of(const Tensor& t) {
  switch (t.scalar_type()) {
    case ScalarType::Float: return Format::kFloat;
    case ScalarType::Double: return Format::kDouble;
    case ScalarType::Half: return Format::kHalf;
    case ScalarType::BFloat16: return Format::kBFloat16;
    default: STD_TORCH_CHECK(false, "rational takes float16, bfloat16, float32 or float64");
  }
}

// The dimensions of a dense tensor from the outermost to the innermost, without those of size 1.
std::vector<int64_t> dimensions_in_memory(const Tensor& dense) {
  std::vector<int64_t> order;
  for (int64_t d = 0; d < dense.dim(); ++d) {
    if (dense.size(d) != 1) order.push_back(d);
  }
  std::stable_sort(order.begin(), order.end(), [&](int64_t a, int64_t b) { return dense.stride(a) > dense.stride(b); });
  return order;
}

// A tensor's memory seen as rows, relative to a dense tensor of the same shape: see Layout.
struct Rows {
  Layout layout;
  std::vector<int64_t> order;
  size_t inner;  // order[inner...] lie within a row

  Rows(const Tensor& dense, int64_t groups, int64_t dim) : order(dimensions_in_memory(dense)) {
    const size_t channel = std::find(order.begin(), order.end(), dim) - order.begin();
    // One channel is no dimension in memory: everything is one row.
    inner = channel == order.size() ? 0 : channel;
    layout = {1, groups, 1};
    for (size_t k = 0; k < inner; ++k) layout.rows *= dense.size(order[k]);
    for (size_t k = inner; k < order.size(); ++k) layout.length *= dense.size(order[k]);
    layout.length /= groups;
  }

  // The tensor itself if its rows are laid out alike at an even distance, else a copy; and that distance.
  std::pair<Tensor, int64_t> fit(const Tensor& t, const Tensor& dense) const {
    int64_t distance = columns_of(layout);
    bool fits = true;
    for (size_t k = inner; k < order.size(); ++k) fits = fits && t.stride(order[k]) == dense.stride(order[k]);
    if (inner > 0) distance = t.stride(order[inner - 1]);
    for (size_t k = 0; k + 1 < inner; ++k) {
      fits = fits && t.stride(order[k]) == t.stride(order[k + 1]) * t.size(order[k + 1]);
    }
    if (fits) return {t, distance};
    Tensor copy = torch::stable::empty_like(dense);
    torch::stable::copy_(copy, t);
    return {copy, columns_of(layout)};
  }
};

void check(const Tensor& x, const Tensor& numerator, const Tensor& denominator, int64_t dim) {
  STD_TORCH_CHECK(numerator.dim() == 2 && denominator.dim() == 2 && numerator.numel() > 0 && denominator.numel() > 0,
                  "rational: coefficients are matrices of one row per group");
  const int64_t groups = std::max(numerator.size(0), denominator.size(0));
  STD_TORCH_CHECK(dim >= 0 && dim < x.dim() && x.size(dim) % groups == 0, "rational: ", groups,
                  " groups don't divide the channels");
  STD_TORCH_CHECK((numerator.size(0) == 1 || numerator.size(0) == groups) &&
                      (denominator.size(0) == 1 || denominator.size(0) == groups),
                  "rational: numerator and denominator differ in their number of groups");
  STD_TORCH_CHECK(numerator.size(1) <= kMaxNumerator + 1 && denominator.size(1) <= kMaxDenominator,
                  "rational: the highest orders of the compiled op are ", kMaxNumerator, " and ", kMaxDenominator);
  const ScalarType computed = x.scalar_type() == ScalarType::Double ? ScalarType::Double : ScalarType::Float;
  STD_TORCH_CHECK(numerator.scalar_type() == computed && denominator.scalar_type() == computed,
                  "rational: coefficients are float32, for float64 input float64");
  STD_TORCH_CHECK(numerator.device() == x.device() && denominator.device() == x.device(),
                  "rational: input and coefficients lie on different devices");
}

// What both passes fill in alike; holds on to the tensors whose memory the problem points to.
struct Prepared {
  Problem problem{};
  Tensor x, grad, numerator, denominator, out;

  Prepared(const Tensor& input, const Tensor* upstream, const Tensor& a, const Tensor& b, int64_t dim)
      : numerator(torch::stable::contiguous(a)),
        denominator(torch::stable::contiguous(b)),
        out(torch::stable::empty_like(input)) {
    if (input.numel() == 0) return;
    const Rows rows(out, std::max(a.size(0), b.size(0)), dim);
    problem.layout = rows.layout;
    problem.format = format_of(input);
    std::tie(x, problem.x_stride) = rows.fit(input, out);
    problem.x = x.const_data_ptr();
    if (upstream) {
      std::tie(grad, problem.grad_stride) = rows.fit(*upstream, out);
      problem.grad = grad.const_data_ptr();
    }
    problem.out = out.mutable_data_ptr();
    problem.numerator = numerator.const_data_ptr();
    problem.numerator_rows = a.size(0);
    problem.numerator_count = a.size(1);
    problem.denominator = denominator.const_data_ptr();
    problem.denominator_rows = b.size(0);
    problem.denominator_count = b.size(1);
  }
};

// The best instruction set of this processor, limited as torch's own by ATEN_CPU_CAPABILITY=default or avx2.
const Kernels& kernels() {
#if defined(__x86_64__)
  static const Kernels& best = []() -> const Kernels& {
    const char* set = std::getenv("ATEN_CPU_CAPABILITY");
    const std::string limit = set ? set : "";
    const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c");
    const bool avx512 = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                        __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
    if (avx2 && avx512 && limit != "avx2" && limit != "default") return avx512_kernels;
    return avx2 && limit != "default" ? avx2_kernels : baseline_kernels;
  }();
  return best;
#else
  return baseline_kernels;
#endif
}

struct Free {
  void operator()(void* memory) const { std::free(memory); }
};

// Memory for the vectors of the widest instruction set.
struct Scratch : std::unique_ptr<void, Free> {
  explicit Scratch(int64_t bytes) : unique_ptr(std::aligned_alloc(64, (bytes + 63) / 64 * 64)) {
    STD_TORCH_CHECK(get() != nullptr, "rational: out of memory");
  }
};

Tensor evaluate_cpu(const Tensor& x, const Tensor& numerator, const Tensor& denominator, int64_t dim) {
  check(x, numerator, denominator, dim);
  const Prepared prepared(x, nullptr, numerator, denominator, dim);
  if (x.numel() == 0) return prepared.out;
  const Problem& p = prepared.problem;
  const Chunks chunks(p.layout);
  torch::stable::parallel_for(0, chunks.count(), 1, [&](int64_t begin, int64_t end) {
    const Scratch scratch(kernels().scratch(p, chunks));
    for (int64_t i = begin; i < end; ++i) kernels().evaluate(p, chunk_at(chunks, p.layout, i), scratch.get());
  });
  return prepared.out;
}

// Adds up the chunks' sums, which are per group, for each coefficient.
template <class Scalar>
void finish(const Problem& p, const Chunks& chunks, const std::vector<double>& sums) {
  const int64_t count = sums_of(p), powers = has_small_orders(p) ? kSmallNumerator + 1 : kMaxNumerator + 1;
  std::vector<double> totals(p.layout.groups * count);
  for (int64_t i = 0; i < chunks.count(); ++i) {
    const int64_t first = chunk_at(chunks, p.layout, i).first_group;
    const int64_t groups = std::min(chunks.slots, p.layout.groups - first);
    for (int64_t k = 0; k < groups * count; ++k) totals[first * count + k] += sums[i * chunks.slots * count + k];
  }
  const auto write = [&](const void* values, void* grads, int64_t rows, int64_t columns, int64_t from, bool by_sign) {
    for (int64_t row = 0; row < rows; ++row) {
      for (int64_t column = 0; column < columns; ++column) {
        double total = 0;
        const int64_t end = rows == 1 ? p.layout.groups : row + 1;  // a shared row has all groups' share
        for (int64_t group = row; group < end; ++group) total += totals[group * count + from + column];
        const int64_t index = row * columns + column;
        if (by_sign && static_cast<const Scalar*>(values)[index] < 0) total = -total;
        static_cast<Scalar*>(grads)[index] = static_cast<Scalar>(total);
      }
    }
  };
  write(p.numerator, p.numerator_grad, p.numerator_rows, p.numerator_count, 0, false);
  write(p.denominator, p.denominator_grad, p.denominator_rows, p.denominator_count, powers, true);
}

using Gradients = std::tuple<Tensor, Tensor, Tensor>;

// The common beginning of both devices' backward passes.
std::pair<Prepared, Gradients> prepare_gradients(const Tensor& grad, const Tensor& x, const Tensor& numerator,
                                                 const Tensor& denominator, int64_t dim) {
  check(x, numerator, denominator, dim);
  STD_TORCH_CHECK(grad.scalar_type() == x.scalar_type() && grad.numel() == x.numel() && grad.dim() == x.dim(),
                  "rational: the gradient doesn't match the input");
  Prepared prepared(x, &grad, numerator, denominator, dim);
  const Tensor da = torch::stable::empty_like(prepared.numerator), db = torch::stable::empty_like(prepared.denominator);
  prepared.problem.numerator_grad = da.mutable_data_ptr();
  prepared.problem.denominator_grad = db.mutable_data_ptr();
  return {prepared, {prepared.out, da, db}};
}

void zero(const Gradients& gradients) {
  Tensor da = std::get<1>(gradients), db = std::get<2>(gradients);
  torch::stable::zero_(da);
  torch::stable::zero_(db);
}

Gradients differentiate_cpu(const Tensor& grad, const Tensor& x, const Tensor& numerator, const Tensor& denominator,
                            int64_t dim) {
  const auto [prepared, gradients] = prepare_gradients(grad, x, numerator, denominator, dim);
  if (x.numel() == 0) {
    zero(gradients);
    return gradients;
  }
  const Problem& p = prepared.problem;
  const Chunks chunks(p.layout);
  const int64_t stride = chunks.slots * sums_of(p);
  std::vector<double> sums(chunks.count() * stride);
  torch::stable::parallel_for(0, chunks.count(), 1, [&](int64_t begin, int64_t end) {
    const Scratch scratch(kernels().scratch(p, chunks));
    for (int64_t i = begin; i < end; ++i) {
      kernels().differentiate(p, chunk_at(chunks, p.layout, i), scratch.get(), sums.data() + i * stride);
    }
  });
  if (p.format == Format::kDouble) {
    finish<double>(p, chunks, sums);
  } else {
    finish<float>(p, chunks, sums);
  }
  return gradients;
}

#ifdef ZOO_CUDA

void check_launch(const char* error) {
  STD_TORCH_CHECK(error == nullptr, "rational: ", error == nullptr ? "" : error);
}

Tensor evaluate_cuda(const Tensor& x, const Tensor& numerator, const Tensor& denominator, int64_t dim) {
  check(x, numerator, denominator, dim);
  const torch::stable::accelerator::DeviceGuard guard(x.get_device_index());
  const Prepared prepared(x, nullptr, numerator, denominator, dim);
  if (x.numel() > 0) check_launch(cuda_evaluate(prepared.problem, current_cuda_stream(x.get_device_index())));
  return prepared.out;
}

Gradients differentiate_cuda(const Tensor& grad, const Tensor& x, const Tensor& numerator, const Tensor& denominator,
                             int64_t dim) {
  const torch::stable::accelerator::DeviceGuard guard(x.get_device_index());
  const auto [prepared, gradients] = prepare_gradients(grad, x, numerator, denominator, dim);
  if (x.numel() == 0) {
    zero(gradients);
    return gradients;
  }
  const int64_t bytes = static_cast<int64_t>(cuda_workspace(prepared.problem));
  const Tensor workspace = torch::stable::new_empty(x, {bytes}, ScalarType::Byte);
  void* stream = current_cuda_stream(x.get_device_index());
  check_launch(cuda_differentiate(prepared.problem, workspace.mutable_data_ptr(), stream));
  return gradients;
}

#endif

}  // namespace
}  // namespace zoo::rational

// The instruction set that the CPU kernels use, for `python -m zoo.ops info`.
extern "C" __attribute__((visibility("default"))) const char* zoo_instruction_set() {
  return zoo::rational::kernels().name;
}

STABLE_TORCH_LIBRARY_IMPL(zoo, CPU, m) {
  for (const char* name : {"rational", "rational_kernel"}) {
    m.impl(name, TORCH_BOX(&zoo::rational::evaluate_cpu));
  }
  for (const char* name : {"rational_backward", "rational_backward_kernel"}) {
    m.impl(name, TORCH_BOX(&zoo::rational::differentiate_cpu));
  }
}

#ifdef ZOO_CUDA
STABLE_TORCH_LIBRARY_IMPL(zoo, CUDA, m) {
  for (const char* name : {"rational", "rational_kernel"}) {
    m.impl(name, TORCH_BOX(&zoo::rational::evaluate_cuda));
  }
  for (const char* name : {"rational_backward", "rational_backward_kernel"}) {
    m.impl(name, TORCH_BOX(&zoo::rational::differentiate_cuda));
  }
}
#endif
