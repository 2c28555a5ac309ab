#include <sys/stat.h>

#include <CLI/CLI.hpp>
#include <nlohmann/json.hpp>

#include "tests/train/process.h"
#include "train/commands/commands.h"
#include "train/limits.h"
#include "train/options.h"

using namespace dino;
using testing::Ending;
using testing::Folder;

namespace {

using Arguments = std::vector<std::string>;

Arguments words_of(const std::string& text) {
  std::istringstream stream(text);
  return {std::istream_iterator<std::string>(stream), {}};
}

Arguments operator+(Arguments a, const Arguments& b) {
  a.insert(a.end(), b.begin(), b.end());
  return a;
}

/// `command` with `value` behind `option`, in place of another one.
Arguments with(Arguments command, const std::string& option, const std::string& value) {
  const auto found = std::find(command.begin(), command.end(), option);
  if (found != command.end()) command.erase(found, found + 2);
  return command + Arguments{option + "=" + value};
}

/// What each command needs to do something small with success.
struct Sandbox {
  Folder folder;
  std::string images = testing::make_images(folder, 12), run = folder / "run", done = folder / "done";
  Arguments train = words_of(testing::small_arguments(images, run) + " --steps 1 --device cpu");
  std::string network =
      " --arch vit_tiny --embed-dim 24 --depth 1 --heads 3 --patch-size 4 --image-size 16 --device cpu";
  std::string both = " --train " + images + " --val " + images, image = images + "/class0/image1000.ppm";
  Arguments knn = words_of("eval knn" + network + both);
  Arguments linear = words_of("eval linear --epochs 1 --lr 0.1" + network + both);
  Arguments features = words_of("features" + network + " --data " + images + " --out " + (folder / "made.npy"));
  Arguments attention = words_of("attention" + network + " --image " + image + " --out " + (folder / "made"));
  Arguments report =
      words_of("report --images 1 --device cpu --run " + done + " --out " + (folder / "made.html"));
  Arguments convert =
      words_of("convert " + done + "/checkpoint.safetensors " + (folder / "made.safetensors"));
  Arguments plan = words_of(testing::small_arguments(images, run) + " --no-timing --device cpu");

  Sandbox() {
    plan.front() = "plan";
    REQUIRE(
        testing::run_program(testing::small_arguments(images, done) + " --steps 2 --saveckp-freq 0").code ==
        0);
  }

  /// All that exists and must stay as it is.
  std::map<std::string, std::string> state() const { return testing::contents_of(folder.path.string()); }
  /// Removes what an accepted command made.
  void clean() const {
    for (const char* name : {"run", "made", "made.npy", "made.json", "made.html", "made.safetensors"})
      testing::fs::remove_all(folder.path / name);
  }
};

std::string shown(const Arguments& arguments) {
  std::string text;
  for (const std::string& argument : arguments) text += shown_value(argument) + " ";
  return text;
}

/// What a refusal must be, whatever is wrong: exit code 2 or 3 and one line, which names `culprit`.
bool refused(const Ending& ending, const std::string& culprit) {
  const std::string line = testing::error_line(ending.err);
  CHECK((ending.code == 2 || ending.code == 3));
  CHECK_FALSE(line.empty());
  CHECK(ending.err.find("dino_engine: ") == ending.err.rfind("dino_engine: "));
  CHECK_THAT(line, Catch::Contains(culprit));
  CHECK(ending.largest_kib < 1 << 20);
  return ending.code == 2 || ending.code == 3;
}

/// Options of `command` that are numbers, as CLI11 and train/options.h know them; lists and pairs have more
/// values than one.
struct Numeric {
  std::string name;
  int values;
};

std::vector<Numeric> numeric_options(CLI::App& command) {
  std::vector<Numeric> found;
  for (const CLI::Option* option : command.get_options())
    if (const std::string type = option->get_type_name(); type == "INT" || type == "UINT" || type == "FLOAT")
      found.push_back({option->get_lnames().front(), 1});
  return found;
}

std::vector<Numeric> numeric_options_of_train() {
  TrainConfig config;
  std::vector<Numeric> found;
  for (const Option& option : options_of(config))
    if (option.get().is_number() || option.max_values > 1)
      found.push_back({option.name, option.max_values == 2 ? 2 : 1});
  return found;
}

/// Never a value of any option that is a number.
const Arguments kNoNumbers = {"",
                              "many",
                              "nan",
                              "-nan",
                              "inf",
                              "-inf",
                              "9e19",
                              "99999999999999999999",
                              "1e400",
                              "-1e400",
                              "0x10",
                              "4 4x",
                              "--",
                              "\xff\xfe",
                              std::string(50000, '9'),
                              std::string(50000, 'x')};
/// Values of some of them.
const Arguments kOddNumbers = {"-1",    "0", "-0.5", "9e18", "9000000000000000000", "-9000000000000000000",
                               "1e-320"};

void try_numbers(const Sandbox& sandbox, const Arguments& command, const std::vector<Numeric>& options) {
  REQUIRE(options.size() > 1);
  const auto before = sandbox.state();
  int tried = 0;
  for (const Numeric& option : options) {
    CHECK(limit_of(option.name) != nullptr);
    const auto run = [&](const std::string& value) {
      const std::string text = option.values == 2 ? value + "," + value : value;
      const Arguments arguments = with(command, "--" + option.name, text);
      INFO(shown(arguments));
      const Ending ending = testing::run_arguments(arguments);
      ++tried;
      INFO(ending.code << ": " << ending.err.substr(0, 2000));
      const bool odd = std::find(kOddNumbers.begin(), kOddNumbers.end(), value) != kOddNumbers.end();
      if (odd && (ending.code == 0 || ending.code == 4)) return sandbox.clean();
      if (refused(ending, "--" + option.name) && !odd) CHECK(ending.err == testing::error_line(ending.err));
      if (sandbox.state() != before) {
        CHECK(option.name == "nothing is left behind");
        sandbox.clean();
      }
    };
    for (const std::string& value : kNoNumbers) run(value);
    for (const std::string& value : kOddNumbers) run(value);
  }
  CHECK(sandbox.state() == before);
  CHECK(tried == static_cast<int>(options.size() * (kNoNumbers.size() + kOddNumbers.size())));
}

}  // namespace

