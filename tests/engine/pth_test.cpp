#include "engine/pth.h"

#include <sys/resource.h>

#include <catch2/catch.hpp>

#include "tests/engine/files.h"

using namespace dino;
using namespace dino::test;
using Kind = PickleValue::Kind;

namespace {

PthFile read(const std::string& text) {
  const HeapBytes bytes = heap_bytes(text);
  return PthFile::read(bytes.span(), bytes.owner, "f");
}

/// One entry of an archive as torch writes it: stored, without its checksum.
struct ZipEntry {
  std::string name, data;
  uint16_t method = 0, flags = 0;
};

std::string zip_of(const std::vector<ZipEntry>& entries) {
  std::string file, directory;
  for (const ZipEntry& e : entries) {
    const auto size = little_endian(static_cast<uint32_t>(e.data.size()));
    const std::string common = little_endian(e.flags) + little_endian(e.method) + std::string(8, '\0') +
                               size + size + little_endian(static_cast<uint16_t>(e.name.size()));
    directory += "PK\1\2" + std::string(4, '\0') + common + std::string(12, '\0') +
                 little_endian(static_cast<uint32_t>(file.size())) + e.name;
    file += "PK\3\4" + std::string(2, '\0') + common + little_endian<uint16_t>(5) + e.name + "extra" + e.data;
  }
  const auto count = little_endian(static_cast<uint16_t>(entries.size()));
  return file + directory + "PK\5\6" + std::string(4, '\0') + count + count +
         little_endian(static_cast<uint32_t>(directory.size())) +
         little_endian(static_cast<uint32_t>(file.size())) + std::string(2, '\0');
}

const std::string kProto("\x80\x02", 2);

// Below, std::string("X") + … instead of "X" + …: GCC 12 warns falsely (-Wrestrict) of the latter.
std::string text_op(const std::string& text) {
  return std::string("X") + little_endian(static_cast<uint32_t>(text.size())) + text;
}
std::string int_op(int32_t value) { return std::string("J") + little_endian(value); }

/// A file of one pickle and one storage '0' of six f32.
std::string pth_of(const std::string& pickle, size_t storage_bytes = 24) {
  return zip_of(
      {{"top/data.pkl", kProto + pickle + "."}, {"top/data/0", std::string(storage_bytes, '\x01')}});
}

/// {'w': _rebuild_tensor_v2(storage '0', offset, shape, strides, False, OrderedDict())}
std::string tensor_pickle(int32_t elements, int32_t offset, const std::vector<int32_t>& shape,
                          const std::vector<int32_t>& strides) {
  const auto tuple = [](const std::vector<int32_t>& values) {
    std::string out = "(";
    for (const int32_t v : values) out += int_op(v);
    return out + "t";
  };
  return std::string("}") + text_op("w") + "ctorch._utils\n_rebuild_tensor_v2\n((" + text_op("storage") +
         "ctorch\nFloatStorage\n" + text_op("0") + text_op("cpu") + int_op(elements) + "tQ" + int_op(offset) +
         tuple(shape) + tuple(strides) + "\x89" + "ccollections\nOrderedDict\n)RtRs";
}

std::vector<double> values(const TensorFile& file, const std::string& name) {
  const NamedTensor* tensor = file.find(name);
  REQUIRE(tensor != nullptr);
  return to_doubles(*tensor);
}

void check_tensors(const TensorFile& file) {
  using V = std::vector<double>;
  CHECK(values(file, "dense") == V{0, 1, 2, 3, 4, 5});
  CHECK(values(file, "transposed") == V{0, 2, 4, 1, 3, 5});
  CHECK(file.find("transposed")->shape == std::vector<int64_t>{2, 3});
  CHECK(values(file, "sliced") == V{5, 7, 9, 11});
  CHECK(values(file, "expanded") == V{0, 0, 1, 1, 2, 2});
  CHECK(values(file, "first_half") == V{0, 1, 2, 3, 4, 5});
  CHECK(values(file, "second_half") == V{6, 7, 8, 9, 10, 11});
  CHECK(file.find("half")->dtype == Dtype::f16);
  CHECK(values(file, "half") == V{-0.5, -0.25, 0, 0.25, 0.5});
  CHECK(file.find("bf16")->dtype == Dtype::bf16);
  CHECK(values(file, "bf16") == V{-0.5, -0.25, 0, 0.25, 0.5});
  CHECK(values(file, "double") == V{0, 1.0 / 3, 2.0 / 3});
  CHECK(values(file, "long") == V{-1099511627776.0, 0, 7});
  CHECK(values(file, "int") == V{-5, 6});
  CHECK(values(file, "byte") == V{0, 255});
  CHECK(values(file, "scalar") == V{2.5});
  CHECK(file.find("scalar")->shape.empty());
  CHECK(values(file, "empty").empty());
  CHECK(file.find("empty")->shape == std::vector<int64_t>{0, 3});
  CHECK(values(file, "parameter") == V{0, 1, 2, 3});
  CHECK(file.tensors.size() == 15);
  CHECK(file.tensors[0].name == "dense");
}

}  // namespace

