#include "augment/scan.h"

#include <catch2/catch.hpp>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <set>

#include "augment/scan_index.h"
#include "tests/augment/fixtures.h"

namespace dino {
namespace {

using namespace fixtures;
namespace fs = std::filesystem;

/// Twelve sound images, all different, in two classes.
void write_sound_images(const TemporaryFolder& folder) {
  for (int i = 0; i < 12; ++i) folder.write(str("data/class", i % 2, "/", 100 + i, ".jpg"), jpeg(pattern(40 + i, 50)));
}

Image with_alpha(int rows, int columns) {
  Image image(rows, columns, 4);
  for (size_t i = 0; i < image.pixels.size(); ++i) image.pixels[i] = static_cast<uint8_t>(7 * i);
  return image;
}

DataReport report_of(const std::string& path, int64_t smallest_side = 16, int channels = 3) {
  const auto dataset = Dataset::open(path, channels);
  return summarize(*dataset, scan(*dataset, {.kind = channels, .workers = 2}), smallest_side, channels);
}

std::string file_name(const std::string& path) { return fs::path(path).filename(); }

/// A scan of a folder that remembers.
struct Remembering {
  std::string data, index;

  Scan operator()() const {
    const auto dataset = Dataset::open(data);
    return scan(*dataset, {.workers = 2, .index = index, .source = data});
  }
};

Bytes bytes_of_file(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

}  // namespace

TEST_CASE("the header of every format tells what decoding finds") {
  const auto check_header = [](const Bytes& file, ImageFormat format, int channels, int bits, bool alpha, bool cmyk = false) {
    const ImageHeader header = read_image_header(file);
    INFO(name_of(format) << ", " << channels << " channels of " << bits << " bits");
    CHECK(header == ImageHeader{format, 21, 17, channels, bits, alpha, cmyk});
    const Image image = decode(file, 3, "image");
    CHECK(image.width == header.width);
    CHECK(image.height == header.height);
  };
  const Image colour = pattern(17, 21), gray = gray_pattern(17, 21), alpha = with_alpha(17, 21);
  check_header(jpeg(colour), ImageFormat::jpeg, 3, 8, false);
  check_header(jpeg(gray), ImageFormat::jpeg, 1, 8, false);
  check_header(cmyk_jpeg(alpha), ImageFormat::jpeg, 4, 8, false, true);
  check_header(png(colour), ImageFormat::png, 3, 8, false);
  check_header(png(gray), ImageFormat::png, 1, 8, false);
  check_header(png(alpha), ImageFormat::png, 4, 8, true);
  check_header(png16(colour), ImageFormat::png, 3, 16, false);
  check_header(bmp(colour), ImageFormat::bmp, 3, 8, false);
  check_header(pnm(colour), ImageFormat::pnm, 3, 8, false);
  check_header(pnm(gray), ImageFormat::pnm, 1, 8, false);
  check_header(webp(colour), ImageFormat::webp, 3, 8, false);
  check_header(tiff(colour), ImageFormat::tiff, 3, 8, false);
  check_header(tiff(gray), ImageFormat::tiff, 1, 8, false);
  check_header(tiff(alpha), ImageFormat::tiff, 4, 8, true);
}

TEST_CASE("no header is read beyond its file, however damaged") {
  for (const Bytes& whole : {jpeg(pattern(17, 21)), png16(pattern(17, 21)), bmp(pattern(17, 21)), pnm(pattern(17, 21)), webp(pattern(17, 21)),
                             tiff(with_alpha(17, 21))}) {
    const ImageFormat format = read_image_header(whole).format;
    for (size_t size = 0; size < std::min<size_t>(whole.size(), 300); ++size) {
      // A copy of just that size, so that a sanitizer sees a step beyond it.
      const Bytes part(whole.begin(), whole.begin() + static_cast<long>(size));
      const ImageFormat found = read_image_header(part).format;
      CHECK((found == format || found == ImageFormat::unknown));
    }
    for (size_t at = 4; at < std::min<size_t>(whole.size(), 300); ++at) {
      Bytes damaged = whole;
      damaged[at] = 0xFF;
      const ImageHeader header = read_image_header(damaged);
      CHECK(header.width >= 0);
      CHECK(header.height >= 0);
    }
  }
}

TEST_CASE("a scan finds each defect that was planted, and nothing else") {
  const TemporaryFolder folder;
  write_sound_images(folder);
  const Bytes sound = jpeg(pattern(60, 61));
  folder.write("data/class0/truncated.jpg", std::span(sound).first(sound.size() / 2));
  folder.write("data/class0/empty.jpg", Bytes{});
  folder.write("data/class0/text.png", std::string("no image"));
  folder.write("data/class0/tiny.png", png(pattern(9, 30)));
  folder.write("data/class1/twin.jpg", jpeg(pattern(40, 50)));  // as class0/100.jpg
  folder.write("data/class1/triplet.jpg", jpeg(pattern(40, 50)));
  folder.write("data/class1/gray.jpg", jpeg(gray_pattern(50, 50)));
  folder.write("data/class1/alpha.png", png(with_alpha(50, 50)));
  folder.write("data/class1/cmyk.jpg", cmyk_jpeg(with_alpha(50, 51)));
  folder.write("data/class1/deep.png", png16(pattern(50, 50)));
  const DataReport report = report_of(folder.path("data"));
  CHECK(report.images == 22);
  CHECK(report.looked_at == 22);
  CHECK(report.readable == 19);
  std::set<std::string> unreadable;
  for (const auto& [path, reason] : report.unreadable) {
    unreadable.insert(file_name(path));
    CHECK_THAT(reason, Catch::StartsWith(path));
  }
  CHECK(unreadable == std::set<std::string>{"truncated.jpg", "empty.jpg", "text.png"});
  REQUIRE(report.tiny.size() == 1);
  CHECK(file_name(report.tiny.front().first) == "tiny.png");
  CHECK(report.tiny.front().second == "30 x 9");
  REQUIRE(report.duplicates.size() == 1);
  REQUIRE(report.duplicates.front().size() == 3);
  CHECK(file_name(report.duplicates.front()[0]) == "100.jpg");
  CHECK(file_name(report.duplicates.front()[1]) == "triplet.jpg");
  CHECK(file_name(report.duplicates.front()[2]) == "twin.jpg");
  CHECK(report.copies() == 2);
  REQUIRE(report.odd.size() == 4);
  for (const auto& [kind, name] :
       {std::pair{"gray", "gray.jpg"}, {"colour with transparency", "alpha.png"}, {"CMYK", "cmyk.jpg"}, {"colour, 16 bits", "deep.png"}}) {
    INFO(kind);
    REQUIRE(report.odd.count(kind) == 1);
    REQUIRE(report.odd.at(kind).size() == 1);
    CHECK(file_name(report.odd.at(kind).front()) == name);
  }
  CHECK(report.kinds.at("colour") == 15);
  CHECK(report.formats == std::map<std::string, size_t>{{"JPEG", 16}, {"PNG", 3}});
  CHECK(report.classes == std::vector<std::pair<std::string, size_t>>{{"class0", 10}, {"class1", 12}});
  CHECK(report.height.least == 9);
  CHECK(report.height.most == 51);
  CHECK(report.width.median == 50);
}

TEST_CASE("a scan of sound images finds nothing") {
  const TemporaryFolder folder;
  write_sound_images(folder);
  const DataReport report = report_of(folder.path("data"));
  CHECK(report.readable == 12);
  CHECK(report.unreadable.empty());
  CHECK(report.tiny.empty());
  CHECK(report.duplicates.empty());
  CHECK(report.odd.empty());
}

TEST_CASE("images that are all gray are not odd") {
  const TemporaryFolder folder;
  for (int i = 0; i < 3; ++i) folder.write(str("data/", i, ".png"), png(gray_pattern(20 + i, 20)));
  CHECK(report_of(folder.path("data")).odd.empty());
  CHECK(report_of(folder.path("data")).kinds.at("gray") == 3);
}

TEST_CASE("archives, IDX and CIFAR files are scanned too") {
  const TemporaryFolder folder;
  Bytes archive;
  append_member(archive, "a/1.png", png(pattern(20, 20)));
  append_member(archive, "b/2.png", png(pattern(20, 20)));
  append_member(archive, "b/3.jpg", Bytes{0xFF, 0xD8, 0xFF});
  finish_archive(archive);
  const DataReport tar = report_of(folder.write("data.tar", archive));
  CHECK(tar.readable == 2);
  CHECK(tar.copies() == 1);
  REQUIRE(tar.unreadable.size() == 1);
  CHECK_THAT(tar.unreadable.front().first, Catch::EndsWith("data.tar:b/3.jpg"));

  const DataReport idx = report_of(folder.write("train-images-idx3-ubyte", idx_images(5, 8, 9)));
  CHECK(idx.readable == 5);
  CHECK(idx.tiny.size() == 5);
  CHECK(idx.width.median == 9);
  CHECK(idx.kinds.at("gray") == 5);

  const DataReport cifar_report = report_of(folder.write("batch.bin", cifar(4, 1)));
  CHECK(cifar_report.readable == 4);
  CHECK(cifar_report.kinds.at("colour") == 4);
  CHECK(cifar_report.bytes == 4 * 3072);
}

TEST_CASE("a sample is spread over the data and has the size that was asked for") {
  const TemporaryFolder folder;
  write_sound_images(folder);
  const auto dataset = Dataset::open(folder.path("data"));
  CHECK(scan(*dataset, {.max_images = 4}).images == std::vector<size_t>{0, 3, 6, 9});
  CHECK(scan(*dataset, {.max_images = 100}).images.size() == 12);
  CHECK(scan(*dataset, {.max_seconds = 1e-9}).images.empty());
}

TEST_CASE("a second scan reads only what was changed, and finds the same") {
  const TemporaryFolder folder;
  write_sound_images(folder);
  folder.write("data/class0/broken.jpg", std::string("no image"));
  const Remembering look{folder.path("data"), folder.path("cache/index")};
  const Scan first = look();
  CHECK(first.remembered == 0);
  CHECK(first.index_problem.empty());
  const Scan second = look();
  CHECK(second.remembered == 13);
  CHECK(second.found == first.found);
  CHECK(second.images == first.images);

  SECTION("a file of another size") {
    folder.write("data/class0/102.jpg", png(pattern(16, 16)));
    const Scan third = look();
    CHECK(third.remembered == 12);
    CHECK(third.found[1].header.format == ImageFormat::png);
  }
  SECTION("a file of the same size that was written later") {
    const std::string path = folder.path("data/class0/102.jpg");
    Bytes contents = bytes_of_file(path);
    contents[contents.size() / 2] ^= 1;
    folder.write("data/class0/102.jpg", contents);
    fs::last_write_time(path, fs::last_write_time(path) + std::chrono::seconds(1));
    const Scan third = look();
    CHECK(third.remembered == 12);
    CHECK(third.found[1].hash != first.found[1].hash);
  }
  SECTION("files that came and went") {
    fs::remove(folder.path("data/class0/102.jpg"));
    folder.write("data/class0/101b.jpg", jpeg(pattern(33, 34)));
    CHECK(look().remembered == 12);
    CHECK(look().remembered == 13);
  }
  SECTION("the same folder under another name") {
    CHECK(Remembering{folder.path("data/../data"), look.index}().remembered == 13);
    CHECK(Remembering{folder.path("data/"), look.index}().remembered == 13);
  }
  SECTION("a folder whose files have the same names, sizes and times") {
    fs::copy(folder.path("data"), folder.path("other"), fs::copy_options::recursive);
    for (const auto& entry : fs::recursive_directory_iterator(folder.path("data")))
      fs::last_write_time(folder.path("other") / fs::relative(entry.path(), folder.path("data")), entry.last_write_time());
    CHECK(Remembering{folder.path("other"), look.index}().remembered == 0);
  }
}

TEST_CASE("the images of an archive are remembered as long as it is the same") {
  const TemporaryFolder folder;
  const auto write_archive = [&](int images) {
    Bytes archive;
    // Two members of one name, as `tar --append` leaves them.
    for (int i = 0; i < images; ++i) append_member(archive, i == 1 ? "a/0.png" : str("a/", i, ".png"), png(pattern(20 + i, 20)));
    finish_archive(archive);
    folder.write("data.tar", archive);
  };
  const Remembering look{folder.path("data.tar"), folder.path("cache/index")};
  write_archive(4);
  const Scan first = look();
  const Scan second = look();
  CHECK(second.remembered == 4);
  CHECK(second.found == first.found);
  CHECK(second.found[0].hash != second.found[1].hash);
  write_archive(5);
  CHECK(look().remembered == 0);
}

TEST_CASE("a damaged, shortened or foreign index is not trusted") {
  const TemporaryFolder folder;
  write_sound_images(folder);
  const Remembering look{folder.path("data"), folder.path("cache/index")};
  const Scan first = look();
  const Bytes sound = bytes_of_file(look.index);
  const std::string identity = source_identity(look.data) + " as 3 channels of uint8";
  REQUIRE(load_scan_index(look.index, identity).size() == 12);
  for (size_t at = 0; at < sound.size(); at += 7) {
    Bytes damaged = sound;
    damaged[at] ^= 0x10;
    folder.write("cache/index", damaged);
    CHECK(load_scan_index(look.index, identity).empty());
    folder.write("cache/index", std::span(sound).first(at));
    CHECK(load_scan_index(look.index, identity).empty());
  }
  CHECK(load_scan_index(folder.path("none"), identity).empty());
  folder.write("cache/index", sound);
  CHECK(load_scan_index(look.index, "elsewhere").empty());
  folder.write("cache/index", std::string("dino_engine scan index 1\n"));
  const Scan again = look();
  CHECK(again.remembered == 0);
  CHECK(again.found == first.found);
  CHECK(look().remembered == 12);
}

TEST_CASE("an index whose sum is right and whose numbers are not is not trusted") {
  const TemporaryFolder folder;
  const std::string path = folder.path("index");
  IndexedImage image{.key = "a", .stamp = {1, 2}, .image = {}};
  image.image.header.channels = 3;
  IndexedImage second = image;
  second.key = "b";
  save_scan_index(path, "source", {image, second});
  REQUIRE(load_scan_index(path, "source").size() == 2);
  const Bytes sound = bytes_of_file(path);
  const auto with_number_at = [&](size_t offset, uint64_t value) {
    Bytes bytes(sound.begin(), sound.end() - static_cast<long>(sizeof(ContentHash)));
    std::memcpy(bytes.data() + offset, &value, sizeof value);
    const ContentHash hash = content_hash(bytes);
    const auto* begin = reinterpret_cast<const uint8_t*>(hash.data());
    bytes.insert(bytes.end(), begin, begin + sizeof hash);
    folder.write("index", bytes);
    return load_scan_index(path, "source");
  };
  const size_t source = std::string_view("dino_engine scan index 1\n").size(), count = source + 8 + 6, key = count + 8, format = key + 8 + 1 + 16;
  REQUIRE(with_number_at(count, 2).size() == 2);
  CHECK(with_number_at(count, 1).empty());  // something is left
  CHECK(with_number_at(count, uint64_t{1} << 60).empty());
  CHECK(with_number_at(source, uint64_t{1} << 60).empty());
  CHECK(with_number_at(key, 1000).empty());
  CHECK(with_number_at(format, 200).empty());
  CHECK(with_number_at(format + 8, UINT64_MAX).empty());
}

TEST_CASE("a scan writes nothing where the images lie, and an index that cannot be written is only told") {
  const TemporaryFolder folder;
  write_sound_images(folder);
  folder.write("file", std::string("in the way"));
  const Scan first = Remembering{folder.path("data"), folder.path("file/index")}();
  CHECK(first.images.size() == 12);
  CHECK_THAT(first.index_problem, Catch::Contains(folder.path("file")));
  size_t files = 0;
  for (const auto& entry : fs::recursive_directory_iterator(folder.path("data"))) files += entry.is_regular_file();
  CHECK(files == 12);
}

TEST_CASE("the index of a source lies in the user's cache, but never in the source itself") {
  const TemporaryFolder folder;
  const char* before = std::getenv("XDG_CACHE_HOME");
  const std::string old = before ? before : "";
  ::setenv("XDG_CACHE_HOME", folder.path("cache").c_str(), 1);
  const std::string one = scan_index_path(folder.path("data")), other = scan_index_path(folder.path("more"));
  const std::string inside = scan_index_path(folder.path());
  before ? ::setenv("XDG_CACHE_HOME", old.c_str(), 1) : ::unsetenv("XDG_CACHE_HOME");
  CHECK_THAT(one, Catch::StartsWith(folder.path("cache/dino_engine/")));
  CHECK(one != other);
  CHECK(inside.empty());
}

TEST_CASE("contents that differ in a bit or in length have different hashes") {
  const Bytes contents = png(pattern(9, 9));
  std::set<ContentHash> hashes{content_hash(contents)};
  for (size_t bit = 0; bit < 8 * contents.size(); ++bit) {
    Bytes changed = contents;
    changed[bit / 8] ^= static_cast<uint8_t>(1 << bit % 8);
    hashes.insert(content_hash(changed));
  }
  CHECK(hashes.size() == 8 * contents.size() + 1);
  std::set<uint64_t> halves;
  for (size_t size = 0; size <= 100; ++size) {
    const ContentHash hash = content_hash(Bytes(size, 0));
    halves.insert(hash.begin(), hash.end());
  }
  CHECK(halves.size() == 202);
}

}  // namespace dino
