#pragma once

#include <sstream>
#include <stdexcept>
#include <string>
#include <utility>

namespace dino {

/// The base of everything this library throws. `what()` is one line: where, the rule, what was found instead.
class Error : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

/// Wrong use: a flag, a configuration, a shape. The program ends with exit code 2.
class UsageError : public Error {
 public:
  using Error::Error;
};

/// Unusable input data: a missing folder, an unreadable image, nothing to train on. Exit code 3.
class DataError : public Error {
 public:
  using Error::Error;
};

/// A file whose contents break its format or do not fit the network. Exit code 2.
class FormatError : public Error {
 public:
  using Error::Error;
};

/// Training diverged or collapsed. Exit code 4.
class DivergedError : public Error {
 public:
  using Error::Error;
};

/// Joins its arguments into one string with operator<<.
template <class... Args>
std::string str(Args&&... args) {
  std::ostringstream out;
  (out << ... << std::forward<Args>(args));
  return out.str();
}

/// Throws `E` with the joined message if `condition` does not hold. The message is built only then.
template <class E = Error, class... Args>
void check(bool condition, Args&&... args) {
  if (!condition) throw E(str(std::forward<Args>(args)...));
}

}  // namespace dino
