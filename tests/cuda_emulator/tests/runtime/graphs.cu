// Stream capture and graphs built by hand: replay, update, errors of capture. Any CUDA_EMULATOR_STREAMS and
// CUDA_EMULATOR_ORDER=forward|reverse|random. Prints findings of kind api on stderr, on purpose: run without
// CUDA_EMULATOR_FAIL.
#include <cstring>
#include <vector>

#include "expect.h"

constexpr int n = 256;

static int first(const int* device) {
  int value = 0;
  OK(cudaDeviceSynchronize());
  OK(cudaMemcpy(&value, device, sizeof value, cudaMemcpyDeviceToHost));
  return value;
}

static int* zeros() {
  int* device = nullptr;
  OK(cudaMalloc(&device, n * sizeof(int)));
  OK(cudaMemset(device, 0, n * sizeof(int)));
  OK(cudaDeviceSynchronize());
  return device;
}

/// Fork and join over events, replayed; then updated from a second capture.
static void test_capture() {
  int *a = zeros(), *b = zeros(), *c = zeros();
  cudaStream_t origin, side;
  cudaEvent_t fork, join;
  OK(cudaStreamCreateWithFlags(&origin, cudaStreamNonBlocking));
  OK(cudaStreamCreateWithFlags(&side, cudaStreamNonBlocking));
  OK(cudaEventCreate(&fork));
  OK(cudaEventCreate(&join));
  cudaGraphExec_t exec = nullptr;
  for (const int value : {1, 10}) {
    OK(cudaStreamBeginCapture(origin, cudaStreamCaptureModeGlobal));
    cudaStreamCaptureStatus status;
    OK(cudaStreamIsCapturing(origin, &status));
    EXPECT(status == cudaStreamCaptureStatusActive);
    add_value<<<blocks_for(n), 128, 0, origin>>>(a, value, n);
    OK(cudaEventRecord(fork, origin));
    OK(cudaStreamWaitEvent(side, fork, 0));
    copy_value<<<blocks_for(n), 128, 0, side>>>(b, a, n);
    OK(cudaEventRecord(join, side));
    OK(cudaMemcpyAsync(c, a, n * sizeof(int), cudaMemcpyDeviceToDevice, origin));
    OK(cudaStreamWaitEvent(origin, join, 0));
    add_value<<<blocks_for(n), 128, 0, origin>>>(b, 100, n);
    cudaGraph_t graph = nullptr;
    OK(cudaStreamEndCapture(origin, &graph));
    OK(cudaStreamIsCapturing(side, &status));
    EXPECT(status == cudaStreamCaptureStatusNone);
    std::size_t nodes = 0, roots = 0, edges = 0;
    OK(cudaGraphGetNodes(graph, nullptr, &nodes));
    OK(cudaGraphGetRootNodes(graph, nullptr, &roots));
    OK(cudaGraphGetEdges(graph, nullptr, nullptr, nullptr, &edges));
    EXPECT(nodes == 4 && roots == 1 && edges == 4);
    if (value == 1) {
      EXPECT(first(a) == 0);  // capturing runs nothing
      OK(cudaGraphInstantiate(&exec, graph, 0));
      for (int i = 0; i < 3; ++i) OK(cudaGraphLaunch(exec, origin));
      OK(cudaStreamSynchronize(origin));
      EXPECT(first(a) == 3 && first(b) == 103 && first(c) == 3);
    } else {
      cudaGraphExecUpdateResultInfo info{};
      OK(cudaGraphExecUpdate(exec, graph, &info));
      EXPECT(info.result == cudaGraphExecUpdateSuccess);
      OK(cudaGraphLaunch(exec, origin));
      OK(cudaStreamSynchronize(origin));
      EXPECT(first(a) == 13 && first(b) == 113 && first(c) == 13);
    }
    OK(cudaGraphDestroy(graph));
  }
  OK(cudaGraphExecDestroy(exec));
  EXPECT_ERROR(cudaErrorInvalidValue, cudaGraphLaunch(exec, origin));
  OK(cudaStreamDestroy(origin));
  OK(cudaStreamDestroy(side));
  OK(cudaFree(a));
  OK(cudaFree(b));
  OK(cudaFree(c));
  (void)cudaGetLastError();
}

