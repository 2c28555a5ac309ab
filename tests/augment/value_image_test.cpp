#include <catch2/catch.hpp>
#include <cmath>
#include <limits>

#include "augment/decode.h"
#include "augment/evaluation_images.h"
#include "augment/image_kind.h"
#include "augment/recipe.h"
#include "kernels/color.h"
#include "kernels/error.h"
#include "tests/augment/fixtures.h"

using namespace dino;
using namespace dino::fixtures;

namespace {

constexpr SampleType kTypes[] = {SampleType::uint8, SampleType::uint16, SampleType::float32};

Image decode_wide(const Bytes& bytes, int channels, SampleType type) { return decode(bytes, ImageKind(channels, type), "x"); }

/// Why it is refused; empty if it is not.
std::string refusal(const Bytes& bytes, ImageKind kind) {
  try {
    decode(bytes, kind, "some/file");
  } catch (const DataError& error) {
    return error.what();
  }
  return "";
}

Image of(const WideImage& wide) {
  Image image = Image::of_values(wide.height, wide.width, wide.channels);
  image.values = values_of(wide);
  return image;
}

/// Bytes as an image of values.
Image as_values(const Image& bytes) {
  Image image = Image::of_values(bytes.height, bytes.width, bytes.channels);
  for (size_t i = 0; i < bytes.pixels.size(); ++i) image.values[i] = static_cast<float>(bytes.pixels[i]) / 255;
  return image;
}

float largest_difference(const std::vector<float>& a, const std::vector<float>& b) {
  REQUIRE(a.size() == b.size());
  float largest = 0;
  for (size_t i = 0; i < a.size(); ++i) largest = std::max(largest, std::abs(a[i] - b[i]));
  return largest;
}

}  // namespace

TEST_CASE("TIFF gives back every sample of 8 and 16 bits and of floats, side by side or in planes, in strips or tiles") {
  for (const SampleType type : kTypes)
    for (const int channels : {2, 5, 13})
      for (const bool planes : {false, true})
        for (const bool tiles : {false, true}) {
          WideImage wide = wide_pattern(19, 23, channels, type);
          wide.planes = planes;
          wide.tiles = tiles;
          const Image image = decode_wide(wide_tiff(wide), channels, type);
          INFO(name_of(type) << ", " << channels << " channels, planes " << planes << ", tiles " << tiles);
          CHECK((image.height == 19 && image.width == 23 && image.channels == channels && !image.in_bytes()));
          CHECK(image.values == values_of(wide));
        }
}

TEST_CASE("an array of NumPy gives back every sample, with channels first or last, in either order of bytes") {
  for (const SampleType type : kTypes)
    for (const int channels : {1, 4, 5}) {
      if (type == SampleType::uint8 && channels == 1) continue;  // that is in bytes
      const WideImage wide = wide_pattern(9, 7, channels, type);
      for (const bool first : {false, true})
        for (const bool big : {false, true}) {
          INFO(name_of(type) << ", " << channels << " channels, first " << first << ", big-endian " << big);
          const Image image = decode_wide(npy(wide, first, big), channels, type);
          CHECK((image.height == 9 && image.width == 7 && image.channels == channels));
          CHECK(image.values == values_of(wide));
        }
    }
}

TEST_CASE("where the channels lie in an array is told by their number, else by the smaller of the outer axes") {
  const WideImage flat = wide_pattern(4, 6, 5, SampleType::float32);
  CHECK(decode_wide(npy(flat), 5, SampleType::float32).values == values_of(flat));
  const auto header = read_image_header(npy(wide_pattern(9, 7, 5, SampleType::uint16), true));
  CHECK((header.height == 9 && header.width == 7 && header.channels == 5 && header.bits == 16 && !header.real));
  const auto last = read_image_header(npy(wide_pattern(5, 7, 5, SampleType::float32)));
  CHECK((last.height == 5 && last.width == 7 && last.channels == 5 && last.real));
}

