#include "kernels/cuda_graph.h"
#include "kernels/cuda_memory.h"
#include "kernels/cuda_transfer.h"
#include "kernels/error.h"
#include "kernels/render_crops.h"

// What stands in for CUDA in a build without it.
namespace dino {
namespace {

constexpr const char* kAdvice = "this program was built without CUDA; build it with `cmake --preset cuda-release`, or use --device cpu";

}  // namespace

struct CudaStream::Pinned {};

CudaStream::CudaStream() { throw UsageError(kAdvice); }
CudaStream::~CudaStream() = default;
std::byte* CudaStream::scratch(size_t) { return nullptr; }
void CudaStream::set_step(const StepScalars&) {}
void CudaStream::upload(void*, const void*, size_t) {}
void CudaStream::copy(void*, const void*, size_t) {}
void CudaStream::synchronize() {}

CudaGraph::CudaGraph(CudaStream&, const std::function<void()>&) { throw UsageError(kAdvice); }
CudaGraph::~CudaGraph() = default;
void CudaGraph::launch(CudaStream&) const {}

CudaUploader::CudaUploader(CudaStream& stream) : stream_(stream) { throw UsageError(kAdvice); }
CudaUploader::~CudaUploader() = default;
std::byte* CudaUploader::begin(size_t) { return nullptr; }
std::byte* CudaUploader::send(size_t) { return nullptr; }

CudaReadback::CudaReadback(size_t bytes) : bytes_(bytes) { throw UsageError(kAdvice); }
CudaReadback::~CudaReadback() = default;
void CudaReadback::start(CudaStream&, const void*) {}
const std::byte* CudaReadback::wait() { return nullptr; }

void render_crops(CudaStream&, const PackedCrops&, int64_t, const PixelScale&, const View&, const View&, size_t) {
  throw UsageError(kAdvice);
}

namespace cuda {

std::byte* allocate(size_t) { throw UsageError(kAdvice); }
std::byte* allocate_pinned(size_t) { throw UsageError(kAdvice); }
void release(std::byte*) {}
void release_pinned(std::byte*) {}
void copy(void*, const void*, size_t) { throw UsageError(kAdvice); }
void clear(void*, size_t, size_t, size_t) { throw UsageError(kAdvice); }
size_t free_bytes() { return 0; }
std::vector<DeviceInfo> devices() { return {}; }
std::string problem() { return kAdvice; }
std::string runtime() { return "none"; }
bool emulated() { return false; }

}  // namespace cuda
}  // namespace dino
