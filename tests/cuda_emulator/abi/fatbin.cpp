#include "abi/fatbin.h"

#include <cstdint>
#include <cstring>
#include <vector>

// Layouts as nvcc 13.0 writes them; found with its own output (docs/cuda_without_a_gpu.md).
namespace emulator::abi {
namespace {

struct Wrapper {  // section .nvFatBinSegment
  std::uint32_t magic;
  std::uint32_t version;  // 1: data is one fat binary; 2: relocatable device code
  const void* data;
  const void* prelinked;
};
struct Header {
  std::uint32_t magic;
  std::uint16_t version;
  std::uint16_t header_bytes;
  std::uint64_t bytes;  // of all entries
};
struct Entry {
  std::uint16_t kind;
  std::uint16_t version;
  std::uint32_t header_bytes;
  std::uint64_t padded_bytes;
  std::uint32_t compressed_bytes;
  std::uint32_t options_offset;
  std::uint16_t isa_minor, isa_major;
  std::uint32_t arch;
  std::uint32_t name_offset, name_bytes;
  std::uint64_t flags;
  std::uint64_t reserved;
  std::uint64_t plain_bytes;
};
static_assert(sizeof(Header) == 16 && sizeof(Entry) == 64);

constexpr std::uint32_t kWrapperMagic = 0x466243B1, kHeaderMagic = 0xBA55ED50;
constexpr std::uint16_t kPtx = 1, kElf = 2;
constexpr std::uint64_t kCompressed = 0x8000 | 0x2000;  // zstd, and the LZ4 of older tools

/// Reads a T at `offset` of a block; the block may be unaligned.
template <class T>
T read(const std::uint8_t* block, std::uint64_t offset, std::uint64_t end, const char* what) {
  if (offset > end || sizeof(T) > end - offset)
    throw FatbinError(std::string("fat binary: ") + what + " reaches past its end");
  T value;
  std::memcpy(&value, block + offset, sizeof value);
  return value;
}

}  // namespace

std::string_view ptx_in_fatbin(const void* fatbin, std::size_t bytes, int arch) {
  const auto* block = static_cast<const std::uint8_t*>(fatbin);
  const Header header = read<Header>(block, 0, bytes == 0 ? sizeof(Header) : bytes, "its header");
  if (header.magic != kHeaderMagic || header.version != 1)
    throw FatbinError("fat binary: unknown format; the emulator reads the one of nvcc 13");
  const std::uint64_t end = header.header_bytes + header.bytes;
  if (bytes && end > bytes) throw FatbinError("fat binary: its size is larger than its data");

  std::string_view best;
  std::uint32_t best_arch = 0;
  bool compressed = false;
  std::string seen;
  for (std::uint64_t at = header.header_bytes; at < end;) {
    const Entry entry = read<Entry>(block, at, end, "an entry");
    if (entry.header_bytes < sizeof(Entry) || entry.header_bytes > end - at ||
        entry.padded_bytes > end - at - entry.header_bytes) {
      throw FatbinError("fat binary: an entry reaches past its end");
    }
    if (entry.kind == kPtx || entry.kind == kElf)
      seen += (seen.empty() ? "" : ", ") + std::string(entry.kind == kPtx ? "compute_" : "sm_") +
              std::to_string(entry.arch);
    if (entry.kind == kPtx && entry.arch <= static_cast<std::uint32_t>(arch) && entry.arch > best_arch) {
      best_arch = entry.arch;
      compressed = (entry.flags & kCompressed) != 0 || entry.compressed_bytes != 0;
      const auto* text = reinterpret_cast<const char*>(block + at + entry.header_bytes);
      best = {text, strnlen(text, entry.padded_bytes)};  // padded with zeros
    }
    at += entry.header_bytes + entry.padded_bytes;
  }
  if (best_arch == 0) {
    throw FatbinError("the program contains no PTX for compute capability " + std::to_string(arch) +
                      " (only " + (seen.empty() ? "nothing" : seen) +
                      "); compile with nvcc -gencode arch=compute_" + std::to_string(arch) +
                      ",code=compute_" + std::to_string(arch));
  }
  if (compressed) throw FatbinError("the PTX in the program is compressed; compile with nvcc --no-compress");
  return best;
}

std::string_view ptx_in_wrapper(const void* pointer, int arch) {
  Wrapper wrapper;
  std::memcpy(&wrapper, pointer, sizeof wrapper);
  if (wrapper.magic != kWrapperMagic)
    throw FatbinError("fat binary wrapper: unknown format; the emulator reads the one of nvcc 13");
  if (wrapper.version == 2)
    throw FatbinError("the program was compiled with relocatable device code; compile with nvcc -rdc=false");
  if (wrapper.version != 1 || !wrapper.data)
    throw FatbinError("fat binary wrapper: version " + std::to_string(wrapper.version) + " is unknown");
  return ptx_in_fatbin(wrapper.data, 0, arch);
}

}  // namespace emulator::abi
