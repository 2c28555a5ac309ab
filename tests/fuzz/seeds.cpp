#include <nlohmann/json.hpp>

#include "engine/npy.h"
#include "engine/safetensors.h"
#include "tests/augment/fixtures.h"
#include "tests/engine/files.h"
#include "tests/fuzz/targets.h"
#include "tests/fuzz/tiny_run.h"
#include "train/options.h"

namespace dino::fuzz {
namespace {

using namespace fixtures;

std::string text_of(const Bytes& bytes) { return {bytes.begin(), bytes.end()}; }

std::vector<std::string> texts_of(const std::vector<Bytes>& files) {
  std::vector<std::string> texts;
  for (const Bytes& file : files) texts.push_back(text_of(file));
  return texts;
}

std::span<const uint8_t> bytes_of(const std::string& text) { return {reinterpret_cast<const uint8_t*>(text.data()), text.size()}; }

/// What `write` writes to the path that it is given.
template <class F>
std::string written(const F& write) {
  const test::TemporaryFolder folder;
  write(folder / "file");
  return test::read_text(folder / "file");
}

const Image& color() {
  static const Image image = pattern(11, 13);
  return image;
}
const Image& gray() {
  static const Image image = gray_pattern(11, 13);
  return image;
}

std::string tiny_checkpoint() {
  return written([](const std::string& path) { tiny_trainer().save(path); });
}

}  // namespace

std::vector<std::string> jpeg_seeds() { return texts_of({jpeg(color()), jpeg(gray()), jpeg(color(), 30)}); }
std::vector<std::string> png_seeds() { return texts_of({png(color()), png(gray()), png16(gray()), png16(color())}); }
std::vector<std::string> bmp_seeds() { return texts_of({bmp(color())}); }

std::vector<std::string> pnm_seeds() {
  std::vector<std::string> seeds = texts_of({pnm(color()), pnm(gray())});
  seeds.push_back("P2\n# a comment\n2 3\n7\n0 1 2 3 4 7\n");
  seeds.push_back("P3 1 2 255 0 1 2 3 4 255\n");
  seeds.push_back(std::string("P5 2 1 65535\n\0\1\2\3", 17));
  return seeds;
}

std::vector<std::string> webp_seeds() { return texts_of({webp(color())}); }
std::vector<std::string> tiff_seeds() { return texts_of({tiff(color()), tiff(gray())}); }

std::vector<std::string> wide_tiff_seeds() {
  std::vector<Bytes> files;
  for (const SampleType type : {SampleType::uint8, SampleType::uint16, SampleType::float32}) {
    WideImage image = wide_pattern(11, 13, 5, type);
    image.planes = type == SampleType::uint16;
    image.tiles = type == SampleType::float32;
    files.push_back(wide_tiff(image));
  }
  return texts_of(files);
}

std::vector<std::string> png16_seeds() { return texts_of({png16(gray()), png16(color())}); }

std::vector<std::string> npy_image_seeds() {
  return texts_of({npy(wide_pattern(11, 13, 5, SampleType::uint8)), npy(wide_pattern(11, 13, 5, SampleType::uint16), true, true), npy(wide_pattern(11, 13, 1, SampleType::float32))});
}

std::vector<std::string> tar_seeds() {
  Bytes archive;
  append_member(archive, "cat/one.ppm", pnm(pattern(2, 3)));
  append_member(archive, "././@LongLink", bytes_of("dog/very/long.ppm"), 'L');
  append_member(archive, "dog/very/lon", pnm(pattern(3, 2)));
  append_member(archive, "pax", bytes_of("20 path=dog/two.ppm\n"), 'x');
  append_member(archive, "short", pnm(pattern(3, 2)));
  finish_archive(archive);
  Bytes small;
  append_member(small, "one.pgm", pnm(gray_pattern(2, 3)));
  return texts_of({archive, small});
}

std::vector<std::string> idx_seeds() { return texts_of({idx_images(5, 4, 3), idx_images(1, 1, 1)}); }
std::vector<std::string> idx_gzip_seeds() { return texts_of({gzip(idx_images(5, 4, 3)), gzip(idx_images(40, 7, 3))}); }
std::vector<std::string> idx_labels_seeds() { return texts_of({idx_labels(5, 3)}); }
std::vector<std::string> cifar_seeds() { return texts_of({cifar(1, 1), cifar(1, 2)}); }
std::vector<std::string> list_seeds() { return {"one.ppm\n", "# images\none.ppm 3\none.ppm 0\n", "one.ppm cat\n\r\none.ppm dog"}; }

std::vector<std::string> safetensors_seeds() {
  TensorFile file;
  file.metadata = {{"step", "12"}, {"quote", "\"\n\\ é"}};
  file.tensors = {tensor_of<float>("b.weight", {2, 3}, {1, -2, 3.5f, 4, 5, 6}), tensor_of<int64_t>("a", {}, {-7}),
                  tensor_of<double>("empty", {0, 4}, {}), tensor_of<uint8_t>("bytes", {3}, {1, 2, 255})};
  return {written([&](const std::string& path) { save_safetensors(path, file); })};
}

std::vector<std::string> pth_seeds() {
  std::vector<std::string> seeds;
  for (const char* name : {"tensors.pth", "tensors_legacy.pth", "tensors_zip64.pth", "training_checkpoint.pth"})
    seeds.push_back(test::read_text(test::golden(name)));
  return seeds;
}

std::vector<std::string> pickle_seeds() {
  constexpr size_t kMagicBytes = 21;
  return {test::read_text(test::golden("tensors_legacy.pth")).substr(kMagicBytes)};
}

std::vector<std::string> npy_seeds() {
  const std::vector<float> values = {1, 2, 3, 4, 5, 6};
  const std::vector<int64_t> numbers = {-1, 1};
  return {written([&](const std::string& path) { save_npy(path, values, {2, 3}); }),
          written([&](const std::string& path) { save_npy(path, numbers, {2}); })};
}

/// The teacher alone: a backbone and a head, with and without a configuration in the metadata.
std::vector<std::string> weights_seeds() {
  const std::string checkpoint = tiny_checkpoint();
  const test::HeapBytes bytes = test::heap_bytes(checkpoint);
  TensorFile file = read_safetensors(bytes.span(), bytes.owner, "checkpoint");
  std::erase_if(file.tensors, [](const NamedTensor& tensor) { return !tensor.name.starts_with("teacher.backbone."); });
  const std::string with_config = written([&](const std::string& path) { save_safetensors(path, file); });
  return {checkpoint, with_config};
}

std::vector<std::string> checkpoint_seeds() { return {tiny_checkpoint()}; }

std::vector<std::string> config_seeds() {
  TrainConfig config = tiny_config("photos");
  return {to_json(options_of(config)).dump(), R"({"out_dim": 12, "epochs": "0.5", "warmup_epochs": 0, "freeze_last_layer": 0, "mean": [0.1, 0.2, 0.3], "centering": false, "data": "photos"})"};
}

std::vector<std::string> log_seeds() {
  std::string log;
  for (int step = 0; step < 3; ++step) {
    const nlohmann::json line = {{"step", step},         {"epoch", 0.5 * step},     {"loss", 3.1},      {"lr", 1e-3},          {"wd", 0.04},
                                 {"momentum", 0.99},     {"teacher_temp", 0.04},    {"bad_images", 0},  {"teacher_entropy", 2}, {"kl", 1.1},
                                 {"marginal_entropy", 3}, {"teacher_half_life_steps", 100}, {"feature_std", 0.1}, {"knn_top1", 55.5}, {"verdict", "healthy"}};
    log += line.dump() + "\n";
  }
  return {log};
}

std::vector<std::string> bad_images_seeds() { return {"photos/a.jpg: the file is empty; remove it or convert it\nphotos/b.jpg: no\n"}; }

}  // namespace dino::fuzz