TEST_CASE("PNG and PNM of 16 bits keep them, and in bytes an array is as any other image") {
  const Image color = pattern(11, 13);
  const Image image = decode(png16(color), ImageKind(3, SampleType::uint16), "x");
  REQUIRE(image.values.size() == color.pixels.size());
  for (size_t i = 0; i < image.values.size(); ++i) CHECK(static_cast<int>(std::lround(image.values[i] * 65535)) >> 8 == color.pixels[i]);
  const std::string pgm = std::string("P5 2 1 4095\n") + "\x0F\xFF\x01\x02";
  const Image gray = decode(std::span(reinterpret_cast<const uint8_t*>(pgm.data()), pgm.size()), ImageKind(1, SampleType::uint16), "x");
  CHECK(gray.values == std::vector<float>{1.0f, 0x102 / 4095.0f});
  const WideImage bytes = wide_pattern(6, 5, 3, SampleType::uint8);
  const Image plain = decode(npy(bytes), 3, "x");
  for (size_t i = 0; i < plain.pixels.size(); ++i) CHECK(plain.pixels[i] == static_cast<uint8_t>(bytes.samples[i]));
}

TEST_CASE("an image of other channels or samples than the others, or without numbers, is refused with file and cause") {
  const auto kind = ImageKind(5, SampleType::uint16);
  CHECK(refusal(wide_tiff(wide_pattern(8, 8, 4, SampleType::uint16)), kind) ==
        "some/file: the image has 4 channels of uint16; 5 channels of uint16 are read here, remove or convert it");
  CHECK_THAT(refusal(wide_tiff(wide_pattern(8, 8, 5, SampleType::float32)), kind), Catch::Contains("5 channels of float32"));
  CHECK_THAT(refusal(jpeg(pattern(8, 8)), kind), Catch::Contains("3 channels of uint8"));
  for (const float value : {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity(), -std::numeric_limits<float>::max()}) {
    WideImage wide = wide_pattern(8, 8, 2, SampleType::float32);
    wide.samples[37] = static_cast<double>(value);
    CHECK_THAT(refusal(npy(wide), {2, SampleType::float32}), Catch::Contains("is no measurement"));
    CHECK_THAT(refusal(wide_tiff(wide), {2, SampleType::float32}), Catch::Contains("is no measurement"));
  }
  WideImage clear = wide_pattern(8, 8, 6, SampleType::uint16);
  clear.alpha = true;
  const Image image = decode_wide(wide_tiff(clear), 5, SampleType::uint16);
  for (size_t pixel = 0; pixel < 64; ++pixel)
    for (size_t c = 0; c < 5; ++c) CHECK(image.values[5 * pixel + c] == values_of(clear)[6 * pixel + c]);
}

TEST_CASE("arrays that are no images are refused with what to do") {
  const Bytes data(24);
  const auto why = [&](const std::string& descr, const std::string& order, const std::string& shape) {
    return refusal(npy_with("{'descr': " + descr + ", 'fortran_order': " + order + ", 'shape': " + shape + ", }", data), {2, SampleType::uint16});
  };
  CHECK(why("'<u2'", "False", "(3, 2, 2)").empty());
  CHECK_THAT(why("'<u2'", "True", "(3, 2, 2)"), Catch::Contains("fortran_order") && Catch::Contains("numpy.save"));
  CHECK_THAT(why("'|O'", "False", "(3, 2, 2)"), Catch::Contains("convert them to uint8, uint16 or float32"));
  CHECK_THAT(why("'<f8'", "False", "(3, 1, 1)"), Catch::Contains("<f8"));
  CHECK_THAT(why("'<u2'", "False", "(12,)"), Catch::Contains("1 axes"));
  CHECK_THAT(why("'<u2'", "False", "(1, 3, 2, 2)"), Catch::Contains("4 axes"));
  CHECK_THAT(why("'<u2'", "False", "(4, 2, 2)"), Catch::Contains("truncated"));
  CHECK_THAT(why("'<u2'", "False", "(0, 2, 2)"), Catch::Contains("pixels"));
  CHECK_THAT(why("'<u2'", "False", "(100000, 100000, 2)"), Catch::Contains("pixels"));
  CHECK_THAT(why("'<u2'", "False", "(70, 2, 65)"), Catch::Contains("65 channels; 1 to 64 are read"));
  CHECK_THAT(why("'<u2'", "False", "(9223372036854775807, 9223372036854775807, 2)"), Catch::Contains("pixels"));
}

