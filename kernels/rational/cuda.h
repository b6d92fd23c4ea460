// What bindings.cpp and the CUDA kernels agree on: launching on a stream, without torch's headers.
#pragma once

#include <cstddef>

#include "layout.h"

namespace zoo::rational {

// Both return null, or what went wrong. Tensors lie on the current device; `stream` is a cudaStream_t.
const char* cuda_evaluate(const Problem& problem, void* stream);
const char* cuda_differentiate(const Problem& problem, void* workspace, void* stream);

// Bytes of the workspace that cuda_differentiate needs.
size_t cuda_workspace(const Problem& problem);

}  // namespace zoo::rational
