#pragma once

#include <CLI/App.hpp>
#include <memory>
#include <string>
#include <vector>

#include "engine/run.h"
#include "train/evaluate/features.h"
#include "train/weights.h"

namespace dino {

/// What all commands let the user say about a network, its weights, and the images that it is shown.
struct NetworkOptions {
  LoadOptions load;
  std::vector<int64_t> conv_widths;
  std::vector<float> mean, deviation;
  int64_t batch_size = 64;
  int threads = 0;
  std::string device = "auto", precision = "f32";
  bool json = false;

  /// Where the network computes. Throws UsageError if that cannot be.
  Context make_context() const { return Context(threads, device_named(device)); }

  /// The network, with what was loaded said on stderr.
  LoadedBackbone load_network() const;
  /// `--arch pixels`: no network, but the pixels themselves.
  bool pixels() const { return load.overrides.arch == "pixels"; }
  /// Images as `recipe` wants them, and the batch size.
  FeatureConfig feature_config(const BackboneRecipe& recipe) const;
  /// The same for pixels, which are looked at in 32 x 32 unless --image-size says otherwise.
  FeatureConfig pixel_config() const;
};

/// Adds --weights, --checkpoint-key, --arch, --patch-size and the like.
void add_network_options(CLI::App& command, NetworkOptions& options);

/// Adds --device and --precision.
void add_device_options(CLI::App& command, NetworkOptions& options);

/// Adds --image-size, --batch-size, --threads, --device and --precision.
void add_image_options(CLI::App& command, NetworkOptions& options);

/// Accepts options of the reference implementation that have no meaning here, with a note on stderr.
void add_ignored_options(CLI::App& command, const std::vector<std::string>& names);

/// Training and validation images of an evaluation: --train and --val, or --data-path for both.
struct EvaluationData {
  std::string train, val, data_path;

  /// Fills in `train` and `val` from `data_path`. Throws UsageError if one is missing.
  void resolve();
};
void add_data_options(CLI::App& command, EvaluationData& data);

/// Opens images that must have labels. Throws DataError, or UsageError if there are none.
std::unique_ptr<Dataset> open_labelled(const std::string& path, ImageKind kind);

/// Opens images and says how many there are.
std::unique_ptr<Dataset> open_images(const std::string& path, ImageKind kind);

/// Prints images done on stderr if that is a terminal.
Progress progress_of(const std::string& what);

/// One line per unreadable image and per note, on stderr.
void log_lines(const std::string& prefix, const std::vector<std::string>& lines);

/// Features of `dataset`, with progress, and with unreadable images listed.
FeatureSet features_of(Context& context, const LoadedBackbone& network, const Dataset& dataset,
                       const FeatureConfig& config, const std::string& what);

/// A network without weights gets statistics of batch norm from `dataset`.
void calibrate_if_random(Context& context, LoadedBackbone& network, const Dataset& dataset,
                         const FeatureConfig& config);

}  // namespace dino
