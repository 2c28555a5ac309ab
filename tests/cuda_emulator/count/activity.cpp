#include "count/activity.h"

namespace emulator {

Activity& activity() {
  static Activity* counts = new Activity;  // never destroyed: read at the end of the process
  return *counts;
}

}  // namespace emulator