TEST_CASE("every tensor layout and dtype of a torch zip file is read") {
  check_tensors(load_pth(golden("tensors.pth"), "teacher"));
}

TEST_CASE("torch's format before 1.6 gives the same tensors") {
  check_tensors(load_pth(golden("tensors_legacy.pth"), "teacher"));
}

TEST_CASE("ZIP64 sizes and offsets are read") {
  check_tensors(load_pth(golden("tensors_zip64.pth"), "teacher"));
}

TEST_CASE("dense tensors are views into the file, strided ones are copies") {
  const PthFile file = PthFile::open(golden("tensors.pth"));
  const NamedTensor first = file.tensor(*file.find("first_half"), "a");
  const NamedTensor second = file.tensor(*file.find("second_half"), "b");
  CHECK(second.bytes.data() == first.bytes.data() + 24);
  CHECK(first.owner == second.owner);
  CHECK(file.tensor(*file.find("transposed"), "c").owner != first.owner);
}

TEST_CASE("checkpoint_key picks one network of a training checkpoint") {
  const TensorFile student = load_pth(golden("training_checkpoint.pth"), "student");
  const TensorFile teacher = load_pth(golden("training_checkpoint.pth"), "teacher");
  CHECK(student.find("module.backbone.norm.weight") != nullptr);
  CHECK(student.find("module.head.last_layer.weight_g")->shape == std::vector<int64_t>{3, 1});
  CHECK(values(teacher, "backbone.cls_token") == std::vector<double>{0, 1, 2, 3});
  CHECK(teacher.tensors.size() == 7);
  const std::string message =
      message_of<FormatError>([] { load_pth(golden("training_checkpoint.pth"), "ema"); });
  CHECK_THAT(message,
             Catch::EndsWith("training_checkpoint.pth: expected the entry 'ema', found 'student', 'teacher', "
                             "'optimizer', 'epoch', 'args', 'dino_loss', 'fp16_scaler'"));
}

TEST_CASE("all of a training checkpoint can be read: centre, epoch, arguments, optimizer, scaler") {
  const PthFile file = PthFile::open(golden("training_checkpoint.pth"));
  CHECK(to_doubles(file.tensor(*file.find("dino_loss.center"), "center")) == std::vector<double>{0, 1, 2});
  CHECK(file.find("epoch")->integer == 3);
  CHECK(file.find("args")->kind == Kind::object);
  CHECK(file.find("args")->text == "argparse.Namespace");
  CHECK(file.find("args.arch")->text == "vit_small");
  CHECK(file.find("args.lr")->real == 0.0005);
  CHECK(file.find("args.use_fp16")->integer == 1);
  CHECK(file.find("args.seed")->integer == -1);
  CHECK(file.find("args.freeze")->kind == Kind::none);
  CHECK(file.find("args.global_crops_scale")->items[0]->real == 0.4);
  CHECK(file.find("args.absent") == nullptr);
  CHECK(file.find("fp16_scaler.scale")->real == 65536);

  const PickleValue& group = *file.find("optimizer.param_groups")->items[0];
  CHECK(group.find("lr")->kind == Kind::real);  // numpy float64 scalars
  CHECK(group.find("lr")->real == 0.00025);
  CHECK(group.find("weight_decay")->real == 0.04);
  CHECK(file.find("fp16_scaler._growth_tracker")->integer == 1);  // numpy int64

  const TensorFile state = file.tensors_of(*file.find("optimizer.state"));
  CHECK(values(state, "0.step") == std::vector<double>{1});
  CHECK(state.find("0.exp_avg")->shape == std::vector<int64_t>{1, 1, 4});
  CHECK(values(state, "0.exp_avg")[3] == Approx(0.6));  // (1 - 0.9) · 2 · 3
}

