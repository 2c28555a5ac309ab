#pragma once

#include "augment/dataset.h"
#include "train/trainer.h"

namespace dino {

/// Trains from what lies in `config.out` to the end of the schedule, or until a signal asks to stop: checkpoints, log,
/// progress and scores included. Returns the program's exit code: 0, or 75, 130 or 143 after a signal, with the state
/// saved. Throws DivergedError after too many steps with a non-finite loss or gradient, with the state before them saved.
int run_session(const TrainConfig& config);

}  // namespace dino
