#pragma once

#include <array>
#include <bit>
#include <cstdint>
#include <memory>
#include <unordered_map>
#include <vector>

#include "check/clocks.h"

/// Shadow memory of the race check: per 4-byte word (or per byte, once a word has been accessed in parts) who wrote it last and who has read it since.
namespace emulator {

/// One remembered access: when, who, where in the code.
struct Who {
  static constexpr std::uint32_t kSites = 1u << 17;
  std::uint32_t thread : 10 = 0;  // in the block
  std::uint32_t site : 17 = 0;    // interned instruction; 0: unknown
  std::uint32_t same : 1 = 0;     // a write that left memory as it was: no harm to readers, but later writes may differ
  std::uint32_t several : 1 = 0;  // other lanes of the warp too, not ordered with one another
  std::uint32_t strong : 1 = 0;   // volatile, relaxed or stronger
  std::uint32_t gpu : 1 = 0;      // strong between blocks too
  std::uint32_t atomic : 1 = 0;
};

struct SharedRecord {
  Time time = 0;  // 0: none
  Who who;
  std::uint32_t block_or(std::uint32_t mine) const { return mine; }
  void set_block(std::uint32_t) {}
};

struct GlobalRecord {
  Time time = 0;
  Who who;
  std::uint32_t block = 0;
  std::uint32_t block_or(std::uint32_t) const { return block; }
  void set_block(std::uint32_t number) { block = number; }
};

/// Two of each, of different warps or blocks where possible: whoever comes next meets a stranger in one of them. More unordered readers are forgotten, which
/// can hide a race when only some of them are synchronised with a later writer, but never invents one.
template <class Record>
struct Cell {
  Record write, other_write;  // the second one: of atomics, which do not order one another
  Record read, other_read;
};

template <class Record>
struct ShadowPage {
  static constexpr std::uint32_t kWords = 256;
  std::array<Cell<Record>, kWords> words;
  std::array<bool, kWords> split{};                              // the word's state is in `bytes`
  std::unique_ptr<std::array<Cell<Record>, kWords * 4>> bytes;

  Cell<Record>* split_word(std::uint32_t word) {
    if (!bytes) bytes = std::make_unique<std::array<Cell<Record>, kWords * 4>>();
    Cell<Record>* cells = &(*bytes)[word * 4];
    if (!split[word]) {
      for (int i = 0; i < 4; ++i) cells[i] = words[word];
      split[word] = true;
    }
    return cells;
  }
};

class SharedShadow {
 public:
  using Page = ShadowPage<SharedRecord>;
  void resize(std::uint64_t bytes) {
    while (pages_.size() * Page::kWords * 4 < bytes) pages_.push_back(std::make_unique<Page>());
  }
  Page& page(std::uint64_t address) {
    const std::uint64_t index = address / (Page::kWords * 4);
    if (index >= pages_.size()) resize(address + 1);
    return *pages_[index];
  }

 private:
  std::vector<std::unique_ptr<Page>> pages_;
};

class GlobalShadow {
 public:
  using Page = ShadowPage<GlobalRecord>;
  Page& page(std::uint64_t address) {
    const std::uint64_t index = address / (Page::kWords * 4);
    if (index != last_index_) {
      std::unique_ptr<Page>& found = pages_[index];
      if (!found) found = std::make_unique<Page>();
      last_ = found.get();
      last_index_ = index;
    }
    return *last_;
  }

 private:
  std::unordered_map<std::uint64_t, std::unique_ptr<Page>> pages_;
  std::uint64_t last_index_ = ~0ull;
  Page* last_ = nullptr;
};

/// Calls visit(cell, offset, bytes) for every cell of [address, address + bytes); offset counts from address. visit returns whether the cell now holds nothing
/// but this access; a split word all of whose bytes say so becomes one word again.
template <class Shadow, class Visit>
inline void visit_cells(Shadow& shadow, std::uint64_t address, std::uint32_t bytes, Visit&& visit) {
  if (address % 4 == 0 && bytes % 4 == 0) {  // whole words of one page: accesses are aligned to their size
    auto& page = shadow.page(address);
    const auto word = static_cast<std::uint32_t>(address / 4 % page.kWords), count = bytes / 4;
    bool split = word + count > page.kWords;
    for (std::uint32_t i = 0; i < count && !split; ++i) split = page.split[word + i];
    if (!split) [[likely]] {
      for (std::uint32_t i = 0; i < count; ++i) visit(page.words[word + i], i * 4, 4u);
      return;
    }
  }
  for (std::uint32_t offset = 0; offset < bytes;) {
    const std::uint64_t at = address + offset;
    auto& page = shadow.page(at);
    const auto word = static_cast<std::uint32_t>(at / 4 % page.kWords);
    const auto first = static_cast<std::uint32_t>(at % 4);
    const std::uint32_t width = bytes - offset < 4 - first ? bytes - offset : 4 - first;
    if (width == 4 && !page.split[word]) [[likely]] {
      visit(page.words[word], offset, 4u);
    } else {
      auto* cells = page.split_word(word);
      bool reset = width == 4;
      for (std::uint32_t i = 0; i < width; ++i) reset &= visit(cells[first + i], offset + i, 1u);
      if (reset) {
        page.words[word] = cells[0];
        page.split[word] = false;
      }
    }
    offset += width;
  }
}

}  // namespace emulator