TEST_CASE("weights may lie under state_dict or model, or in nested dicts") {
  const std::string tensor = tensor_pickle(6, 0, {2, 3}, {3, 1});
  for (const std::string key : {"teacher", "state_dict", "model"}) {
    const PthFile file =
        read(pth_of(std::string("}") + text_op("epoch") + int_op(3) + "s" + text_op(key) + tensor + "s"));
    CHECK(weights_of(file, "teacher", "f").tensors[0].name == "w");
  }
  const PthFile nested = read(pth_of(std::string("}") + text_op("net") + tensor + "s"));
  CHECK(weights_of(nested, "teacher", "f").tensors[0].name == "net.w");
}

TEST_CASE("a file without tensors is no weights file") {
  const auto message = [](const std::string& pickle) {
    return message_of<FormatError>([&] { weights_of(read(pth_of(pickle)), "teacher", "f"); });
  };
  CHECK(message(std::string("}") + text_op("a") + "Ns") ==
        "f: expected the entry 'teacher' or a state dict, found 'a'");
  CHECK(message("}") == "f: expected the entry 'teacher' or a state dict, found no names");
  CHECK(message("]") == "f: expected a dict of tensors, found another value");
}

TEST_CASE("a tensor must lie inside its storage") {
  const auto fits = [](const std::string& pickle, size_t bytes = 24) {
    const std::string message = message_of<FormatError>([&] { read(pth_of(pickle, bytes)); });
    if (!message.empty()) CHECK_THAT(message, Catch::StartsWith("f: ") && Catch::Contains("expected"));
    return message.empty();
  };
  CHECK(fits(tensor_pickle(6, 0, {2, 3}, {3, 1})));
  CHECK(fits(tensor_pickle(6, 5, {}, {})));
  CHECK(fits(tensor_pickle(6, 6, {0}, {1})));
  CHECK(fits(tensor_pickle(6, 5, {1}, {INT32_MAX})));
  CHECK_FALSE(fits(tensor_pickle(6, 1, {2, 3}, {3, 1})));
  CHECK_FALSE(fits(tensor_pickle(6, 0, {2, 3}, {4, 1})));
  CHECK_FALSE(fits(tensor_pickle(6, 6, {}, {})));
  CHECK_FALSE(fits(tensor_pickle(6, 7, {0}, {1})));
  CHECK_FALSE(fits(tensor_pickle(6, -1, {1}, {1})));
  CHECK_FALSE(fits(tensor_pickle(6, 5, {2}, {-1})));
  CHECK_FALSE(fits(tensor_pickle(6, 0, {-2}, {1})));
  CHECK_FALSE(fits(tensor_pickle(6, 0, {2}, {1, 1})));
  const int32_t most = INT32_MAX;
  CHECK_FALSE(fits(tensor_pickle(6, 0, {most, most, most, most}, {most, most, most, most})));
  CHECK_FALSE(fits(tensor_pickle(6, 0, std::vector<int32_t>(65, 1), std::vector<int32_t>(65, 1))));
}

TEST_CASE("a storage must be as large as the pickle says") {
  for (const int32_t elements : {5, 7, -1, INT32_MAX}) {
    CHECK_THROWS_AS(read(pth_of(tensor_pickle(elements, 0, {1}, {1}))), FormatError);
  }
  CHECK_THROWS_AS(read(zip_of({{"top/data.pkl", kProto + tensor_pickle(6, 0, {1}, {1}) + "."}})),
                  FormatError);
}

TEST_CASE("an expanded tensor cannot claim more than a small multiple of the file") {
  const PthFile file = read(pth_of(tensor_pickle(6, 0, {1 << 20, 1 << 20}, {0, 0})));
  CHECK_THAT(message_of<FormatError>([&] { weights_of(file, "teacher", "f"); }),
             Catch::Contains("'w': expected a strided tensor of at most 4 times the file's size"));
  const PthFile endless = read(pth_of(tensor_pickle(6, 0, std::vector<int32_t>(4, INT32_MAX), {0, 0, 0, 0})));
  CHECK_THROWS_AS(weights_of(endless, "teacher", "f"), FormatError);
}

