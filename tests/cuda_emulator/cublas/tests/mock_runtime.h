#pragma once

#include <cstddef>
#include <string>
#include <vector>

/// A run-time without a GPU for the tests of the stand-ins: device addresses that the host cannot read, one
/// queue that runs at synchronize().
namespace mock {

/// A fresh object of the device, at a multiple of 256; nothing is written.
void* allocate(std::size_t bytes);
void release(void* address);

/// The host memory behind a device address that lies in a live object.
void* host(const void* address, std::size_t bytes);
void mark(const void* address, std::size_t bytes);
bool written(const void* address, std::size_t bytes);

/// Runs all that is queued.
void synchronize();

/// What was reported since the last call.
std::vector<std::string> take_reports();

}  // namespace mock
