#include "engine/safetensors.h"

#include <catch2/catch.hpp>

#include "tests/engine/files.h"

using namespace dino;
using namespace dino::test;

namespace {

TensorFile read(const std::string& text) {
  const HeapBytes bytes = heap_bytes(text);
  return read_safetensors(bytes.span(), bytes.owner, "f");
}

std::string file_of(const std::string& header, const std::string& data = "") {
  return little_endian<uint64_t>(header.size()) + header + data;
}

TensorFile example() {
  TensorFile file;
  file.metadata = {{"step", "12"}, {"format", "pt"}, {"quote", "\"\n\\ é"}};
  file.tensors = {tensor_of<float>("b.weight", {2, 3}, {1, -2, 3.5f, 4, 5, 6}),
                  tensor_of<int64_t>("a", {}, {-7}),
                  tensor_of<double>("empty", {0, 4}, {}),
                  tensor_of<uint8_t>("bytes", {3}, {1, 2, 255}),
                  tensor_of<int32_t>("ints", {1, 2}, {-1, 5}),
                  tensor_of<double>("doubles", {2}, {0.1, -1e300})};
  return file;
}

}  // namespace

TEST_CASE("what save_safetensors writes, load_safetensors reads back in the same order") {
  const TemporaryFolder folder;
  const TensorFile before = example();
  save_safetensors(folder / "f", before);
  const TensorFile after = load_safetensors(folder / "f");
  CHECK(after.metadata == before.metadata);
  REQUIRE(after.tensors.size() == before.tensors.size());
  for (size_t i = 0; i < before.tensors.size(); ++i) {
    INFO(before.tensors[i].name);
    CHECK(after.tensors[i].name == before.tensors[i].name);
    CHECK(after.tensors[i].dtype == before.tensors[i].dtype);
    CHECK(after.tensors[i].shape == before.tensors[i].shape);
    CHECK(to_doubles(after.tensors[i]) == to_doubles(before.tensors[i]));
  }
  CHECK(to_floats(*after.find("b.weight")) == std::vector<float>{1, -2, 3.5f, 4, 5, 6});
  CHECK(after.find("absent") == nullptr);
}

TEST_CASE("loaded tensors outlive the file's name and the TensorFile") {
  const TemporaryFolder folder;
  save_safetensors(folder / "f", example());
  const NamedTensor tensor = *load_safetensors(folder / "f").find("doubles");
  std::filesystem::remove(folder / "f");
  CHECK(to_doubles(tensor) == std::vector<double>{0.1, -1e300});
}

TEST_CASE("equal tensors and metadata give equal bytes, with data aligned to 8 bytes") {
  const TemporaryFolder folder;
  save_safetensors(folder / "1", example());
  save_safetensors(folder / "2", example());
  const std::string text = read_text(folder / "1");
  CHECK(text == read_text(folder / "2"));
  uint64_t header_bytes = 0;
  std::memcpy(&header_bytes, text.data(), sizeof header_bytes);
  CHECK(header_bytes % 8 == 0);
  CHECK(text.substr(8, 51) == R"({"__metadata__":{"format":"pt","quote":"\"\n\\ é",)");
}

TEST_CASE("a safetensors file may be empty of tensors") {
  const TemporaryFolder folder;
  save_safetensors(folder / "f", {});
  CHECK(load_safetensors(folder / "f").tensors.empty());
}

TEST_CASE("save_safetensors refuses what it could not read back") {
  const TemporaryFolder folder;
  const auto refused = [&](std::vector<NamedTensor> tensors) {
    CHECK_THROWS_AS(save_safetensors(folder / "f", {std::move(tensors), {}}), FormatError);
  };
  const NamedTensor good = tensor_of<float>("a", {1}, {1});
  refused({good, good});
  NamedTensor bad = good;
  bad.shape = {2};
  refused({bad});
  bad = good;
  bad.dtype = Dtype::none;
  refused({bad});
  bad = good;
  bad.name = "__metadata__";
  refused({bad});
  bad.name = "not utf-8 \xff";
  refused({bad});
  CHECK(!std::filesystem::exists(folder / "f"));
}

