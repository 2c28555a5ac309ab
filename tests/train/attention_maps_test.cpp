#include "train/evaluate/attention_maps.h"

#include <catch2/catch.hpp>
#include <cmath>
#include <filesystem>
#include <numeric>

#include "augment/decode.h"
#include "augment/input_file.h"
#include "engine/npy.h"
#include "models/registry.h"
#include "tests/engine/files.h"
#include "train/png.h"

using namespace dino;

namespace {

Image pattern(int height, int width, int channels) {
  Image image(height, width, channels);
  for (size_t i = 0; i < image.pixels.size(); ++i) image.pixels[i] = static_cast<uint8_t>(i * i / 7 % 251);
  return image;
}

}  // namespace

TEST_CASE("a PNG decodes to the pixels that were encoded") {
  for (const int channels : {1, 3}) {
    const Image image = pattern(13, 31, channels);
    const Image decoded = decode(encode_png(image.view()), channels, "test");
    CHECK(decoded.height == 13);
    CHECK(decoded.width == 31);
    CHECK(decoded.pixels == image.pixels);
  }
  const Image large = pattern(40, 40, 3);
  const Image part = decode(encode_png(large.view().crop(3, 5, 20, 10)), 3, "test");
  CHECK(part.pixels[0] == large.view().row(3)[15]);  // rows of a crop are strided
  CHECK_THROWS_AS(encode_png(pattern(4, 4, 2).view()), UsageError);
}

TEST_CASE("the colours of maps grow lighter in equal steps") {
  const auto luminance = [](double t) {
    const auto [r, g, b] = perceptual_color(t);
    const auto linear = [](int byte) { return std::pow(byte / 255.0, 2.2); };
    return std::cbrt(0.2126 * linear(r) + 0.7152 * linear(g) + 0.0722 * linear(b));
  };
  const double step = (luminance(1) - luminance(0)) / 10;
  CHECK(step > 0.03);
  for (int i = 0; i < 10; ++i)
    CHECK(luminance((i + 1) / 10.0) - luminance(i / 10.0) == Approx(step).epsilon(0.35));
  CHECK(perceptual_color(std::nan("")) == perceptual_color(0));
  CHECK(perceptual_color(7) == perceptual_color(1));
}

TEST_CASE("a mask keeps the fewest patches that hold the wanted share") {
  const std::vector<float> map = {0.1f, 0.4f, 0.05f, 0.25f, 0.2f};
  CHECK(mass_mask(map, 0.6) == std::vector<uint8_t>{0, 1, 0, 1, 0});
  CHECK(mass_mask(map, 0.3) == std::vector<uint8_t>{0, 1, 0, 0, 0});
  CHECK(mass_mask(map, 0.7) == std::vector<uint8_t>{0, 1, 0, 1, 1});
}

TEST_CASE("a map is drawn patch by patch from its smallest to its largest value") {
  const std::vector<float> map = {1, 3, 2, 1, 1, 3};
  const Image image = draw_map(map, 2, 3, 4);
  CHECK(image.height == 8);
  CHECK(image.width == 12);
  const auto color = [&](int y, int x) {
    const uint8_t* p = image.view().row(y) + 3 * x;
    return std::array<uint8_t, 3>{p[0], p[1], p[2]};
  };
  CHECK(color(3, 3) == perceptual_color(0));
  CHECK(color(0, 4) == perceptual_color(1));
  CHECK(color(3, 8) == perceptual_color(0.5));
  CHECK(color(7, 11) == perceptual_color(1));
  CHECK(draw_map(std::vector<float>{2, 2}, 1, 2, 1).pixels[0] ==
        perceptual_color(0)[0]);  // a flat map has no range
}

TEST_CASE("a mask covers half of the colour of its patches") {
  const Image image = pattern(4, 4, 1);
  const Image covered = draw_mask(image, std::vector<uint8_t>{1, 0, 0, 0}, 2, 2);
  CHECK(covered.channels == 3);
  CHECK(covered.pixels[3 * 2] == image.pixels[2]);
  CHECK(covered.pixels[0] == (image.pixels[0] + 230 + 1) / 2);
}

TEST_CASE("attention maps are the CLS row of the last block and are saved as pictures and numbers") {
  Context context(2);
  ParameterStore store;
  BackboneConfig config;
  config.arch = "vit_tiny";
  config.image_size = 32;
  config.patch_size = 8;
  config.embed_dim = 24;
  config.heads = 3;
  config.depth = 2;
  const Backbone backbone = make_backbone(store, "", config);
  store.allocate({.dtype = Dtype::f32}, 1, false);
  const auto& vit = std::get<VisionTransformer>(backbone);
  const PreparedImage image = prepare_for_attention(context, pattern(50, 70, 3), 37, 48, 8, {}, {});
  CHECK(image.input.shape() == Shape{1, 32, 48, 3});
  CHECK(image.shown.pixels.size() == 32 * 48 * 3);
  const AttentionMaps maps = attention_maps(context, vit, image.input);
  CHECK(maps.heads == 3);
  CHECK(maps.rows == 4);
  CHECK(maps.cols == 6);
  const Tensor all = vit.last_attention(context, image.input);
  for (int64_t head = 0; head < 3; ++head) {
    const auto map = maps.map(head);
    const double sum = std::accumulate(map.begin(), map.end(), 0.0);
    const float own = all.view().as<float>()[head * 25 * 25];
    CHECK(sum + static_cast<double>(own) == Approx(1));
    CHECK(map[7] == all.view().as<float>()[head * 25 * 25 + 8]);
  }

  const test::TemporaryFolder folder;
  const std::vector<std::string> files = save_attention(folder.path(), image, maps, 8, 0.6);
  CHECK(files.size() == 3 + 3 * 2);
  for (const std::string& file : files) CHECK(std::filesystem::exists(file));
  CHECK(std::filesystem::exists(folder / "mask_th0.6_head2.png"));
  const Image head = decode(read_file(folder / "attn-head1.png"), 3, "head");
  CHECK(head.height == 32);
  CHECK(head.width == 48);
  const NamedTensor raw = load_npy(folder / "attention.npy");
  CHECK(raw.shape == std::vector<int64_t>{3, 4, 6});
  CHECK(to_floats(raw) == maps.values);
}

TEST_CASE("an image smaller than a patch cannot be prepared for attention") {
  Context context(1);
  CHECK_THROWS_AS(prepare_for_attention(context, pattern(50, 70, 3), 7, 48, 8, {}, {}), UsageError);
}
