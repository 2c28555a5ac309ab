#include "engine/zip_archive.h"

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <string_view>

#include "engine/tensor_file.h"

namespace dino {
namespace {

constexpr uint32_t kLocalHeader = 0x04034b50, kCentralHeader = 0x02014b50, kEnd = 0x06054b50;
constexpr uint32_t kEnd64 = 0x06064b50, kEnd64Locator = 0x07064b50;
constexpr uint16_t kZip64Field = 1;
constexpr uint32_t kInZip64Field = 0xffffffff;  // "too large for 32 bits: look in the ZIP64 field"

/// Bounds-checked little-endian reads.
class Zip {
 public:
  Zip(std::span<const std::byte> bytes, const std::string& path) : bytes_(bytes), path_(path) {}

  template <class T>
  T read(uint64_t offset) const {
    T value;
    std::memcpy(&value, slice(offset, sizeof value).data(), sizeof value);
    return value;
  }

  std::span<const std::byte> slice(uint64_t offset, uint64_t count) const {
    check<FormatError>(offset <= bytes_.size() && count <= bytes_.size() - offset, path_, ": zip: expected ",
                       count, " bytes at ", offset, ", found a file of ", bytes_.size());
    return bytes_.subspan(offset, count);
  }

  std::string_view text(uint64_t offset, uint64_t count) const {
    return {reinterpret_cast<const char*>(slice(offset, count).data()), count};
  }

  template <class... Args>
  void expect(bool condition, Args&&... message) const {
    check<FormatError>(condition, path_, ": zip: ", std::forward<Args>(message)...);
  }

  uint64_t size() const { return bytes_.size(); }

 private:
  std::span<const std::byte> bytes_;
  const std::string& path_;
};

struct Directory {
  uint64_t entries, bytes, offset;
};

/// The end record lies at the end of the file, before a comment of up to 64 KiB.
uint64_t end_record(const Zip& zip) {
  constexpr uint64_t kRecord = 22, kLongestComment = 65535;
  zip.expect(zip.size() >= kRecord, "expected an archive, found ", zip.size(), " bytes");
  const uint64_t last = zip.size() - kRecord;
  for (uint64_t back = 0; back <= std::min(last, kLongestComment); ++back) {
    const uint64_t at = last - back;
    if (zip.read<uint32_t>(at) == kEnd && zip.read<uint16_t>(at + 20) == back) return at;
  }
  zip.expect(false, "expected an end record, found none (is the file cut short?)");
  return 0;
}

Directory directory_of(const Zip& zip) {
  const uint64_t end = end_record(zip);
  zip.expect(zip.read<uint16_t>(end + 4) == zip.read<uint16_t>(end + 6), "expected one part, found several");
  if (end >= 20 && zip.read<uint32_t>(end - 20) == kEnd64Locator) {
    const auto end64 = zip.read<uint64_t>(end - 20 + 8);
    zip.expect(zip.read<uint32_t>(end64) == kEnd64, "expected a ZIP64 end record at ", end64);
    return {zip.read<uint64_t>(end64 + 32), zip.read<uint64_t>(end64 + 40), zip.read<uint64_t>(end64 + 48)};
  }
  return {zip.read<uint16_t>(end + 10), zip.read<uint32_t>(end + 12), zip.read<uint32_t>(end + 16)};
}

struct Entry {
  std::string_view name;
  uint16_t flags, method;
  uint64_t stored, size, offset;
  uint64_t header_bytes;
};

/// Replaces the fields that hold kInZip64Field by those of the ZIP64 extra field, which come in this order.
void read_zip64(const Zip& zip, uint64_t extra, uint64_t extra_bytes, Entry& entry) {
  const uint64_t end = extra + extra_bytes;
  while (end - extra >= 4) {
    const auto id = zip.read<uint16_t>(extra), bytes = zip.read<uint16_t>(extra + 2);
    extra += 4;
    zip.expect(bytes <= end - extra, quote(entry.name), ": expected an extra field inside its header");
    if (id == kZip64Field) {
      uint64_t at = extra;
      for (uint64_t* field : {&entry.size, &entry.stored, &entry.offset}) {
        if (*field != kInZip64Field) continue;
        zip.expect(at + 8 <= extra + bytes, quote(entry.name), ": expected a ZIP64 field, found less");
        *field = zip.read<uint64_t>(at);
        at += 8;
      }
      return;
    }
    extra += bytes;
  }
}

Entry central_entry(const Zip& zip, uint64_t at) {
  zip.expect(zip.read<uint32_t>(at) == kCentralHeader, "expected a directory entry at ", at);
  const auto name_bytes = zip.read<uint16_t>(at + 28), extra_bytes = zip.read<uint16_t>(at + 30),
             comment_bytes = zip.read<uint16_t>(at + 32);
  Entry entry = {.name = zip.text(at + 46, name_bytes),
                 .flags = zip.read<uint16_t>(at + 8),
                 .method = zip.read<uint16_t>(at + 10),
                 .stored = zip.read<uint32_t>(at + 20),
                 .size = zip.read<uint32_t>(at + 24),
                 .offset = zip.read<uint32_t>(at + 42),
                 .header_bytes = uint64_t{46} + name_bytes + extra_bytes + comment_bytes};
  zip.slice(at, entry.header_bytes);
  read_zip64(zip, at + 46 + name_bytes, extra_bytes, entry);
  return entry;
}

std::span<const std::byte> contents(const Zip& zip, const Entry& entry) {
  const std::string name = quote(entry.name);
  zip.expect(entry.method == 0, name, ": expected a stored entry, found compression method ", entry.method);
  zip.expect((entry.flags & 1) == 0, name, ": expected plain bytes, found encryption");
  zip.expect(entry.stored == entry.size, name, ": expected ", entry.size, " stored bytes, found ",
             entry.stored);
  const uint64_t at = entry.offset;
  zip.expect(zip.read<uint32_t>(at) == kLocalHeader, name, ": expected a local header at ", at);
  // Only the local header knows its own padding; its sizes may be zero (they can follow the data).
  const auto name_bytes = zip.read<uint16_t>(at + 26), extra_bytes = zip.read<uint16_t>(at + 28);
  zip.expect(zip.text(at + 30, name_bytes) == entry.name, name,
             ": expected the same name in its local header");
  return zip.slice(at + 30 + name_bytes + extra_bytes, entry.size);
}

}  // namespace

std::map<std::string, std::span<const std::byte>> read_zip(std::span<const std::byte> bytes,
                                                           const std::string& path) {
  const Zip zip(bytes, path);
  const Directory directory = directory_of(zip);
  zip.slice(directory.offset, directory.bytes);
  std::map<std::string, std::span<const std::byte>> entries;
  uint64_t at = directory.offset;
  for (uint64_t i = 0; i < directory.entries; ++i) {
    const Entry entry = central_entry(zip, at);
    const bool added = entries.emplace(entry.name, contents(zip, entry)).second;
    zip.expect(added, quote(entry.name), ": expected unique names, found this one twice");
    at += entry.header_bytes;
  }
  zip.expect(at - directory.offset == directory.bytes, "expected a directory of ", directory.bytes,
             " bytes, found ", at - directory.offset);
  return entries;
}

}  // namespace dino
