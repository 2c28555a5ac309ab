#include "train/evaluate/linear.h"

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>
#include <numbers>
#include <numeric>

#include "engine/ops.h"
#include "engine/safetensors.h"
#include "kernels/philox.h"
#include "train/evaluate/knn.h"

namespace dino {
namespace {

using Score = LinearClassifiers::Score;
using nlohmann::json;

/// The order of the training images in one epoch.
std::vector<size_t> shuffled(size_t count, uint64_t seed, int64_t epoch) {
  std::vector<size_t> order(count);
  std::iota(order.begin(), order.end(), size_t{0});
  Random random(seed, Purpose::probe, static_cast<uint64_t>(epoch));
  for (size_t i = count; i > 1; --i) std::swap(order[i - 1], order[random.below(static_cast<uint32_t>(i))]);
  return order;
}

void check_config(const LinearConfig& config) {
  check<UsageError>(config.epochs >= 1, "--epochs must be at least 1; got ", config.epochs);
  check<UsageError>(config.batch_size >= 1, "--batch-size must be at least 1; got ", config.batch_size);
  check<UsageError>(config.val_freq >= 1, "--val-freq must be at least 1; got ", config.val_freq);
  check<UsageError>(!config.lr.empty(), "--lr must have at least one value");
  for (double lr : config.lr)
    check<UsageError>(lr > 0 && std::isfinite(lr), "--lr must be positive; got ", lr);
}

int64_t number_of_classes(const std::vector<int>& train, const std::vector<int>& val) {
  return 1 +
         std::max(*std::max_element(train.begin(), train.end()), *std::max_element(val.begin(), val.end()));
}

size_t best_of(const std::vector<Score>& scores) {
  const auto worse = [](const Score& a, const Score& b) { return a.top1 < b.top1; };
  return static_cast<size_t>(std::max_element(scores.begin(), scores.end(), worse) - scores.begin());
}

/// Epochs, schedule, validation and bookkeeping of both protocols; they differ in where a batch comes from.
/// batch(epoch, positions, labels) → features [rows, dim] of those training images; it fills in their labels.
template <class Batch>
LinearResult train_classifiers(Context& context, int64_t dim, size_t train_images, int64_t classes,
                               const FeatureSet& val, const std::vector<int>& val_labels,
                               const LinearConfig& config, const LinearLog& log, const Batch& batch) {
  LinearClassifiers classifiers(dim, classes, static_cast<int64_t>(config.lr.size()), config.seed);
  LinearResult result{.dim = dim,
                      .classes = classes,
                      .train_images = static_cast<int64_t>(train_images),
                      .val_images = val.images};
  for (double lr : config.lr) result.sweep.push_back({.lr = lr});
  for (int64_t epoch = 0; epoch < config.epochs; ++epoch) {
    LinearEpoch report{.epoch = epoch, .train_loss = std::vector<double>(config.lr.size(), 0.0)};
    for (double lr : config.lr)
      report.lr.push_back(
          cosine_epoch_lr(lr * static_cast<double>(config.batch_size) / 256, epoch, config.epochs));
    const std::vector<size_t> order = shuffled(train_images, config.seed, epoch);
    int64_t steps = 0;
    for (size_t begin = 0; begin < order.size(); begin += static_cast<size_t>(config.batch_size)) {
      const size_t rows = std::min(order.size() - begin, static_cast<size_t>(config.batch_size));
      std::vector<int> labels;
      const Tensor features = batch(epoch, std::span<const size_t>(order).subspan(begin, rows), labels);
      if (labels.empty()) continue;
      const std::vector<double> losses =
          classifiers.step(context, features, labels, report.lr, config.momentum);
      std::transform(losses.begin(), losses.end(), report.train_loss.begin(), report.train_loss.begin(),
                     std::plus<>());
      ++steps;
    }
    for (double& loss : report.train_loss) loss /= static_cast<double>(std::max<int64_t>(steps, 1));
    if ((epoch + 1) % config.val_freq != 0 && epoch + 1 != config.epochs) continue;
    report.val = classifiers.evaluate(context, val, val_labels);
    for (size_t i = 0; i < report.val.size(); ++i) {
      LinearScore& score = result.sweep[i];
      score.last = report.val[i];
      if (score.best_epoch == 0 || score.last.top1 > score.best.top1) {
        score.best = score.last;
        score.best_epoch = epoch + 1;
      }
    }
    result.best = best_of(report.val);
    if (log) log(report);
  }
  result.weight = classifiers.weight(static_cast<int64_t>(result.best));
  result.bias = classifiers.bias(static_cast<int64_t>(result.best));
  return result;
}

/// The rows of `set` at `positions`, as a tensor [positions, dim].
Tensor gather(Context& context, const FeatureSet& set, std::span<const size_t> positions) {
  const Tensor rows = context.host_tensor({Dtype::f32, Shape{static_cast<int64_t>(positions.size()), set.dim}});
  for (size_t i = 0; i < positions.size(); ++i)
    std::copy_n(set.row(static_cast<int64_t>(positions[i])), set.dim,
                rows.view().row<float>(static_cast<int64_t>(i)));
  return rows;
}

json score_json(const Score& score, int64_t classes) {
  json result = {{"loss", score.loss}, {"top1", score.top1}};
  if (classes >= 5) result["top5"] = score.top5;
  return result;
}

}  // namespace

double cosine_epoch_lr(double base, int64_t epoch, int64_t epochs) {
  return 0.5 * base *
         (1 + std::cos(std::numbers::pi * static_cast<double>(epoch) / static_cast<double>(epochs)));
}

LinearClassifiers::LinearClassifiers(int64_t dim, int64_t classes, int64_t count, uint64_t seed)
    : dim_(dim), classes_(classes), count_(count) {
  check<UsageError>(dim > 0 && classes > 1 && count > 0, "linear probe: needs at least two classes; got ",
                    classes);
  weight_ = parameters_.add("linear.weight", Shape{count * classes, dim}, Init::truncated_normal(0.01));
  bias_ = parameters_.add("linear.bias", Shape{count * classes}, Init::zeros());
  parameters_.allocate({.dtype = Dtype::f32}, seed, true);
  float* weights = weight_.tensor().view().as<float>();
  for (int64_t i = 1; i < count; ++i) std::copy_n(weights, classes * dim, weights + i * classes * dim);
  velocity_.assign(static_cast<size_t>(parameters_.values().shape().count()), 0.0f);
}

Tensor LinearClassifiers::logits(Context& context, const Tensor& features) const {
  return run(context, Linear{}, {features, weight_.tensor(), bias_.tensor()})[Linear::y];
}

std::vector<double> LinearClassifiers::step(Context& context, const Tensor& features,
                                            const std::vector<int>& labels, const std::vector<double>& lr,
                                            double momentum) {
  const Tensor targets = context.host_tensor({Dtype::i64, Shape{static_cast<int64_t>(labels.size())}});
  std::copy(labels.begin(), labels.end(), targets.view().as<int64_t>());
  parameters_.reset_gradients();
  Tape tape(context);
  const auto loss = run(context, LabelCrossEntropy{.heads = count_}, {logits(context, features), targets});
  tape.backward(loss[LabelCrossEntropy::loss]);

  // One rate per classifier: its rows of the weight, and its part of the bias.
  for (const Parameter& parameter : {weight_, bias_}) {
    const int64_t begin = parameters_.entries()[static_cast<size_t>(parameter.index)].begin;
    const int64_t part = parameter.tensor().shape().count() / count_;
    constexpr int64_t kElementsPerPiece = 16384;
    context.pool().for_ranges(part * count_, kElementsPerPiece, [&](int64_t first, int64_t last) {
      float* values = parameters_.values().view().as<float>() + begin;
      const float* gradients = parameters_.gradients().view().as<float>() + begin;
      float* velocity = velocity_.data() + begin;
      for (int64_t i = first; i < last; ++i) {
        velocity[i] = static_cast<float>(momentum) * velocity[i] + gradients[i];
        values[i] -= static_cast<float>(lr[static_cast<size_t>(i / part)]) * velocity[i];
      }
    });
  }
  const float* losses = loss[LabelCrossEntropy::losses].view().as<float>();
  return {losses, losses + count_};
}

std::vector<Score> LinearClassifiers::evaluate(Context& context, const FeatureSet& set,
                                               const std::vector<int>& labels) const {
  constexpr int64_t kRows = 256;
  std::vector<Score> scores(static_cast<size_t>(count_));
  for (int64_t begin = 0; begin < set.images; begin += kRows) {
    const int64_t end = std::min(begin + kRows, set.images);
    const Tensor targets = context.host_tensor({Dtype::i64, Shape{end - begin}});
    std::copy(labels.begin() + begin, labels.begin() + end, targets.view().as<int64_t>());
    const Tensor x = logits(context, set.tensor().rows(begin, end));
    const auto loss = run(context, LabelCrossEntropy{.heads = count_}, {x, targets});
    for (int64_t i = 0; i < count_; ++i) {
      Score& score = scores[static_cast<size_t>(i)];
      score.loss += static_cast<double>(end - begin) *
                    static_cast<double>(loss[LabelCrossEntropy::losses].view().as<float>()[i]);
      for (int64_t row = 0; row < end - begin; ++row) {
        const float* values = x.view().row<float>(row) + i * classes_;
        const int64_t label = labels[static_cast<size_t>(begin + row)];
        int64_t before = 0;
        for (int64_t c = 0; c < classes_; ++c)
          before += !(values[c] <= values[label]) || (values[c] == values[label] && c < label) ? 1 : 0;
        score.top1 += before < 1 ? 1 : 0;
        score.top5 += before < 5 ? 1 : 0;
      }
    }
  }
  const auto images = static_cast<double>(set.images);
  for (Score& score : scores)
    score = {score.loss / images, 100 * score.top1 / images, 100 * score.top5 / images};
  return scores;
}

std::vector<float> LinearClassifiers::weight(int64_t classifier) const {
  const float* begin = weight_.tensor().view().as<float>() + classifier * classes_ * dim_;
  return {begin, begin + classes_ * dim_};
}

std::vector<float> LinearClassifiers::bias(int64_t classifier) const {
  const float* begin = bias_.tensor().view().as<float>() + classifier * classes_;
  return {begin, begin + classes_};
}

LinearResult linear_probe(Context& context, const FeatureSet& train, const FeatureSet& val,
                          const LinearConfig& config, const LinearLog& log) {
  check_config(config);
  std::vector<std::string> notes;
  check_features(train, "training images", notes);
  check_features(val, "validation images", notes);
  check<UsageError>(train.dim == val.dim, "linear probe: features must have equal length; got ", train.dim,
                    " and ", val.dim);
  const std::vector<int> train_labels = labels_as_in({}, train),
                         val_labels = labels_as_in(train.classes, val);
  LinearResult result = train_classifiers(
      context, train.dim, static_cast<size_t>(train.images), number_of_classes(train_labels, val_labels), val,
      val_labels, config, log, [&](int64_t, std::span<const size_t> positions, std::vector<int>& labels) {
        for (const size_t position : positions) labels.push_back(train_labels[position]);
        return gather(context, train, positions);
      });
  result.notes = std::move(notes);
  return result;
}

LinearResult linear_probe_augmented(Context& context, const Backbone& backbone, const Dataset& train,
                                    const FeatureSet& val, const FeatureConfig& features,
                                    const LinearConfig& config, const LinearLog& log) {
  check_config(config);
  std::vector<std::string> notes;
  check_features(val, "validation images", notes);
  FeatureSet names;  // of the training images, whose features change in every epoch
  names.classes = train.class_names();
  for (size_t i = 0; i < train.size(); ++i) {
    names.labels.push_back(train.label(i));
    names.names.push_back(train.name(i));
  }
  const std::vector<int> train_labels = labels_as_in({}, names),
                         val_labels = labels_as_in(names.classes, val);
  const int64_t size = features.images.size, channels = features.images.channels;
  std::vector<bool> unreadable(train.size());
  LinearResult result = train_classifiers(
      context, val.dim, train.size(), number_of_classes(train_labels, val_labels), val, val_labels, config,
      log, [&](int64_t epoch, std::span<const size_t> positions, std::vector<int>& labels) {
        const Tensor images =
            context.host_tensor({Dtype::f32, Shape{static_cast<int64_t>(positions.size()), size, size, channels}});
        std::vector<LoadFailure> failures;
        load_probe_images(train, positions, features.images, config.seed, epoch, context.pool(),
                          images.view().as<float>(), failures);
        std::vector<bool> bad(positions.size());
        for (const LoadFailure& failure : failures)
          bad[failure.row] = unreadable[positions[failure.row]] = true;
        // A bad image is rare: its row goes through the backbone and is then left out.
        const Tensor rows = batch_features(context, backbone, images, features);
        int64_t kept = 0;
        for (size_t i = 0; i < positions.size(); ++i) {
          if (bad[i]) continue;
          labels.push_back(train_labels[positions[i]]);
          const float* row = rows.view().row<float>(static_cast<int64_t>(i));
          std::copy(row, row + val.dim, rows.view().row<float>(kept++));
        }
        return rows.rows(0, kept);
      });
  if (const auto bad = std::count(unreadable.begin(), unreadable.end(), true))
    notes.push_back(str(bad, " training images cannot be read"));
  result.notes = std::move(notes);
  return result;
}

json to_json(const LinearResult& result, const LinearConfig& config) {
  json sweep = json::array();
  for (const LinearScore& score : result.sweep) {
    json one = score_json(score.last, result.classes);
    one["lr"] = score.lr;
    one["best_epoch"] = score.best_epoch;
    one["best_top1"] = score.best.top1;
    sweep.push_back(one);
  }
  json object = score_json(result.sweep[result.best].last, result.classes);
  object["lr"] = result.sweep[result.best].lr;
  object["best_top1"] = result.sweep[result.best].best.top1;
  object["sweep"] = sweep;
  object["protocol"] = {{"epochs", config.epochs},
                        {"batch_size", config.batch_size},
                        {"momentum", config.momentum},
                        {"weight_decay", 0},
                        {"schedule", "cosine per epoch"},
                        {"seed", config.seed},
                        {"dim", result.dim},
                        {"classes", result.classes},
                        {"lr_selected_on", config.lr.size() > 1 ? "validation images" : "nothing: one rate"}};
  object["train_images"] = result.train_images;
  object["val_images"] = result.val_images;
  object["notes"] = result.notes;
  return object;
}

json to_json(const LinearEpoch& epoch) {
  const size_t best = best_of(epoch.val);
  json line = {{"epoch", epoch.epoch},
               {"train_lr", epoch.lr[best]},
               {"train_loss", epoch.train_loss[best]},
               {"test_loss", epoch.val[best].loss},
               {"test_acc1", epoch.val[best].top1},
               {"test_acc5", epoch.val[best].top5}};
  if (epoch.val.size() < 2) return line;
  for (size_t i = 0; i < epoch.val.size(); ++i)
    line["sweep"].push_back({{"train_lr", epoch.lr[i]},
                             {"train_loss", epoch.train_loss[i]},
                             {"test_loss", epoch.val[i].loss},
                             {"test_acc1", epoch.val[i].top1}});
  return line;
}

void save_linear(const std::string& path, const LinearResult& result) {
  TensorFile file;
  file.metadata["format"] = "pt";
  file.tensors.push_back(tensor_of<float>("linear.weight", {result.classes, result.dim}, result.weight));
  file.tensors.push_back(tensor_of<float>("linear.bias", {result.classes}, result.bias));
  save_safetensors(path, file);
}

}  // namespace dino
