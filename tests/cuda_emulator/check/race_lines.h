#pragma once

#include "check/race_checker.h"

/// The quick paths of the race check: whole lines of cells whose words are all in the same situation.
namespace emulator {

template <class Shadow>
bool Checker<Shadow>::run_lines(std::uint64_t begin) {
  const unsigned bytes = access_.bytes, shift = bytes == 4 ? 0 : bytes == 8 ? 1 : 2;
  const bool compares = access_.kind == Access::Kind::write && access_.value && access_.memory;
  if (compares) {
    std::uintptr_t apart = 0;
    for (unsigned lane = 0; lane < kLanes; ++lane) {
      apart |= reinterpret_cast<std::uintptr_t>(access_.value[lane]) ^
               (reinterpret_cast<std::uintptr_t>(access_.value[0]) + lane * bytes);
      apart |= reinterpret_cast<std::uintptr_t>(access_.memory[lane]) ^
               (reinterpret_cast<std::uintptr_t>(access_.memory[0]) + lane * bytes);
    }
    if (apart != 0) return false;
  }
  for (unsigned i = 0; i < bytes / 4; ++i) {
    const unsigned size = kLineWords * 4, first_lane = i * kLineWords >> shift;
    Line<Record>& line = shadow_.line(begin + i * size);
    me_.who.thread = (warp_.index * kLanes + first_lane) & 1023u;
    bool done;
    if (access_.kind == Access::Kind::read) {
      done = read_line(line, shift);
    } else {
      done = write_line(
          line, shift,
          compares ? unlike_words(access_.value[0] + i * size, access_.memory[0] + i * size) : ~0u);
    }
    if (done) continue;
    for (std::uint32_t word = 0; word < kLineWords; ++word) {
      be_lane(first_lane + (word >> shift));
      visit_word(line, word, begin + i * size + word * 4, (word & ((1u << shift) - 1)) * 4);
    }
  }
  return true;
}

template <class Shadow>
bool Checker<Shadow>::line_ordered(const Line<Record>& line, unsigned part, unsigned shift) {
  if (!line.is_by_word(part)) {
    return part == kOtherWrite || whole_ordered(line.whole[part], line.shift[part], shift) == Order::yes;
  }
  bool ordered = true;
  for (const Record& record : store_.words(line, part)) ordered &= surely_ordered(record);
  return ordered;
}

template <class Shadow>
bool Checker<Shadow>::read_line(Line<Record>& line, unsigned shift) {
  if ((line.by_word & Line<Record>::kSplit) != 0) return false;
  if (!line_ordered(line, kWrite, shift) || !line_ordered(line, kOtherWrite, shift)) return false;
  if (line.is_by_word(kRead)) {
    if (!line_ordered(line, kRead, shift)) return false;
  } else if (const Record& before = line.whole[kRead]; !surely_ordered(before)) {
    if (line.is_by_word(kOtherRead)) return false;
    const Record& other = line.whole[kOtherRead];
    const Order past = whole_ordered(before, line.shift[kRead], shift);
    const Order other_past =
        other.time == 0 ? Order::no : whole_ordered(other, line.shift[kOtherRead], shift);
    if (past == Order::differs || other_past == Order::differs) return false;
    if (past == Order::no)
      store_.set_whole(line, kOtherRead, before, line.shift[kRead]);
    else if (other_past == Order::yes)
      line.whole[kOtherRead] = {};
  }
  store_.set_whole(line, kRead, me_, shift);
  return true;
}

template <class Shadow>
bool Checker<Shadow>::write_line(Line<Record>& line, unsigned shift, std::uint32_t changed) {
  if ((line.by_word & Line<Record>::kSplit) != 0) return false;
  for (unsigned part = 0; part < kCellParts; ++part)
    if (!line_ordered(line, part, shift)) return false;
  if (me_.who.strong && (line.is_by_word(kWrite) || !surely_ordered(line.whole[kWrite]))) return false;
  // Reads may be forgotten even where nothing changes: whoever is not ordered with them is not with this
  // write.
  line = {.whole = {me_, Record{}, Record{}},
          .shift = {static_cast<std::uint8_t>(shift), 0, 0},
          .same = ~changed,
          .words = line.words,
          .split = line.split};
  return true;
}

}  // namespace emulator
