#include "kernels/stream.h"

#include <cstdlib>
#include <new>

namespace dino {

void CpuStream::Free::operator()(std::byte* p) const { std::free(p); }

std::byte* CpuStream::Block::at_least(size_t wanted) {
  if (wanted > bytes) {
    const size_t rounded = (wanted + 4095) / 4096 * 4096;
    data.reset();
    data.reset(static_cast<std::byte*>(std::aligned_alloc(64, rounded)));
    if (!data) throw std::bad_alloc();
    bytes = rounded;
  }
  return data.get();
}

std::byte* CpuStream::scratch(int thread, size_t bytes) { return scratch_[static_cast<size_t>(thread)].at_least(bytes); }

std::byte* CpuStream::shared_scratch(size_t bytes) { return shared_.at_least(bytes); }

std::byte* CpuStream::wide_scratch(size_t bytes) { return wide_.at_least(bytes); }

}  // namespace dino
