#include "engine/npy.h"

#include <catch2/catch.hpp>

#include "tests/engine/files.h"

using namespace dino;
using namespace dino::test;

namespace {

NamedTensor read(const std::string& text) {
  const HeapBytes bytes = heap_bytes(text);
  return read_npy(bytes.span(), bytes.owner, "f");
}

std::string file_of(const std::string& header, const std::string& data = "") {
  return std::string("\x93NUMPY\x01\x00", 8) + little_endian(static_cast<uint16_t>(header.size())) + header +
         data;
}

}  // namespace

TEST_CASE("a matrix written as .npy has the very bytes that NumPy writes") {
  const TemporaryFolder folder;
  const std::vector<float> values = {1, 2, 3, 4, 5, 6};
  save_npy(folder / "f.npy", values, {2, 3});
  // numpy.save of numpy.array([[1, 2, 3], [4, 5, 6]], "<f4")
  const std::string dict = "{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3), }";
  const std::string header = dict + std::string(128 - 10 - 1 - dict.size(), ' ') + "\n";
  std::string data(24, '\0');
  std::memcpy(data.data(), values.data(), 24);
  CHECK(read_text(folder / "f.npy") == file_of(header, data));
}

TEST_CASE("arrays of rank 0 to 4 survive a round trip through .npy") {
  const TemporaryFolder folder;
  const std::vector<std::vector<int64_t>> shapes = {{}, {6}, {2, 3}, {1, 2, 3}, {3, 1, 2, 1}, {0, 5}};
  for (const auto& shape : shapes) {
    INFO(shape_text(shape));
    const auto count = static_cast<size_t>(*dense_bytes(shape, Dtype::u8));
    std::vector<int64_t> labels(count, -3);
    save_npy(folder / "f.npy", labels, shape);
    const NamedTensor array = load_npy(folder / "f.npy");
    CHECK(array.dtype == Dtype::i64);
    CHECK(array.shape == shape);
    CHECK(to_doubles(array) == std::vector<double>(count, -3.0));
    CHECK(std::filesystem::file_size(folder / "f.npy") % 64 == count * 8 % 64);
  }
}

TEST_CASE("every dtype that NumPy shares with us survives a round trip through .npy") {
  const TemporaryFolder folder;
  const NamedTensor arrays[] = {tensor_of<double>("", {2}, {0.1, -1e300}),
                                tensor_of<float>("", {2}, {0.5f, -2}), tensor_of<int64_t>("", {2}, {-1, 1}),
                                tensor_of<int32_t>("", {2}, {-1, 1}), tensor_of<uint8_t>("", {2}, {0, 255})};
  for (const NamedTensor& before : arrays) {
    save_npy(folder / "f.npy", before);
    const NamedTensor after = load_npy(folder / "f.npy");
    CHECK(after.dtype == before.dtype);
    CHECK(to_doubles(after) == to_doubles(before));
  }
}

TEST_CASE("save_npy refuses five axes, bfloat16 and a shape that does not fit") {
  const TemporaryFolder folder;
  const std::vector<float> one = {1};
  CHECK_THROWS_AS(save_npy(folder / "f", one, {1, 1, 1, 1, 1}), FormatError);
  CHECK_THROWS_AS(save_npy(folder / "f", one, {2}), FormatError);
  NamedTensor bf16 = tensor_of<uint8_t>("", {2}, {0, 0});
  bf16.dtype = Dtype::bf16;
  bf16.shape = {1};
  CHECK_THROWS_AS(save_npy(folder / "f", bf16), FormatError);
}

TEST_CASE("a .npy header that breaks a rule is refused with one line that names the field") {
  const std::string good = "{'descr': '|u1', 'fortran_order': False, 'shape': (2,), }\n";
  CHECK(to_doubles(read(file_of(good, "ab"))) == std::vector<double>{97, 98});
  CHECK(to_doubles(read(file_of("{'shape':(2),'fortran_order':False,'descr':'|u1'}", "ab"))).size() == 2);
  struct Case {
    std::string file, message;
  };
  const Case cases[] = {
      {"", "magic: expected .npy version 1.0"},
      {std::string("\x93NUMPY\x02\x00", 8) + "\x00\x00", "magic: expected .npy version 1.0"},
      {file_of(good).substr(0, 30), "header: expected 58 bytes, found 20"},
      {file_of("{'descr': '>f4', 'fortran_order': False, 'shape': (1,)}", "abcd"),
       "descr: expected '<f8', '<f4', '<f2', '<i8', '<i4' or '|u1', found '>f4'"},
      {file_of("{'descr': '|O', 'fortran_order': False, 'shape': (1,)}", "a"), "descr: expected"},
      {file_of("{'descr': [('a', '<f4')]}"), "header: expected '''"},
      {file_of("{'fortran_order': True}"), "fortran_order: expected False, found 'True}'"},
      {file_of("{'shape': (-1,)}"), "shape: expected at most 4 non-negative integers"},
      {file_of("{'shape': (1, 1, 1, 1, 1)}"), "shape: expected at most 4"},
      {file_of("{'shape': (99999999999999999999,)}"), "shape: expected at most 4"},
      {file_of("{'shape': (1 2)}"), "header: expected ')', found '2)}'"},
      {file_of("{'shape': (1,), 'shape': (1,)}"), "shape: expected once, found twice"},
      {file_of("{'size': 3}"), "header: expected descr, fortran_order and shape, found 'size'"},
      {file_of("{'descr': '|u1'}"), "header: expected descr, fortran_order and shape, found less"},
      {file_of("{'descr"), "header: expected a string"},
      {file_of(good + "x", "ab"), "header: expected its end, found 'x'"},
      {file_of(good, "a"), "data: expected the bytes of u8 [2], found 1"},
      {file_of(good, "abc"), "data: expected the bytes of u8 [2], found 3"},
      {file_of("{'descr': '<f8', 'fortran_order': False, 'shape': (4294967296, 4294967296)}"),
       "data: expected"},
  };
  for (const Case& c : cases) {
    const std::string message = message_of<FormatError>([&] { read(c.file); });
    CHECK_THAT(message, Catch::StartsWith("f: " + c.message));
    CHECK(message.find('\n') == std::string::npos);
  }
}

TEST_CASE("a damaged .npy file is read or refused, never worse") {
  const TemporaryFolder folder;
  save_npy(folder / "f.npy", std::vector<float>{1, 2, 3, 4, 5, 6}, {2, 3});
  const std::string text = read_text(folder / "f.npy");
  size_t refused = 0;
  for (unsigned seed = 0; seed < 20'000; ++seed) {
    const std::string damaged = mutated(text, seed);
    refused += message_of<FormatError>([&] { to_doubles(read(damaged)); }) != "";
  }
  CHECK(refused > 5'000);
}
