#pragma once

#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "engine/tensor_file.h"

namespace dino {

/// Weights under our own names: those of the reference's backbone without a prefix
/// (`blocks.3.attn.qkv.weight`), and of its head after `head.` (`head.last_layer.weight_g`).
struct WeightsFile {
  TensorFile tensors;
  std::string style;  ///< what the file's names were: "reference" (also timm's), "hf" or "dino_engine"
};

/// Reads weights of any kind we know: a safetensors or torch .pth file, told apart by its first bytes, with
/// the names of our checkpoints, the reference, timm, or Hugging Face's ViTModel. `checkpoint_key` picks one
/// network of a training checkpoint: "teacher" or "student". Throws FormatError (also for an unknown kind of
/// file), UsageError if the file cannot be opened.
WeightsFile load_weights(const std::string& path, const std::string& checkpoint_key = "teacher");

/// Renames the tensors of a file to our names; joins Hugging Face's query, key and value (bytes are copied
/// only there). Names that no style knows are kept, so that the caller reports them as unexpected. `path` is
/// for messages. Throws FormatError if two names become one, or a query, key or value is missing or of
/// another shape.
WeightsFile with_our_names(TensorFile file, const std::string& checkpoint_key, const std::string& path);

/// The styles `with_names_of` takes.
std::span<const std::string_view> export_styles();

/// The backbone among `tensors` (our names; the head is left out) under the names of "reference", "timm"
/// (both are ours) or "hf" (query, key and value split). The metadata is `{"format": "pt"}`, which
/// transformers insists on. Throws UsageError for an unknown style, FormatError for a tensor that Hugging
/// Face's ViTModel does not have.
TensorFile with_names_of(std::string_view style, const std::vector<NamedTensor>& tensors);

}  // namespace dino
