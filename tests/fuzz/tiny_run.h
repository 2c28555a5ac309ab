#pragma once

#include <memory>

#include "tests/augment/fixtures.h"
#include "train/trainer.h"

namespace dino::fuzz {

/// The smallest run that has everything: its checkpoint is a few KB.
inline TrainConfig tiny_config(const std::string& data) {
  TrainConfig config;
  config.data = data;
  config.arch = "vit_tiny";
  config.patch_size = 4;
  config.embed_dim = 4;
  config.depth = 1;
  config.heads = 1;
  config.mlp_ratio = 1;
  config.out_dim = 4;
  config.head_hidden_dim = 4;
  config.head_bottleneck_dim = 2;
  config.head_layers = 1;
  config.batch_size = 2;
  config.epochs = 2;
  config.warmup_epochs = 1;
  config.augment.global_crops_size = 8;
  config.augment.local_crops_size = 4;
  config.augment.local_crops_number = 1;
  config.device = "cpu";
  config.precision = "f32";
  config.threads = config.num_workers = 1;
  return config;
}

/// A trainer of that run, made once for the process.
inline Trainer& tiny_trainer() {
  struct Run {
    fixtures::TemporaryFolder folder;
    std::unique_ptr<Dataset> dataset;
    std::unique_ptr<Trainer> trainer;
    Run() {
      for (const char* name : {"a.ppm", "b.ppm", "c.ppm", "d.ppm"}) folder.write(name, fixtures::pnm(fixtures::pattern(9, 8)));
      dataset = Dataset::open(folder.path());
      trainer = std::make_unique<Trainer>(tiny_config(folder.path()), *dataset);
    }
  };
  static Run run;
  return *run.trainer;
}

}  // namespace dino::fuzz
