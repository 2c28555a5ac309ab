#include <benchmark/benchmark.h>

#include <CLI/CLI.hpp>
#include <cstdio>

#include "bench/machine.h"
#include "engine/ops.h"
#include "tests/op_harness.h"

// Times every op on every real case of its own, in f32, and says how far that is from what this machine can
// do:
//   ops_bench [--threads N] [--json] [--benchmark_filter=conv2d …]

namespace dino::bench {
namespace {

using namespace dino::test;

/// Buffers of one case. Only those of the benchmark that runs are in memory.
struct Loaded {
  Buffers in, out, dout, din;
};

template <class O>
std::shared_ptr<Loaded> load(const Case<O>& c, CpuStream& stream, bool backward) {
  auto loaded = std::make_shared<Loaded>();
  loaded->in = make_inputs(c, Dtype::f32);
  loaded->out = forward(c.op, stream, loaded->in);
  if constexpr (DifferentiableOp<O>) {
    if (!backward) return loaded;
    loaded->dout = make_output_gradients<O>(loaded->out);
    loaded->din = make_input_gradients<O>(loaded->in);
  }
  return loaded;
}

double bytes_of(const Buffers& buffers, uint32_t mask = ~0u) {
  double bytes = 0;
  for (size_t i = 0; i < buffers.size(); ++i)
    if (mask >> i & 1)
      bytes += static_cast<double>(static_cast<size_t>(buffers[i].count()) *
                                   dino::bytes_of(buffers[i].spec().dtype));
  return bytes;
}

/// Compulsory traffic: everything that must be read or written once.
template <class O>
double compulsory_bytes(const O& op, const Loaded& loaded, bool backward) {
  if constexpr (DifferentiableOp<O>) {
    const Keep keep = op.keep();
    if (backward)
      return bytes_of(loaded.in, keep.inputs) + bytes_of(loaded.out, keep.outputs) + bytes_of(loaded.dout) +
             bytes_of(loaded.din);
  }
  return bytes_of(loaded.in) + bytes_of(loaded.out);
}

/// Rates of one benchmark, and their shares of what the machine reaches. `seconds` is the time of one
/// iteration.
template <class O>
void report(benchmark::State& state, const O& op, const Loaded& loaded, bool backward,
            const Ceilings& ceilings, double seconds) {
  const double bytes = compulsory_bytes(op, loaded, backward);
  state.counters["bytes/s"] = bytes / seconds;
  state.counters["of_copy"] = bytes / seconds / ceilings.bytes;
  if constexpr (requires { op.flops(specs(loaded.in)); }) {
    // By convention a backward pass counts twice the forward pass, whatever it computes again.
    const double flops = (backward ? 2 : 1) * op.flops(specs(loaded.in));
    state.counters["FLOP/s"] = flops / seconds;
    state.counters["of_matmul"] = flops / seconds / ceilings.flops;
  }
}

/// The case whose buffers are loaded.
struct Slot {
  std::string name;
  std::shared_ptr<Loaded> loaded;
};

template <class O>
void register_case(const Case<O>& c, CpuStream& stream, const Ceilings& ceilings, Slot& slot, bool backward) {
  std::string name = str(O::kName, backward ? "/backward" : "/forward");
  for (size_t i = 0; i < c.inputs.size(); ++i) {
    const Shape& shape = c.inputs[i].shape;
    if (shape.rank > 0) name += "/";
    for (int axis = 0; axis < shape.rank; ++axis) name += str(axis ? "x" : "", shape[axis]);
  }
  benchmark::RegisterBenchmark(
      name.c_str(),
      [=, &stream, &ceilings, &slot](benchmark::State& state) {
        if (slot.name != name) {
          slot = {};
          slot = {name, load(c, stream, backward)};
        }
        const Loaded& loaded = *slot.loaded;
        const std::vector<View> in = views(loaded.in), out = views(loaded.out), dout = views(loaded.dout);
        const auto start = Clock::now();
        for (auto _ : state) {
          if constexpr (DifferentiableOp<O>) {
            if (backward) {
              c.op.backward(stream, in, out, dout, grads(loaded.din, GradMode::write));
              continue;
            }
          }
          c.op.forward(stream, in, out);
        }
        report(state, c.op, loaded, backward, ceilings,
               seconds_since(start) / static_cast<double>(state.iterations()));
      })
      ->UseRealTime()
      ->Unit(benchmark::kMicrosecond);
}

}  // namespace

int run(int argc, char** argv) {
  CLI::App app("Times every op on every real case of its own, in f32.", "ops_bench");
  app.footer("Other flags are Google Benchmark's, such as --benchmark_filter=conv2d.");
  app.allow_extras();
  int threads = 0;
  bool json = false;
  app.add_option("--threads", threads, "0: one per processor");
  app.add_flag("--json", json, "Print one JSON object instead of a table");
  CLI11_PARSE(app, argc, argv);

  std::vector<std::string> arguments = app.remaining();
  arguments.insert(arguments.begin(), argv[0]);
  if (json) arguments.push_back("--benchmark_format=json");
  std::vector<char*> pointers;
  for (std::string& argument : arguments) pointers.push_back(argument.data());
  int count = static_cast<int>(pointers.size());
  benchmark::Initialize(&count, pointers.data());
  if (benchmark::ReportUnrecognizedArguments(count, pointers.data())) return 2;

  const auto stream = make_stream(threads);
  const Ceilings ceilings(*stream);
  benchmark::AddCustomContext("threads", str(stream->pool().threads()));
  benchmark::AddCustomContext("matmul_GFLOP/s", str(std::round(ceilings.flops * 1e-9)));
  benchmark::AddCustomContext("copy_GB/s", str(std::round(ceilings.bytes * 1e-9)));
  Slot slot;
  for_each_op<AllOps>([&]<class O>() {
    for (const Case<O>& c : O::cases(Real{})) {
      register_case(c, *stream, ceilings, slot, false);
      if constexpr (DifferentiableOp<O>) register_case(c, *stream, ceilings, slot, true);
    }
  });
  benchmark::RunSpecifiedBenchmarks();
  return 0;
}

}  // namespace dino::bench

int main(int argc, char** argv) { return dino::bench::main_of(dino::bench::run, argc, argv); }
