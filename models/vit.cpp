#include "models/vit.h"

#include <bit>
#include <cmath>
#include <utility>

#include "engine/recompute.h"

namespace dino {

VisionTransformer::VisionTransformer(ParameterStore& store, const std::string& prefix, const VitConfig& config)
    : config_(config) {
  check<UsageError>(config.dim > 0 && config.heads > 0 && config.dim % config.heads == 0, "--embed-dim ", config.dim,
                    " must be divisible by --heads ", config.heads);
  check<UsageError>(config.depth > 0 && config.patch > 0 && config.channels > 0, "--depth, --patch-size and --channels must be positive");
  const int64_t grid = config.image_size / config.patch;
  check<UsageError>(grid > 0, "--patch-size ", config.patch, " is larger than the crops of ", config.image_size, " pixels");

  const Init init = Init::truncated_normal(0.02);
  cls_token_ = store.add(prefix + "cls_token", Shape{1, 1, config.dim}, init);
  pos_embed_ = store.add(prefix + "pos_embed", Shape{1, 1 + grid * grid, config.dim}, init);
  if (config.conv_stem) {
    check<UsageError>(std::has_single_bit(static_cast<uint64_t>(config.patch)) && config.patch > 1,
                      "--patch-size ", config.patch, " must be a power of two for a hybrid");
    const int stages = std::countr_zero(static_cast<uint64_t>(config.patch));
    int64_t in = config.channels;
    for (int stage = 0; stage < stages; ++stage) {
      const int64_t out = std::max<int64_t>(8, config.dim >> (stages - 1 - stage));
      const bool last = stage + 1 == stages;
      const std::string name = str(prefix, "stem.", stage);
      stem_.push_back(ConvLayer::declare(store, name + ".0", in, last ? config.dim : out, 3, 2));
      stem_norms_.push_back(BatchNormLayer::declare(store, name + ".1", last ? config.dim : out, config.gelu));
      in = out;
    }
  } else {
    const int64_t fan_in = config.channels * config.patch * config.patch;
    const Init uniform = Init::uniform_within(1 / std::sqrt(static_cast<double>(fan_in)));
    patch_embed_.weight = store.add(prefix + "patch_embed.proj.weight",
                                    Shape{config.dim, config.channels, config.patch, config.patch}, uniform);
    patch_embed_.bias = store.add(prefix + "patch_embed.proj.bias", Shape{config.dim}, uniform);
  }
  const auto hidden = static_cast<int64_t>(static_cast<double>(config.dim) * config.mlp_ratio);
  check<UsageError>(hidden >= 1, "--mlp-ratio ", config.mlp_ratio, " of --embed-dim ", config.dim,
                    " is less than one; use a larger one, such as 4");
  for (int64_t i = 0; i < config.depth; ++i)
    blocks_.push_back(TransformerBlock::declare(store, str(prefix, "blocks.", i), config.dim, config.heads, hidden, config.gelu));
  norm_ = NormLayer::declare(store, prefix + "norm", config.dim);
}

Sequences VisionTransformer::sequences(std::span<const Tensor> images) const {
  Sequences sequences;
  for (const Tensor& group : images) {
    const Shape& shape = group.shape();
    check<UsageError>(shape.rank == 4 && shape[1] >= config_.patch && shape[2] >= config_.patch, "vit: images of ",
                      shape[1], "×", shape[2], " pixels are smaller than a patch of ", config_.patch);
    sequences.append(shape[0], shape[1] / config_.patch, shape[2] / config_.patch);
  }
  return sequences;
}

Tensor VisionTransformer::patches(Context& context, std::span<const Tensor> images, const Sequences& sequences,
                                  const Mode& mode) const {
  if (!config_.conv_stem) {
    const Patchify patchify{
        .patch = config_.patch, .sequences = sequences, .output = patch_embed_.weight.store->operand_dtype()};
    const Tensor flat = run(context, patchify, images)[Patchify::patches];
    const Tensor weight = patch_embed_.weight.operand(context).reshaped(Shape{config_.dim, flat.shape().cols()});
    return run(context, Linear{}, {flat, weight, patch_embed_.bias.operand(context)})[Linear::y];
  }
  std::vector<Tensor> groups;
  for (const Tensor& group : images) {
    const Shape& shape = group.shape();
    check<UsageError>(shape[1] % config_.patch == 0 && shape[2] % config_.patch == 0, "hybrid: image size ", shape[1], "×",
                      shape[2], " must be a multiple of --patch-size ", config_.patch);
    Tensor x = group;
    for (size_t stage = 0; stage < stem_.size(); ++stage) x = stem_norms_[stage](context, stem_[stage](context, x), mode);
    groups.push_back(x);
  }
  // NHWC with one pixel per patch is the token layout already.
  return run(context, ConcatRows{}, groups)[ConcatRows::y];
}

Tensor VisionTransformer::positions(Context& context, std::span<const Tensor> images) const {
  InterpolatePositions op{.sequences = sequences(images)};
  for (size_t g = 0; g < images.size(); ++g) op.square[g] = images[g].shape()[1] == images[g].shape()[2];
  return run(context, op, {pos_embed_.tensor()})[InterpolatePositions::positions];
}

Tensor VisionTransformer::embed(Context& context, std::span<const Tensor> images, const Sequences& sequences,
                                const Mode& mode) const {
  const Tensor content = patches(context, images, sequences, mode);
  return run(context, Tokens{.sequences = sequences}, {content, cls_token_.tensor(), positions(context, images)})[Tokens::x];
}

std::vector<TransformerBlock::Scales> VisionTransformer::drop_path(Context& context, const Sequences& sequences,
                                                                   const Mode& mode) const {
  std::vector<TransformerBlock::Scales> scales(blocks_.size());
  if (!mode.crops || config_.drop_path_rate <= 0) return scales;
  const DropPathMask op{.depth = config_.depth,
                        .max_rate = config_.drop_path_rate,
                        .sequences = sequences.count(),
                        .crops_of = mode.crops->images,
                        .batch = mode.crops->batch,
                        .first = mode.crops->first};
  const Tensor mask = run(context, op, {cls_token_.tensor().detached()})[DropPathMask::scale];
  const Shape per_sequence{sequences.count()};
  for (int64_t i = 0; i < config_.depth; ++i)
    if (i > 0 || config_.depth == 1)  // the first block's rate is 0
      scales[static_cast<size_t>(i)] = {mask.rows(2 * i, 2 * i + 1).reshaped(per_sequence),
                                        mask.rows(2 * i + 1, 2 * i + 2).reshaped(per_sequence)};
  return scales;
}

Tensor VisionTransformer::operator()(Context& context, std::span<const Tensor> images, const Mode& mode) const {
  const Sequences packed = sequences(images);
  const auto scales = drop_path(context, packed, mode);
  Residual residual{embed(context, images, packed, mode), {}, {}};
  for (size_t i = 0; i < blocks_.size(); ++i) run_block(context, i, residual, packed, scales[i]);
  return norm_(context, residual, packed, true);
}

void VisionTransformer::run_block(Context& context, size_t block, Residual& residual, const Sequences& sequences,
                                  const TransformerBlock::Scales& scales) const {
  const Part part = [this, block, sequences, scales, scale = residual.scale](Context& where, std::vector<Tensor> in) {
    Residual stream{std::move(in[0]), std::move(in[1]), scale};
    if (block + 1 < blocks_.size()) blocks_[block](where, stream, sequences, scales);
    else blocks_[block].cls_only(where, stream, sequences, scales);
    return std::vector{stream.x, stream.branch};
  };
  std::vector<Tensor> in;
  in.push_back(std::move(residual.x));
  in.push_back(std::move(residual.branch));
  const auto out = config_.recompute ? recompute(context, std::move(in), part) : part(context, std::move(in));
  residual = {out[0], out[1], scales.mlp};
}

std::vector<Tensor> VisionTransformer::last_blocks(Context& context, std::span<const Tensor> images, int64_t n) const {
  check<UsageError>(n >= 1 && n <= config_.depth, "the network has ", config_.depth, " blocks; cannot take the last ", n);
  const Sequences packed = sequences(images);
  Residual residual{embed(context, images, packed, {}), {}, {}};
  std::vector<Tensor> result;
  for (size_t i = 0; i < blocks_.size(); ++i) {
    blocks_[i](context, residual, packed, {});
    if (static_cast<int64_t>(blocks_.size() - i) <= n) result.push_back(norm_(context, residual, packed));
  }
  return result;
}

Tensor VisionTransformer::last_attention(Context& context, const Tensor& images) const {
  const std::span<const Tensor> group(&images, 1);
  const Sequences packed = sequences(group);
  Residual residual{embed(context, group, packed, {}), {}, {}};
  for (size_t i = 0; i + 1 < blocks_.size(); ++i) blocks_[i](context, residual, packed, {});
  return blocks_.back().attention_probabilities(context, residual, packed);
}

}  // namespace dino