TEST_CASE(
    "whatever stands behind an option of train that is a number, it is taken or refused with one line that "
    "names the option") {
  const Sandbox sandbox;
  try_numbers(sandbox, sandbox.train, numeric_options_of_train());
}

TEST_CASE(
    "whatever stands behind an option of another command that is a number, it is taken or refused with one "
    "line that names the option") {
  const Sandbox sandbox;
  CLI::App app;
  add_eval_commands(app);
  add_features_command(app);
  add_attention_command(app);
  add_report_command(app);
  CLI::App& eval = *app.get_subcommand("eval");
  try_numbers(sandbox, sandbox.knn, numeric_options(*eval.get_subcommand("knn")));
  try_numbers(sandbox, sandbox.linear, numeric_options(*eval.get_subcommand("linear")));
  try_numbers(sandbox, sandbox.features, numeric_options(*app.get_subcommand("features")));
  try_numbers(sandbox, sandbox.attention, numeric_options(*app.get_subcommand("attention")));
  try_numbers(sandbox, sandbox.report, numeric_options(*app.get_subcommand("report")));
}

namespace {

/// Paths at which there is nothing that a command could read, of every kind that comes to mind.
struct BadPaths {
  Folder folder;
  std::string file = at("text.txt"), empty_folder = at("empty");

  BadPaths() {
    testing::fs::create_directories(empty_folder);
    std::ofstream(file) << "{\"not\": \"what was asked for\"}\n";
    std::ofstream(at("noise"), std::ios::binary) << std::string(5000, '\xa7') << std::string(300, '\0');
    std::ofstream(at("empty_file"));
    std::ofstream(at("sparse"));
    testing::fs::resize_file(at("sparse"), uintmax_t{1} << 40);
    testing::fs::create_symlink(at("nowhere"), at("dangling"));
    testing::fs::create_symlink(at("loop"), at("loop"));
    REQUIRE(mkfifo(at("pipe").c_str(), 0600) == 0);
  }

  std::string at(const std::string& name) const { return folder / name; }
  std::string too_long() const { return at(std::string(300, 'n')); }
  std::string much_too_long() const { return at(std::string(6000, 'p')); }

