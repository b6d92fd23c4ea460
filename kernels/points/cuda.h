// What bindings.cpp and the CUDA kernel agree on: launching on a stream, without torch's headers.
#pragma once

#include "sampling.h"

namespace zoo::points {

// Null, or what went wrong. Everything lies on the current device; `distances` holds count numbers for each of the
// `clouds`, of the points' type; `stream` is a cudaStream_t.
const char* cuda_sample(const Sampling& sampling, int64_t clouds, bool is_double, void* distances, void* stream);

}  // namespace zoo::points
