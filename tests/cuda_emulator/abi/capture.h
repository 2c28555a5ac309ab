#pragma once

#include <cstdint>
#include <memory>
#include <thread>
#include <vector>

#include "abi/graph.h"

/// Stream capture: the operations of a stream, and of streams that it forks to through events, become nodes
/// of a graph.
namespace emulator::abi {

struct Capture {
  std::uint64_t id = 0;
  std::shared_ptr<Graph> graph;
  bool graph_is_callers = false;  // cudaStreamBeginCaptureToGraph
  Stream* origin = nullptr;
  std::vector<Stream*> streams;  // the origin and all that joined
  cudaStreamCaptureMode mode = cudaStreamCaptureModeGlobal;
  std::thread::id thread;
  bool invalid = false;
};

/// Adds an operation of a capturing stream to the graph. Error: cudaErrorStreamCaptureInvalidated.
cudaError_t capture(Stream& stream, Operation operation);
void invalidate(Capture& capture);
/// Ends a capture: its streams run again what they are given.
void abandon(Capture& capture);
/// Work on the legacy stream would wait for blocking streams that are being captured:
/// cudaErrorStreamCaptureImplicit.
cudaError_t check_implicit_capture(Stream& stream);
/// For calls that are unsafe during a capture: cudaErrorStreamCaptureUnsupported, which also ends the
/// captures' validity.
cudaError_t check_unsafe_call(const char* call);
/// For calls that wait for a stream or query it.
cudaError_t check_not_capturing(Stream& stream, const char* call);
/// For calls that wait for the whole device.
cudaError_t check_no_capture(const char* call);

/// A stream that waits for an event of a capture joins it.
cudaError_t join(Stream& stream, Event& event);

}  // namespace emulator::abi
