#include "models/checkpoint_names.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <map>
#include <unordered_set>

#include "engine/mapped_file.h"
#include "engine/pth.h"
#include "engine/safetensors.h"

namespace dino {
namespace {

constexpr std::string_view kStyles[] = {"reference", "timm", "hf"};

struct Renaming {
  std::string_view ours, hf;
};
/// Names outside the blocks, as a whole.
constexpr Renaming kOutside[] = {
    {"cls_token", "embeddings.cls_token"},
    {"pos_embed", "embeddings.position_embeddings"},
    {"patch_embed.proj.weight", "embeddings.patch_embeddings.projection.weight"},
    {"patch_embed.proj.bias", "embeddings.patch_embeddings.projection.bias"},
    {"norm.weight", "layernorm.weight"},
    {"norm.bias", "layernorm.bias"},
};
/// Modules inside block i: `blocks.i.<ours>` and `encoder.layer.i.<hf>`, followed by `.weight` or `.bias`.
constexpr Renaming kInBlock[] = {
    {"norm1", "layernorm_before"}, {"attn.proj", "attention.output.dense"},
    {"norm2", "layernorm_after"},  {"mlp.fc1", "intermediate.dense"},
    {"mlp.fc2", "output.dense"},
};
constexpr std::string_view kOurBlocks = "blocks.", kHfBlocks = "encoder.layer.";
constexpr std::string_view kOurQkv = "attn.qkv";
constexpr std::string_view kHfQkv[] = {"attention.attention.query", "attention.attention.key",
                                       "attention.attention.value"};

bool cut_prefix(std::string_view& text, std::string_view prefix) {
  if (!text.starts_with(prefix)) return false;
  text.remove_prefix(prefix.size());
  return true;
}

/// A name such as `blocks.3.attn.qkv.weight`, cut into "3", "attn.qkv" and "weight".
struct BlockName {
  std::string_view index, module, field;
};

bool cut_block_name(std::string_view name, std::string_view blocks, BlockName& parts) {
  if (!cut_prefix(name, blocks)) return false;
  const size_t first = name.find('.'), last = name.rfind('.');
  if (first == std::string_view::npos || first == last) return false;
  parts = {name.substr(0, first), name.substr(first + 1, last - first - 1), name.substr(last + 1)};
  return true;
}

std::string our_name_of(std::string_view hf_name) {
  for (const Renaming& r : kOutside) {
    if (r.hf == hf_name) return std::string(r.ours);
  }
  BlockName parts;
  if (cut_block_name(hf_name, kHfBlocks, parts)) {
    for (const Renaming& r : kInBlock) {
      if (r.hf == parts.module) return str(kOurBlocks, parts.index, '.', r.ours, '.', parts.field);
    }
  }
  return std::string(hf_name);
}

std::string hf_name_of(std::string_view our_name) {
  for (const Renaming& r : kOutside) {
    if (r.ours == our_name) return std::string(r.hf);
  }
  BlockName parts;
  if (cut_block_name(our_name, kOurBlocks, parts)) {
    for (const Renaming& r : kInBlock) {
      if (r.ours == parts.module) return str(kHfBlocks, parts.index, '.', r.hf, '.', parts.field);
    }
  }
  throw FormatError(str(quote(our_name), ": Hugging Face's ViTModel has no such tensor"));
}

/// Index into kHfQkv, or -1.
int qkv_part(const BlockName& parts) {
  const auto* found = std::find(std::begin(kHfQkv), std::end(kHfQkv), parts.module);
  return found == std::end(kHfQkv) ? -1 : static_cast<int>(found - kHfQkv);
}

/// Stacks query [D, D], key [D, D], value [D, D] to [3D, D] (or biases [D] to [3D]).
NamedTensor joined(std::string name, const std::array<NamedTensor, 3>& parts, const std::string& path) {
  auto bytes = std::make_shared<std::vector<std::byte>>();
  for (size_t i = 0; i < parts.size(); ++i) {
    check<FormatError>(parts[i].dtype != Dtype::none, path, ": ", quote(name),
                       ": expected query, key and value, found no ", kHfQkv[i]);
    check<FormatError>(
        parts[i].dtype == parts[0].dtype && parts[i].shape == parts[0].shape && !parts[i].shape.empty(), path,
        ": ", quote(name), ": expected query, key and value of one dtype and shape, found ",
        name_of(parts[i].dtype), ' ', shape_text(parts[i].shape), " beside ", name_of(parts[0].dtype), ' ',
        shape_text(parts[0].shape));
    bytes->insert(bytes->end(), parts[i].bytes.begin(), parts[i].bytes.end());
  }
  std::vector<int64_t> shape = parts[0].shape;
  shape[0] *= static_cast<int64_t>(parts.size());
  return {std::move(name), parts[0].dtype, std::move(shape), *bytes, bytes};
}

void rename_from_hf(std::vector<NamedTensor>& tensors, const std::string& path) {
  std::vector<NamedTensor> renamed;
  std::map<std::string, std::array<NamedTensor, 3>> qkv;
  std::map<std::string, size_t> places;  // of the joined tensors among the renamed
  for (NamedTensor& tensor : tensors) {
    std::string_view name = tensor.name;
    cut_prefix(name, "vit.");
    if (name.starts_with("pooler.")) continue;  // not part of DINO, randomly initialised where present
    BlockName parts;
    const int part = cut_block_name(name, kHfBlocks, parts) ? qkv_part(parts) : -1;
    if (part < 0) {
      tensor.name = our_name_of(name);
      renamed.push_back(std::move(tensor));
      continue;
    }
    const std::string ours = str(kOurBlocks, parts.index, '.', kOurQkv, '.', parts.field);
    if (places.emplace(ours, renamed.size()).second) renamed.push_back({.name = ours});
    NamedTensor& slot = qkv[ours][static_cast<size_t>(part)];
    check<FormatError>(slot.dtype == Dtype::none, path, ": ", quote(tensor.name),
                       ": expected once, found twice (with and without 'vit.')");
    slot = std::move(tensor);
  }
  for (const auto& [name, place] : places) renamed[place] = joined(name, qkv[name], path);
  tensors = std::move(renamed);
}

void strip_prefixes(std::vector<NamedTensor>& tensors) {
  for (NamedTensor& tensor : tensors) {
    std::string_view name = tensor.name;
    while (cut_prefix(name, "module.") || cut_prefix(name, "backbone.")) {
    }
    tensor.name = std::string(name);
  }
}

/// Keeps the tensors of one network of a checkpoint of ours, without the network's name.
void keep_network(std::vector<NamedTensor>& tensors, const std::string& network, const std::string& path) {
  const std::string prefix = network + '.';
  std::vector<NamedTensor> kept;
  for (NamedTensor& tensor : tensors) {
    if (!tensor.name.starts_with(prefix)) continue;
    kept.push_back(std::move(tensor));
    kept.back().name.erase(0, prefix.size());
  }
  check<FormatError>(!kept.empty(), path, ": expected tensors named ", quote(prefix + "..."), ", found none");
  tensors = std::move(kept);
}

bool any_begins_with(const TensorFile& file, std::initializer_list<std::string_view> prefixes) {
  return std::any_of(file.tensors.begin(), file.tensors.end(), [&](const NamedTensor& tensor) {
    return std::any_of(prefixes.begin(), prefixes.end(),
                       [&](std::string_view prefix) { return tensor.name.starts_with(prefix); });
  });
}

std::string style_of(const TensorFile& file) {
  if (any_begins_with(file, {"student.", "teacher."})) return "dino_engine";
  if (any_begins_with(file, {"embeddings.", "encoder.layer.", "vit.embeddings.", "vit.encoder.layer."}))
    return "hf";
  return "reference";
}

/// The rows of a third of qkv, as a view.
NamedTensor third_of(const NamedTensor& qkv, size_t part, std::string name) {
  check<FormatError>(!qkv.shape.empty() && qkv.shape[0] % 3 == 0, quote(qkv.name),
                     ": expected 3 D rows, found shape ", shape_text(qkv.shape));
  NamedTensor third = qkv;
  third.name = std::move(name);
  third.shape[0] /= 3;
  const size_t bytes = qkv.bytes.size() / 3;
  third.bytes = qkv.bytes.subspan(part * bytes, bytes);
  return third;
}

void append_hf(const NamedTensor& tensor, std::vector<NamedTensor>& out) {
  BlockName parts;
  if (cut_block_name(tensor.name, kOurBlocks, parts) && parts.module == kOurQkv) {
    for (size_t i = 0; i < std::size(kHfQkv); ++i) {
      out.push_back(third_of(tensor, i, str(kHfBlocks, parts.index, '.', kHfQkv[i], '.', parts.field)));
    }
  } else {
    out.push_back(tensor);
    out.back().name = hf_name_of(tensor.name);
  }
}

}  // namespace

WeightsFile load_weights(const std::string& path, const std::string& checkpoint_key) {
  const auto file = MappedFile::open(path);
  const auto bytes = file->bytes();
  // A safetensors file has no magic number, but its JSON begins after the 8 bytes of its length.
  constexpr size_t kJson = 8;
  if (bytes.size() > kJson && bytes[kJson] == std::byte{'{'}) {
    return with_our_names(read_safetensors(bytes, file, path), checkpoint_key, path);
  }
  if (looks_like_pth(bytes)) {
    const PthFile pth = PthFile::read(bytes, file, path);
    return with_our_names(weights_of(pth, checkpoint_key, path), checkpoint_key, path);
  }
  throw FormatError(path +
                    ": expected a safetensors file or a .pth file of torch.save, found another kind of file");
}

WeightsFile with_our_names(TensorFile file, const std::string& checkpoint_key, const std::string& path) {
  const std::string style = style_of(file);
  if (style == "dino_engine") keep_network(file.tensors, checkpoint_key, path);
  if (style == "hf") {
    rename_from_hf(file.tensors, path);
  } else {
    strip_prefixes(file.tensors);
  }
  std::unordered_set<std::string_view> names;
  for (const NamedTensor& tensor : file.tensors) {
    check<FormatError>(names.insert(tensor.name).second, path, ": ", quote(tensor.name),
                       ": expected unique names, found this one twice after removing prefixes");
  }
  return {std::move(file), style};
}

std::span<const std::string_view> export_styles() { return kStyles; }

TensorFile with_names_of(std::string_view style, const std::vector<NamedTensor>& tensors) {
  const bool known = std::find(std::begin(kStyles), std::end(kStyles), style) != std::end(kStyles);
  check<UsageError>(known, "style: expected reference, timm or hf, found ", quote(style));
  TensorFile file;
  file.metadata["format"] = "pt";
  for (const NamedTensor& tensor : tensors) {
    if (tensor.name.starts_with("head.")) continue;
    if (style == "hf") {
      append_hf(tensor, file.tensors);
    } else {
      file.tensors.push_back(tensor);
    }
  }
  return file;
}

}  // namespace dino
