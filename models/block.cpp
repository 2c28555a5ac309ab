#include "models/block.h"

#include <cmath>

namespace dino {
TransformerBlock TransformerBlock::declare(ParameterStore& store, const std::string& name, int64_t dim, int64_t heads,
                                           int64_t mlp_hidden, Activation gelu) {
  const Init init = Init::truncated_normal(0.02);
  TransformerBlock block;  // declared in the order of the reference's checkpoints
  block.norm1 = NormLayer::declare(store, name + ".norm1", dim);
  block.qkv = LinearLayer::declare(store, name + ".attn.qkv", dim, 3 * dim, init);
  block.proj = LinearLayer::declare(store, name + ".attn.proj", dim, dim, init);
  block.norm2 = NormLayer::declare(store, name + ".norm2", dim);
  block.fc1 = LinearLayer::declare(store, name + ".mlp.fc1", dim, mlp_hidden, init);
  block.fc2 = LinearLayer::declare(store, name + ".mlp.fc2", mlp_hidden, dim, init);
  block.dim = dim;
  block.heads = heads;
  block.gelu = gelu;
  return block;
}

double TransformerBlock::scale() const { return 1 / std::sqrt(static_cast<double>(dim / heads)); }

Tensor TransformerBlock::mlp(Context& context, const Tensor& x) const {
  return fc2(context, run(context, Gelu{.form = gelu}, {fc1(context, x)})[Gelu::y]);
}

void TransformerBlock::operator()(Context& context, Residual& residual, const Sequences& sequences,
                                  const Scales& scales) const {
  const Tensor packed = qkv(context, norm1(context, residual, sequences));
  const Attention op{.heads = heads, .scale = scale(), .sequences = sequences};
  const Tensor attended = run(context, op, {packed.cols(0, dim), packed.cols(dim, 2 * dim), packed.cols(2 * dim, 3 * dim)})[Attention::o];
  residual.branch = proj(context, attended);
  residual.scale = scales.attention;
  residual.branch = mlp(context, norm2(context, residual, sequences));
  residual.scale = scales.mlp;
}

void TransformerBlock::cls_only(Context& context, Residual& residual, const Sequences& sequences,
                                const Scales& scales) const {
  const SelectCls select{.sequences = sequences};
  const Tensor normed = norm1(context, residual, sequences);
  const Tensor weight = qkv.weight.operand(context), bias = qkv.bias.operand(context);
  const Tensor q = run(context, Linear{}, {run(context, select, {normed})[SelectCls::y], weight.rows(0, dim), bias.rows(0, dim)})[Linear::y];
  const Tensor kv = run(context, Linear{}, {normed, weight.rows(dim, 3 * dim), bias.rows(dim, 3 * dim)})[Linear::y];
  const Attention op{.heads = heads, .scale = scale(), .sequences = sequences, .cls_only = true};
  const Tensor attended = run(context, op, {q, kv.cols(0, dim), kv.cols(dim, 2 * dim)})[Attention::o];
  residual = {run(context, select, {residual.x})[SelectCls::y], proj(context, attended), scales.attention};
  residual.branch = mlp(context, norm2(context, residual, sequences, true));
  residual.scale = scales.mlp;
}

Tensor TransformerBlock::attention_probabilities(Context& context, Residual& residual, const Sequences& sequences) const {
  const Tensor packed = qkv(context, norm1(context, residual, sequences));
  const AttentionProbabilities op{.heads = heads, .scale = scale(), .sequences = sequences};
  return run(context, op, {packed.cols(0, dim), packed.cols(dim, 2 * dim)})[AttentionProbabilities::p];
}

}  // namespace dino
