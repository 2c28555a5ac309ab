#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>

#include "train/trainer.h"

/// What is kept of a step whose loss or gradient was not finite, so that `train --replay` can repeat it.
namespace dino {

inline constexpr const char* kBadStepFile = "bad_step.json";
inline constexpr const char* kBadStepState = "bad_step.safetensors";

/// Writes kBadStepFile to the run's folder: number of the step, its images and random keys, schedules, and which gradients and parameters
/// were not finite. And kBadStepState: with `unchanged`, no step has changed the networks since, and they are the state before it; otherwise (a
/// GPU is one step ahead) it is the run's last checkpoint, if there is one, which will be overwritten soon.
void write_bad_step(Trainer& trainer, const Dataset& dataset, const Trainer::Finished& bad, bool unchanged);

/// The schedules' values and the seed of a step.
nlohmann::json to_json(const StepPlan& plan);

/// A loss, also if it is "nan", "inf" or "-inf", which JSON has no numbers for.
nlohmann::json loss_json(double loss);

}  // namespace dino
