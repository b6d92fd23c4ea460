// How the kernels see a tensor: rows of `groups` runs of `length` numbers, each run contiguous.
#pragma once

#include <cstdint>

#include "../common/math.h"

namespace zoo::rational {

// Orders that are compiled. Those of all published models, and below, use the first pair; others are padded
// with zeros to the second.
constexpr int kSmallNumerator = 5, kSmallDenominator = 4;
constexpr int kMaxNumerator = 7, kMaxDenominator = 7;

// (B, N, D) in the usual order is B N rows with runs of D / groups; (B, C, H, W) with the channels second is
// B rows with runs of C / groups * H * W.
struct Layout {
  int64_t rows;
  int64_t groups;
  int64_t length;
};

ZOO_INLINE int64_t columns_of(const Layout& layout) { return layout.groups * layout.length; }

enum class Format { kFloat, kDouble, kHalf, kBFloat16 };

// Operands of both passes. Outputs have rows of columns() numbers one after the other; inputs may have them
// further apart. Coefficients are float, but double for kDouble; a matrix of one row is shared by all groups.
struct Problem {
  Layout layout;
  Format format;
  const void* x;
  int64_t x_stride;  // numbers from one row to the next
  const void* grad;  // upstream gradient, or null
  int64_t grad_stride;
  void* out;  // y, or dx
  const void* numerator;
  int64_t numerator_rows, numerator_count;  // m + 1
  const void* denominator;
  int64_t denominator_rows, denominator_count;  // n
  // Gradients of the coefficients, of the same shapes and format.
  void* numerator_grad;
  void* denominator_grad;
};

ZOO_INLINE bool has_small_orders(const Problem& p) {
  return p.numerator_count <= kSmallNumerator + 1 && p.denominator_count <= kSmallDenominator;
}

// Sums kept per group: the numerator's, then the denominator's.
ZOO_INLINE int64_t sums_of(const Problem& p) {
  return has_small_orders(p) ? kSmallNumerator + 1 + kSmallDenominator : kMaxNumerator + 1 + kMaxDenominator;
}

}  // namespace zoo::rational
