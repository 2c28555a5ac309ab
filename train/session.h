#pragma once

#include "augment/dataset.h"
#include "train/trainer.h"

namespace dino {

/// Trains from what lies in `config.out` to the end of the schedule, or until a signal asks to stop: checkpoints, log,
/// progress and scores included. Returns the program's exit code: 0, or 75, 130 or 143 after a signal, with the state
/// saved. Throws, also with the state saved: DivergedError after too many steps with a non-finite loss or gradient, and
/// for a collapse with `--on-collapse stop`; DataError when more images than `max_bad_fraction` cannot be read.
/// With `every_step`, progress shows each step instead of those that are logged.
int run_session(const TrainConfig& config, bool every_step = false);

}  // namespace dino
