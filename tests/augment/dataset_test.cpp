#include <catch2/catch.hpp>

#include <filesystem>

#include <sys/stat.h>

#include "augment/dataset.h"
#include "tests/augment/fixtures.h"

namespace dino {
namespace {

using namespace fixtures;
namespace fs = std::filesystem;

using Names = std::vector<std::string>;

std::string error_of(const std::string& path) {
  try {
    Dataset::open(path);
  } catch (const DataError& error) {
    return error.what();
  }
  return "";
}

std::string base_name(const Dataset& dataset, size_t index) {
  return fs::path(dataset.name(index)).filename();
}

TEST_CASE("a folder's classes are its first-level subfolders with images, in sorted order") {
  const TemporaryFolder folder;
  const Bytes file = png(pattern(4, 5));
  folder.write("zebra/deep/er/1.PNG", file);
  folder.write("zebra/0.png", file);
  folder.write("ant/b.png", file);
  folder.write("ant/a.png", file);
  folder.write("ant/notes.txt", std::string("no image"));
  folder.write("ant/.hidden.png", file);
  folder.write("empty/readme", std::string("no image"));
  const auto dataset = Dataset::open(folder.path());
  REQUIRE(dataset->size() == 4);
  CHECK(dataset->class_names() == Names{"ant", "zebra"});
  CHECK(dataset->labelled());
  CHECK(base_name(*dataset, 0) == "a.png");
  CHECK(base_name(*dataset, 1) == "b.png");
  CHECK(base_name(*dataset, 2) == "0.png");
  CHECK(base_name(*dataset, 3) == "1.PNG");
  CHECK(dataset->label(1) == 0);
  CHECK(dataset->label(3) == 1);
  CHECK(dataset->load(3).pixels == pattern(4, 5).pixels);
}

TEST_CASE("a flat folder has no labels") {
  const TemporaryFolder folder;
  folder.write("b.pgm", pnm(gray_pattern(3, 3)));
  folder.write("a.jpg", jpeg(pattern(8, 8)));
  const auto dataset = Dataset::open(folder.path(), 1);
  REQUIRE(dataset->size() == 2);
  CHECK_FALSE(dataset->labelled());
  CHECK(dataset->label(0) == -1);
  CHECK(dataset->class_names().empty());
  CHECK(dataset->load(1).pixels == gray_pattern(3, 3).pixels);
}

TEST_CASE("links are followed and circles of links end") {
  const TemporaryFolder folder, elsewhere;
  folder.write("cat/1.png", png(pattern(2, 2)));
  elsewhere.write("2.png", png(pattern(2, 2)));
  fs::create_directory_symlink(folder.path(), folder.path("cat/back"));
  fs::create_directory_symlink(elsewhere.path(), folder.path("dog"));
  CHECK(Dataset::open(folder.path())->class_names() == Names{"cat", "dog"});
}

TEST_CASE("a folder without images says what was looked for, or which archives it holds") {
  const TemporaryFolder folder;
  CHECK(error_of(folder.path()).find(".jpg .jpeg .png") != std::string::npos);
  folder.write("train-images-idx3-ubyte.gz", gzip(idx_images(2, 2, 2)));
  folder.write("t10k.tar", std::string(""));
  CHECK(error_of(folder.path()).find("t10k.tar, train-images-idx3-ubyte.gz") != std::string::npos);
  CHECK(error_of(folder.path("nowhere")).find("no such file") != std::string::npos);
}

TEST_CASE("a named pipe that is called like an image does not block") {
  const TemporaryFolder folder;
  REQUIRE(::mkfifo(folder.path("pipe.png").c_str(), 0600) == 0);
  CHECK_THROWS_AS(Dataset::open(folder.path())->load(0), DataError);
}

TEST_CASE("a list names images relative to itself, with labels that are numbers or names") {
  const TemporaryFolder folder;
  folder.write("images/a b.png", png(pattern(2, 3)));
  folder.write("images/c.png", png(pattern(2, 3)));
  const auto numbers = Dataset::open(
      folder.write("numbers.txt", std::string("# comment\nimages/a b.png 2\r\n\nimages/c.png\t0\n")));
  REQUIRE(numbers->size() == 2);
  CHECK(numbers->label(0) == 2);
  CHECK(numbers->label(1) == 0);
  CHECK(numbers->class_names().size() == 3);
  CHECK(numbers->load(0).width == 3);

  const auto names =
      Dataset::open(folder.write("names.txt", std::string("images/a b.png dog\nimages/c.png cat")));
  CHECK(names->class_names() == Names{"cat", "dog"});
  CHECK(names->label(0) == 1);

  const auto plain = Dataset::open(folder.write("plain.txt", std::string("images/a b.png\nimages/c.png\n")));
  CHECK_FALSE(plain->labelled());
  CHECK(plain->load(1).height == 2);

  const auto partly =
      Dataset::open(folder.write("partly.txt", std::string("images/a b.png 0\nimages/c.png\n")));
  CHECK_FALSE(partly->labelled());
}

TEST_CASE("lists that name nothing and files that are no lists are refused") {
  const TemporaryFolder folder;
  CHECK(error_of(folder.write("empty.txt", std::string("# nothing\n"))).find("lists no images") !=
        std::string::npos);
  CHECK(error_of(folder.write("unknown", Bytes{1, 0, 2})).find("known archive") != std::string::npos);
  CHECK(error_of(folder.write("one.png", png(pattern(2, 2)))).find("one image") != std::string::npos);
  CHECK(error_of(folder.write("a.tar.gz", gzip(Bytes(1024, 0)))).find("unpack") != std::string::npos);
  CHECK_THROWS_AS(Dataset::open(folder.path(), 0), UsageError);
  CHECK_THROWS_AS(Dataset::open(folder.path(), 65), UsageError);
}

TEST_CASE("an archive's members are read in place, with long names and pax names") {
  const TemporaryFolder folder;
  Bytes archive;
  append_member(archive, "./dog/1.png", png(pattern(4, 5)));
  append_member(archive, "dog/readme.txt", Bytes{'x'});
  append_member(archive, "dog/._2.png", Bytes{'x'});
  const std::string long_name = "cat/" + std::string(150, 'l') + ".ppm";
  append_member(archive, "././@LongLink", std::span(reinterpret_cast<const uint8_t*>(long_name.c_str()), 159),
                'L');
  append_member(archive, long_name.substr(0, 100), pnm(pattern(3, 2)));
  const std::string record = "19 path=ant/\xC3\xA4.png\n";
  append_member(archive, "pax", std::span(reinterpret_cast<const uint8_t*>(record.data()), record.size()),
                'x');
  append_member(archive, "ant/short", png(pattern(2, 2)));
  finish_archive(archive);
  const std::string path = folder.write("a.tar", archive);
  const auto dataset = Dataset::open(path);
  REQUIRE(dataset->size() == 3);
  CHECK(dataset->class_names() == Names{"ant", "cat", "dog"});
  CHECK(dataset->label(0) == 2);
  CHECK(dataset->name(1) == path + ":" + long_name);
  CHECK(dataset->name(2) == path + ":ant/\xC3\xA4.png");
  CHECK(dataset->load(0).pixels == pattern(4, 5).pixels);
  CHECK(dataset->load(1).pixels == pattern(3, 2).pixels);
}

TEST_CASE("several archives are one dataset, given with commas or a glob") {
  const TemporaryFolder folder;
  for (const std::string name : {"a", "b"}) {
    Bytes archive;
    append_member(archive, name + "/1.png", png(pattern(4, 5)));
    finish_archive(archive);
    folder.write(name + ".tar", archive);
  }
  const auto by_commas = Dataset::open(folder.path("b.tar") + "," + folder.path("a.tar"));
  const auto by_glob = Dataset::open(folder.path("*.tar"));
  CHECK(by_commas->size() == 2);
  CHECK(by_commas->label(0) == 1);
  CHECK(by_glob->label(0) == 0);
  CHECK(by_glob->load(1).width == 5);
  CHECK(error_of(folder.path("*.none")).find("no file matches") != std::string::npos);
}

TEST_CASE("a truncated archive is refused by file and offset") {
  const TemporaryFolder folder;
  Bytes archive;
  append_member(archive, "dog/1.png", png(pattern(40, 50)));
  const size_t second = archive.size();
  append_member(archive, "dog/2.png", png(pattern(40, 50)));
  archive.resize(second + 700);
  const std::string error = error_of(folder.write("a.tar", archive));
  CHECK(error.find("a.tar") != std::string::npos);
  CHECK(error.find("offset " + std::to_string(second)) != std::string::npos);
  archive.resize(second + 300);
  CHECK(error_of(folder.write("b.tar", archive)).find("truncated") != std::string::npos);
}

TEST_CASE("IDX images are read plain and compressed, with the labels beside") {
  const TemporaryFolder folder;
  const Bytes images = idx_images(7, 5, 4);
  const std::string plain = folder.write("a-images-idx3-ubyte", images);
  CHECK_FALSE(Dataset::open(plain)->labelled());
  folder.write("a-labels-idx1-ubyte.gz", gzip(idx_labels(7, 3)));
  const std::string packed = folder.write("b-images-idx3-ubyte.gz", gzip(images));
  folder.write("b-labels-idx1-ubyte.gz", gzip(idx_labels(7, 3)));
  for (const std::string& path : {plain, packed}) {
    const auto dataset = Dataset::open(path, 1);
    REQUIRE(dataset->size() == 7);
    CHECK(dataset->labelled());
    CHECK(dataset->label(5) == 2);
    CHECK(dataset->class_names().size() == 3);
    const Image image = dataset->load(6);
    CHECK(image.height == 5);
    CHECK(image.width == 4);
    CHECK(image.pixels == Bytes(images.end() - 20, images.end()));
    CHECK(Dataset::open(path)->load(6).channels == 3);
  }
}

TEST_CASE("IDX files that do not fit are refused") {
  const TemporaryFolder folder;
  Bytes images = idx_images(7, 5, 4);
  images.pop_back();
  CHECK(error_of(folder.write("a-images-idx3-ubyte", images)).find("truncated") != std::string::npos);
  folder.write("b-labels-idx1-ubyte", idx_labels(6, 3));
  CHECK(error_of(folder.write("b-images-idx3-ubyte", idx_images(7, 5, 4))).find("expected 7") !=
        std::string::npos);
  CHECK(error_of(folder.path("b-labels-idx1-ubyte")).find("holds labels") != std::string::npos);
  Bytes packed = gzip(idx_images(7, 5, 4));
  packed.resize(packed.size() / 2);
  CHECK(error_of(folder.write("c-images-idx3-ubyte.gz", packed)).find("cannot inflate") != std::string::npos);
}

TEST_CASE("CIFAR files become images of 32 x 32 with labels") {
  const TemporaryFolder folder;
  for (const int label_bytes : {1, 2}) {
    const Bytes records = cifar(12, label_bytes);
    const std::string stem = "batch" + std::to_string(label_bytes);
    folder.write(stem + "_1.bin", records);
    folder.write(stem + "_2.bin", cifar(3, label_bytes));
    const auto dataset = Dataset::open(folder.path(stem + "_*.bin"));
    REQUIRE(dataset->size() == 15);
    CHECK(dataset->label(11) == 1);
    CHECK(dataset->label(12) == 0);
    CHECK(dataset->class_names().size() == (label_bytes == 1 ? 10 : 100));
    const Image image = dataset->load(2);
    const size_t begin = 2 * (3072 + size_t(label_bytes)) + size_t(label_bytes);
    for (size_t c = 0; c < 3; ++c) CHECK(image.pixels[3 * 77 + c] == records[begin + c * 1024 + 77]);
  }
  Bytes cut = cifar(2, 1);
  cut.pop_back();
  CHECK(error_of(folder.write("cut.bin", cut)).find("3073") != std::string::npos);
  Bytes mislabelled = cifar(2, 1);
  mislabelled[0] = 10;
  CHECK(error_of(folder.write("label.bin", mislabelled)).find("label 10") != std::string::npos);
}

}  // namespace
}  // namespace dino
