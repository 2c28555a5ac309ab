#pragma once

#include "check/race_checker.h"

/// The quick paths of the race check: whole lines of cells that are all in the same situation.
namespace emulator {

template <class Shadow>
bool Checker<Shadow>::run_lines(std::uint64_t begin) {
  compares_ = access_.kind == Access::Kind::write && access_.value && access_.memory;
  if (compares_ && !(side_by_side(access_.value) && side_by_side(access_.memory))) return false;
  const auto shift = static_cast<unsigned>(std::countr_zero(access_.bytes));
  if (shift < 2) {
    for (unsigned i = 0; i < access_.bytes; ++i) {
      const std::uint64_t at = begin + i * kLineCells;
      Line<Record>& line = shadow_.line(at);
      const auto eighth = static_cast<std::uint32_t>(at % kLineBytes / kLineCells);
      run_line(store_.split(line, eighth, 0xffu << 8 * eighth), 1, shift, i * kLineCells, begin);
    }
    return true;
  }
  for (unsigned offset = 0; offset < access_.bytes * kLanes; offset += kLineBytes) {
    Line<Record>& line = shadow_.line(begin + offset);
    const std::uint32_t split = store_.split_words(line);
    if (split == 0) {
      run_line(line, 4, shift - 2, offset, begin);
    } else if (access_.kind != Access::Kind::read && split == ~0u && may_reset(line, offset, shift)) {
      store_.reset(line, me_, shift - 2, compares_ ? ~unlike_cells(4, offset) : 0);
    } else {
      for (std::uint32_t eighth = 0; eighth < 4; ++eighth) {
        Line<Record>& bytes = store_.split(line, eighth, 0xffu << 8 * eighth);
        run_line(bytes, 1, shift, offset + eighth * kLineCells, begin);
      }
    }
  }
  return true;
}

template <class Shadow>
bool Checker<Shadow>::side_by_side(const std::uint8_t* const* pointer) const {
  std::uintptr_t apart = 0;
  for (unsigned lane = 0; lane < kLanes; ++lane)
    apart |= reinterpret_cast<std::uintptr_t>(pointer[lane]) ^
             (reinterpret_cast<std::uintptr_t>(pointer[0]) + lane * access_.bytes);
  return apart == 0;
}

template <class Shadow>
void Checker<Shadow>::run_line(Line<Record>& line, unsigned width, unsigned shift, unsigned offset,
                               std::uint64_t begin) {
  be_lane(offset / access_.bytes);
  if (access_.kind == Access::Kind::read ? read_line(line, shift) : write_line(line, shift, width, offset))
    return;
  for (std::uint32_t cell = 0; cell < kLineCells; ++cell) {
    const unsigned at = offset + cell * width;
    be_lane(at / access_.bytes);
    if (width == 4)
      visit_cell<4>(line, cell, begin + at, at % access_.bytes);
    else
      visit_cell<1>(line, cell, begin + at, at % access_.bytes);
  }
}

/// Bit i: the units i differ.
template <class Unit>
std::uint32_t unlike(const std::uint8_t* a, const std::uint8_t* b) {
  Unit x[kLineCells], y[kLineCells];
  std::memcpy(x, a, sizeof x);
  std::memcpy(y, b, sizeof y);
  std::uint32_t mask = 0;
  for (std::uint32_t i = 0; i < kLineCells; ++i) mask |= static_cast<std::uint32_t>(x[i] != y[i]) << i;
  return mask;
}

template <class Shadow>
std::uint32_t Checker<Shadow>::unlike_cells(unsigned width, unsigned offset) const {
  const std::uint8_t *value = access_.value[0] + offset, *memory = access_.memory[0] + offset;
  return width == 4 ? unlike<std::uint32_t>(value, memory) : unlike<std::uint8_t>(value, memory);
}

template <class Shadow>
bool Checker<Shadow>::line_ordered(const Line<Record>& line, unsigned part, unsigned shift) {
  if (!line.is_by_cell(part)) {
    return part == kOtherWrite || whole_ordered(line.whole[part], line.shift[part], shift) == Order::yes;
  }
  bool ordered = true;
  for (const Record& record : store_.records(line, part)) ordered &= surely_ordered(record);
  return ordered;
}

template <class Shadow>
bool Checker<Shadow>::read_line(Line<Record>& line, unsigned shift) {
  if (!line_ordered(line, kWrite, shift) || !line_ordered(line, kOtherWrite, shift)) return false;
  if (line.is_by_cell(kRead)) {
    if (!line_ordered(line, kRead, shift)) return false;
  } else if (const Record& before = line.whole[kRead]; !surely_ordered(before)) {
    if (line.is_by_cell(kOtherRead)) return false;
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
bool Checker<Shadow>::may_write(const Line<Record>& line, unsigned shift) {
  for (unsigned part = 0; part < kCellParts; ++part)
    if (!line_ordered(line, part, shift)) return false;
  return !me_.who.strong || (!line.is_by_cell(kWrite) && surely_ordered(line.whole[kWrite]));
}

template <class Shadow>
bool Checker<Shadow>::may_reset(const Line<Record>& line, unsigned offset, unsigned shift) {
  bool may = true;
  for (std::uint32_t eighth = 0; eighth < 4 && may; ++eighth) {
    be_lane((offset + eighth * kLineCells) / access_.bytes);
    may = may_write(store_.bytes(line, eighth), shift);
  }
  be_lane(offset / access_.bytes);
  return may;
}

template <class Shadow>
bool Checker<Shadow>::write_line(Line<Record>& line, unsigned shift, unsigned width, unsigned offset) {
  if (!may_write(line, shift)) return false;
  // Reads may be forgotten even where nothing changes: whoever is not ordered with them is not with this
  // write.
  store_.reset(line, me_, shift, compares_ ? ~unlike_cells(width, offset) : 0);
  return true;
}

}  // namespace emulator
