#include "tests/fuzz/targets.h"

#include <nlohmann/json.hpp>

#include "augment/dataset.h"
#include "augment/decode.h"
#include "augment/image_kind.h"
#include "engine/npy.h"
#include "engine/pth.h"
#include "engine/safetensors.h"
#include "tests/engine/files.h"
#include "tests/fuzz/tiny_run.h"
#include "train/bad_images.h"
#include "train/doctor.h"
#include "train/log.h"
#include "train/options.h"
#include "train/report/report.h"
#include "train/weights.h"

namespace dino::fuzz {
namespace {

using Input = std::span<const uint8_t>;

std::string text_of(Input bytes) { return {reinterpret_cast<const char*>(bytes.data()), bytes.size()}; }

/// A folder of this process for readers that want files.
const test::TemporaryFolder& folder() {
  static const test::TemporaryFolder only;
  return only;
}

std::string file_with(const std::string& name, Input bytes) {
  const std::string path = folder() / name;
  test::write_text(path, text_of(bytes));
  return path;
}

/// A copy that ends where a sanitizer sees it, with the first bytes by which the format is known, so that no input is lost to another.
template <size_t kCount>
std::vector<uint8_t> with_start(Input bytes, const char (&start)[kCount], size_t offset = 0) {
  std::vector<uint8_t> copy(bytes.begin(), bytes.end());
  for (size_t i = 0; i + 1 < kCount && offset + i < copy.size(); ++i) copy[offset + i] = static_cast<uint8_t>(start[i]);
  copy.shrink_to_fit();
  return copy;
}

/// The last byte decides what is asked for.
void decode_any(Input bytes) {
  const uint8_t choice = bytes.empty() ? 0 : bytes.back();
  const int channels = choice & 1 ? 1 : 3, reduction = 1 << ((choice >> 1) & 3);
  const Image image = decode_reduced(bytes, channels, "image", [&](int, int) { return reduction; });
  check(image.channels == channels && image.pixels.size() == size_t(image.height) * size_t(image.width) * size_t(channels),
        "the image is not of the size that it says");
}

void read_jpeg(Input bytes) { decode_any(with_start(bytes, "\xFF\xD8\xFF")); }
void read_png(Input bytes) { decode_any(with_start(bytes, "\x89PNG")); }
void read_bmp(Input bytes) { decode_any(with_start(bytes, "BM")); }
void read_pnm(Input bytes) { decode_any(with_start(bytes, "P")); }
void read_webp(Input bytes) { decode_any(with_start(with_start(bytes, "RIFF"), "WEBP", 8)); }
void read_tiff(Input bytes) { decode_any({bytes}); }

/// An image of values, of the kind that its header says, or of one that the last byte decides.
void decode_values(Input bytes) {
  const uint8_t choice = bytes.empty() ? 0 : bytes.back();
  ImageKind kind = kind_in(read_image_header(bytes)).value_or(ImageKind(1 + choice % 6, static_cast<SampleType>(choice / 8 % 3)));
  if (kind.in_bytes()) kind = {kind.channels, SampleType::uint16};
  const Image image = decode(bytes, kind, "image");
  check(image.channels == kind.channels && image.values.size() == size_t(image.height) * size_t(image.width) * size_t(image.channels),
        "the image is not of the size that it says");
  check(to_look_at(image).pixels.size() >= size_t(image.height) * size_t(image.width), "the picture is smaller than the image");
}

void read_wide_tiff(Input bytes) { decode_values({bytes}); }
void read_png16(Input bytes) { decode_values(with_start(bytes, "\x89PNG")); }
void read_npy_image(Input bytes) { decode_values(with_start(bytes, "\x93NUMPY\x01")); }

/// Opens a source of images and loads the first few.
void load_all(const std::string& path) {
  const auto dataset = Dataset::open(path);
  std::string refused;
  for (size_t i = 0; i < std::min<size_t>(dataset->size(), 4); ++i) {
    try {
      dataset->load(i);
    } catch (const DataError& error) {
      refused = error.what();
    }
    check(dataset->label(i) < static_cast<int>(dataset->class_names().size()), "a label is none of the classes");
  }
  if (!refused.empty()) throw DataError(refused);
}

void read_tar(Input bytes) { load_all(file_with("a.tar", bytes)); }
void read_idx(Input bytes) { load_all(file_with("a-images-idx3-ubyte", bytes)); }
void read_idx_gzip(Input bytes) { load_all(file_with("b-images-idx3-ubyte.gz", with_start(bytes, "\x1F\x8B"))); }
void read_cifar(Input bytes) { load_all(file_with("c.bin", bytes)); }

void read_idx_labels(Input bytes) {
  const std::string images = idx_seeds().front();
  file_with("d-images-idx3-ubyte", {reinterpret_cast<const uint8_t*>(images.data()), images.size()});
  file_with("d-labels-idx1-ubyte", bytes);
  load_all(folder() / "d-images-idx3-ubyte");
}

void read_list(Input bytes) {
  const std::string image = pnm_seeds().front();
  file_with("one.ppm", {reinterpret_cast<const uint8_t*>(image.data()), image.size()});
  load_all(file_with("list.txt", bytes));
}

void read_all_values(const TensorFile& file) {
  for (const NamedTensor& tensor : file.tensors) to_floats(tensor);
}

void read_safetensors_bytes(Input bytes) {
  const test::HeapBytes heap = test::heap_bytes(text_of(bytes));
  read_all_values(read_safetensors(heap.span(), heap.owner, "file"));
}

void read_pth_bytes(Input bytes) {
  const test::HeapBytes heap = test::heap_bytes(text_of(bytes));
  read_all_values(with_our_names(weights_of(PthFile::read(heap.span(), heap.owner, "file"), "teacher", "file"), "teacher", "file").tensors);
}

/// The pickles of torch's older format: no checksum and no directory stands between the bytes and the reader of pickles.
void read_pickles(Input bytes) {
  constexpr uint8_t kMagic[] = {0x80, 2,    0x8a, 10,  0x6c, 0xfc, 0x9c, 0x46, 0xf9, 0x20, 0x6a, 0xa8, 0x50, 0x19, '.',
                                0x80, 2,    'M',  0xe9, 3,   '.'};
  std::vector<uint8_t> file(std::begin(kMagic), std::end(kMagic));
  file.insert(file.end(), bytes.begin(), bytes.end());
  read_pth_bytes(file);
}

void read_npy_bytes(Input bytes) {
  const test::HeapBytes heap = test::heap_bytes(text_of(bytes));
  to_doubles(read_npy(heap.span(), heap.owner, "file"));
}

/// Weights of unknown origin, as evaluation and conversion take them.
void read_weights(Input bytes) {
  const std::string path = file_with("weights", bytes);
  load_backbone({.path = path});
  with_names_of("hf", load_weights(path).tensors.tensors);
}

void read_checkpoint(Input bytes) { tiny_trainer().load(file_with("checkpoint.safetensors", bytes)); }

void read_config(Input bytes) {
  TrainConfig config;
  std::vector<Option> options = options_of(config);
  read_config_file(file_with("config.json", bytes), options);
  to_json(options);
  check_config(config);
  RunPlan(config, 1000);
}

/// log.jsonl as a run that goes on reads it, and as a report shows it.
void read_log(Input bytes) {
  const std::string config = config_seeds().front();
  file_with("config.json", {reinterpret_cast<const uint8_t*>(config.data()), config.size()});
  const std::string path = file_with("log.jsonl", bytes);
  const nlohmann::json machine = {{"machine", "none"}};
  report_html(read_run(folder().path()), {{}, {}, machine});
  StepLog log(path, 1000);
  Doctor doctor({.prototypes = 24, .images = 4, .feature_dim = 24});
  for (const nlohmann::json& line : log.lines()) doctor.examine(signs_of(line));
}

void read_bad_images(Input bytes) {
  BadImages list(file_with("bad_images.txt", bytes), 100);
  check(list.share() >= 0, "a share is negative");
}

constexpr Target kTargets[] = {
    {"jpeg", read_jpeg, jpeg_seeds},
    {"png", read_png, png_seeds},
    {"bmp", read_bmp, bmp_seeds},
    {"pnm", read_pnm, pnm_seeds},
    {"webp", read_webp, webp_seeds},
    {"tiff", read_tiff, tiff_seeds},
    {"wide_tiff", read_wide_tiff, wide_tiff_seeds},
    {"png16", read_png16, png16_seeds},
    {"npy_image", read_npy_image, npy_image_seeds},
    {"tar", read_tar, tar_seeds},
    {"idx", read_idx, idx_seeds},
    {"idx_gzip", read_idx_gzip, idx_gzip_seeds},
    {"idx_labels", read_idx_labels, idx_labels_seeds},
    {"cifar", read_cifar, cifar_seeds},
    {"list", read_list, list_seeds},
    {"safetensors", read_safetensors_bytes, safetensors_seeds},
    {"pth", read_pth_bytes, pth_seeds},
    {"pickle", read_pickles, pickle_seeds},
    {"npy", read_npy_bytes, npy_seeds},
    {"weights", read_weights, weights_seeds},
    {"checkpoint", read_checkpoint, checkpoint_seeds},
    {"config", read_config, config_seeds},
    {"log", read_log, log_seeds},
    {"bad_images", read_bad_images, bad_images_seeds},
};

}  // namespace

std::span<const Target> targets() { return kTargets; }

const Target& target_named(std::string_view name) {
  std::string known;
  for (const Target& target : kTargets) {
    if (target.name == name) return target;
    known += " " + std::string(target.name);
  }
  throw UsageError(str("fuzz: ", name, " is no target; there are", known));
}

bool read_or_refuse(const Target& target, Input bytes) {
  std::string message;
  try {
    target.read(bytes);
    return true;
  } catch (const UsageError& error) {
    message = error.what();
  } catch (const DataError& error) {
    message = error.what();
  } catch (const FormatError& error) {
    message = error.what();
  }
  check(message.find('\n') == std::string::npos, target.name, ": the error has several lines: ", message);
  return false;
}

}  // namespace dino::fuzz
