#pragma once

#include <cstdint>
#include <string>

namespace dino {

/// What the number behind an option may be.
struct Limit {
  const char* option;  ///< its name without dashes in front
  double low, high;
  bool above_low = false;  ///< `low` itself is not allowed
};

/// The limits of an option of any command; null if there are none. All commands take the same option within
/// the same limits: what memory is asked for by, and what is counted with, is checked here, before anything
/// is done with it.
const Limit* limit_of(const std::string& option);

/// The number that `text` is. Throws UsageError, naming the option, for text that is no finite number of this
/// type, or is beyond the option's limits.
template <class T>
T number_of(const std::string& option, const std::string& text);

extern template int number_of(const std::string&, const std::string&);
extern template int64_t number_of(const std::string&, const std::string&);
extern template uint64_t number_of(const std::string&, const std::string&);
extern template float number_of(const std::string&, const std::string&);
extern template double number_of(const std::string&, const std::string&);

/// `text` as it is named in a message: '' if empty, cut short if very long.
std::string shown_value(const std::string& text);

}  // namespace dino
