#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <variant>
#include <vector>

#include "abi/registry.h"

/// What streams and graphs carry: plain descriptions, so that a captured operation can be inspected, changed
/// and repeated.
namespace emulator::abi {

struct KernelCall {
  Function* function = nullptr;
  LaunchConfig config;
  std::vector<std::uint8_t> params;
};

/// A box of rows: bytes [0, width) of rows [0, height) of slices [0, depth). A 1-D copy has one row.
struct Copy {
  std::uint64_t to = 0, from = 0;
  std::uint64_t width = 0, height = 1, depth = 1;  // bytes, rows, slices
  std::uint64_t to_pitch = 0, from_pitch = 0;      // bytes between rows
  std::uint64_t to_slice = 0, from_slice = 0;      // bytes between slices
  cudaMemcpyKind kind = cudaMemcpyDefault;
  std::shared_ptr<const std::vector<std::uint8_t>>
      staged;  // source rows, packed, when they were taken from pageable memory at the call
};

struct Fill {
  std::uint64_t to = 0;
  std::uint64_t width = 0, height = 1, depth = 1;  // width in elements
  std::uint64_t pitch = 0, slice = 0;
  std::uint32_t value = 0, element_bytes = 1;
};

/// A host function of the user: runs without the lock.
struct HostCall {
  cudaHostFn_t function = nullptr;
  void* data = nullptr;
  std::function<void()> callback;  // instead of `function`: cudaStreamAddCallback
};

/// Work of another library's stand-in (abi/host_work.h): runs with the lock held.
struct LibraryCall {
  std::string name;
  std::function<void()> work;
};

struct Release {  // cudaFreeAsync
  std::uint64_t address = 0;
};

struct Event;
struct EventMark {  // cudaEventRecord as a node of a graph
  Event* event = nullptr;
};
struct EventWait {
  Event* event = nullptr;
};

struct Graph;
struct ChildGraph {
  std::shared_ptr<Graph> graph;
};

struct Nothing {};

using Operation = std::variant<Nothing, KernelCall, Copy, Fill, HostCall, LibraryCall, Release, EventMark,
                               EventWait, ChildGraph>;

/// For traces and dot files: "kernel foo(float*)", "copy of 64 bytes".
std::string title(const Operation& operation);

/// Carries an operation out (all but HostCall, which the queue calls without the lock). Reports what is
/// wrong; the error is sticky then.
cudaError_t execute(const Operation& operation);

/// Whether the ranges of a copy lie in live objects, and agree with its kind. Reports; `call` names the
/// function.
cudaError_t check(const Copy& copy, const char* call);
cudaError_t check(const Fill& fill, const char* call);

/// Where an address lies, in CUDA's classes.
enum class Place { pageable, pinned, device, managed };
Place place_of(std::uint64_t address);

}  // namespace emulator::abi
