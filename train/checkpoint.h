#pragma once

#include <cstdint>
#include <string>

#include "train/step.h"

namespace dino {

/// Writes everything a run needs to go on as one safetensors file, atomically: student.…, teacher.…, center, the
/// optimizer's state per parameter, and in the metadata the number of steps done, `config` (JSON text) and a checksum of all that. The file holds
/// no times and no paths: equal runs give equal bytes.
void save_checkpoint(const std::string& path, const TrainingState& state, int64_t step, const std::string& config);

/// How large that file will be, to a few KiB. The tensors may be on the device `plan`.
uint64_t checkpoint_bytes(const TrainingState& state);

/// Restores what `save_checkpoint` wrote and returns the number of steps done. Throws FormatError naming the file, the
/// tensor and what was expected if it does not fit the networks of `state` or has not the checksum that it was written with; nothing is
/// overwritten then.
int64_t load_checkpoint(const std::string& path, const TrainingState& state);

/// How many steps were done when `path` was written, from its header only. Throws FormatError for a file that is no checkpoint.
int64_t checkpoint_step(const std::string& path);

}  // namespace dino