TEST_CASE("a dict that holds itself or its copies does not make the reader run for ever") {
  CHECK_THROWS_AS(weights_of(read(pth_of("}q\1" + text_op("a") + "h\1s")), "teacher", "f"), FormatError);
  // d1 = {a: d0, b: d0}, d2 = {a: d1, b: d1}, …: 2^15 paths
  std::string doubling = tensor_pickle(6, 0, {1}, {1}) + "q" + '\0';
  for (char i = 1; i < 15; ++i) {
    const std::string last = std::string("h") + static_cast<char>(i - 1);
    doubling += std::string("}") + text_op("a") + last + "s" + text_op("b") + last + "sq" + i;
  }
  const PthFile file = read(pth_of(std::string("(") + doubling + "t"));
  CHECK_THAT(message_of<FormatError>([&] { file.tensors_of(*file.root().items.back()); }),
             Catch::Contains("found names nested without bound"));
}

TEST_CASE("a global that weights do not need is refused by name and never called") {
  const std::string message = message_of<FormatError>(
      [] { read(pth_of("cos\nsystem\n(" + text_op("touch /tmp/dino_engine_was_here") + "tR")); });
  CHECK(message ==
        "f: data.pkl: byte 13: expected only globals that weights need, found 'os.system' (nothing was "
        "executed)");
  for (const std::string global :
       {"cbuiltins\neval\n", "ctorch\nload\n", "ctorch._utils._rebuild_tensor_v2\n\n",
        "ctorch.FloatStorage\n\n", "c\n\n", "cnumpy.core.multiarray\n_reconstruct\n"}) {
    CHECK_THROWS_AS(read(pth_of(global)), FormatError);
  }
}

