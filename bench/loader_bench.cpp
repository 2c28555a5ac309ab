#include <unistd.h>

#include <CLI/CLI.hpp>
#include <cmath>
#include <cstdio>  // jpeglib.h needs it first
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <numbers>

#include <jpeglib.h>

#include "augment/loader.h"
#include "bench/machine.h"
#include "kernels/error.h"
#include "kernels/philox.h"

// Times decoding and augmentation, each alone on one thread, and the loader that does both:
//   loader_bench [--data FOLDER] [--fast-decode] [--workers 1 2] [--seconds S] [--json]

namespace dino::bench {
namespace {

// --- synthetic data ---

/// A new folder that is deleted in the end.
class TemporaryFolder {
 public:
  TemporaryFolder() {
    std::string pattern = (std::filesystem::temp_directory_path() / "loader_bench_XXXXXX").string();
    check(mkdtemp(pattern.data()) != nullptr, pattern, ": cannot make this folder");
    path_ = pattern;
  }
  ~TemporaryFolder() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  TemporaryFolder(const TemporaryFolder&) = delete;
  TemporaryFolder& operator=(const TemporaryFolder&) = delete;

  const std::filesystem::path& path() const { return path_; }

 private:
  std::filesystem::path path_;
};

/// Waves in random directions with noise on them. As JPEGs of quality 90 they are about as large as
/// photographs, which is what the time to decode depends on.
Image synthetic_image(int height, int width, uint64_t number) {
  constexpr int kWaves = 6;
  constexpr float kNoise = 20;
  Random random(0, Purpose::test, number);
  struct Wave {
    float x, y, phase;
  };
  std::array<std::array<Wave, kWaves>, 3> waves;
  for (auto& channel : waves)
    for (Wave& wave : channel)
      wave = {random.uniform(-0.1f, 0.1f), random.uniform(-0.1f, 0.1f),
              random.uniform(0, 2 * std::numbers::pi_v<float>)};
  Image image(height, width, 3);
  uint8_t* pixel = image.pixels.data();
  for (int row = 0; row < height; ++row)
    for (int col = 0; col < width; ++col) {
      const float noise = random.uniform(-kNoise, kNoise);
      for (const auto& channel : waves) {
        float value = 128 + noise;
        for (const Wave& wave : channel)
          value +=
              20 * std::sin(wave.x * static_cast<float>(col) + wave.y * static_cast<float>(row) + wave.phase);
        *pixel++ = static_cast<uint8_t>(std::clamp(value, 0.0f, 255.0f));
      }
    }
  return image;
}

void write_jpeg(const std::string& path, const Image& image) {
  FILE* file = std::fopen(path.c_str(), "wb");
  check(file != nullptr, path, ": cannot write");
  jpeg_error_mgr errors;
  jpeg_compress_struct jpeg;
  jpeg.err = jpeg_std_error(&errors);
  jpeg_create_compress(&jpeg);
  jpeg_stdio_dest(&jpeg, file);
  jpeg.image_width = static_cast<JDIMENSION>(image.width);
  jpeg.image_height = static_cast<JDIMENSION>(image.height);
  jpeg.input_components = 3;
  jpeg.in_color_space = JCS_RGB;
  jpeg_set_defaults(&jpeg);
  jpeg_set_quality(&jpeg, 90, TRUE);
  jpeg_start_compress(&jpeg, TRUE);
  for (int row = 0; row < image.height; ++row) {
    auto* pixels = const_cast<JSAMPROW>(image.pixels.data() + size_t(row) * image.width * 3);
    jpeg_write_scanlines(&jpeg, &pixels, 1);
  }
  jpeg_finish_compress(&jpeg);
  jpeg_destroy_compress(&jpeg);
  check(std::fclose(file) == 0, path, ": cannot write");
}

std::string make_jpegs(const std::filesystem::path& folder, int count, int height, int width) {
  std::filesystem::create_directories(folder);
  for (int i = 0; i < count; ++i)
    write_jpeg((folder / str(i, ".jpg")).string(), synthetic_image(height, width, static_cast<uint64_t>(i)));
  return folder.string();
}

/// CIFAR-10's format: a label, then a 32 × 32 plane for each of red, green and blue.
std::string make_cifar(const std::filesystem::path& path) {
  constexpr int kImages = 1024, kPixels = 32 * 32;
  std::ofstream file(path, std::ios::binary);
  for (int i = 0; i < kImages; ++i) {
    const Image image = synthetic_image(32, 32, static_cast<uint64_t>(i));
    file.put(static_cast<char>(i % 10));
    for (int channel = 0; channel < 3; ++channel)
      for (int pixel = 0; pixel < kPixels; ++pixel)
        file.put(static_cast<char>(image.pixels[size_t(pixel) * 3 + channel]));
  }
  check(file.good(), path.string(), ": cannot write");
  return path.string();
}

// --- the measurements ---

/// Milliseconds per image for reading and decoding, one image after the other, on this thread.
double decode_ms(const Dataset& dataset, double seconds) {
  size_t next = 0;
  const Times times = time_calls(seconds, 16, [&] { dataset.load(next++ % dataset.size()); });
  return times.mean * 1e3;
}

/// Milliseconds per image for all of its crops, on this thread, from images that are decoded.
double augment_ms(const Dataset& dataset, const AugmentConfig& config, double seconds) {
  std::vector<Image> images;
  for (size_t i = 0; i < std::min<size_t>(dataset.size(), 64); ++i) images.push_back(dataset.load(i));
  const int largest = std::max(config.global_crops_size, config.local_crops_size);
  std::vector<float> out(size_t(largest) * largest * config.channels);
  CropScratch scratch;
  uint64_t position = 0;
  const Times times = time_calls(seconds, images.size(), [&] {
    const Image& image = images[position % images.size()];
    for (int crop = 0; crop < config.crops(); ++crop)
      render_crop(config, image, plan_crop(config, image.height, image.width, position, crop), out.data(),
                  scratch);
    ++position;
  });
  return times.mean * 1e3;
}

/// Images per second that a consumer gets who does nothing with them.
double images_per_second(const Dataset& dataset, const AugmentConfig& augment, int workers, bool fast_decode,
                         double seconds) {
  const auto batch = static_cast<int>(std::min<size_t>(32, dataset.size()));
  Loader loader(dataset, {.augment = augment,
                          .batch_size = batch,
                          .workers = workers,
                          .steps = int64_t{1} << 40,
                          .fast_decode = fast_decode});
  const auto next = [&] { loader.recycle(loader.next()); };
  for (int i = 0; i < 4; ++i) next();  // what the queue holds was made before
  return batch / time_calls(seconds, 4, next).mean;
}

struct LoaderCase {
  std::string name, data;
  AugmentConfig augment;
};

struct Measurement {
  std::vector<int> workers = {1, 2};
  double seconds = 3;
  bool loader_only = false, fast_decode = false;
};

nlohmann::json measure(const LoaderCase& c, const Measurement& m) {
  const auto dataset = Dataset::open(c.data, c.augment.channels);
  nlohmann::json result = {{"name", c.name},
                           {"views", str("2x", c.augment.global_crops_size, " + ",
                                         c.augment.local_crops_number, "x", c.augment.local_crops_size)},
                           {"images", dataset->size()},
                           {"decode_ms", m.loader_only ? 0 : decode_ms(*dataset, m.seconds)},
                           {"augment_ms", m.loader_only ? 0 : augment_ms(*dataset, c.augment, m.seconds)}};
  for (const int count : m.workers)
    result["loader"].push_back(
        {{"workers", count},
         {"images_per_s", images_per_second(*dataset, c.augment, count, m.fast_decode, m.seconds)}});
  return result;
}

void print_row(const nlohmann::json& r) {
  std::printf("%-28s %-13s %9.3f %10.3f", r["name"].get<std::string>().c_str(),
              r["views"].get<std::string>().c_str(), r["decode_ms"].get<double>(),
              r["augment_ms"].get<double>());
  for (const auto& loader : r["loader"]) std::printf(" %10.1f", loader["images_per_s"].get<double>());
  std::printf("\n");
  std::fflush(stdout);
}

}  // namespace

int run(int argc, char** argv) {
  CLI::App app("Times decoding and augmentation, alone and in the loader.", "loader_bench");
  std::string data;
  Measurement m;
  AugmentConfig large;
  bool json = false;
  app.add_option("--data", data,
                 "Images for the large case, as in training (default: 64 synthetic JPEGs of 500x375)");
  app.add_option("--local-crops", large.local_crops_number, "Local crops of the large cases")->capture_default_str();
  app.add_option("--workers", m.workers, "Numbers of loader threads")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  app.add_flag("--fast-decode", m.fast_decode, "As in training; for the loader, not for the decoding alone");
  app.add_flag("--loader-only", m.loader_only, "Time neither decoding nor augmentation alone, nor other images than --data");
  app.add_option("--seconds", m.seconds, "Time for each measurement")->capture_default_str();
  app.add_flag("--json", json, "Print one JSON object instead of a table");
  CLI11_PARSE(app, argc, argv);

  const TemporaryFolder folder;
  AugmentConfig small;
  small.global_crops_size = 32;
  small.local_crops_size = 16;
  small.local_crops_number = 6;
  std::vector<LoaderCase> cases;
  if (data.empty()) {
    cases.push_back({"500x375 JPEG", make_jpegs(folder.path() / "jpegs", 64, 375, 500), large});
    cases.push_back({"4000x3000 JPEG", make_jpegs(folder.path() / "large", 2, 3000, 4000), large});
  } else {
    cases.push_back({data, data, large});
  }
  if (!m.loader_only) cases.push_back({"32x32 raw", make_cifar(folder.path() / "data_batch_1.bin"), small});

  if (!json) {
    std::printf("%-28s %-13s %9s %10s", "images", "views", "decode ms", "augment ms");
    for (const int count : m.workers) std::printf(" %10s", str("img/s (", count, ")").c_str());
    std::printf("\n");
  }
  nlohmann::json rows = nlohmann::json::array();
  for (const LoaderCase& c : cases) {
    rows.push_back(measure(c, m));
    if (!json) print_row(rows.back());
  }
  if (json) std::printf("%s\n", nlohmann::json{{"cases", rows}}.dump(2).c_str());
  return 0;
}

}  // namespace dino::bench

int main(int argc, char** argv) { return dino::bench::main_of(dino::bench::run, argc, argv); }
