#include <iostream>

#include "count/roofline.h"

int main(int count, char** words) {
  const std::vector<std::string> arguments(words + 1, words + count);
  return emulator::roofline::run(arguments, std::cout, std::cerr);
}