TEST_CASE("a pickle that breaks a rule is refused") {
  std::string nested, wrapped = ")", many(1'100'000, 'N');
  for (int i = 0; i < 200'000; ++i) nested += "]";
  for (int i = 0; i < 200'000; ++i) wrapped += "\x85";
  // one remembered tuple of 10000 items as the argument of 1000 calls
  std::string copies = std::string("(") + std::string(10'000, 'N') + "tq" + '\0';
  for (int i = 0; i < 1000; ++i) copies += std::string("cargparse\nNamespace\nh") + '\0' + "R";
  struct Case {
    std::string rule, pickle, message;
  };
  const Case cases[] = {
      {"known opcodes", "i", "expected an opcode of torch's files, found 105"},
      {"no later protocol", "\x95", "expected an opcode"},
      {"one value", "NN", "expected one value at the end"},
      {"a value", "", "expected a value on the stack"},
      {"texts inside the file", std::string("X") + little_endian<uint32_t>(UINT32_MAX) + "a",
       "expected 4294967295 more bytes"},
      {"small integers", std::string("\x8a\xff") + std::string(255, 'x'),
       "expected integers of at most 8 bytes, found 255"},
      {"integers inside the file", "\x8a\xff", "expected 255 more bytes"},
      {"small memo indices", std::string("Nr") + little_endian<uint32_t>(UINT32_MAX),
       "expected a small memo index"},
      {"remembered values only", "h\5", "expected a remembered value"},
      {"balanced stack", "NN\x87", "expected a value on the stack"},
      {"nothing below a mark", "N(\x85", "expected a value on the stack"},
      {"a mark to go back to", "NNt", "expected a mark"},
      {"few open marks", std::string(1000, '('), "open marks"},
      {"lists are appended to", "}Na", "expected a list to fill"},
      {"dicts get items", "]NNs", "expected a dict to fill"},
      {"keys have values", "}(Nu", "expected pairs"},
      {"only globals are called", "N)R", "expected a global to call"},
      {"with tuples", "ccollections\nOrderedDict\n]R", "expected a tuple of arguments"},
      {"OrderedDict takes pairs", "ccollections\nOrderedDict\n]Na\x85R", "expected OrderedDict of pairs"},
      {"OrderedDict takes a list", "ccollections\nOrderedDict\nN\x85R", "expected OrderedDict of a list"},
      {"state for objects only", "]Nb", "expected an object to give its state to"},
      {"ids are tuples", "NQ", "expected a tuple as persistent id"},
      {"ids are storages", ")Q", "persistent id: expected a storage"},
      {"lines end", "cabc", "expected a line"},
      {"tensors have arguments", "ctorch._utils\n_rebuild_tensor_v2\n)R", "tensor: expected storage, offset"},
      {"tensors have storages", "ctorch._utils\n_rebuild_tensor_v2\n(NK\1))tR", "tensor: expected a storage"},
      {"parameters wrap tensors", "ctorch._utils\n_rebuild_parameter\n)R", "parameter: expected a tensor"},
      {"few values", many, "values"},
      {"few items", copies, "expected at most 4000000 items"},
      {"shallow lists", "(" + nested + std::string(199'999, 'a') + "t", "levels of nesting"},
      {"shallow tuples", wrapped, "levels of nesting"},
  };
  for (const Case& c : cases) {
    INFO(c.rule);
    const std::string message = message_of<FormatError>([&] { read(pth_of(c.pickle)); });
    CHECK_THAT(message, Catch::StartsWith("f: ") && Catch::Contains(c.message));
    CHECK(message.find('\n') == std::string::npos);
  }
  CHECK_THROWS_AS(read(zip_of({{"top/data.pkl", "\x80\x04N."}})), FormatError);
  CHECK_THROWS_AS(read(zip_of({{"top/data.pkl", ""}})), FormatError);
}

TEST_CASE("an archive that torch.save would not write is refused") {
  const std::string pickle = kProto + "}.";
  CHECK(read(zip_of({{"any name/data.pkl", pickle}})).root().kind == Kind::dict);
  CHECK(read(zip_of({{"a/data.pkl", pickle}, {"a/byteorder", "little"}})).root().kind == Kind::dict);
  struct Case {
    std::vector<ZipEntry> entries;
    std::string message;
  };
  const Case cases[] = {
      {{}, "expected a file written by torch.save"},
      {{{"a/b.pkl", pickle}}, "expected an entry 'data.pkl'"},
      {{{"data.pkl", pickle}}, "expected an entry 'data.pkl'"},
      {{{"a/b/data.pkl", pickle}}, "expected an entry 'data.pkl'"},
      {{{"a/data.pkl", pickle}, {"a/byteorder", "big"}}, "byteorder: expected 'little', found 'big'"},
      {{{"a/data.pkl", pickle, 8}}, "'a/data.pkl': expected a stored entry, found compression method 8"},
      {{{"a/data.pkl", pickle, 0, 1}}, "found encryption"},
      {{{"a/data.pkl", pickle}, {"a/data.pkl", pickle}}, "expected unique names"},
  };
  for (const Case& c : cases) {
    CHECK_THAT(message_of<FormatError>([&] { read(zip_of(c.entries)); }), Catch::Contains(c.message));
  }
  const std::string good = zip_of({{"a/data.pkl", pickle}});
  for (size_t length = 0; length < good.size(); ++length) {
    CHECK_THROWS_AS(read(good.substr(0, length)), FormatError);
  }
  CHECK(read(good.substr(0, good.size() - 2) + std::string("\3\0abc", 5)).root().kind ==
        Kind::dict);  // a comment
}

TEST_CASE("a torch file that is cut short anywhere is refused") {
  for (const char* name : {"tensors.pth", "tensors_legacy.pth", "tensors_zip64.pth"}) {
    const std::string text = read_text(golden(name));
    for (size_t length = 0; length < text.size(); length += 7) {
      CHECK_THROWS_AS(read(text.substr(0, length)), FormatError);
    }
  }
}

TEST_CASE("a damaged torch file is read or refused, never worse") {
  rusage before{}, after{};
  ::getrusage(RUSAGE_SELF, &before);
  for (const char* name :
       {"tensors.pth", "tensors_legacy.pth", "tensors_zip64.pth", "training_checkpoint.pth"}) {
    const std::string text = read_text(golden(name));
    size_t refused = 0;
    for (unsigned seed = 0; seed < 5'000; ++seed) {
      const std::string damaged = mutated(text, seed);
      const auto read_all = [&] {
        const PthFile file = read(damaged);
        for (const NamedTensor& tensor : weights_of(file, "teacher", "f").tensors) to_doubles(tensor);
        file.find("args.arch");
      };
      refused += message_of<FormatError>(read_all) != "";
    }
    CHECK(refused > 1'000);
  }
  ::getrusage(RUSAGE_SELF, &after);
  CHECK(after.ru_maxrss - before.ru_maxrss < 512 * 1024);  // KiB; a sanitizer keeps freed memory
}