TEST_CASE("half and bfloat16 values convert exactly, subnormals and infinities included") {
  const std::string header = R"({"h":{"dtype":"F16","shape":[4],"data_offsets":[0,8]},)"
                             R"("b":{"dtype":"BF16","shape":[2],"data_offsets":[8,12]}})";
  const TensorFile file =
      read(file_of(header, std::string("\x00\x3c\x01\x00\xff\x7b\x00\xfc\x80\x3f\x20\xc0", 12)));
  CHECK(to_doubles(*file.find("h")) == std::vector<double>{1, 0x1p-24, 65504, -INFINITY});
  CHECK(to_doubles(*file.find("b")) == std::vector<double>{1, -2.5});
  CHECK(to_floats(*file.find("b")) == std::vector<float>{1, -2.5});
}

TEST_CASE("tensors need not lie in the order of the header") {
  const TensorFile file = read(file_of(
      R"({"a":{"dtype":"U8","shape":[1],"data_offsets":[1,2]},"b":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}})",
      "\x07\x09"));
  CHECK(file.tensors[0].name == "a");
  CHECK(to_doubles(file.tensors[0]) == std::vector<double>{9});
}

TEST_CASE("a header that breaks a rule is refused with one line that names the field") {
  const auto tensor = [](const std::string& name, const std::string& fields) {
    return "\"" + name + "\":{" + fields + "}";
  };
  const std::string a = tensor("a", R"("dtype":"U8","shape":[2],"data_offsets":[0,2])");
  struct Case {
    std::string rule, file, message;
  };
  const Case cases[] = {
      {"8 bytes", "1234567", "f: header: expected at least 8 bytes, found 7"},
      {"within the file", little_endian<uint64_t>(3) + "{}", "expected a length of at most 2, found 3"},
      {"length does not wrap", little_endian<uint64_t>(UINT64_MAX) + "{}", "found 18446744073709551615"},
      {"at most 100 MB", little_endian<uint64_t>(100'000'001) + std::string(100'000'001, ' '),
       "at most 100000000"},
      {"starts with a brace", file_of(" {}"), "header: expected '{', found ' '"},
      {"not empty", file_of(""), "header: expected '{'"},
      {"JSON", file_of("{\"a\""), "header: expected JSON, found a syntax error at byte"},
      {"one value", file_of("{} {}"), "expected JSON"},
      {"UTF-8", file_of("{\"\xff\":1}"), "expected JSON"},
      {"spaces only after it", file_of("{}x"), "expected JSON"},
      {"entry is an object", file_of(R"({"a":5})"), "f: 'a': expected an object, found a number"},
      {"entry is not a list", file_of(R"({"a":[]})"), "f: 'a': expected an object, found an array"},
      {"no deep nesting", file_of(R"({"a":{"shape":[[1]]}})"), "'a': 'shape': expected an unsigned integer"},
      {"no nested object", file_of(R"({"a":{"shape":{}}})"),
       "'a': 'shape': expected an array, found an object"},
      {"deep array", file_of("{\"a\":" + std::string(100'000, '[')), "'a': expected an object"},
      {"unique names", file_of("{" + a + "," + a + "}", "xx"),
       "f: 'a': expected unique names, found this one twice"},
      {"unique fields", file_of(R"({"a":{"dtype":"U8","dtype":"U8"}})"),
       "'a': 'dtype': expected once, found twice"},
      {"known fields", file_of(R"({"a":{"size":3}})"), "'a': 'size': expected dtype, shape or data_offsets"},
      {"all fields", file_of(R"({"a":{"dtype":"U8","shape":[]}})"),
       "expected the field 'data_offsets', found none"},
      {"known dtype", file_of(R"({"a":{"dtype":"F8_E4M3"}})"),
       "'a': 'dtype': expected F64, F32, BF16, F16, I64, I32 or U8, found 'F8_E4M3'"},
      {"dtype is text", file_of(R"({"a":{"dtype":4}})"), "'dtype': expected a string, found a number"},
      {"no negative extent", file_of(R"({"a":{"shape":[-1]}})"),
       "expected an unsigned integer, found the number -1"},
      {"no fraction", file_of(R"({"a":{"shape":[1.5]}})"),
       "expected an unsigned integer, found the number 1.5"},
      {"no huge extent", file_of(R"({"a":{"shape":[9223372036854775808]}})"), "expected numbers below 2^63"},
      {"no null", file_of(R"({"a":{"shape":[null]}})"), "expected an unsigned integer, found null"},
      {"two offsets",
       file_of("{" + tensor("a", R"("dtype":"U8","shape":[2],"data_offsets":[0])") + "}", "xx"),
       "data_offsets: expected 2 numbers, found 1"},
      {"begin <= end",
       file_of("{" + tensor("a", R"("dtype":"U8","shape":[0],"data_offsets":[2,0])") + "}", "xx"),
       "expected begin <= end <= 2, found [2, 0]"},
      {"end in the data", file_of("{" + a + "}", "x"), "expected begin <= end <= 1, found [0, 2]"},
      {"size fits the shape",
       file_of("{" + tensor("a", R"("dtype":"F32","shape":[1],"data_offsets":[0,2])") + "}", "xx"),
       "data_offsets: expected 4 bytes, found 2"},
      {"shape does not overflow",
       file_of("{" + tensor("a", R"("dtype":"U8","shape":[4294967296,4294967296],"data_offsets":[0,0])") +
               "}"),
       "shape: expected less than 2^63 bytes, found [4294967296, 4294967296]"},
      {"no overlap",
       file_of("{" + a + "," + tensor("b", R"("dtype":"U8","shape":[2],"data_offsets":[1,3])") + "}", "xxx"),
       "'b': data_offsets: expected to begin at 2, found 1"},
      {"no hole",
       file_of("{" + a + "," + tensor("b", R"("dtype":"U8","shape":[1],"data_offsets":[3,4])") + "}", "xxxx"),
       "'b': data_offsets: expected to begin at 2, found 3"},
      {"no hole at the start",
       file_of("{" + tensor("a", R"("dtype":"U8","shape":[1],"data_offsets":[1,2])") + "}", "xx"),
       "expected to begin at 0, found 1"},
      {"no bytes behind", file_of("{" + a + "}", "xxx"), "expected to cover 3 bytes of data, found 2"},
      {"metadata of texts", file_of(R"({"__metadata__":{"a":1}})"),
       "'__metadata__': 'a': expected a string, found a number"},
      {"flat metadata", file_of(R"({"__metadata__":{"a":{}}})"), "'a': expected a string, found an object"},
      {"unique metadata", file_of(R"({"__metadata__":{"a":"1","a":"2"}})"),
       "expected unique keys, found this one twice"},
      {"one metadata", file_of(R"({"__metadata__":{},"__metadata__":{}})"), "expected unique names"},
      {"messages of one line", file_of(R"({"a\nb":5})"), "f: 'a\\x0ab': expected an object"},
  };
  for (const Case& c : cases) {
    INFO(c.rule);
    const std::string message = message_of<FormatError>([&] { read(c.file); });
    CHECK_THAT(message, Catch::Contains(c.message));
    CHECK_THAT(message, Catch::StartsWith("f: "));
    CHECK(message.find('\n') == std::string::npos);
  }
}

TEST_CASE("load_safetensors tells an absent file from a malformed one") {
  const TemporaryFolder folder;
  CHECK_THROWS_AS(load_safetensors(folder / "absent"), UsageError);
  CHECK_THROWS_AS(load_safetensors(folder.path()), FormatError);
  write_text(folder / "empty", "");
  CHECK_THROWS_AS(load_safetensors(folder / "empty"), FormatError);
}

TEST_CASE("a damaged safetensors file is read or refused, never worse") {
  const TemporaryFolder folder;
  save_safetensors(folder / "f", example());
  const std::string text = read_text(folder / "f");
  size_t refused = 0;
  for (unsigned seed = 0; seed < 20'000; ++seed) {
    const std::string damaged = mutated(text, seed);
    const auto read_all = [&] {
      for (const NamedTensor& tensor : read(damaged).tensors) to_doubles(tensor);
    };
    refused += message_of<FormatError>(read_all) != "";
  }
  CHECK(refused > 5'000);
}
