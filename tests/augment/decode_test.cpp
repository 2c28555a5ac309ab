#include <catch2/catch.hpp>

#include <cmath>
#include <cstdlib>

#include "augment/decode.h"
#include "kernels/color_math.h"
#include "kernels/crop_resize.h"
#include "tests/augment/fixtures.h"

namespace dino {
namespace {

using namespace fixtures;

Image smooth(int rows, int columns, int channels) {
  Image image(rows, columns, channels);
  for (size_t i = 0; i < image.pixels.size(); ++i) {
    const size_t pixel = i / size_t(channels), c = i % size_t(channels);
    image.pixels[i] = static_cast<uint8_t>(40 + 30 * c + pixel / size_t(columns) + pixel % size_t(columns));
  }
  return image;
}

// Slow waves: the picture changes by up to 6 levels from pixel to pixel, and is almost a plane within 8 of them.
Image waves(int rows, int columns) {
  Image image(rows, columns, 3);
  uint8_t* out = image.pixels.data();
  for (int y = 0; y < rows; ++y)
    for (int x = 0; x < columns; ++x)
      for (const double turn : {0.0, 1.0, 2.0})
        *out++ = static_cast<uint8_t>(128 + 60 * std::sin(x / 20.0 + turn) + 60 * std::sin(y / 20.0 + 2 * turn));
  return image;
}

double mean_difference(const Image& a, const Image& b) {
  double sum = 0;
  for (size_t i = 0; i < a.pixels.size(); ++i) sum += std::abs(a.pixels[i] - b.pixels[i]);
  return sum / static_cast<double>(a.pixels.size());
}

int largest_difference(const Image& a, const Image& b) {
  if (a.pixels.size() != b.pixels.size()) return 256;
  int largest = 0;
  for (size_t i = 0; i < a.pixels.size(); ++i)
    largest = std::max(largest, std::abs(a.pixels[i] - b.pixels[i]));
  return largest;
}

void check_same(const Image& got, const Image& expected) {
  CHECK(got.height == expected.height);
  CHECK(got.width == expected.width);
  CHECK(got.channels == expected.channels);
  CHECK(got.pixels == expected.pixels);
}

std::string error_of(const Bytes& bytes) {
  try {
    decode(bytes, 3, "x.img");
  } catch (const DataError& error) {
    return error.what();
  }
  return "";
}

TEST_CASE("lossless formats give back the pixels, whatever the number of channels asked for") {
  const Image color = pattern(19, 23), gray = gray_pattern(19, 23);
  for (const Bytes& bytes : {png(color), png16(color), bmp(color), pnm(color), webp(color), tiff(color)}) {
    check_same(decode(bytes, 3, "x"), color);
    check_same(decode(bytes, 1, "x"), to_channels(color.view(), 1));
  }
  for (const Bytes& bytes : {png(gray), png16(gray), pnm(gray), tiff(gray)}) {
    check_same(decode(bytes, 1, "x"), gray);
    check_same(decode(bytes, 3, "x"), to_channels(gray.view(), 3));
  }
}

TEST_CASE("PNM files may be text, hold comments and have other ranges than 255") {
  const std::string text = "P2 # gray\n3 1\n# range\n15\n0 7 15\n", color = "P3 1 1 255 9 8 7";
  const std::string wide = std::string("P5 2 1 65535\n") + "\x80\x01\x01\xFF";
  const auto read = [](const std::string& file, int channels) {
    return decode(std::span(reinterpret_cast<const uint8_t*>(file.data()), file.size()), channels, "x")
        .pixels;
  };
  CHECK(read(text, 1) == Bytes{0, 119, 255});
  CHECK(read(color, 3) == Bytes{9, 8, 7});
  CHECK(read(wide, 1) == Bytes{0x80, 0x02});
  CHECK_THROWS_AS(read("P5 2 2 0 ....", 1), DataError);
  CHECK_THROWS_AS(read("P2 2 2 255 1 2 3", 1), DataError);
  CHECK_THROWS_AS(read("P2 2 1 255 1 300", 1), DataError);
}

TEST_CASE("transparency is dropped and does not touch the colours") {
  const Image color = pattern(19, 23);
  Image transparent(19, 23, 4), gray_alpha(19, 23, 2);
  for (size_t i = 0; i < 19 * 23; ++i) {
    for (size_t c = 0; c < 3; ++c) transparent.pixels[4 * i + c] = color.pixels[3 * i + c];
    transparent.pixels[4 * i + 3] = static_cast<uint8_t>(5 * i);
    gray_alpha.pixels[2 * i] = color.pixels[3 * i];
    gray_alpha.pixels[2 * i + 1] = static_cast<uint8_t>(3 * i);
  }
  check_same(decode(png(transparent), 3, "x"), color);
  check_same(decode(tiff(transparent), 3, "x"), color);
  check_same(decode(png(gray_alpha), 1, "x"), gray_pattern(19, 23));
}

TEST_CASE("colour becomes gray by the luma formula and gray becomes colour by repetition") {
  const Image color = pattern(3, 5), gray = to_channels(color.view(), 1), wide = to_channels(gray.view(), 3);
  for (size_t i = 0; i < gray.pixels.size(); ++i) {
    CHECK(gray.pixels[i] == luma(color.pixels[3 * i], color.pixels[3 * i + 1], color.pixels[3 * i + 2]));
    CHECK(wide.pixels[3 * i + 2] == gray.pixels[i]);
  }
}

TEST_CASE("JPEG gives back smooth pictures within its quantisation") {
  const Image color = smooth(37, 51, 3), gray = smooth(37, 51, 1);
  CHECK(largest_difference(decode(jpeg(color, 98), 3, "x"), color) <= 4);
  CHECK(largest_difference(decode(jpeg(gray, 98), 1, "x"), gray) <= 3);
  CHECK(decode(jpeg(gray), 3, "x").channels == 3);
}

TEST_CASE("a JPEG may be decoded smaller, with pixels that are nearly the means of those they stand for") {
  const Image image = waves(301, 403);
  const Bytes bytes = jpeg(image, 95);
  const Image full = decode(bytes, 3, "x");
  for (const int reduction : {1, 2, 4, 8}) {
    CAPTURE(reduction);
    int height = 0, width = 0;
    const Image reduced = decode_reduced(bytes, 3, "x", [&](int h, int w) {
      height = h;
      width = w;
      return reduction;
    });
    CHECK(height == 301);
    CHECK(width == 403);
    if (reduction == 1) check_same(reduced, full);
    Image means((301 + reduction - 1) / reduction, (403 + reduction - 1) / reduction, 3);
    box_reduce(full.view(), reduction, reduction, means.view());
    REQUIRE(reduced.height == means.height);
    REQUIRE(reduced.width == means.width);
    // A picture that is one reduced pixel off differs by more than 2 on average, whatever the reduction.
    CHECK(mean_difference(reduced, means) < 0.75);
  }
}

TEST_CASE("a photograph of 12 megapixels is decoded to 500 x 375 pixels, in colour, gray or from inks") {
  const auto eighth = [](int, int) { return 8; };
  const Image photograph = decode_reduced(jpeg(smooth(3000, 4000, 3)), 3, "x", eighth);
  CHECK((photograph.height == 375 && photograph.width == 500 && photograph.channels == 3));
  const Image gray = decode_reduced(jpeg(smooth(80, 160, 3)), 1, "x", eighth);
  CHECK((gray.height == 10 && gray.width == 20 && gray.channels == 1));
  const Image inks = decode_reduced(cmyk_jpeg(smooth(80, 160, 4)), 3, "x", eighth);
  CHECK((inks.height == 10 && inks.width == 20 && inks.channels == 3));
}

TEST_CASE("other formats are never reduced, and JPEGs only by what their blocks allow") {
  bool asked = false;
  const auto half = [&](int, int) { return asked = true, 2; };
  const Image color = pattern(19, 23);
  for (const Bytes& bytes : {png(color), bmp(color), pnm(color), webp(color), tiff(color)})
    check_same(decode_reduced(bytes, 3, "x", half), color);
  CHECK(!asked);
  for (const int wrong : {0, 3, 16})
    CHECK_THROWS_AS(decode_reduced(jpeg(color), 3, "x", [&](int, int) { return wrong; }), UsageError);
}

TEST_CASE("CMYK JPEG is inverted and multiplied by its key") {
  Image ink(16, 16, 4);
  for (size_t i = 0; i < ink.pixels.size(); i += 4) {
    const uint8_t values[] = {200, 100, 50, 180};  // 255 - cyan, ..., 255 - black
    std::copy_n(values, 4, &ink.pixels[i]);
  }
  const Image image = decode(cmyk_jpeg(ink), 3, "x");
  const int expected[] = {200 * 180 / 255, 100 * 180 / 255, 50 * 180 / 255};
  for (size_t c = 0; c < 3; ++c) CHECK(std::abs(image.pixels[c] - expected[c]) <= 3);
}

TEST_CASE("the format is told by the contents, and unknown contents are a one-line error") {
  CHECK(error_of({}).find("x.img: the file is empty") == 0);
  CHECK(error_of({'h', 'e', 'l', 'l', 'o'}).find("not a JPEG") != std::string::npos);
  CHECK_THROWS_AS(decode(png(pattern(2, 2)), 0, "x"), UsageError);
  CHECK_THROWS_AS(decode(png(pattern(2, 2)), 65, "x"), UsageError);
}

TEST_CASE("truncated files are errors that name the file") {
  const Image image = pattern(40, 40);
  for (const Bytes& whole : {jpeg(image), png(image), bmp(image), pnm(image), webp(image), tiff(image)}) {
    for (const size_t keep : {whole.size() / 2, whole.size() * 3 / 4, size_t{30}}) {
      const std::string error = error_of(Bytes(whole.begin(), whole.begin() + static_cast<ptrdiff_t>(keep)));
      CAPTURE(error, keep, whole.size());
      CHECK(error.find("x.img: ") == 0);
      CHECK(error.find('\n') == std::string::npos);
    }
  }
}

TEST_CASE("a header that promises more than the file can hold is an error, not an allocation") {
  Bytes file = png(pattern(2, 2));
  constexpr size_t kWidth = 16, kHeight = 20;  // big-endian in the header
  file[kWidth + 2] = file[kHeight + 2] = 0x1F;
  CHECK(error_of(file).find("truncated") != std::string::npos);
  file[kWidth + 1] = 0x02;  // beyond the longest side
  file[kWidth + 2] = file[kHeight + 2] = 0;
  CHECK(error_of(file).find("shrink it") != std::string::npos);
  for (const Bytes& whole : {png(pattern(2, 2)), png16(pattern(2, 2))}) {
    Bytes grown = whole;
    constexpr size_t kAfterHeader = 33;  // the length of the first part after the header
    grown[kAfterHeader] = 0x70;
    CHECK(error_of(grown).find("a part at byte 33 says that it has 18") != std::string::npos);
  }
}

}  // namespace
}  // namespace dino