  Arguments to_read() const {
    return {at("missing"), at("mis\nsing"),  at("mis\xffsing"), file + "/below",
            too_long(),    much_too_long(),  at("dangling"),    at("loop"),
            at("pipe"),    at("noise"),      at("empty_file"),  file,
            empty_folder,  at("sparse"),     "/dev/null",       "/dev/zero",
            "/dev/full",   "/proc/self/mem", "/proc/self/mem/x"};
  }
  Arguments to_write() const {
    return {file + "/below", too_long(),      much_too_long(),     at("loop") + "/x",
            "/dev/full/x",   "/proc/nothing", "/proc/sys/nothing", "/sys/nothing"};
  }
};

/// `command` with each of `paths` behind `option`.
void try_paths(const Sandbox& sandbox, const Arguments& command, const std::string& option,
               const Arguments& paths, const std::string& ending = "") {
  const auto before = sandbox.state();
  for (const std::string& path : paths) {
    const Arguments arguments = with(command, option, path + ending);
    INFO(shown(arguments));
    const Ending ended = testing::run_arguments(arguments);
    INFO(ended.code << ": " << ended.err.substr(0, 2000));
    // A newline in a name is shown as \n, and a name may be cut short or be named by what it was looked for
    // as.
    const std::string name = path.find('\n') == std::string::npos ? path.substr(0, 50) : "mis\\nsing";
    const std::string line = testing::error_line(ended.err);
    refused(ended, line.find(name) != std::string::npos ? name : option);
    const bool untouched = sandbox.state() == before;
    CHECK(untouched);
    if (!untouched) sandbox.clean();
  }
}

}  // namespace

TEST_CASE("whatever stands where a file or folder is to be read, it is refused with one line that names it") {
  const Sandbox sandbox;
  const BadPaths bad;
  const Arguments paths = bad.to_read();
  SECTION("train --data") { try_paths(sandbox, sandbox.train, "--data", paths); }
  SECTION("train --val") { try_paths(sandbox, sandbox.train, "--val", paths); }
  SECTION("train --init") { try_paths(sandbox, sandbox.train, "--init", paths); }
  SECTION("train --config") { try_paths(sandbox, sandbox.train, "--config", paths); }
  SECTION("plan --data") { try_paths(sandbox, sandbox.plan, "--data", paths); }
  SECTION("eval knn --train") { try_paths(sandbox, sandbox.knn, "--train", paths); }
  SECTION("eval knn --val") { try_paths(sandbox, sandbox.knn, "--val", paths); }
  SECTION("eval linear --weights") { try_paths(sandbox, sandbox.linear, "--weights", paths); }
  SECTION("features --data") { try_paths(sandbox, sandbox.features, "--data", paths); }
  SECTION("features --weights") { try_paths(sandbox, sandbox.features, "--weights", paths); }
  SECTION("attention --image") { try_paths(sandbox, sandbox.attention, "--image", paths); }
  SECTION("report --run") { try_paths(sandbox, sandbox.report, "--run", paths); }
}

TEST_CASE(
    "whatever stands where a file or folder is to be written, it is refused with one line that names it") {
  const Sandbox sandbox;
  const BadPaths bad;
  const Arguments paths = bad.to_write();
  SECTION("train --out") {
    try_paths(sandbox, sandbox.train, "--out",
              paths + Arguments{"", bad.file, "/dev/null", "/proc/sys", bad.at("dangling"), bad.at("pipe")});
  }
  SECTION("eval linear --out") {
    try_paths(sandbox, sandbox.linear, "--out",
              paths + Arguments{bad.file, "/dev/null", "/proc/sys", bad.at("dangling"), bad.at("pipe")});
  }
  SECTION("features --out") {
    try_paths(sandbox, sandbox.features, "--out", paths + Arguments{bad.at("missing/x")}, ".npy");
  }
  SECTION("features --out without an ending") {
    try_paths(sandbox, sandbox.features, "--out", {"", bad.file, bad.empty_folder, "/dev/full"});
  }
  SECTION("attention --out") {
    try_paths(sandbox, sandbox.attention, "--out",
              paths + Arguments{"", bad.file, "/dev/null", "/proc/sys", bad.at("pipe")});
  }
  SECTION("report --out") {
    try_paths(sandbox, sandbox.report, "--out",
              paths + Arguments{bad.empty_folder, "/dev/full", bad.at("pipe"), bad.at("missing/x")});
  }
  SECTION("parts of a run that are folders") {
    for (const char* part : {"config.json", "checkpoint.safetensors", "log.jsonl", "machine.json"}) {
      testing::fs::create_directories(sandbox.folder.path / "odd" / part);
      try_paths(sandbox, sandbox.train, "--out", {sandbox.folder / "odd"});
      testing::fs::remove_all(sandbox.folder.path / "odd");
    }
  }
}

