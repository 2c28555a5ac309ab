#pragma once

/// The public header of the library dino_engine: training DINO, features, and everything below them.
///
///     #include <dino_engine.h>
///
///     const auto images = dino::Dataset::open("photos");
///     dino::TrainConfig config;
///     config.data = "photos";
///     dino::Trainer trainer(config, *images);
///     while (!trainer.finished()) trainer.train_step();
///     trainer.save("checkpoint.safetensors");

#include "augment/dataset.h"
#include "augment/evaluation_images.h"
#include "augment/loader.h"
#include "engine/npy.h"
#include "engine/ops.h"
#include "engine/parameters.h"
#include "engine/run.h"
#include "engine/safetensors.h"
#include "engine/tape.h"
#include "models/checkpoint_names.h"
#include "models/network.h"
#include "train/checkpoint.h"
#include "train/config.h"
#include "train/evaluate/features.h"
#include "train/evaluate/knn.h"
#include "train/trainer.h"
#include "train/weights.h"
