#include <CLI/CLI.hpp>
#include <cstdio>
#include <nlohmann/json.hpp>

#include "bench/busy_neighbour.h"
#include "bench/gpu_machine.h"
#include "kernels/cuda_memory.h"
#include "kernels/philox.h"
#include "train/config.h"
#include "train/step_runner.h"

// Times whole training steps on random crops that lie in memory, so without a loader:
//   step_bench [--device cuda --precision bf16] [--threads N] [--filter vit] [--seconds S] [--json]

namespace dino::bench {
namespace {

// --- what is trained ---

struct StepCase {
  std::string name;
  TrainConfig config;
};

TrainConfig base_config(const std::string& arch, int64_t prototypes, int64_t batch, int global_size,
                        int local_size, int locals) {
  TrainConfig config;
  config.arch = arch;
  config.out_dim = prototypes;
  config.batch_size = batch;
  config.augment.global_crops_size = global_size;
  config.augment.local_crops_size = local_size;
  config.augment.local_crops_number = locals;
  config.freeze_last_layer = 0;  // or the first steps would be cheaper than the others
  return config;
}

/// The paper's own, at batches that fill a GPU.
std::vector<StepCase> gpu_step_cases() {
  TrainConfig tiny = base_config("vit_tiny", 65536, 128, 224, 96, 10), small = base_config("vit_small", 65536, 128, 224, 96, 10);
  TrainConfig eight = base_config("vit_small", 65536, 32, 224, 96, 10), base = base_config("vit_base", 65536, 64, 224, 96, 10);
  eight.patch_size = 8;
  return {{"vit_tiny/16", tiny}, {"vit_small/16", small}, {"vit_small/8", eight}, {"vit_base/16", base}};
}

std::vector<StepCase> step_cases() {
  TrainConfig tiny = base_config("vit_tiny", 4096, 64, 32, 16, 6);
  tiny.patch_size = 4;
  TrainConfig small = base_config("vit_small", 65536, 4, 224, 96, 6);
  TrainConfig micro = tiny;
  micro.embed_dim = 128;
  micro.depth = 6;
  micro.heads = 2;
  TrainConfig conv = base_config("conv_small", 512, 128, 28, 14, 4);
  conv.channels = 1;
  conv.head_hidden_dim = 512;
  conv.head_bottleneck_dim = 64;
  conv.use_bn_in_head = true;
  conv.sinkhorn = 3;
  TrainConfig resnet = base_config("resnet50", 65536, 2, 224, 96, 6);
  return {{"vit_tiny/4", tiny}, {"vit_small/16", small}, {"micro/4", micro}, {"conv_small", conv}, {"resnet50", resnet}};
}

std::string description(const TrainConfig& c) {
  return str("2x", c.augment.global_crops_size, " + ", c.augment.local_crops_number, "x",
             c.augment.local_crops_size, c.channels == 1 ? " gray" : "", ", K ", c.out_dim, ", batch ",
             c.batch_size);
}

// --- what that costs: two operations per multiply-add of linear layers, convolutions and attention ---

double flops_of(const VisionTransformer& vit, double size) {
  const VitConfig& c = vit.config();
  const auto patch = static_cast<double>(c.patch), channels = static_cast<double>(c.channels);
  const auto dim = static_cast<double>(c.dim), depth = static_cast<double>(c.depth);
  const double patches = size * size / (patch * patch), tokens = patches + 1;
  const double embedding = 2 * patches * patch * patch * channels * dim;
  const double block = tokens * dim * dim * (8 + 4 * c.mlp_ratio) + 4 * tokens * tokens * dim;
  // The last block: keys and values of all tokens, the rest for the CLS token only.
  const double last = dim * dim * (4 * tokens + 4 + 4 * c.mlp_ratio) + 4 * tokens * dim;
  return embedding + (depth - 1) * block + last;
}

double flops_of(const ConvNet& net, double size) {
  const auto halved = [](double side) { return std::ceil(side / 2); };
  const auto conv = [](double side, double kernel, double in, double out) {
    return 2 * side * side * kernel * kernel * in * out;
  };
  double side = halved(size), in = static_cast<double>(net.config().widths.front());
  double total = conv(side, 3, static_cast<double>(net.config().channels), in);
  for (size_t stage = 0; stage < net.config().widths.size(); ++stage) {
    const auto out = static_cast<double>(net.config().widths[stage]);
    if (stage > 0) side = halved(side);
    total += conv(side, 3, in, out) + conv(side, 3, out, out) + conv(side, 1, in, out);
    in = out;
  }
  return total;
}

double flops_of(const ResNet& net, double size) {
  const auto halved = [](double side) { return std::ceil(side / 2); };
  const auto conv = [](double side, double kernel, double in, double out) { return 2 * side * side * kernel * kernel * in * out; };
  const ResNetConfig& c = net.config();
  double side = halved(size), in = static_cast<double>(c.width);
  double total = conv(side, 7, static_cast<double>(c.channels), in);
  side = halved(side);
  for (size_t stage = 0; stage < c.blocks.size(); ++stage) {
    const double width = static_cast<double>(c.width << stage), out = width * (c.bottleneck ? 4 : 1);
    for (int64_t block = 0; block < c.blocks[stage]; ++block) {
      const bool first = stage > 0 && block == 0;
      if (c.bottleneck) total += conv(side, 1, in, width);
      if (first) side = halved(side);
      if (first || in != out) total += conv(side, 1, in, out);
      total += conv(side, 3, c.bottleneck ? width : in, width) + (c.bottleneck ? conv(side, 1, width, out) : conv(side, 3, width, width));
      in = out;
    }
  }
  return total;
}

double flops_of(const DinoHeadConfig& head) {
  const auto in = static_cast<double>(head.in), hidden = static_cast<double>(head.hidden);
  const auto bottleneck = static_cast<double>(head.bottleneck), layers = static_cast<double>(head.layers);
  return 2 * (in * hidden + (layers - 2) * hidden * hidden + hidden * bottleneck +
              bottleneck * static_cast<double>(head.out));
}

/// Forward of the teacher on the global crops, forward and backward of the student on all; a backward pass
/// counts twice its forward pass. What normalisations, loss and update compute is left out: well below one
/// percent.
double flops_of_step(const TrainConfig& config, const Network& network) {
  const auto forward = [&](int size) {
    return flops_of(network.head().config()) +
           std::visit([&](const auto& net) { return flops_of(net, size); }, network.backbone());
  };
  const double globals = 2 * forward(config.augment.global_crops_size);
  const double locals = config.augment.local_crops_number * forward(config.augment.local_crops_size);
  return static_cast<double>(config.batch_size) * (globals + 3 * (globals + locals));
}

// --- the measurement ---

Tensor random_crops(Context& context, int64_t images, int64_t size, int64_t channels) {
  const Tensor tensor = context.host_tensor({Dtype::f32, Shape{images, size, size, channels}});
  Random random(0, Purpose::test, static_cast<uint64_t>(size));
  std::generate_n(tensor.view().as<float>(), tensor.shape().count(), [&] { return random.uniform(-2, 2); });
  return tensor;
}

/// Steps alone and beside a process that takes half a processor, in turns.
struct Contention {
  std::vector<double> speeds;  ///< of each turn, sorted: median time alone over median time beside it
  double neighbour = 0;        ///< the share of a processor that it had
  double alone = 0, beside = 0;  ///< processors that the steps had, waiting in short loops included
};

template <class Step>
Contention contend(int turns, double seconds, const Step& step) {
  Contention result;
  // Median time, and processors that this process had meanwhile.
  const auto measure = [&] {
    const auto begin = Clock::now();
    const double used = processor_seconds(RUSAGE_SELF);
    const double median = time_calls(seconds, 5, step).median;
    return std::pair(median, (processor_seconds(RUSAGE_SELF) - used) / seconds_since(begin));
  };
  for (int turn = 0; turn < turns; ++turn) {
    const auto [alone, processors_alone] = measure();
    BusyNeighbour neighbour;
    const auto [beside, processors_beside] = measure();
    result.neighbour += neighbour.end() / turns;
    result.alone += processors_alone / turns;
    result.beside += processors_beside / turns;
    result.speeds.push_back(alone / beside);
  }
  std::sort(result.speeds.begin(), result.speeds.end());
  return result;
}

struct StepTimes {
  Times times;
  double flops;  ///< of one step
  size_t parameters;
  size_t arena_bytes;  ///< most that was used at one time: activations and their gradients
  size_t state_bytes;  ///< in use all the time: parameters, gradients, optimizer state, crops
  Contention contention;
};

StepTimes time_steps(Context& context, const Placement& placement, const TrainConfig& config, double seconds,
                     int turns) {
  Network student(network_config(config), placement, 0, /*gradients=*/true);
  Teacher teacher(network_config(config), teacher_kind(config), placement, 0);
  teacher.copy_from(student);
  DinoLoss loss(context, loss_config(config), config.out_dim, Dtype::f32);
  Optimizer optimizer(context, optimizer_config(config), student.parameters());

  const AugmentConfig& augment = config.augment;
  const Crops crops{
      .globals = random_crops(context, 2 * config.batch_size, augment.global_crops_size, config.channels),
      .locals = random_crops(context, augment.local_crops_number * config.batch_size,
                             augment.local_crops_size, config.channels),
      .images = {.images = config.batch_size, .batch = config.batch_size}};
  context.arena().reset_peak();
  StepRunner runner({context, student, teacher, loss, optimizer});
  const RunPlan plan(config, 1000 * config.batch_size);
  int64_t number = 0;
  const auto step = [&] {
    StepPlan now = plan.at(config, number++);
    now.with_statistics = false;
    const auto finished = runner.start({&crops, 1}, now);
    check(!finished || finished->report.healthy, "step ", number, " was not healthy");
  };
  step();  // the arena grows
  step();
  runner.finish();
  // On a GPU a step is started while the one before runs, so a call takes as long as a step.
  const Times times = time_calls(seconds, 5, step);
  const Contention contention = contend(turns, seconds, step);
  runner.finish();
  return {times, flops_of_step(config, student), static_cast<size_t>(student.parameters().parameter_count()),
          runner.peak_bytes(),
          student.parameters().bytes() + teacher.network().parameters().bytes() + context.arena().used_bytes(), contention};
}

nlohmann::json report(const StepCase& c, const StepTimes& measured, double matmul_flops) {
  const double flops_per_second = measured.flops / measured.times.median;
  nlohmann::json result = {{"name", c.name},
          {"configuration", description(c.config)},
          {"step_ms_least", measured.times.least * 1e3},
          {"step_ms_median", measured.times.median * 1e3},
          {"images_per_s", static_cast<double>(c.config.batch_size) / measured.times.median},
          {"step_gflop", measured.flops * 1e-9},
          {"gflop_per_s", flops_per_second * 1e-9},
          {"of_matmul", flops_per_second / matmul_flops},
          {"parameters", measured.parameters},
          {"arena_mib", static_cast<double>(measured.arena_bytes) / (1 << 20)},
          {"memory_mib", static_cast<double>(measured.arena_bytes + measured.state_bytes) / (1 << 20)}};
  if (const Contention& met = measured.contention; !met.speeds.empty())
    result["beside_busy"] = {{"speed", met.speeds[met.speeds.size() / 2]},
                             {"speed_low", met.speeds.front()},
                             {"speed_high", met.speeds.back()},
                             {"processors_alone", met.alone},
                             {"processors_beside", met.beside},
                             {"processors_of_neighbour", met.neighbour}};
  return result;
}

void print_row(const nlohmann::json& r) {
  const auto number = [&](const char* key) { return r[key].get<double>(); };
  std::printf("%-13s %-34s %8.1f %8.1f %8.1f %8.1f %8.1f %9.2f %10.1f\n",
              r["name"].get<std::string>().c_str(), r["configuration"].get<std::string>().c_str(),
              number("step_ms_least"), number("step_ms_median"), number("images_per_s"), number("step_gflop"),
              number("gflop_per_s"), number("of_matmul"), number("arena_mib"));
  if (r.contains("beside_busy")) {
    const auto& beside = r["beside_busy"];
    const auto figure = [&](const char* key) { return beside[key].get<double>(); };
    std::printf("  beside a process with %.2f processors: %.2f of the speed (turns: %.2f to %.2f) with %.2f of %.2f processors\n",
                figure("processors_of_neighbour"), figure("speed"), figure("speed_low"), figure("speed_high"),
                figure("processors_beside"), figure("processors_alone"));
  }
  std::fflush(stdout);
}

}  // namespace

int run(int argc, char** argv) {
  CLI::App app("Times whole training steps on random crops in memory.", "step_bench");
  int threads = 0, turns = 0;
  double seconds = 10;
  std::string filter, device = "cpu", precision = "f32";
  bool json = false, recompute = false;
  app.add_option("--device", device, "cpu, cuda or auto")->capture_default_str();
  app.add_option("--precision", precision, "f32 or bf16")->capture_default_str();
  app.add_option("--threads", threads, "0: one per processor");
  app.add_option("--seconds", seconds, "Time for each configuration (at least 5 steps)")
      ->capture_default_str();
  app.add_option("--beside-busy", turns, "So many turns more, each alone and beside a process that takes half a processor");
  app.add_option("--filter", filter, "Only configurations whose name contains this");
  app.add_flag("--recompute", recompute, "As for train; without configurations that it does not work for");
  app.add_flag("--json", json, "Print one JSON object instead of a table");
  CLI11_PARSE(app, argc, argv);

  const Placement placement = placement_named(device, precision);
  check<UsageError>(placement.device == Device::cpu || !cuda::emulated(), "this is an emulator, whose times mean nothing");
  Context context(threads, placement.device);
  const bool gpu = placement.device == Device::cuda;
  std::vector<StepCase> cases = gpu ? gpu_step_cases() : step_cases();
  std::erase_if(cases, [&](const StepCase& c) { return c.name.find(filter) == std::string::npos; });
  if (recompute) std::erase_if(cases, [](const StepCase& c) { return !is_transformer(c.config.arch); });
  for (StepCase& c : cases) c.config.recompute = recompute;
  check<UsageError>(!cases.empty(), "--filter ", filter, ": no configuration has that in its name");

  const Dtype operands = placement.bf16 ? Dtype::bf16 : placement.dtype;
  double matmul = 0, copy = 0;  // what the machine reaches, per second
  if (gpu) {
    const GpuCeilings ceilings(context, operands);
    matmul = ceilings.flops, copy = ceilings.bytes;
  } else {
    const Ceilings ceilings(context.stream(), operands);
    matmul = ceilings.flops, copy = ceilings.bytes;
  }
  nlohmann::json rows = nlohmann::json::array();
  if (!json) {
    std::printf("%s, %s, threads %d, matmul %.0f GFLOP/s, copy %.0f GB/s\n",
                gpu ? cuda::devices().front().name.c_str() : "cpu", precision.c_str(), context.pool().threads(), matmul * 1e-9,
                copy * 1e-9);
    std::printf("%-13s %-34s %8s %8s %8s %8s %8s %9s %10s\n", "name", "configuration", "least ms", "median",
                "images/s", "GFLOP", "GFLOP/s", "of matmul", "arena MiB");
  }
  for (const StepCase& c : cases) {
    rows.push_back(report(c, time_steps(context, placement, c.config, seconds, turns), matmul));
    if (!json) print_row(rows.back());
  }
  if (json)
    std::printf("%s\n", nlohmann::json{{"device", gpu ? cuda::devices().front().name : "cpu"},
                                       {"precision", precision},
                                       {"threads", context.pool().threads()},
                                       {"matmul_gflop_per_s", matmul * 1e-9},
                                       {"copy_gb_per_s", copy * 1e-9},
                                       {"steps", rows}}
                            .dump(2)
                            .c_str());
  return 0;
}

}  // namespace dino::bench

int main(int argc, char** argv) { return dino::bench::main_of(dino::bench::run, argc, argv); }