TEST_CASE("values are cropped, resized, mirrored and blurred as bytes are, but for the rounding") {
  const Image bytes = pattern(40, 52), values = as_values(bytes);
  AugmentConfig config;
  config.global_crops_size = 24;
  config.local_crops_size = 16;
  config.jitter_prob = config.grayscale_prob = config.solarize_prob = 0;
  config.blur_prob_global2 = 1;
  config.mean = {0.1f, 0.2f, 0.3f};
  config.deviation = {1, 1, 1};
  CropScratch scratch;
  for (uint64_t position = 0; position < 8; ++position)
    for (const int crop : {0, 1, 2}) {
      const CropPlan plan = plan_crop(config, 40, 52, position, crop);
      std::vector<float> from_bytes(size_t(plan.size) * size_t(plan.size) * 3), from_values(from_bytes.size());
      render_crop(config, bytes, plan, from_bytes.data(), scratch);
      render_crop(config, values, plan, from_values.data(), scratch);
      // 8 bits cut overshoot off, which the values keep: what lies inside the range must agree.
      size_t inside = 0;
      for (size_t i = 0; i < from_bytes.size(); ++i) {
        const float value = from_values[i] + config.mean[i % 3];
        if (value < 0.02f || value > 0.98f) continue;
        ++inside;
        // Two roundings of the resize and six of the blur, half a level each; overshoot that was cut off may come in from the sides.
        CHECK(std::abs(from_bytes[i] - from_values[i]) <= 12.0f / 255);
      }
      CHECK(inside > from_bytes.size() / 2);
    }
}

TEST_CASE("brightness and contrast change values in units of the deviation, and colour operations leave them alone") {
  const Image image = of(wide_pattern(16, 16, 5, SampleType::float32));
  AugmentConfig config;
  config.channels = 5;
  config.mean = {1, 2, 3, 4, 5};
  config.deviation = {10, 20, 30, 40, 50};
  CropPlan plan{};
  plan.box = {0, 0, 16, 16};
  plan.size = 16;
  CropScratch scratch;
  std::vector<float> plain(16 * 16 * 5), changed(plain.size());
  render_crop(config, image, plan, plain.data(), scratch);
  for (size_t i = 0; i < plain.size(); ++i) CHECK(plain[i] == Approx((image.values[i] - config.mean[i % 5]) / config.deviation[i % 5]).margin(1e-6));
  plan.gray = plan.solarize = true;
  plan.color_steps = 4;
  plan.color = {ColorStep{ColorOp::hue, 0.3f}, ColorStep{ColorOp::brightness, 1.25f}, ColorStep{ColorOp::contrast, 0.5f}, ColorStep{ColorOp::saturation, 0.1f}};
  render_crop(config, image, plan, changed.data(), scratch);
  for (size_t i = 0; i < plain.size(); ++i) CHECK(changed[i] == Approx((plain[i] + 0.25) * 0.5).margin(1e-5));
}

TEST_CASE("statistics of channels are those of a direct computation, each image counting alike, and a constant channel is named") {
  const TemporaryFolder folder;
  std::vector<std::vector<float>> all;
  for (int i = 0; i < 7; ++i) {
    WideImage wide = wide_pattern(5 + i, 9 - i, 5, SampleType::uint16, i);
    for (size_t s = 0; s < wide.samples.size(); s += 5) wide.samples[s + 3] = 4711;
    folder.write("image" + std::to_string(i) + ".tif", wide_tiff(wide));
    all.push_back(values_of(wide));
  }
  folder.write("image9.tif", Bytes{'I', 'I', '*', 0});
  const auto dataset = Dataset::open(folder.path(), {5, SampleType::uint16});
  const ChannelStatistics found = channel_statistics(*dataset, 1000, 3);
  CHECK(found.images == 7);
  CHECK(found.constant == std::vector<int>{3});
  for (size_t c = 0; c < 5; ++c) {
    double mean = 0, variance = 0;
    for (const auto& values : all)
      for (size_t i = c; i < values.size(); i += 5) mean += static_cast<double>(values[i]) / static_cast<double>(values.size() / 5) / 7;
    for (const auto& values : all)
      for (size_t i = c; i < values.size(); i += 5) variance += std::pow(static_cast<double>(values[i]) - mean, 2) / static_cast<double>(values.size() / 5) / 7;
    CHECK(found.mean[c] == Approx(mean).epsilon(1e-6));
    CHECK(found.deviation[c] == Approx(c == 3 ? 1.0 : std::sqrt(variance)).epsilon(1e-6));
  }
  CHECK(channel_statistics(*dataset, 1000, 1).mean == found.mean);
}

