#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "augment/image.h"
#include "engine/parameters.h"
#include "models/checkpoint_names.h"
#include "models/registry.h"

namespace dino {

/// How the tensors of a file and those of a network met.
struct MatchReport {
  int matched = 0, wanted = 0;
  std::vector<std::string> missing;     ///< the network has them, the file does not
  std::vector<std::string> unexpected;  ///< the file has them, the network does not

  /// "150 of 150 tensors matched", and the first few of those that did not.
  std::string text() const;
};

/// Copies the tensors of `file` into `store`, converted to its dtype. The store's names are
/// `backbone.<name>`, `head.<name>` and `predictor.<name>`, the file's `<name>`, `head.<name>` and
/// `predictor.<name>`. Head and predictor are filled if `with_head` and the file has them; otherwise they
/// stay as they are and are not counted. Throws FormatError for a tensor of another shape, and UsageError if
/// no tensor of the backbone matches, or, unless `allow_partial`, if some are missing or the file has more
/// blocks or layers than the network.
MatchReport apply_weights(ParameterStore& store, const WeightsFile& file, bool with_head, bool allow_partial);

/// What the user said about a network. Nothing means: as the weights say.
struct BackboneOverrides {
  std::optional<std::string> arch{};
  std::optional<int64_t> patch_size{}, channels{}, embed_dim{}, depth{}, heads{}, conv_pool{};
  std::optional<double> mlp_ratio{};
  std::optional<std::string> gelu{};
  std::optional<std::vector<int64_t>> conv_widths{};
  std::optional<int64_t> image_size{};  ///< pixels of the images that are shown to the network
  std::optional<std::vector<float>> mean{}, deviation{};
  std::optional<std::string> pixel_type{};
};

/// A backbone and the images it wants to see.
struct BackboneRecipe {
  BackboneConfig backbone{};
  int64_t image_size = 224;                ///< pixels of an image's side at evaluation
  std::vector<float> mean{}, deviation{};  ///< empty: the defaults for that number of channels
  SampleType samples = SampleType::uint8;  ///< of the images
};

/// The network that `file` was made by: from the configuration in the metadata of our own checkpoints, else
/// from the shapes of a vision transformer's tensors (with dim / 64 heads). What the user said wins. Throws
/// UsageError if it cannot be known without --arch or --heads, FormatError for metadata that make no sense.
BackboneRecipe infer_backbone(const WeightsFile& file, const BackboneOverrides& overrides);

/// Takes the type of pixels from `overrides` if it is said there. Throws UsageError for one that does not exist.
void apply_pixel_type(BackboneRecipe& recipe, const BackboneOverrides& overrides);

/// A backbone without a head, with its parameters, ready for evaluation.
struct LoadedBackbone {
  std::unique_ptr<ParameterStore> parameters;
  Backbone backbone;
  BackboneRecipe recipe;
  MatchReport match;
  bool random = false;  ///< no weights were given
};

struct LoadOptions {
  std::string path{};  ///< empty: random weights
  std::string checkpoint_key = "teacher";
  BackboneOverrides overrides{};
  bool allow_partial = false;
  uint64_t seed = 0;  ///< of random weights
  Placement placement{};
};

/// Reads a file of weights, or makes random ones. Throws what `load_weights`, `infer_backbone` and
/// `apply_weights` throw.
LoadedBackbone load_backbone(const LoadOptions& options);

}  // namespace dino
