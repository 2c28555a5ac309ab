#include "train/options.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "engine/mapped_file.h"
#include "train/limits.h"

namespace dino {
namespace {

using nlohmann::json;

[[noreturn]] void bad_value(const std::string& name, const std::string& text, const char* wanted) {
  throw UsageError(str("--", name, " ", shown_value(text), " is not ", wanted));
}

// One pair of functions per type of value: from text, and back to JSON. Text separates list elements by commas or blanks.

void parse(const std::string&, const std::string& text, std::string& value) { value = text; }

template <class T>
  requires(std::is_arithmetic_v<T> && !std::is_same_v<T, bool>)
void parse(const std::string& name, const std::string& text, T& value) {
  value = number_of<T>(name, text);
}

void parse(const std::string& name, const std::string& text, bool& value) {
  std::string lower = text;
  std::transform(lower.begin(), lower.end(), lower.begin(), [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
  if (lower == "on" || lower == "true" || lower == "1") value = true;
  else if (lower == "off" || lower == "false" || lower == "0") value = false;
  else bad_value(name, text, "a truth value (on, true, 1, off, false, 0)");
}

std::vector<std::string> split(const std::string& text) {
  std::vector<std::string> parts;
  std::string part;
  for (const char c : text + ",") {
    if (c != ',' && c != ' ') part += c;
    else if (!part.empty()) parts.push_back(std::exchange(part, {}));
  }
  return parts;
}

template <class T>
void parse(const std::string& name, const std::string& text, std::vector<T>& value) {
  std::vector<T> parsed;
  for (const std::string& part : split(text)) parse(name, part, parsed.emplace_back());
  value = std::move(parsed);
}

template <class T, size_t n>
void parse(const std::string& name, const std::string& text, std::array<T, n>& value) {
  const std::vector<std::string> parts = split(text);
  if (parts.size() != n) bad_value(name, text, "a pair of numbers");
  for (size_t i = 0; i < n; ++i) parse(name, parts[i], value[i]);
}

/// Floats are stored as the shortest decimal that reads back as the same float.
template <class T>
json shown(const T& value) {
  if constexpr (std::is_same_v<T, float>) return json::parse(str(value));
  else return json(value);
}

template <class T>
std::string list_text(const T& values) {
  std::string text;
  for (const auto& value : values) text += (text.empty() ? "" : ",") + shown(value).dump();
  return text;
}

template <class T>
json to_value(const T& value) {
  if constexpr (requires { value.begin(); } && !std::is_same_v<T, std::string>) return list_text(value);
  else return shown(value);
}

/// The text that `set` takes for a JSON value.
std::string text_of(const json& value) {
  if (value.is_string()) return value.get<std::string>();
  if (!value.is_array()) return value.dump();
  std::string text;
  for (const json& element : value) text += (text.empty() ? "" : ",") + text_of(element);
  return text;
}

class Builder {
 public:
  void group(std::string name) { group_ = std::move(name); }

  template <class T>
  void add(std::string name, T& value, std::string help, std::vector<std::string> aliases = {}) {
    Option option{.name = name, .aliases = std::move(aliases), .group = group_, .help = std::move(help), .max_values = 1, .set = {}, .get = {}};
    if constexpr (requires { value.begin(); } && !std::is_same_v<T, std::string>)
      option.max_values = requires { value.push_back({}); } ? kMostChannels : 2;
    option.truth_value = std::is_same_v<T, bool>;
    option.set = [name, &value](const std::string& text) { parse(name, text, value); };
    option.get = [&value] { return to_value(value); };
    options_.push_back(std::move(option));
  }

  std::vector<Option> take() { return std::move(options_); }

 private:
  std::string group_;
  std::vector<Option> options_;
};

void add_data(Builder& b, TrainConfig& c) {
  b.group("Data");
  b.add("data", c.data, "images to train on: a folder, a text file that lists images, .tar archives, IDX or CIFAR .bin files", {"data-path"});
  b.add("val", c.val, "labelled images: a k-NN score of the teacher goes to the log, and best.safetensors is the state with the highest");
  b.add("eval-every", c.eval_every, "epochs between scores: of k-NN with --val, else of view retrieval, which needs no labels; 0: each epoch with --val, else never");
  b.add("channels", c.channels, "channels of the images that the network sees: 3, 1 for grey, or up to 64 as the files have; 0: as the images have, 3 for those of 8 bits");
  b.add("pixel-type", c.pixel_type, "what a pixel's channel is: uint8, uint16, float32; auto: as the images have, uint8 if any of them is 8-bit gray or colour");
  b.add("mean", c.mean, "mean per channel for the normalisation, of whole numbers as shares of their largest (default: ImageNet's for 8-bit colour, 0.5 for 8-bit gray, else measured)");
  b.add("std", c.deviation, "standard deviation per channel (default: as of the mean)");
  b.add("shuffle", c.shuffle, "visit the images in a new random order each epoch; false keeps file order");
  b.add("fast-decode", c.fast_decode, "read a JPEG at 1/2, 1/4 or 1/8 of its size where all its crops are smaller: faster, nearly the same pixels");
  b.add("num-workers", c.num_workers, "threads that decode and augment; 0: one per processor");
}

void add_network(Builder& b, TrainConfig& c) {
  b.group("Network");
  b.add("arch", c.arch, "vit_tiny, vit_small, vit_base, resnet18 to resnet152, conv_small or hybrid_small");
  b.add("patch-size", c.patch_size, "pixels of a side of a patch");
  b.add("embed-dim", c.embed_dim, "width of the transformer; 0: the architecture's own");
  b.add("depth", c.depth, "number of blocks; 0: the architecture's own");
  b.add("heads", c.heads, "attention heads; 0: the architecture's own");
  b.add("mlp-ratio", c.mlp_ratio, "hidden width of the MLPs over embed-dim; 0: the architecture's own");
  b.add("gelu", c.gelu, "form of GELU: erf, which is exact, or tanh, its approximation");
  b.add("conv-widths", c.conv_widths, "channels of the stages of conv_small, with commas");
  b.add("conv-pool", c.conv_pool, "conv_small: the feature is the last map averaged to this many cells squared");
  b.add("out-dim", c.out_dim, "prototypes: outputs of the projection head");
  b.add("head-hidden-dim", c.head_hidden_dim, "hidden width of the projection head");
  b.add("head-bottleneck-dim", c.head_bottleneck_dim, "width of the normalised layer before the prototypes");
  b.add("head-layers", c.head_layers, "linear layers of the projection head before the prototypes");
  b.add("norm-last-layer", c.norm_last_layer, "keep the length of the prototypes at 1");
  b.add("use-bn-in-head", c.use_bn_in_head, "batch norm in the projection head");
  b.add("drop-path-rate", c.drop_path_rate, "stochastic depth of the student");
  b.add("init", c.init, "weights to start student and teacher from");
}

void add_method(Builder& b, TrainConfig& c) {
  b.group("Method");
  b.add("teacher", c.teacher, "where the teacher comes from: momentum, copy, previous-step, previous-epoch");
  b.add("momentum-teacher", c.momentum_teacher, "EMA momentum of the teacher at the start; rises by a cosine");
  b.add("momentum-teacher-end", c.momentum_teacher_end, "EMA momentum at the end");
  b.add("warmup-teacher-temp", c.warmup_teacher_temp, "teacher temperature at the start");
  b.add("teacher-temp", c.teacher_temp, "teacher temperature after its warm-up");
  b.add("warmup-teacher-temp-epochs", c.warmup_teacher_temp_epochs, "epochs of the temperature's warm-up");
  b.add("student-temp", c.student_temp, "student temperature");
  b.add("centering", c.centering, "subtract the running mean of its outputs from the teacher's");
  b.add("center-momentum", c.center_momentum, "momentum of that running mean");
  b.add("sinkhorn", c.sinkhorn, "iterations of Sinkhorn-Knopp instead of centering; 0: none");
  b.add("loss", c.loss, "ce (cross-entropy) or mse");
  b.add("predictor", c.predictor, "an MLP on top of the student's head only");
  b.add("predictor-hidden-dim", c.predictor_hidden_dim, "hidden width of the predictor");
}

void add_optimization(Builder& b, TrainConfig& c) {
  b.group("Optimization");
  b.add("optimizer", c.optimizer, "adamw, sgd or lars");
  b.add("lr", c.lr, "peak learning rate for a batch of 256; scales with the batch");
  b.add("min-lr", c.min_lr, "learning rate at the end; does not scale");
  b.add("warmup-epochs", c.warmup_epochs, "epochs of linear learning-rate warm-up (fractions allowed)");
  b.add("weight-decay", c.weight_decay, "weight decay at the start; follows a cosine");
  b.add("weight-decay-end", c.weight_decay_end, "weight decay at the end");
  b.add("layer-decay", c.layer_decay, "the learning rate of each block over that of the next one; 1: all learn alike. 0.65 to 0.9 spares what --init brought");
  b.add("clip-grad", c.clip_grad, "largest L2 norm of each tensor's gradient; 0: no clipping");
  b.add("batch-size", c.batch_size, "images per step", {"batch-size-per-gpu"});
  b.add("accumulate", c.accumulate, "micro-batches per step: less memory, same result (not with batch norm or --sinkhorn, where it could not be)");
  b.add("epochs", c.epochs, "passes over the data (fractions allowed)");
  b.add("freeze-last-layer", c.freeze_last_layer, "epochs during which the prototypes stay (fractions allowed)");
  b.add("freeze-backbone-epochs", c.freeze_backbone_epochs, "epochs during which only the projection head learns, as after --init (fractions allowed)");
  b.add("steps", c.steps, "stop after so many steps of the schedule; 0: at its end");
  b.add("max-bad-fraction", c.max_bad_fraction, "share of all images that may be unreadable; they are listed in bad_images.txt, and others take their places");
  b.add("max-bad-steps", c.max_bad_steps, "steps with a non-finite loss or gradient in a row that are skipped before giving up");
  b.add("on-collapse", c.on_collapse, "what to do when the run collapses: warn, or stop with the state saved and exit code 4");
}

void add_crops(Builder& b, TrainConfig& c) {
  AugmentConfig& a = c.augment;
  b.group("Crops");
  b.add("global-crops-size", a.global_crops_size, "pixels of the two global crops");
  b.add("local-crops-size", a.local_crops_size, "pixels of the local crops");
  b.add("local-crops-number", a.local_crops_number, "local crops per image; 0: no multi-crop");
  b.add("global-crops-scale", a.global_crops_scale, "smallest and largest share of the image's area in a global crop");
  b.add("local-crops-scale", a.local_crops_scale, "the same for local crops");
  b.add("crops-ratio", a.ratio, "smallest and largest aspect ratio of crops");
  b.add("flip-prob", a.flip_prob, "probability of a horizontal flip");
  b.add("jitter-prob", a.jitter_prob, "probability of colour jitter");
  b.add("brightness", a.brightness, "strength of brightness jitter");
  b.add("contrast", a.contrast, "strength of contrast jitter");
  b.add("saturation", a.saturation, "strength of saturation jitter");
  b.add("hue", a.hue, "strength of hue jitter");
  b.add("grayscale-prob", a.grayscale_prob, "probability of grey");
  b.add("blur-prob-global1", a.blur_prob_global1, "probability of blur, first global crop");
  b.add("blur-prob-global2", a.blur_prob_global2, "probability of blur, second global crop");
  b.add("blur-prob-local", a.blur_prob_local, "probability of blur, local crops");
  b.add("blur-sigma", a.blur_sigma, "smallest and largest radius of the blur, in pixels");
  b.add("solarize-prob", a.solarize_prob, "probability of solarization, second global crop");
}

void add_run(Builder& b, TrainConfig& c) {
  b.group("Run");
  b.add("out", c.out, "folder for checkpoint, log and configuration; a run goes on from what is there", {"output-dir"});
  b.add("checkpoint-every-steps", c.checkpoint_every_steps, "steps between checkpoints; 0: at the end of each epoch");
  b.add("saveckp-freq", c.saveckp_freq, "epochs between checkpoints that are kept under their own name; 0: none");
  b.add("keep", c.keep, "how many of these to keep, newest first; 0: all");
  b.add("log-every", c.log_every, "steps between lines of the log");
  b.add("tensorboard", c.tensorboard, "also write the log as an event file that TensorBoard reads");
  b.add("seed", c.seed, "of initial weights, crops and drop path");
  b.add("shuffle-seed", c.shuffle_seed, "of the order of the images");
  b.add("device", c.device, "auto, cpu or cuda");
  b.add("precision", c.precision, "f32; bf16 for matmuls and activations; f64 to check numerics on the CPU; auto: bf16 for transformers where the processor multiplies it");
  b.add("recompute", c.recompute, "transformers: compute the activations of each block anew in the backward pass instead of keeping them: less memory, more time, same result");
  b.add("threads", c.threads, "threads that compute; 0: one per processor");
}

std::string with_dashes(std::string name) {
  std::replace(name.begin(), name.end(), '_', '-');
  return name;
}

}  // namespace

std::vector<Option> options_of(TrainConfig& config) {
  Builder builder;
  add_data(builder, config);
  add_network(builder, config);
  add_method(builder, config);
  add_optimization(builder, config);
  add_crops(builder, config);
  add_run(builder, config);
  return builder.take();
}

Option* find_option(std::vector<Option>& options, const std::string& name) {
  const std::string wanted = with_dashes(name);
  for (Option& option : options)
    if (option.name == wanted || std::find(option.aliases.begin(), option.aliases.end(), wanted) != option.aliases.end())
      return &option;
  return nullptr;
}

void read_config_file(const std::string& path, std::vector<Option>& options) {
  std::shared_ptr<const MappedFile> file;
  try {
    file = MappedFile::open(path);
  } catch (const Error& error) {
    throw UsageError(str(error.what(), "; it cannot be read as a file of options"));
  }
  const auto* text = reinterpret_cast<const char*>(file->bytes().data());
  const json config = json::parse(text, text + file->bytes().size(), nullptr, false);
  check<UsageError>(config.is_object(), path, ": must be a JSON object from option names to values");
  for (const auto& [name, value] : config.items()) {
    Option* option = find_option(options, name);
    check<UsageError>(option != nullptr, path, ": ", name, " is not an option of train");
    check<UsageError>(!value.is_object() && !value.is_null(), path, ": ", name, ": expected a value, found ", value.type_name());
    try {
      option->set(text_of(value));
    } catch (const UsageError& error) {
      throw UsageError(str(path, ": ", error.what()));
    }
    option->source = "config";
  }
}

json to_json(const std::vector<Option>& options) {
  json result = json::object();
  for (const Option& option : options)
    if (option.name != "out") result[option.name] = option.get();
  return result;
}

}  // namespace dino
