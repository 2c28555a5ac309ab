#pragma once

#include <string>
#include <vector>

#include "augment/dataset.h"
#include "train/options.h"

namespace dino {

/// One line of a recipe: what an option is set to, and why, in one sentence that ends with its source: the paper (Caron et al., 2021),
/// the reference implementation, a measurement in docs/, or arithmetic.
struct RecipeValue {
  std::string option, value, reason;
};

/// The names that --recipe knows, with commas.
std::string recipe_list();

/// The table of a recipe that does not depend on the data, so of all but auto. Throws UsageError for an unknown name, with those that exist.
std::vector<RecipeValue> recipe_table(const std::string& name);

/// Sets an option unless somebody has.
void choose(std::vector<Option>& options, const RecipeValue& value);

/// What auto knows of the images.
struct DataFacts {
  int64_t images = 0;
  int64_t side = 0;  ///< pixels of the shorter side: the median of some of them
};

/// Looks at up to 64 images, spread over the dataset. Throws DataError if none of them can be read.
DataFacts look_at(const Dataset& dataset);

/// Gives options that nobody has set their values from recipe `name`, with source "recipe" and the reason; `options` are those of `config`.
/// auto opens `config.data`, and what it chooses fits to what was set. If `config.out` holds a checkpoint, the values are those that its
/// run began with instead, whatever the recipe, with source "run". Says on stderr what was done. Throws UsageError for an unknown name, and
/// what `Dataset::open` throws.
void apply_recipe(const std::string& name, std::vector<Option>& options, TrainConfig& config);

/// The same for auto and known facts, without any file.
void apply_auto(const DataFacts& facts, std::vector<Option>& options, TrainConfig& config);

}  // namespace dino
