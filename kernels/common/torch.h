// The little of torch that our ops need, all of it in the stable ABI of torch 2.11: an object built against it
// loads in every later version, and with a CPU-only torch even where it holds CUDA kernels.
#pragma once

#include <dlfcn.h>
#include <torch/csrc/stable/accelerator.h>
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

namespace zoo {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;

// The current stream of a device, a cudaStream_t.
//
// The function is only in torch's CUDA build, so the object must not depend on it: it is looked up in the
// library that is loaded wherever there is a CUDA tensor.
inline void* current_cuda_stream(int32_t device) {
  using Function = AOTITorchError (*)(int32_t, void**);
  static const Function function = [] {
    void* library = dlopen("libtorch_cuda.so", RTLD_NOLOAD | RTLD_LAZY);
    return library ? reinterpret_cast<Function>(dlsym(library, "aoti_torch_get_current_cuda_stream")) : nullptr;
  }();
  STD_TORCH_CHECK(function != nullptr, "torch's CUDA library doesn't tell its current stream");
  void* stream = nullptr;
  STD_TORCH_CHECK(function(device, &stream) == AOTI_TORCH_SUCCESS, "torch doesn't tell the device's current stream");
  return stream;
}

}  // namespace zoo
