// y = P(x) / Q(x) with P(x) = sum_i a_i x^i and Q(x) = 1 + sum_j |b_j| |x|^j, and its derivatives.
//
// The one place where the formula stands: the CPU kernels instantiate it with vectors, the CUDA kernels with
// float and double. See zoo/ops/rational.py for the mathematics.
#pragma once

#include "../common/math.h"

namespace zoo::rational {

// Coefficients of one group, or of one lane each. Orders below M and N are padded with zeros, which Horner's
// rule carries without rounding or overflow.
template <int M, int N, class V>
struct Coefficients {
  V a[M + 1];
  V b[N + 1];  // 1, |b_1|, ..., |b_N|
};

// What becomes the gradients of the coefficients, summed over elements: u x^i, and t |x|^j still without the
// sign of b_j.
template <int M, int N, class V>
struct Sums {
  V a[M + 1];
  V b[N];
};

template <int M, int N, class V>
ZOO_INLINE V evaluate(const Coefficients<M, N, V>& c, V x) {
  return quotient(polynomial<M>(c.a, x), polynomial<N>(c.b, magnitude(x)));
}

// Returns dL/dx for g = dL/dy, and adds this element's share to `sums`.
template <int M, int N, class V>
ZOO_INLINE V differentiate(const Coefficients<M, N, V>& c, V x, V g, Sums<M, N, V>& sums) {
  V p_slope, q_slope;
  const V r = magnitude(x);
  const V p = polynomial<M>(c.a, x, p_slope);
  const V q = polynomial<N>(c.b, r, q_slope);
  // Q^2 is never formed: it overflows long before Q does.
  const V inverse = reciprocal(q);
  const V u = g * inverse;
  const V minus_t = u * (p * inverse);  // u y
  const V signed_t = times_sign(minus_t, x);
  const V dx = u * p_slope - signed_t * q_slope;

  V power = x;
  sums.a[0] += u;
#if defined(__CUDACC__)
#pragma unroll
#endif
  for (int k = 1; k <= (M > N ? M : N); ++k) {
    // x^2 x^2 is one rounding and one dependency shorter than x^3 x.
    if (k > 1) power = k == 4 ? (x * x) * (x * x) : power * x;
    if (k <= M) sums.a[k] += u * power;
    // |x|^k is x^k, with the sign of x if k is odd.
    if (k <= N) sums.b[k - 1] -= (k % 2 ? signed_t : minus_t) * power;
  }
  return dx;
}

}  // namespace zoo::rational