TEST_CASE("wrong combinations are refused with one line, and nothing is left behind") {
  const Sandbox sandbox;
  const auto before = sandbox.state();
  const auto refuse = [&](const Arguments& command, const std::string& more, const std::string& culprit) {
    const Arguments arguments = command + words_of(more);
    INFO(shown(arguments));
    const Ending ending = testing::run_arguments(arguments);
    INFO(ending.code << ": " << ending.err);
    refused(ending, culprit);
    CHECK(sandbox.state() == before);
    sandbox.clean();
  };
  for (const char* option :
       {"arch", "teacher", "loss", "optimizer", "on-collapse", "device", "precision", "recipe"})
    for (const char* value : {"=", "=none-of-them", "=\xff", "=1", "=nan"})
      if (std::string(option) != "recipe" || std::string(value) != "=")
        refuse(sandbox.train, str("--", option, value), str("--", option));
  for (const char* option : {"shuffle", "fast-decode", "norm-last-layer", "use-bn-in-head", "centering",
                             "predictor", "tensorboard", "recompute"})
    for (const char* value : {"=2", "=yes,no", "=\xff", "=-1", "=nan"})
      refuse(sandbox.train, str("--", option, value), str("--", option));
  const std::pair<const char*, const char*> of_train[] = {
      {"--accumulate 3", "--accumulate 2"},
      {"--accumulate 8", "--accumulate"},
      {"--batch-size 13", "--batch-size 12"},
      {"--sinkhorn 3 --loss mse", "--sinkhorn"},
      {"--sinkhorn 3 --accumulate 2", "--sinkhorn"},
      {"--recompute --arch conv_small", "--recompute"},
      {"--use-bn-in-head --accumulate 2", "--use-bn-in-head"},
      {"--warmup-epochs 4", "--warmup-epochs"},
      {"--warmup-teacher-temp-epochs 4", "--warmup-teacher-temp-epochs"},
      {"--freeze-backbone-epochs 3", "--freeze-backbone-epochs"},
      {"--epochs 0.1", "--epochs"},
      {"--recipe continue", "--init"},
      {"--embed-dim 25", "--embed-dim"},
      {"--embed-dim 65536 --heads 1 --depth 1000", "--batch-size"},
      {"--out-dim 16777216 --head-bottleneck-dim 65536", "--out-dim"},
      {"--patch-size 17", "--patch-size"},
      {"--mean 0.5", "--mean"},
      {"--mean 1,2,3,4", "--mean"},
      {"--std 1,1,0", "--std"},
      {"--channels 1 --mean 1,2,3", "--mean"},
      {"--channels 4096 --std 1", "--channels"},
      {"--global-crops-scale 0.9,0.1", "global"},
      {"--local-crops-scale 0.5", "--local-crops-scale"},
      {"--crops-ratio 1,2,3", "--crops-ratio"},
      {"--blur-sigma 2,1", "blur"},
      {"--precision f64 --device cuda", "--device"},
      {"--arch conv_small --conv-widths 0", "--conv-widths"},
      {"--nonsense", "--nonsense"},
      {"--out", "--out"},
      {"extra", "extra"},
      {"--mlp-ratio 0.001", "--mlp-ratio"},
      {"--steps", "--steps"},
      {"--arch hybrid_small --patch-size 3", "--patch-size"},
      {"--batch-size 4 5", "5"}};
  for (const auto& [more, culprit] : of_train) refuse(sandbox.train, more, culprit);
  const std::pair<Arguments, std::string> of_others[] = {{{}, "subcommand"},
                                                         {{"eval"}, "subcommand"},
                                                         {{"eval", "knm"}, "knn"},
                                                         {{"nonsense"}, "nonsense"},
                                                         {{""}, ""},
                                                         {{"\xff"}, ""},
                                                         {{"--"}, ""},
                                                         {{"features"}, "--data"},
                                                         {{"features", "--data", sandbox.images}, "--out"},
                                                         {{"convert"}, "in"},
                                                         {{"convert", "a"}, "out"},
                                                         {{"report"}, "--run"},
                                                         {{"attention"}, "--image"},
                                                         {{"completion"}, "shell"},
                                                         {{"completion", "tcsh"}, "tcsh"},
                                                         {{"manual", "--format", "pdf"}, "--format"},
                                                         {{"train"}, "--data"},
                                                         {{"plan"}, "--data"},
                                                         {{"info", "--jsonn"}, "--json"},
                                                         {{"eval", "knn"}, "--train"}};
  for (const auto& [arguments, culprit] : of_others) refuse(arguments, "", culprit);
  refuse(sandbox.features, "--pool none", "--pool");
  refuse(sandbox.features, "--pool mean --n-last-blocks 2", "--n-last-blocks");
  refuse(sandbox.features, "--n-last-blocks 7", "block");
  refuse(with(sandbox.features, "--arch", "conv_small"), "--pool mean", "--pool");
  refuse(with(sandbox.knn, "--arch", "vit_smal"), "", "--arch");
  refuse(sandbox.knn, "--precision f16", "--precision");
  refuse(sandbox.linear, "--protocol none", "--protocol");
  refuse(with(sandbox.linear, "--arch", "pixels"), "", "--arch");
  refuse(sandbox.knn, "--checkpoint-key nobody", "--checkpoint-key");
  refuse(sandbox.convert, "--to nobody", "--to");
  refuse(sandbox.convert, "--to hf --full", "--full");
  refuse(with(sandbox.attention, "--arch", "conv_small"), "", "conv_small");
  refuse(with(sandbox.attention, "--image-size", "1"), "", "--image-size");
}

