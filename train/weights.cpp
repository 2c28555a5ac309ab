#include "train/weights.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <nlohmann/json.hpp>
#include <set>
#include <sstream>

#include "augment/image_kind.h"

namespace dino {
namespace {

using nlohmann::json;

constexpr std::string_view kBackbone = "backbone.", kHead = "head.", kPredictor = "predictor.";

std::string first_few(const std::vector<std::string>& names) {
  constexpr size_t kShown = 3;
  std::string text;
  for (size_t i = 0; i < std::min(names.size(), kShown); ++i) text += (i ? ", " : "") + names[i];
  if (names.size() > kShown) text += str(" and ", names.size() - kShown, " more");
  return text;
}

/// Tensors that belong to other uses of the same network: nobody misses them.
bool ignorable(std::string_view name) {
  return name.ends_with("num_batches_tracked") || name.starts_with("pooler.") || name.starts_with("fc.") ||
         name.starts_with(kHead) || name.starts_with(kPredictor) || name.starts_with("classifier.");
}

/// A tensor inside a block that the network does not have changes what the network computes.
bool inside_network(std::string_view name) {
  return name.starts_with("blocks.") || name.starts_with("layer") || name.starts_with("stem.");
}

/// "head.weight" is a classifier's; only these are a projection head of DINO.
bool has_dino_head(const TensorFile& file) {
  return std::any_of(file.tensors.begin(), file.tensors.end(), [](const NamedTensor& t) {
    return t.name.starts_with("head.mlp.") || t.name.starts_with("head.last_layer.");
  });
}

bool has_predictor(const TensorFile& file) {
  return std::any_of(file.tensors.begin(), file.tensors.end(),
                     [](const NamedTensor& t) { return t.name.starts_with(kPredictor); });
}

std::vector<int64_t> extents(const Shape& shape) {
  return {shape.extent.begin(), shape.extent.begin() + shape.rank};
}

void copy_values(const NamedTensor& source, const Tensor& target) {
  if (target.dtype() == Dtype::f64) {
    copy_from_host(to_doubles(source).data(), target.view());
  } else {
    copy_from_host(to_floats(source).data(), target.view());
  }
}

void check_shape(const NamedTensor& tensor, const ParameterStore::Entry& entry) {
  const std::vector<int64_t> expected = extents(entry.shape);
  if (tensor.shape == expected) return;
  const bool of_images = expected.size() == 4 && tensor.shape.size() == 4 && tensor.shape[0] == expected[0] && tensor.shape[1] != expected[1];
  check<FormatError>(!of_images, "weights: ", quote(tensor.name), ": made for images of ", tensor.shape.size() > 1 ? tensor.shape[1] : 0,
                     " channels, these have ", expected.size() > 1 ? expected[1] : 0, "; use --channels ", tensor.shape.size() > 1 ? tensor.shape[1] : 0,
                     " with such images, or no weights");
  const bool head = entry.name.starts_with(kHead) || entry.name.starts_with(kPredictor);
  const char* advice =
      head ? "give the --out-dim and the other options of the head that these weights were made with"
           : "give the --arch, --patch-size, crop size and other options of the network that these "
             "weights were made with";
  throw FormatError(str("weights: ", quote(tensor.name), ": the network has ", shape_text(expected),
                        ", the file ", shape_text(tensor.shape), "; ", advice));
}

/// The number in a configuration, which may be written as a text; 0 and absent mean "not said".
std::optional<double> number(const json& config, const char* key) {
  const auto found = config.find(key);
  if (found == config.end() || found->is_null()) return std::nullopt;
  double value = 0;
  if (found->is_number()) {
    value = found->get<double>();
  } else {
    check<FormatError>(found->is_string(), "weights: metadata: config: ", key, ": expected a number");
    std::istringstream text(found->get<std::string>());
    if (text.str().empty()) return std::nullopt;
    check<FormatError>(static_cast<bool>(text >> value), "weights: metadata: config: ", key,
                       ": expected a number, found ", quote(text.str()));
  }
  return value > 0 ? std::optional(value) : std::nullopt;
}

std::optional<int64_t> integer(const json& config, const char* key) {
  const std::optional<double> value = number(config, key);
  if (!value) return std::nullopt;
  check<FormatError>(*value == std::floor(*value) && *value < 1e9, "weights: metadata: config: ", key,
                     ": expected a whole number, found ", *value);
  return static_cast<int64_t>(*value);
}

/// Numbers as an array or as a text with commas.
template <class T>
std::vector<T> numbers(const json& config, const char* key) {
  std::vector<T> values;
  const auto found = config.find(key);
  if (found == config.end() || found->is_null()) return values;
  if (found->is_string()) {
    std::istringstream text(found->get<std::string>());
    for (std::string part; std::getline(text, part, ',');) {
      std::istringstream one(part);
      T value{};
      check<FormatError>(static_cast<bool>(one >> value), "weights: metadata: config: ", key,
                         ": expected numbers, found ", quote(text.str()));
      values.push_back(value);
    }
    return values;
  }
  check<FormatError>(found->is_array(), "weights: metadata: config: ", key, ": expected numbers");
  for (const json& value : *found) {
    check<FormatError>(value.is_number(), "weights: metadata: config: ", key, ": expected numbers");
    values.push_back(value.get<T>());
  }
  return values;
}

/// The type that the network's images had; none means 8 bits, as before there were others.
SampleType sample_type_of(const std::string& name) {
  const auto type = sample_type_named(name);
  check<FormatError>(type || name == "auto", "weights: metadata: config: pixel-type: expected uint8, uint16 or float32, found ", quote(name));
  return type.value_or(SampleType::uint8);
}

BackboneRecipe from_configuration(const json& config) {
  BackboneRecipe recipe;
  BackboneConfig& backbone = recipe.backbone;
  backbone.arch = config.value("arch", backbone.arch);
  backbone.patch_size = integer(config, "patch-size").value_or(backbone.patch_size);
  backbone.image_size = integer(config, "global-crops-size").value_or(backbone.image_size);
  backbone.channels = integer(config, "channels").value_or(backbone.channels);
  backbone.embed_dim = integer(config, "embed-dim");
  backbone.depth = integer(config, "depth");
  backbone.heads = integer(config, "heads");
  backbone.mlp_ratio = number(config, "mlp-ratio");
  if (const auto gelu = config.find("gelu"); gelu != config.end()) {  // older ones know only the exact form
    check<FormatError>(gelu->is_string(), "weights: metadata: config: gelu: expected a name");
    backbone.gelu = gelu_named(gelu->get<std::string>());
  }
  if (auto widths = numbers<int64_t>(config, "conv-widths"); !widths.empty())
    backbone.conv_widths = std::move(widths);
  backbone.conv_pool = integer(config, "conv-pool");
  recipe.image_size = backbone.image_size;
  if (const auto type = config.find("pixel-type"); type != config.end() && type->is_string()) recipe.samples = sample_type_of(type->get<std::string>());
  recipe.mean = numbers<float>(config, "mean");
  recipe.deviation = numbers<float>(config, "std");
  return recipe;
}

json configuration_of(const WeightsFile& file) {
  const auto found = file.tensors.metadata.find("config");
  if (found == file.tensors.metadata.end()) return json();
  const json config = json::parse(found->second, nullptr, false);
  check<FormatError>(config.is_object(), "weights: metadata: config: expected a JSON object");
  check<FormatError>(!config.contains("arch") || config["arch"].is_string(),
                     "weights: metadata: config: arch: expected a name");
  return config;
}

const NamedTensor* find_with_rank(const TensorFile& file, std::string_view name, size_t rank) {
  const NamedTensor* tensor = file.find(name);
  return tensor && tensor->shape.size() == rank ? tensor : nullptr;
}

int64_t count_blocks(const TensorFile& file) {
  int64_t depth = 0;
  while (file.find(str("blocks.", depth, ".norm1.weight"))) ++depth;
  return depth;
}

/// Whether the tensors are those of a plain vision transformer; patch, channels and the size of its position
/// table are then in `recipe`, its other dimensions in `size`.
bool read_vit_shapes(const TensorFile& file, BackboneConfig& recipe, BackboneConfig& size) {
  const NamedTensor* patches = find_with_rank(file, "patch_embed.proj.weight", 4);
  const NamedTensor* positions = find_with_rank(file, "pos_embed", 3);
  const NamedTensor* fc1 = find_with_rank(file, "blocks.0.mlp.fc1.weight", 2);
  if (!patches || !positions || !fc1) return false;
  const auto grid =
      static_cast<int64_t>(std::lround(std::sqrt(static_cast<double>(positions->shape[1] - 1))));
  if (grid < 1 || grid * grid + 1 != positions->shape[1] || patches->shape[2] != patches->shape[3])
    return false;
  recipe.patch_size = patches->shape[2];
  recipe.channels = patches->shape[1];
  recipe.image_size = grid * recipe.patch_size;
  size.embed_dim = patches->shape[0];
  size.depth = count_blocks(file);
  size.mlp_ratio = static_cast<double>(fc1->shape[0]) / static_cast<double>(patches->shape[0]);
  return true;
}

/// Whether the tensors are those of a residual network as torchvision builds it; its name and channels are then in `recipe`.
bool read_resnet_shapes(const TensorFile& file, BackboneConfig& recipe) {
  const NamedTensor* stem = find_with_rank(file, "conv1.weight", 4);
  if (!stem || stem->shape[2] != 7 || stem->shape[3] != 7) return false;
  std::array<int64_t, 4> blocks{};
  for (size_t stage = 0; stage < blocks.size(); ++stage)
    while (file.find(str("layer", stage + 1, '.', blocks[stage], ".conv1.weight"))) ++blocks[stage];
  const std::string name = resnet_named(blocks, file.find("layer1.0.conv3.weight") != nullptr);
  if (name.empty()) return false;
  recipe.arch = name;
  recipe.channels = stem->shape[1];
  return true;
}

BackboneRecipe from_shapes(const WeightsFile& file, const BackboneOverrides& overrides) {
  constexpr int64_t kHeadDim = 64;  // of every published vision transformer
  BackboneRecipe recipe;
  BackboneConfig size;
  if (!overrides.arch && read_resnet_shapes(file.tensors, recipe.backbone)) return recipe;
  const bool vit = read_vit_shapes(file.tensors, recipe.backbone, size);
  check<UsageError>(vit || overrides.arch,
                    "weights: these are not the tensors of a plain vision transformer or of a residual network (found ",
                    file.tensors.tensors.empty() ? "none" : quote(file.tensors.tensors.front().name),
                    "); give --arch and the options that the network was made with");
  recipe.image_size = recipe.backbone.image_size;
  if (overrides.arch) return recipe;
  const std::map<int64_t, std::string> names = {{192, "vit_tiny"}, {384, "vit_small"}, {768, "vit_base"}};
  const auto name = names.find(*size.embed_dim);
  recipe.backbone.arch = name == names.end() ? "vit_small" : name->second;
  recipe.backbone.embed_dim = size.embed_dim;
  recipe.backbone.depth = size.depth;
  recipe.backbone.mlp_ratio = size.mlp_ratio;
  check<UsageError>(overrides.heads || *size.embed_dim % kHeadDim == 0,
                    "weights: the tensors do not tell how many heads a ", *size.embed_dim,
                    "-dimensional network has; give --heads");
  if (!overrides.heads) recipe.backbone.heads = *size.embed_dim / kHeadDim;
  return recipe;
}

template <class T>
void override_with(T& value, const auto& given) {
  if (given) value = *given;
}

void apply_overrides(BackboneRecipe& recipe, const BackboneOverrides& overrides) {
  BackboneConfig& backbone = recipe.backbone;
  if (overrides.arch && *overrides.arch != backbone.arch) {
    // Dimensions that were said of another architecture say nothing about this one.
    backbone.embed_dim = backbone.depth = backbone.heads = backbone.conv_pool = std::nullopt;
    backbone.mlp_ratio = std::nullopt;
    backbone.conv_widths = std::nullopt;
  }
  override_with(backbone.arch, overrides.arch);
  override_with(backbone.patch_size, overrides.patch_size);
  override_with(backbone.channels, overrides.channels);
  override_with(backbone.embed_dim, overrides.embed_dim);
  override_with(backbone.depth, overrides.depth);
  override_with(backbone.heads, overrides.heads);
  override_with(backbone.mlp_ratio, overrides.mlp_ratio);
  if (overrides.gelu) backbone.gelu = gelu_named(*overrides.gelu);
  override_with(backbone.conv_widths, overrides.conv_widths);
  override_with(backbone.conv_pool, overrides.conv_pool);
  override_with(recipe.image_size, overrides.image_size);
  override_with(recipe.mean, overrides.mean);
  override_with(recipe.deviation, overrides.deviation);
  apply_pixel_type(recipe, overrides);
}

BackboneRecipe random_recipe(const BackboneOverrides& overrides) {
  BackboneRecipe recipe;
  apply_overrides(recipe, overrides);
  recipe.backbone.image_size = recipe.image_size;
  return recipe;
}

}  // namespace

void apply_pixel_type(BackboneRecipe& recipe, const BackboneOverrides& overrides) {
  if (!overrides.pixel_type) return;
  const auto type = sample_type_named(*overrides.pixel_type);
  check<UsageError>(type.has_value(), "--pixel-type ", *overrides.pixel_type, " is not known (known: uint8, uint16, float32)");
  recipe.samples = *type;
}

std::string MatchReport::text() const {
  std::string text = str(matched, " of ", wanted, " tensors matched");
  if (!missing.empty()) text += str("; missing in the file: ", first_few(missing));
  if (!unexpected.empty()) text += str("; not used: ", first_few(unexpected));
  return text;
}

namespace {

/// A parameter and the tensor that it gets its values from.
struct Match {
  size_t entry;
  const NamedTensor* tensor;
};

/// What belongs to what; `store` need not have its memory yet. Throws what `apply_weights` throws.
std::vector<Match> match(const ParameterStore& store, const WeightsFile& file, bool with_head, bool allow_partial, MatchReport& report) {
  const bool head = with_head && has_dino_head(file.tensors);
  const bool predictor = with_head && has_predictor(file.tensors);
  std::map<std::string_view, const NamedTensor*> tensors;
  for (const NamedTensor& tensor : file.tensors.tensors) tensors[tensor.name] = &tensor;

  std::vector<Match> matches;
  std::set<std::string_view> used;
  int backbone_matches = 0;
  for (size_t i = 0; i < store.entries().size(); ++i) {
    const ParameterStore::Entry& entry = store.entries()[i];
    std::string_view name = entry.name;
    if ((name.starts_with(kHead) && !head) || (name.starts_with(kPredictor) && !predictor)) continue;
    if (name.starts_with(kBackbone)) name.remove_prefix(kBackbone.size());
    ++report.wanted;
    const auto found = tensors.find(name);
    if (found == tensors.end()) {
      report.missing.emplace_back(name);
      continue;
    }
    check_shape(*found->second, entry);
    matches.push_back({i, found->second});
    used.insert(found->first);
    ++report.matched;
    backbone_matches += entry.name.starts_with(kBackbone) ? 1 : 0;
  }
  bool strange = false;
  for (const NamedTensor& tensor : file.tensors.tensors) {
    if (used.contains(tensor.name) || ignorable(tensor.name)) continue;
    report.unexpected.push_back(tensor.name);
    strange = strange || inside_network(tensor.name);
  }
  check<UsageError>(backbone_matches > 0, "weights: none of the backbone's tensors is in the file (",
                    report.text(), "); give the --arch that these weights were made with");
  check<UsageError>(allow_partial || (report.missing.empty() && !strange), "weights: ", report.text(),
                    "; give the --arch, --depth, … that these weights were made with, or --allow-partial");
  return matches;
}

void copy_all(const std::vector<Match>& matches, ParameterStore& store) {
  for (const auto& [entry, tensor] : matches) copy_values(*tensor, store.tensor(static_cast<int>(entry)));
  store.values_changed();
}

/// Throws UsageError for dimensions that no network has: they may come from a file, and memory is asked for by them.
void check_recipe(const BackboneRecipe& recipe) {
  constexpr double kWidest = 1 << 16, kDeepest = 1000, kLargestImage = 8192;
  const auto within = [](const char* name, auto value, double low, double high) {
    check<UsageError>(static_cast<double>(value) >= low && static_cast<double>(value) <= high, "--", name, " ", value, " must lie between ", low, " and ", high);
  };
  const BackboneConfig& backbone = recipe.backbone;
  within("patch-size", backbone.patch_size, 1, 4096);
  within("channels", backbone.channels, 1, 4096);
  within("global-crops-size", backbone.image_size, 1, kLargestImage);
  within("image-size", recipe.image_size, 1, kLargestImage);
  if (backbone.embed_dim) within("embed-dim", *backbone.embed_dim, 1, kWidest);
  if (backbone.depth) within("depth", *backbone.depth, 1, kDeepest);
  if (backbone.heads) within("heads", *backbone.heads, 1, kWidest);
  if (backbone.mlp_ratio) within("mlp-ratio", *backbone.mlp_ratio, 0, 1000);
  if (backbone.conv_pool) within("conv-pool", *backbone.conv_pool, 1, 4096);
  for (const int64_t width : backbone.conv_widths.value_or(std::vector<int64_t>{})) within("conv-widths", width, 1, kWidest);
  for (const float mean : recipe.mean) check<UsageError>(std::isfinite(mean), "--mean ", mean, " must be finite");
  for (const float deviation : recipe.deviation) check<UsageError>(deviation > 0 && std::isfinite(deviation), "--std ", deviation, " must be positive");
}

}  // namespace

MatchReport apply_weights(ParameterStore& store, const WeightsFile& file, bool with_head,
                          bool allow_partial) {
  MatchReport report;
  copy_all(match(store, file, with_head, allow_partial, report), store);
  return report;
}

BackboneRecipe infer_backbone(const WeightsFile& file, const BackboneOverrides& overrides) {
  const json config = configuration_of(file);
  BackboneRecipe recipe = config.is_object() ? from_configuration(config) : from_shapes(file, overrides);
  apply_overrides(recipe, overrides);
  check_recipe(recipe);
  return recipe;
}

LoadedBackbone load_backbone(const LoadOptions& options) {
  auto parameters = std::make_unique<ParameterStore>();
  if (options.path.empty()) {
    const BackboneRecipe recipe = random_recipe(options.overrides);
    check_recipe(recipe);
    Backbone backbone = make_backbone(*parameters, std::string(kBackbone), recipe.backbone);
    parameters->allocate(options.placement, options.seed, false);
    return {std::move(parameters), std::move(backbone), recipe, {}, true};
  }
  const WeightsFile file = load_weights(options.path, options.checkpoint_key);
  const BackboneRecipe recipe = infer_backbone(file, options.overrides);
  Backbone backbone = make_backbone(*parameters, std::string(kBackbone), recipe.backbone);
  // A small file must not cause a large allocation: whether it fits is asked first.
  MatchReport report;
  const std::vector<Match> matches = match(*parameters, file, false, options.allow_partial, report);
  parameters->allocate(options.placement, options.seed, false);
  copy_all(matches, *parameters);
  return {std::move(parameters), std::move(backbone), recipe, report, false};
}

}  // namespace dino
