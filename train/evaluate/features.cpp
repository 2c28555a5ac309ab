#include "train/evaluate/features.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "engine/ops.h"

namespace dino {
namespace {

Tensor borrowed(const float* values, Shape shape) {
  return Tensor(View(const_cast<float*>(values), Dtype::f32, shape), nullptr);
}

/// A tensor where the host can read it, in f32.
Tensor host_floats(Context& context, const Tensor& tensor) {
  if (tensor.dtype() == Dtype::f32) return context.on_host(tensor);
  const std::vector<double> values = values_of(tensor);
  const Tensor result = context.host_tensor({Dtype::f32, tensor.shape()});
  std::transform(values.begin(), values.end(), result.view().as<float>(), [](double x) { return static_cast<float>(x); });
  return result;
}

/// Columns of several tensors [rows, dim] side by side or, if `interleaved`, element by element.
Tensor joined_columns(Context& context, std::span<const Tensor> parts, bool interleaved) {
  const auto count = static_cast<int64_t>(parts.size());
  const int64_t rows = parts[0].shape().rows(), dim = parts[0].shape().cols();
  const Tensor result = context.host_tensor({Dtype::f32, Shape{rows, count * dim}});
  for (int64_t row = 0; row < rows; ++row) {
    float* out = result.view().row<float>(row);
    for (int64_t part = 0; part < count; ++part) {
      const float* in = parts[static_cast<size_t>(part)].view().row<float>(row);
      for (int64_t i = 0; i < dim; ++i) out[interleaved ? i * count + part : part * dim + i] = in[i];
    }
  }
  return result;
}

Tensor vit_features(Context& context, const VisionTransformer& vit, const Tensor& images,
                    const FeatureConfig& config) {
  const std::span<const Tensor> group(&images, 1);
  const bool only_cls = config.n_last_blocks == 1 && !config.avgpool && config.pool == Pool::cls;
  if (only_cls) return vit(context, group, {});
  const Sequences sequences = vit.sequences(group);
  const std::vector<Tensor> blocks = vit.last_blocks(context, group, config.n_last_blocks);
  const auto mean = [&] { return run(context, PatchMean{sequences}, {blocks.back()})[PatchMean::y]; };
  if (config.pool == Pool::mean) return mean();
  std::vector<Tensor> parts;
  for (const Tensor& tokens : blocks)
    parts.push_back(host_floats(context, run(context, SelectCls{sequences}, {tokens})[SelectCls::y]));
  if (config.avgpool || config.pool == Pool::cls_mean) parts.push_back(host_floats(context, mean()));
  return joined_columns(context, parts, config.avgpool);
}

/// Loads batch after batch and calls use(images [n, size, size, channels], rows of the dataset). Unreadable
/// images are listed in `failed` and not among the rows.
template <class Use>
void for_batches(Context& context, const Dataset& dataset, const FeatureConfig& config,
                 std::vector<std::string>& failed, const Progress& progress, const Use& use) {
  const auto total = static_cast<int64_t>(dataset.size());
  const int64_t size = config.images.size, values = size * size * config.images.channels;
  for (int64_t begin = 0; begin < total; begin += config.batch_size) {
    std::vector<size_t> indices(static_cast<size_t>(std::min(config.batch_size, total - begin)));
    std::iota(indices.begin(), indices.end(), static_cast<size_t>(begin));
    const auto count = static_cast<int64_t>(indices.size());
    const Tensor images = context.host_tensor({Dtype::f32, Shape{count, size, size, config.images.channels}});
    float* pixels = images.view().as<float>();
    std::vector<LoadFailure> failures;
    load_evaluation_images(dataset, indices, config.images, context.pool(), pixels, failures);
    for (auto failure = failures.rbegin(); failure != failures.rend(); ++failure) {
      indices.erase(indices.begin() + static_cast<int64_t>(failure->row));
      const auto row = static_cast<int64_t>(failure->row);
      std::copy(pixels + (row + 1) * values, pixels + count * values, pixels + row * values);
    }
    for (LoadFailure& failure : failures) failed.push_back(std::move(failure.message));
    const auto readable = static_cast<int64_t>(indices.size());
    if (readable > 0) use(borrowed(pixels, Shape{readable, size, size, config.images.channels}), indices);
    if (progress) progress(begin + count, total);
  }
}

/// The features of all batches one after the other; `features_of(images)` → [n, dim].
template <class FeaturesOf>
FeatureSet collect(Context& context, const Dataset& dataset, const FeatureConfig& config, int64_t dim,
                   const Progress& progress, const FeaturesOf& features_of) {
  check<UsageError>(config.batch_size > 0, "--batch-size must be positive; got ", config.batch_size);
  FeatureSet set;
  set.dim = dim;
  set.classes = dataset.class_names();
  set.values.reserve(dataset.size() * static_cast<size_t>(dim));
  for_batches(context, dataset, config, set.failed, progress,
              [&](const Tensor& images, std::span<const size_t> rows) {
                const Tensor batch = features_of(images);
                set.values.insert(set.values.end(), batch.view().as<float>(),
                                  batch.view().as<float>() + batch.shape().count());
                for (const size_t row : rows) {
                  set.names.push_back(dataset.name(row));
                  set.labels.push_back(dataset.label(row));
                }
              });
  set.images = static_cast<int64_t>(set.names.size());
  check<DataError>(
      set.images > 0, "features: none of the ", dataset.size(),
      " images can be read; the first: ", set.failed.empty() ? "there are none" : set.failed.front());
  if (config.l2) normalize_rows(context, set);
  return set;
}

/// `images` indices, in an order in which every batch of consecutive ones spans the whole dataset: it may be
/// sorted by class, and a batch of one class has other statistics than all.
std::vector<size_t> spread_indices(size_t total, size_t images, size_t batches) {
  std::vector<size_t> order;
  for (size_t first = 0; first < batches; ++first)
    for (size_t i = first; i < images; i += batches) order.push_back(i * total / images);
  return order;
}

std::vector<Tensor> running_statistics(const ParameterStore& parameters) {
  std::vector<Tensor> buffers;
  for (size_t i = 0; i < parameters.entries().size(); ++i)
    if (parameters.entries()[i].buffer) buffers.push_back(parameters.tensor(static_cast<int>(i)));
  return buffers;
}

}  // namespace

Tensor FeatureSet::tensor() const { return borrowed(values.data(), Shape{images, dim}); }

Pool pool_of(const std::string& name) {
  if (name == "cls") return Pool::cls;
  if (name == "mean") return Pool::mean;
  check<UsageError>(name == "cls+mean", "--pool ", name, " is not known (known: cls, mean, cls+mean)");
  return Pool::cls_mean;
}

int64_t feature_length(const Backbone& backbone, const FeatureConfig& config) {
  const int64_t dim = feature_dim(backbone);
  const auto* vit = std::get_if<VisionTransformer>(&backbone);
  const bool plain = config.n_last_blocks == 1 && !config.avgpool && config.pool == Pool::cls;
  if (plain) return dim;
  check<UsageError>(vit != nullptr,
                    "--pool, --n-last-blocks and --avgpool-patchtokens need a network with tokens");
  check<UsageError>(config.n_last_blocks >= 1 && config.n_last_blocks <= vit->config().depth,
                    "--n-last-blocks must be in [1, ", vit->config().depth, "]; got ", config.n_last_blocks);
  check<UsageError>(config.n_last_blocks == 1 || (!config.avgpool && config.pool == Pool::cls),
                    "--avgpool-patchtokens and --pool take --n-last-blocks 1; got ", config.n_last_blocks);
  check<UsageError>(!config.avgpool || config.pool == Pool::cls, "--avgpool-patchtokens excludes --pool");
  if (config.pool == Pool::mean) return dim;
  return dim * (config.n_last_blocks + (config.avgpool || config.pool == Pool::cls_mean ? 1 : 0));
}

Tensor batch_features(Context& context, const Backbone& backbone, const Tensor& images,
                      const FeatureConfig& config) {
  feature_length(backbone, config);
  if (const auto* vit = std::get_if<VisionTransformer>(&backbone))
    return host_floats(context, vit_features(context, *vit, context.on_device(images), config));
  const Tensor placed = context.on_device(images);
  return host_floats(context, features(context, backbone, std::span<const Tensor>(&placed, 1), {}));
}

FeatureSet extract_features(Context& context, const Backbone& backbone, const Dataset& dataset,
                            const FeatureConfig& config, const Progress& progress) {
  return collect(context, dataset, config, feature_length(backbone, config), progress,
                 [&](const Tensor& images) { return batch_features(context, backbone, images, config); });
}

FeatureSet extract_pixels(Context& context, const Dataset& dataset, const FeatureConfig& config,
                          const Progress& progress) {
  const int64_t dim = int64_t{config.images.size} * config.images.size * config.images.channels;
  return collect(context, dataset, config, dim, progress, [&](const Tensor& images) { return images; });
}

void normalize_rows(Context& context, FeatureSet& set) {
  run(context, L2Normalize{}, {set.tensor()}, {set.tensor(), Tensor()});
}

int64_t calibrate_batch_norm(Context& context, const Backbone& backbone, ParameterStore& parameters,
                             const Dataset& dataset, const FeatureConfig& config, int64_t images) {
  const std::vector<Tensor> buffers = running_statistics(parameters);
  if (buffers.empty()) return 0;
  const size_t count = std::min(dataset.size(), static_cast<size_t>(images));
  const auto batch = static_cast<size_t>(std::max<int64_t>(config.batch_size, 2));
  const size_t batches = std::max<size_t>(1, count / batch);  // of equal size, but for one image
  check<DataError>(count >= 2, "batch norm: needs at least two images for its statistics; got ", count);
  const std::vector<size_t> order = spread_indices(dataset.size(), count, batches);
  const int64_t size = config.images.size;

  std::vector<std::vector<double>> sums;
  for (const Tensor& buffer : buffers) sums.emplace_back(static_cast<size_t>(buffer.shape().count()), 0.0);
  size_t begin = 0;
  for (size_t b = 0; b < batches; ++b) {
    const size_t rows = (count - b + batches - 1) / batches;
    const Tensor pixels =
        context.host_tensor({Dtype::f32, Shape{static_cast<int64_t>(rows), size, size, config.images.channels}});
    std::vector<LoadFailure> failures;
    load_evaluation_images(dataset, std::span(order).subspan(begin, rows), config.images,
                           context.pool(), pixels.view().as<float>(), failures);
    begin += rows;
    // From zero, one update of the running statistics leaves momentum times those of the batch.
    for (const Tensor& buffer : buffers) clear(buffer.view());
    const Tensor placed = context.on_device(pixels);
    features(context, backbone, std::span<const Tensor>(&placed, 1), {.training = true});
    for (size_t i = 0; i < buffers.size(); ++i) {
      const std::vector<double> values = values_of(buffers[i]);
      for (size_t c = 0; c < sums[i].size(); ++c) sums[i][c] += values[c];
    }
  }
  const double scale = 1 / (RunningStats{}.momentum * static_cast<double>(batches));
  for (size_t i = 0; i < buffers.size(); ++i) {
    std::vector<float> means;
    for (const double sum : sums[i]) means.push_back(static_cast<float>(sum * scale));
    copy_from_host(means.data(), buffers[i].view());
  }
  return static_cast<int64_t>(count);
}

}  // namespace dino