TEST_CASE("the kind of a dataset is that of most of its images, and 8-bit colour as soon as one of them is") {
  const TemporaryFolder folder;
  for (int i = 0; i < 3; ++i) folder.write("wide" + std::to_string(i) + ".tif", wide_tiff(wide_pattern(6, 6, 5, SampleType::uint16, i)));
  folder.write("other.tif", wide_tiff(wide_pattern(6, 6, 4, SampleType::float32)));
  const auto detected = [&](int channels = 0, std::optional<SampleType> samples = {}) { return detect_kind(*Dataset::open(folder.path()), channels, samples); };
  CHECK(detected() == ImageKind(5, SampleType::uint16));
  CHECK(detected(4) == ImageKind(4, SampleType::uint16));
  CHECK(detected(3) == ImageKind(3));
  CHECK(detected(0, SampleType::float32) == ImageKind(5, SampleType::float32));
  folder.write("plain.png", png(pattern(6, 6)));
  CHECK(detected() == ImageKind(3));
  CHECK(detected(1) == ImageKind(1));
}

TEST_CASE("arrays in a folder are images only if there are no others") {
  const TemporaryFolder folder;
  folder.write("class/a.npy", npy(wide_pattern(6, 6, 5, SampleType::float32)));
  folder.write("class/b.npy", npy(wide_pattern(6, 6, 5, SampleType::float32, 1)));
  CHECK(Dataset::open(folder.path())->size() == 2);
  folder.write("other/c.png", png(pattern(6, 6)));
  const auto dataset = Dataset::open(folder.path());
  REQUIRE(dataset->size() == 1);
  CHECK(dataset->name(0).ends_with("c.png"));
}

TEST_CASE("IDX and CIFAR files are refused as anything but 8-bit images") {
  const TemporaryFolder folder;
  const std::string path = folder.write("data.bin", cifar(3, 1));
  CHECK_THROWS_WITH(Dataset::open(path, {5, SampleType::uint16}), Catch::Contains("IDX and CIFAR files hold 8-bit gray or colour, not 5 channels of uint16"));
}

TEST_CASE("evaluation sees values resized and normalised, as a crop of the whole image does") {
  const TemporaryFolder folder;
  const WideImage wide = wide_pattern(14, 14, 5, SampleType::uint16);
  folder.write("a.tif", wide_tiff(wide));
  const auto dataset = Dataset::open(folder.path(), {5, SampleType::uint16});
  const EvaluationConfig config{.size = 14, .channels = 5, .mean = {0, 0, 0, 0, 1}, .deviation = {1, 1, 1, 1, 2}, .samples = SampleType::uint16};
  ThreadPool pool(1);
  const std::vector<size_t> indices = {0};
  std::vector<float> out(14 * 14 * 5);
  std::vector<LoadFailure> failures;
  load_evaluation_images(*dataset, indices, config, pool, out.data(), failures);
  CHECK(failures.empty());
  std::vector<float> expected = values_of(wide);
  for (size_t i = 4; i < expected.size(); i += 5) expected[i] = (expected[i] - 1) / 2;
  CHECK(largest_difference(out, expected) <= 1e-6f);
  load_probe_images(*dataset, indices, config, 1, 2, pool, out.data(), failures);
  CHECK(failures.empty());
}

TEST_CASE("an image of values is shown by its first three channels, each from black to white") {
  Image image = Image::of_values(1, 2, 4);
  image.values = {-5, 10, 0.1f, 9, 5, 10, 0.3f, 8};
  const Image shown = to_look_at(image);
  CHECK(shown.channels == 3);
  CHECK(shown.pixels == Bytes{0, 0, 0, 255, 0, 255});
  Image gray = Image::of_values(1, 3, 2);
  gray.values = {1, 0, 2, 0, 3, 0};
  CHECK(to_look_at(gray).pixels == Bytes{0, 128, 255});
}
