#include <catch2/catch.hpp>

#include <functional>

#include "augment/geometry.h"
#include "augment/recipe.h"
#include "kernels/blur.h"
#include "kernels/color.h"
#include "kernels/crop_resize.h"
#include "tests/augment/fixtures.h"

// The checksums were made with Pillow 9.4 and torchvision 0.14.

namespace dino {
namespace {

using fixtures::crc_of;

const Image& golden() {
  static const Image image = fixtures::pattern(97, 131);
  return image;
}

uint32_t crc_after(const std::function<void(MutableImageView)>& change) {
  Image image = golden();
  change(image.view());
  return crc_of(image);
}

uint32_t crc_of_crop(CropBox box, int size, Filter filter) {
  Image out(size, size, 3);
  ResizeScratch scratch;
  resize(golden().view().crop(box.top, box.left, box.height, box.width), out.view(), filter, scratch);
  return crc_of(out);
}

struct Golden {
  float value;
  uint32_t crc;
};

TEST_CASE("the golden image has the checksum of the reference") { CHECK(crc_of(golden()) == 0xe8c2b17c); }

TEST_CASE("crop and resize gives the reference's bytes") {
  CHECK(crc_of_crop({0, 0, 97, 131}, 32, Filter::bicubic) == 0x0f5f02b8);
  CHECK(crc_of_crop({10, 20, 60, 45}, 32, Filter::bicubic) == 0xcbe60742);
  CHECK(crc_of_crop({5, 7, 20, 15}, 48, Filter::bicubic) == 0xa735a7d5);
  CHECK(crc_of_crop({3, 4, 90, 64}, 96, Filter::bicubic) == 0x050cf3c3);
  CHECK(crc_of_crop({30, 40, 48, 48}, 48, Filter::bicubic) == 0xc317fcd5);
  CHECK(crc_of_crop({1, 2, 33, 96}, 96, Filter::bicubic) == 0xbf8a4e54);
  CHECK(crc_of_crop({10, 20, 60, 45}, 32, Filter::bilinear) == 0x9da38b24);
}

TEST_CASE("brightness gives the reference's bytes") {
  for (const Golden& g : {Golden{0.6f, 0xd998b3a8},
                          {0.77f, 0x4e969d70},
                          {1.0f, 0xe8c2b17c},
                          {1.13f, 0x1d116685},
                          {1.4f, 0x2e7a15f4}}) {
    CAPTURE(g.value);
    CHECK(crc_after([&](MutableImageView image) { adjust_brightness(image, g.value); }) == g.crc);
  }
}

TEST_CASE("contrast gives the reference's bytes") {
  for (const Golden& g : {Golden{0.6f, 0x7de1ace3},
                          {0.77f, 0x931a6f58},
                          {1.0f, 0xe8c2b17c},
                          {1.13f, 0x4bf4f56a},
                          {1.4f, 0xc227da83}}) {
    CAPTURE(g.value);
    CHECK(crc_after([&](MutableImageView image) { adjust_contrast(image, g.value); }) == g.crc);
  }
}

TEST_CASE("saturation gives the reference's bytes") {
  for (const Golden& g : {Golden{0.8f, 0x633eeb7d},
                          {0.93f, 0x4f69ad18},
                          {1.0f, 0xe8c2b17c},
                          {1.07f, 0x1bcf4584},
                          {1.2f, 0xbd818ce8}}) {
    CAPTURE(g.value);
    CHECK(crc_after([&](MutableImageView image) { adjust_saturation(image, g.value); }) == g.crc);
  }
}

TEST_CASE("hue gives the reference's bytes, and shift 0 changes colours too") {
  for (const Golden& g : {Golden{-0.1f, 0x592d999f},
                          {-0.05f, 0x4507bec1},
                          {-0.003f, 0xdcabe3a6},
                          {0.0f, 0xdcabe3a6},
                          {0.003f, 0xdcabe3a6},
                          {0.05f, 0x9900ff61},
                          {0.1f, 0x814ce3e2}}) {
    CAPTURE(g.value);
    CHECK(crc_after([&](MutableImageView image) { adjust_hue(image, g.value); }) == g.crc);
  }
}

TEST_CASE("grayscale, solarize and flip give the reference's bytes") {
  CHECK(crc_after(to_grayscale) == 0x3a3333cd);
  CHECK(crc_after(solarize) == 0x6c3e90bb);
  CHECK(crc_after([](MutableImageView image) { flip_horizontally(image); }) == 0x39aa9deb);
}

TEST_CASE("Gaussian blur gives the reference's bytes") {
  BlurScratch scratch;
  for (const Golden& g : {Golden{0.1f, 0xe8c2b17c},
                          {0.3f, 0x84e36817},
                          {0.5f, 0x6bed56d5},
                          {0.8f, 0xa25df86b},
                          {1.0f, 0xe0f5f8d3},
                          {1.2f, 0x36f173c1},
                          {1.37f, 0xc392c3ca},
                          {1.7f, 0x0c33b9ab},
                          {2.0f, 0xbe1bbad2}}) {
    CAPTURE(g.value);
    CHECK(crc_after([&](MutableImageView image) { gaussian_blur(image, g.value, scratch); }) == g.crc);
  }
}

TEST_CASE("resizing the short side and cutting the centre gives the reference's bytes") {
  CHECK(crc_of(resize_to(golden(), 40, 54, Filter::bicubic)) == 0x273adb02);
  CHECK(crc_of(resize_short_center_crop(golden(), 40, 33)) == 0xa7393b35);
}

TEST_CASE("an image that has the size of the crop is left alone") {
  const Image image = fixtures::pattern(33, 33);
  CHECK(resize_short_center_crop(image, 38, 33).pixels == image.pixels);
}

TEST_CASE("thumbnails have the reference's sizes and bytes") {
  struct Case {
    int rows, columns, side, thumbnail_rows, thumbnail_columns;
    uint32_t crc;
  };
  for (const Case& c : {Case{97, 131, 64, 47, 64, 0x24325369}, Case{301, 403, 64, 48, 64, 0x2dfe5ede},
                        Case{263, 200, 50, 50, 38, 0xed76cd8b}, Case{511, 640, 100, 80, 100, 0x03846dc3}}) {
    CAPTURE(c.rows, c.columns);
    const Image small = thumbnail(fixtures::pattern(c.rows, c.columns), c.side);
    CHECK(small.height == c.thumbnail_rows);
    CHECK(small.width == c.thumbnail_columns);
    CHECK(crc_of(small) == c.crc);
  }
  CHECK(thumbnail(golden(), 131).pixels == golden().pixels);
}

TEST_CASE("normalisation gives the reference's floats") {
  const Normalization n = normalization_of(3, {}, {});
  std::vector<float> out(golden().pixels.size());
  normalize(golden().view(), n.mean, n.deviation, out.data());
  const float first[] = {-2.1179039f, -0.26750696f, 1.7162529f},
              inner[] = {0.60493195f, -1.9656862f, 0.02562099f};
  for (size_t c = 0; c < 3; ++c) {
    // The reference's values are known to seven digits.
    CHECK(out[c] == Approx(first[c]).epsilon(1e-7));
    CHECK(out[(50 * 131 + 60) * 3 + c] == Approx(inner[c]).epsilon(3e-7));
  }
}

TEST_CASE("operations on a view touch only the view") {
  Image image = golden();
  const MutableImageView part = image.view().crop(11, 7, 23, 31);
  BlurScratch scratch;
  adjust_contrast(part, 1.3f);
  adjust_hue(part, 0.1f);
  gaussian_blur(part, 1.7f, scratch);
  flip_horizontally(part);
  solarize(part);
  int changed_outside = 0;
  for (int y = 0; y < image.height; ++y) {
    for (int x = 0; x < image.width; ++x) {
      const bool inside = y >= 11 && y < 34 && x >= 7 && x < 38;
      for (int c = 0; c < 3; ++c) {
        changed_outside += !inside && image.view().row(y)[3 * x + c] != golden().view().row(y)[3 * x + c];
      }
    }
  }
  CHECK(changed_outside == 0);
}

TEST_CASE("a gray image equals each channel of the same picture in three channels") {
  const Image gray = fixtures::gray_pattern(41, 37);
  Image wide(41, 37, 3);
  for (size_t i = 0; i < wide.pixels.size(); ++i) wide.pixels[i] = gray.pixels[i / 3];
  Image narrow = gray;
  BlurScratch scratch;
  for (const bool color : {false, true}) {
    const MutableImageView image = color ? wide.view() : narrow.view();
    adjust_brightness(image, 1.2f);
    adjust_contrast(image, 0.7f);
    gaussian_blur(image, 1.5f, scratch);
    solarize(image);
    flip_horizontally(image);
  }
  bool equal = true;
  for (size_t i = 0; i < wide.pixels.size(); ++i) equal = equal && wide.pixels[i] == narrow.pixels[i / 3];
  CHECK(equal);
}

TEST_CASE("saturation, hue and grayscale leave gray images alone") {
  Image image = fixtures::gray_pattern(9, 8);
  const Image before = image;
  adjust_saturation(image.view(), 0.3f);
  adjust_hue(image.view(), 0.1f);
  to_grayscale(image.view());
  CHECK(image.pixels == before.pixels);
}

TEST_CASE("boxes outside an image and impossible sizes are refused") {
  CHECK_THROWS_AS(golden().view().crop(90, 0, 8, 8), UsageError);
  CHECK_THROWS_AS(golden().view().crop(-1, 0, 8, 8), UsageError);
  CHECK_THROWS_AS(golden().view().crop(0, 0, 0, 8), UsageError);
  CHECK_THROWS_AS(resize_to(golden(), 0, 8, Filter::bicubic), UsageError);
  CHECK_THROWS_AS(resize_short_center_crop(golden(), 20, 21), UsageError);
  CHECK_THROWS_AS(gaussian_box_filter(-1.0f), UsageError);
}

}  // namespace
}  // namespace dino
