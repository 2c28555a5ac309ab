#include <catch2/catch.hpp>

#include <cmath>

#include "augment/image.h"
#include "kernels/color.h"
#include "kernels/color_math.h"

namespace dino {
namespace {

struct Hsv {
  int hue, saturation, value;
};

// Pillow's arithmetic (Convert.c), with its floats and doubles.
Hsv hsv_of(int red, int green, int blue) {
  const int high = std::max(red, std::max(green, blue)), low = std::min(red, std::min(green, blue));
  if (high == low) return {0, 0, high};
  const float range = static_cast<float>(high - low), saturation = range / static_cast<float>(high);
  const float rc = static_cast<float>(high - red) / range, gc = static_cast<float>(high - green) / range;
  const float bc = static_cast<float>(high - blue) / range;
  const double sixths = red == high ? double(bc) - gc : green == high ? 2.0 + rc - bc : 4.0 + gc - rc;
  const float hue = static_cast<float>(std::fmod(static_cast<double>(static_cast<float>(sixths)) / 6.0 + 1.0, 1.0));
  return {std::min(int(hue * 255.0), 255), std::min(int(saturation * 255.0), 255), high};
}

std::array<int, 3> rgb_of(const Hsv& hsv) {
  const float s = static_cast<float>(hsv.saturation / 255.0);
  const double position = hsv.hue * 6.0 / 255.0, v = hsv.value;
  const int sector = static_cast<int>(std::floor(position));
  const float f = static_cast<float>(position - sector);
  const int p = static_cast<int>(std::round(v * (1.0 - s))), q = static_cast<int>(std::round(v * (1.0 - s * f)));
  const int t = static_cast<int>(std::round(v * (1.0 - s * (1.0 - f)))), whole = hsv.value;
  const std::array<std::array<int, 3>, 6> sectors{
      {{whole, t, p}, {q, whole, p}, {p, whole, t}, {p, q, whole}, {t, p, whole}, {whole, p, q}}};
  return sectors[static_cast<size_t>(sector % 6)];
}

TEST_CASE("every colour has the reference's hue and saturation") {
  int64_t wrong = 0;
  for (int color = 0; color < 1 << 24; ++color) {
    const int red = color >> 16, green = color >> 8 & 255, blue = color & 255;
    const Hsv expected = hsv_of(red, green, blue);
    const HueSaturation got = hue_saturation(hue_parts(red, green, blue));
    wrong += got.hue != expected.hue || got.saturation != expected.saturation;
  }
  CHECK(wrong == 0);
}

TEST_CASE("every hue, saturation and value has the reference's colour") {
  int64_t wrong = 0;
  for (int number = 0; number < 1 << 24; ++number) {
    const Hsv hsv{number >> 16, number >> 8 & 255, number & 255};
    const HueLevels levels = hue_levels(hsv.hue, hsv.saturation, hsv.value);
    const std::array<int, 3> got{red_of(levels, hsv.value), green_of(levels, hsv.value), blue_of(levels, hsv.value)};
    wrong += got != rgb_of(hsv);
  }
  CHECK(wrong == 0);
}

TEST_CASE("an image of all colours is turned pixel by pixel as the reference turns it, whatever its width") {
  for (const float factor : {0.0f, 0.09f}) {
    CAPTURE(factor);
    // A width that leaves a rest for every length of vectors.
    constexpr int kWidth = 4095;
    Image image((1 << 24) / kWidth + 1, kWidth, 3);
    const auto color_of = [](size_t pixel) {
      return std::array<uint8_t, 3>{uint8_t(pixel >> 16), uint8_t(pixel >> 8), uint8_t(pixel)};
    };
    for (size_t i = 0; i < image.pixels.size(); ++i) image.pixels[i] = color_of(i / 3)[i % 3];
    adjust_hue(image.view(), factor);
    int64_t wrong = 0;
    for (size_t pixel = 0; 3 * pixel < image.pixels.size(); ++pixel) {
      const auto [red, green, blue] = color_of(pixel);
      Hsv hsv = hsv_of(red, green, blue);
      hsv.hue = (hsv.hue + hue_shift(factor)) & 255;
      const std::array<int, 3> expected = rgb_of(hsv);
      for (size_t c = 0; c < 3; ++c) wrong += image.pixels[3 * pixel + c] != expected[c];
    }
    CHECK(wrong == 0);
  }
}

}  // namespace
}  // namespace dino