TEST_CASE("results that cannot be written to stdout end a command with an error that tells the reason") {
  const Sandbox sandbox;
  const int full = open("/dev/full", O_WRONLY);
  REQUIRE(full >= 0);
  const Arguments commands[] = {{"info"},
                                {"info", "--json"},
                                {"--version"},
                                {"--help"},
                                {"train", "--help"},
                                {"manual"},
                                {"completion", "bash"},
                                sandbox.train + Arguments{"--dump-config"},
                                sandbox.plan,
                                sandbox.knn,
                                sandbox.linear,
                                sandbox.features,
                                sandbox.attention,
                                sandbox.report,
                                sandbox.convert};
  for (const Arguments& arguments : commands) {
    INFO(shown(arguments));
    const Ending ending = testing::run_arguments(arguments, full);
    CHECK(ending.code == 1);
    CHECK_THAT(testing::error_line(ending.err),
               Catch::Contains("stdout") && Catch::Contains("No space left on device"));
    const Ending none = testing::run_arguments(arguments, -2);
    CHECK(none.code == 1);
    CHECK_THAT(testing::error_line(none.err), Catch::Contains("Bad file descriptor"));
  }
  close(full);
  // A run prints nothing there, and needs no stdout.
  CHECK(testing::run_arguments(sandbox.train, -2).code == 0);
  const std::string checkpoint = testing::read_file(sandbox.run + "/checkpoint.safetensors");
  CHECK(testing::run_arguments(with(sandbox.train, "--out", sandbox.folder / "made")).code == 0);
  CHECK(checkpoint == testing::read_file(sandbox.folder / "made/checkpoint.safetensors"));
}

TEST_CASE("names with bytes that are not UTF-8 are names like any other") {
  const Sandbox sandbox;
  const std::string odd = sandbox.folder / "caf\xe9";
  testing::fs::rename(sandbox.images, odd);
  testing::fs::rename(odd + "/class0/image1000.ppm", odd + "/class0/na\xefve.ppm");
  const Arguments commands[] = {
      with(with(sandbox.train, "--data", odd), "--out", odd + "/run"),
      with(sandbox.plan, "--data", odd) + Arguments{"--json"},
      with(sandbox.train, "--data", odd) + Arguments{"--dump-config", "--json"},
      with(with(sandbox.features, "--data", odd), "--out", odd + "/\xff.npy") + Arguments{"--json"},
      with(with(sandbox.knn, "--train", odd), "--val", odd) + Arguments{"--json"},
      with(with(with(sandbox.report, "--run", odd + "/run"), "--data", odd), "--out", odd + "/\xff.html") +
          Arguments{"--json"}};
  for (const Arguments& arguments : commands) {
    INFO(shown(arguments));
    const Ending ending = testing::run_arguments(arguments);
    INFO(ending.err);
    CHECK(ending.code == 0);
  }
  CHECK(nlohmann::json::parse(testing::read_file(odd + "/run/config.json"))["batch-size"] == 4);
  CHECK(nlohmann::json::parse(testing::read_file(odd + "/\xff.json"))["paths"].size() == 12);
}