static void test_capture_errors() {
  int* a = zeros();
  cudaStream_t stream, side, blocking;
  cudaEvent_t event, outside;
  cudaGraph_t graph = nullptr;
  OK(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
  OK(cudaStreamCreateWithFlags(&side, cudaStreamNonBlocking));
  OK(cudaStreamCreate(&blocking));
  OK(cudaEventCreate(&event));
  OK(cudaEventCreate(&outside));
  EXPECT_ERROR(cudaErrorStreamCaptureUnsupported,
               cudaStreamBeginCapture(nullptr, cudaStreamCaptureModeGlobal));
  EXPECT_ERROR(cudaErrorIllegalState, cudaStreamEndCapture(stream, &graph));

  void* p = nullptr;
  OK(cudaStreamBeginCapture(stream, cudaStreamCaptureModeGlobal));
  EXPECT_ERROR(cudaErrorStreamCaptureUnsupported, cudaMalloc(&p, 16));
  EXPECT_ERROR(cudaErrorStreamCaptureInvalidated, cudaMemsetAsync(a, 0, 4, stream));
  EXPECT_ERROR(cudaErrorStreamCaptureInvalidated, cudaStreamEndCapture(stream, &graph));
  EXPECT(graph == nullptr);

  OK(cudaStreamBeginCapture(stream, cudaStreamCaptureModeRelaxed));
  OK(cudaMalloc(&p, 16));
  OK(cudaStreamEndCapture(stream, &graph));
  OK(cudaGraphDestroy(graph));
  OK(cudaFree(p));

  OK(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal));
  EXPECT_ERROR(cudaErrorStreamCaptureUnsupported, cudaStreamSynchronize(stream));
  EXPECT_ERROR(cudaErrorStreamCaptureInvalidated, cudaStreamEndCapture(stream, &graph));

  OK(cudaStreamBeginCapture(blocking, cudaStreamCaptureModeRelaxed));
  EXPECT_ERROR(cudaErrorStreamCaptureImplicit, cudaMemsetAsync(a, 0, 4, nullptr));
  EXPECT_ERROR(cudaErrorStreamCaptureInvalidated, cudaStreamEndCapture(blocking, &graph));

  OK(cudaStreamBeginCapture(stream, cudaStreamCaptureModeRelaxed));
  OK(cudaMemsetAsync(a, 0, 4, stream));
  OK(cudaEventRecord(event, stream));
  EXPECT_ERROR(cudaErrorCapturedEvent, cudaEventSynchronize(event));
  EXPECT_ERROR(cudaErrorStreamCaptureInvalidated, cudaStreamEndCapture(stream, &graph));

  OK(cudaStreamBeginCapture(stream, cudaStreamCaptureModeRelaxed));
  OK(cudaEventRecord(event, stream));
  OK(cudaStreamWaitEvent(side, event, 0));
  OK(cudaMemsetAsync(a, 0, 4, side));
  EXPECT_ERROR(cudaErrorStreamCaptureUnjoined, cudaStreamEndCapture(stream, &graph));

  OK(cudaEventRecord(outside, side));
  OK(cudaStreamBeginCapture(stream, cudaStreamCaptureModeRelaxed));
  EXPECT_ERROR(cudaErrorStreamCaptureIsolation, cudaStreamWaitEvent(stream, outside, 0));
  EXPECT_ERROR(cudaErrorStreamCaptureInvalidated, cudaStreamEndCapture(stream, &graph));
  OK(cudaDeviceSynchronize());
  OK(cudaFree(a));
  (void)cudaGetLastError();
}

