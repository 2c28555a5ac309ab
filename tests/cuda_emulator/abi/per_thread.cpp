#include "abi/call.h"

// The flavour of the functions that programs compiled with --default-stream per-thread import: stream 0 is
// the stream of the calling thread.

using emulator::abi::null_stream_is_per_thread;

namespace {

struct PerThread {
  bool before = null_stream_is_per_thread();
  PerThread() { null_stream_is_per_thread() = true; }
  ~PerThread() { null_stream_is_per_thread() = before; }
};

template <class Function, class... Arguments>
cudaError_t per_thread(Function function, Arguments... arguments) {
  const PerThread guard;
  return function(arguments...);
}

}  // namespace

#pragma GCC visibility push(default)
extern "C" {

cudaError_t cudaEventRecordWithFlags_ptsz(cudaEvent_t event, cudaStream_t stream, unsigned flags) {
  return per_thread(cudaEventRecordWithFlags, event, stream, flags);
}
cudaError_t cudaEventRecord_ptsz(cudaEvent_t event, cudaStream_t stream) {
  return per_thread(cudaEventRecord, event, stream);
}
cudaError_t cudaFreeAsync_ptsz(void* pointer, cudaStream_t stream) {
  return per_thread(cudaFreeAsync, pointer, stream);
}

cudaError_t cudaGraphInstantiateWithParams_ptsz(cudaGraphExec_t* pGraphExec, cudaGraph_t graph,
                                                cudaGraphInstantiateParams* instantiateParams) {
  return per_thread(cudaGraphInstantiateWithParams, pGraphExec, graph, instantiateParams);
}
cudaError_t cudaGraphLaunch_ptsz(cudaGraphExec_t graphExec, cudaStream_t stream) {
  return per_thread(cudaGraphLaunch, graphExec, stream);
}
cudaError_t cudaGraphUpload_ptsz(cudaGraphExec_t graphExec, cudaStream_t stream) {
  return per_thread(cudaGraphUpload, graphExec, stream);
}
cudaError_t cudaLaunchCooperativeKernel_ptsz(const void* func, dim3 gridDim, dim3 blockDim, void** args,
                                             size_t sharedMem, cudaStream_t stream) {
  return per_thread(cudaLaunchCooperativeKernel, func, gridDim, blockDim, args, sharedMem, stream);
}
cudaError_t cudaLaunchHostFunc_ptsz(cudaStream_t stream, cudaHostFn_t fn, void* userData) {
  return per_thread(cudaLaunchHostFunc, stream, fn, userData);
}
cudaError_t cudaLaunchKernelExC_ptsz(const cudaLaunchConfig_t* config, const void* func, void** args) {
  return per_thread(cudaLaunchKernelExC, config, func, args);
}
cudaError_t cudaLaunchKernel_ptsz(const void* func, dim3 gridDim, dim3 blockDim, void** args,
                                  size_t sharedMem, cudaStream_t stream) {
  return per_thread(cudaLaunchKernel, func, gridDim, blockDim, args, sharedMem, stream);
}
cudaError_t cudaMallocAsync_ptsz(void** pointer, size_t size, cudaStream_t stream) {
  return per_thread(cudaMallocAsync, pointer, size, stream);
}
cudaError_t cudaMallocFromPoolAsync_ptsz(void** ptr, size_t size, cudaMemPool_t memPool,
                                         cudaStream_t stream) {
  return per_thread(cudaMallocFromPoolAsync, ptr, size, memPool, stream);
}
cudaError_t cudaMemPrefetchAsync_ptsz(const void* pointer, size_t count, cudaMemLocation location,
                                      unsigned flags, cudaStream_t stream) {
  return per_thread(cudaMemPrefetchAsync, pointer, count, location, flags, stream);
}
cudaError_t cudaMemcpy2DAsync_ptsz(void* to, size_t dpitch, const void* from, size_t spitch, size_t width,
                                   size_t height, cudaMemcpyKind kind, cudaStream_t stream) {
  return per_thread(cudaMemcpy2DAsync, to, dpitch, from, spitch, width, height, kind, stream);
}
cudaError_t cudaMemcpy2D_ptds(void* to, size_t dpitch, const void* from, size_t spitch, size_t width,
                              size_t height, cudaMemcpyKind kind) {
  return per_thread(cudaMemcpy2D, to, dpitch, from, spitch, width, height, kind);
}
cudaError_t cudaMemcpy3DAsync_ptsz(const cudaMemcpy3DParms* p, cudaStream_t stream) {
  return per_thread(cudaMemcpy3DAsync, p, stream);
}
cudaError_t cudaMemcpy3D_ptds(const cudaMemcpy3DParms* p) { return per_thread(cudaMemcpy3D, p); }
cudaError_t cudaMemcpyAsync_ptsz(void* to, const void* from, size_t count, cudaMemcpyKind kind,
                                 cudaStream_t stream) {
  return per_thread(cudaMemcpyAsync, to, from, count, kind, stream);
}
cudaError_t cudaMemcpyFromSymbolAsync_ptsz(void* to, const void* symbol, size_t count, size_t offset,
                                           cudaMemcpyKind kind, cudaStream_t stream) {
  return per_thread(cudaMemcpyFromSymbolAsync, to, symbol, count, offset, kind, stream);
}
cudaError_t cudaMemcpyFromSymbol_ptds(void* to, const void* symbol, size_t count, size_t offset,
                                      cudaMemcpyKind kind) {
  return per_thread(cudaMemcpyFromSymbol, to, symbol, count, offset, kind);
}
cudaError_t cudaMemcpyToSymbolAsync_ptsz(const void* symbol, const void* from, size_t count, size_t offset,
                                         cudaMemcpyKind kind, cudaStream_t stream) {
  return per_thread(cudaMemcpyToSymbolAsync, symbol, from, count, offset, kind, stream);
}
cudaError_t cudaMemcpyToSymbol_ptds(const void* symbol, const void* from, size_t count, size_t offset,
                                    cudaMemcpyKind kind) {
  return per_thread(cudaMemcpyToSymbol, symbol, from, count, offset, kind);
}
cudaError_t cudaMemcpy_ptds(void* to, const void* from, size_t count, cudaMemcpyKind kind) {
  return per_thread(cudaMemcpy, to, from, count, kind);
}
cudaError_t cudaMemset2DAsync_ptsz(void* pointer, size_t pitch, int value, size_t width, size_t height,
                                   cudaStream_t stream) {
  return per_thread(cudaMemset2DAsync, pointer, pitch, value, width, height, stream);
}
cudaError_t cudaMemset2D_ptds(void* pointer, size_t pitch, int value, size_t width, size_t height) {
  return per_thread(cudaMemset2D, pointer, pitch, value, width, height);
}
cudaError_t cudaMemset3DAsync_ptsz(cudaPitchedPtr pitchedDevPtr, int value, cudaExtent extent,
                                   cudaStream_t stream) {
  return per_thread(cudaMemset3DAsync, pitchedDevPtr, value, extent, stream);
}
cudaError_t cudaMemset3D_ptds(cudaPitchedPtr pitchedDevPtr, int value, cudaExtent extent) {
  return per_thread(cudaMemset3D, pitchedDevPtr, value, extent);
}
cudaError_t cudaMemsetAsync_ptsz(void* pointer, int value, size_t count, cudaStream_t stream) {
  return per_thread(cudaMemsetAsync, pointer, value, count, stream);
}
cudaError_t cudaMemset_ptds(void* pointer, int value, size_t count) {
  return per_thread(cudaMemset, pointer, value, count);
}
cudaError_t cudaStreamAddCallback_ptsz(cudaStream_t stream, cudaStreamCallback_t callback, void* userData,
                                       unsigned flags) {
  return per_thread(cudaStreamAddCallback, stream, callback, userData, flags);
}
cudaError_t cudaStreamAttachMemAsync_ptsz(cudaStream_t stream, void* pointer, size_t length, unsigned flags) {
  return per_thread(cudaStreamAttachMemAsync, stream, pointer, length, flags);
}
cudaError_t cudaStreamBeginCaptureToGraph_ptsz(cudaStream_t stream, cudaGraph_t graph,
                                               const cudaGraphNode_t* dependencies,
                                               const cudaGraphEdgeData* dependencyData,
                                               size_t numDependencies, cudaStreamCaptureMode mode) {
  return per_thread(cudaStreamBeginCaptureToGraph, stream, graph, dependencies, dependencyData,
                    numDependencies, mode);
}
cudaError_t cudaStreamBeginCapture_ptsz(cudaStream_t stream, cudaStreamCaptureMode mode) {
  return per_thread(cudaStreamBeginCapture, stream, mode);
}
cudaError_t cudaStreamCopyAttributes_ptsz(cudaStream_t to, cudaStream_t from) {
  return per_thread(cudaStreamCopyAttributes, to, from);
}
cudaError_t cudaStreamEndCapture_ptsz(cudaStream_t stream, cudaGraph_t* pGraph) {
  return per_thread(cudaStreamEndCapture, stream, pGraph);
}
cudaError_t cudaStreamGetAttribute_ptsz(cudaStream_t stream, cudaStreamAttrID attr,
                                        cudaStreamAttrValue* value_out) {
  return per_thread(cudaStreamGetAttribute, stream, attr, value_out);
}
cudaError_t cudaStreamGetCaptureInfo_ptsz(cudaStream_t stream, cudaStreamCaptureStatus* captureStatus_out,
                                          unsigned long long* id_out, cudaGraph_t* graph_out,
                                          const cudaGraphNode_t** dependencies_out,
                                          const cudaGraphEdgeData** edgeData_out,
                                          size_t* numDependencies_out) {
  return per_thread(cudaStreamGetCaptureInfo, stream, captureStatus_out, id_out, graph_out, dependencies_out,
                    edgeData_out, numDependencies_out);
}
cudaError_t cudaStreamGetDevice_ptsz(cudaStream_t stream, int* device) {
  return per_thread(cudaStreamGetDevice, stream, device);
}
cudaError_t cudaStreamGetFlags_ptsz(cudaStream_t stream, unsigned* flags) {
  return per_thread(cudaStreamGetFlags, stream, flags);
}
cudaError_t cudaStreamGetId_ptsz(cudaStream_t stream, unsigned long long* streamId) {
  return per_thread(cudaStreamGetId, stream, streamId);
}
cudaError_t cudaStreamGetPriority_ptsz(cudaStream_t stream, int* priority) {
  return per_thread(cudaStreamGetPriority, stream, priority);
}
cudaError_t cudaStreamIsCapturing_ptsz(cudaStream_t stream, cudaStreamCaptureStatus* pCaptureStatus) {
  return per_thread(cudaStreamIsCapturing, stream, pCaptureStatus);
}
cudaError_t cudaStreamQuery_ptsz(cudaStream_t stream) { return per_thread(cudaStreamQuery, stream); }
cudaError_t cudaStreamSetAttribute_ptsz(cudaStream_t stream, cudaStreamAttrID attr,
                                        const cudaStreamAttrValue* value) {
  return per_thread(cudaStreamSetAttribute, stream, attr, value);
}
cudaError_t cudaStreamSynchronize_ptsz(cudaStream_t stream) {
  return per_thread(cudaStreamSynchronize, stream);
}
cudaError_t cudaStreamUpdateCaptureDependencies_ptsz(cudaStream_t stream, cudaGraphNode_t* dependencies,
                                                     const cudaGraphEdgeData* dependencyData,
                                                     size_t numDependencies, unsigned flags) {
  return per_thread(cudaStreamUpdateCaptureDependencies, stream, dependencies, dependencyData,
                    numDependencies, flags);
}
cudaError_t cudaStreamWaitEvent_ptsz(cudaStream_t stream, cudaEvent_t event, unsigned flags) {
  return per_thread(cudaStreamWaitEvent, stream, event, flags);
}

cudaError_t __cudaLaunchKernel_ptsz(cudaKernel_t kernel, dim3 grid, dim3 block, void** arguments,
                                    size_t shared, cudaStream_t stream) {
  return per_thread(cudaLaunchKernel, static_cast<const void*>(kernel), grid, block, arguments, shared,
                    stream);
}
}
#pragma GCC visibility pop
