#pragma once

#include <sys/wait.h>

#include <catch2/catch.hpp>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <string>

#include "train/config.h"

namespace dino::testing {

namespace fs = std::filesystem;

/// A folder that is gone at the end of the test.
struct Folder {
  fs::path path;
  Folder() {
    std::string name = (fs::temp_directory_path() / "dino_test_XXXXXX").string();
    REQUIRE(mkdtemp(name.data()) != nullptr);
    path = name;
  }
  ~Folder() {
    std::error_code ignored;
    fs::remove_all(path, ignored);
  }
  std::string operator/(const std::string& name) const { return (path / name).string(); }
};

/// `count` small colour images in `classes` class folders; class c has stripes of its own width.
inline std::string make_images(const Folder& folder, int count, int classes = 2, const std::string& name = "images") {
  for (int i = 0; i < count; ++i) {
    const int c = i % classes;
    const fs::path place = folder.path / name / ("class" + std::to_string(c));
    fs::create_directories(place);
    std::ofstream file(place / ("image" + std::to_string(1000 + i) + ".ppm"), std::ios::binary);
    file << "P6\n24 20\n255\n";
    for (int y = 0; y < 20; ++y)
      for (int x = 0; x < 24; ++x)
        for (int channel = 0; channel < 3; ++channel)
          file.put(static_cast<char>((((x + i) / (2 + 3 * c)) % 2 * 150 + 13 * i + 40 * channel + 3 * y) & 255));
  }
  return folder / name;
}

/// A run that takes milliseconds per step.
inline TrainConfig small_config(const std::string& data, const std::string& out) {
  TrainConfig config;
  config.data = data;
  config.out = out;
  config.arch = "vit_tiny";
  config.patch_size = 4;
  config.embed_dim = 24;
  config.depth = 2;
  config.heads = 3;
  config.out_dim = 24;
  config.head_hidden_dim = 32;
  config.head_bottleneck_dim = 8;
  config.batch_size = 4;
  config.epochs = 3;
  config.warmup_epochs = 1;
  config.augment.global_crops_size = 16;
  config.augment.local_crops_size = 8;
  config.augment.local_crops_number = 2;
  config.log_every = 1;
  config.threads = 2;
  config.num_workers = 2;
  return config;
}

/// The same run as arguments of the program.
inline std::string small_arguments(const std::string& data, const std::string& out) {
  return "train --data " + data + " --out " + out +
         " --arch vit_tiny --patch-size 4 --embed-dim 24 --depth 2 --heads 3 --out-dim 24 --head-hidden-dim 32"
         " --head-bottleneck-dim 8 --batch-size 4 --epochs 3 --warmup-epochs 1 --global-crops-size 16"
         " --local-crops-size 8 --local-crops-number 2 --log-every 1 --threads 2 --num-workers 2";
}

inline std::string read_file(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  std::ostringstream all;
  all << file.rdbuf();
  return all.str();
}

struct Outcome {
  int code;  ///< exit code, or 128 + signal
  std::string out, err;
};

/// Runs the program and waits.
inline Outcome run_program(const std::string& arguments) {
  const Folder folder;
  const std::string command = std::string(DINO_PROGRAM) + " " + arguments + " >" + (folder / "out") + " 2>" + (folder / "err");
  const int status = std::system(command.c_str());
  const int code = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
  return {code, read_file(folder / "out"), read_file(folder / "err")};
}

}  // namespace dino::testing