/// A graph by hand: memset -> kernel -> copy to host, with a host node; parameters are changed afterwards.
static void test_graph_by_hand() {
  int* a = zeros();
  int *result = nullptr, calls = 0;
  OK(cudaMallocHost(&result, sizeof(int)));
  cudaGraph_t graph = nullptr;
  OK(cudaGraphCreate(&graph, 0));

  cudaGraphNode_t set, kernel, copy, host, empty;
  cudaMemsetParams memset_params{};
  memset_params.dst = a;
  memset_params.elementSize = 4;
  memset_params.width = n;
  memset_params.height = 1;
  memset_params.value = 1000;
  OK(cudaGraphAddMemsetNode(&set, graph, nullptr, 0, &memset_params));
  int value = 5, count = n;
  void* arguments[] = {&a, &value, &count};
  cudaKernelNodeParams kernel_params{};
  kernel_params.func = reinterpret_cast<void*>(add_value);
  kernel_params.gridDim = dim3(blocks_for(n));
  kernel_params.blockDim = dim3(128);
  kernel_params.kernelParams = arguments;
  OK(cudaGraphAddKernelNode(&kernel, graph, &set, 1, &kernel_params));
  OK(cudaGraphAddMemcpyNode1D(&copy, graph, nullptr, 0, result, a, sizeof(int), cudaMemcpyDeviceToHost));
  OK(cudaGraphAddDependencies(graph, &kernel, &copy, nullptr, 1));
  cudaHostNodeParams host_params{[](void* data) { ++*static_cast<int*>(data); }, &calls};
  OK(cudaGraphAddHostNode(&host, graph, &copy, 1, &host_params));
  OK(cudaGraphAddEmptyNode(&empty, graph, nullptr, 0));
  cudaGraphNodeType type;
  OK(cudaGraphNodeGetType(kernel, &type));
  EXPECT(type == cudaGraphNodeTypeKernel);
  cudaKernelNodeParams seen{};
  OK(cudaGraphKernelNodeGetParams(kernel, &seen));
  EXPECT(*static_cast<int*>(seen.kernelParams[1]) == 5 && seen.blockDim.x == 128);

  cudaGraphExec_t exec = nullptr;
  OK(cudaGraphInstantiateWithFlags(&exec, graph, 0));
  OK(cudaGraphUpload(exec, nullptr));
  OK(cudaGraphLaunch(exec, nullptr));
  OK(cudaDeviceSynchronize());
  EXPECT(*result == 1005 && calls == 1);

  value = 6;
  OK(cudaGraphExecKernelNodeSetParams(exec, kernel, &kernel_params));
  OK(cudaGraphLaunch(exec, nullptr));
  OK(cudaDeviceSynchronize());
  EXPECT(*result == 1006 && calls == 2);

  // A clone is independent; a child graph runs inside of another one.
  cudaGraph_t clone = nullptr, parent = nullptr;
  OK(cudaGraphClone(&clone, graph));
  cudaGraphNode_t twin, child, behind;
  OK(cudaGraphNodeFindInClone(&twin, kernel, clone));
  value = 7;
  OK(cudaGraphKernelNodeSetParams(twin, &kernel_params));
  OK(cudaGraphCreate(&parent, 0));
  OK(cudaGraphAddChildGraphNode(&child, parent, nullptr, 0, clone));
  OK(cudaGraphAddHostNode(&behind, parent, &child, 1, &host_params));
  cudaGraphExec_t parent_exec = nullptr;
  OK(cudaGraphInstantiate(&parent_exec, parent, 0));
  OK(cudaGraphLaunch(parent_exec, cudaStreamPerThread));
  OK(cudaStreamSynchronize(cudaStreamPerThread));
  EXPECT(*result == 1007 && calls == 4);

  cudaGraphExecUpdateResultInfo info{};
  EXPECT_ERROR(cudaErrorGraphExecUpdateFailure, cudaGraphExecUpdate(exec, parent, &info));
  EXPECT(info.result == cudaGraphExecUpdateErrorTopologyChanged);
  OK(cudaGraphAddDependencies(graph, &host, &set, nullptr, 1));  // a cycle
  cudaGraphExec_t none = nullptr;
  EXPECT_ERROR(cudaErrorInvalidValue, cudaGraphInstantiate(&none, graph, 0));
  OK(cudaGraphDestroyNode(host));
  OK(cudaGraphInstantiate(&none, graph, 0));
  OK(cudaGraphExecDestroy(none));
  OK(cudaGraphExecDestroy(exec));
  OK(cudaGraphExecDestroy(parent_exec));
  OK(cudaGraphDestroy(graph));
  EXPECT_ERROR(cudaErrorInvalidValue, cudaGraphDestroy(graph));
  OK(cudaFree(a));
  OK(cudaFreeHost(result));
  (void)cudaGetLastError();
}

/// Two nodes without an edge: their order is the emulator's choice, and CUDA_EMULATOR_ORDER=reverse turns it
/// round.
static void test_order_of_independent_nodes() {
  static std::vector<int> order;
  cudaGraph_t graph = nullptr;
  OK(cudaGraphCreate(&graph, 0));
  static int names[3] = {0, 1, 2};
  for (int& name : names) {
    cudaGraphNode_t node;
    cudaHostNodeParams params{[](void* data) { order.push_back(*static_cast<int*>(data)); }, &name};
    OK(cudaGraphAddHostNode(&node, graph, nullptr, 0, &params));
  }
  cudaGraphExec_t exec = nullptr;
  OK(cudaGraphInstantiate(&exec, graph, 0));
  OK(cudaGraphLaunch(exec, nullptr));
  OK(cudaStreamSynchronize(nullptr));
  const char* wanted = std::getenv("CUDA_EMULATOR_ORDER");
  const char* streams = std::getenv("CUDA_EMULATOR_STREAMS");
  EXPECT(order.size() == 3);
  if (order.size() == 3 && !(streams && std::strcmp(streams, "random") == 0)) {
    if (!wanted || std::strcmp(wanted, "forward") == 0)
      EXPECT(order[0] == 0 && order[2] == 2);
    else if (std::strcmp(wanted, "reverse") == 0)
      EXPECT(order[0] == 2 && order[2] == 0);
  }
}

int main() {
  test_capture();
  test_capture_errors();
  test_graph_by_hand();
  test_order_of_independent_nodes();
  return status();
}
