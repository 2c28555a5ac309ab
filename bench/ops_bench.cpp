#include <benchmark/benchmark.h>

#include <chrono>
#include <cstdio>
#include <cstdlib>

#include "engine/ops.h"
#include "kernels/gemm.h"
#include "tests/op_harness.h"

// Times every op on every real case of its own, in f32, and says how far that is from what this machine can
// do:
//   ops_bench [--threads N] [--json] [--benchmark_filter=conv2d …]

namespace dino::bench {
namespace {

using namespace dino::test;

using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

/// The least seconds that `body` took, over at least half a second.
template <class Body>
double least_seconds(const Body& body) {
  double least = 1e30;
  for (const auto begin = Clock::now(); seconds_since(begin) < 0.5;) {
    const auto start = Clock::now();
    body();
    least = std::min(least, seconds_since(start));
  }
  return least;
}

/// What the machine reaches on the same threads: a large matmul and a copy of memory that no cache holds.
struct Ceilings {
  double flops;  ///< per second
  double bytes;  ///< per second, read and written

  explicit Ceilings(CpuStream& stream) {
    constexpr int64_t kRows = 6144, kInner = 1024, kBytes = 256 << 20, kPiece = 1 << 20;
    std::vector<float> a(kRows * kInner, 0.5f), b(kInner * kInner, 0.5f), c(kRows * kInner);
    flops = 2.0 * kRows * kInner * kInner / least_seconds([&] {
              gemm<float>(stream, kRows, kInner, kInner, 1.0f, {a.data(), kInner}, {b.data(), kInner, true},
                          0.0f, {c.data(), kInner});
            });
    std::vector<std::byte> from(kBytes, std::byte{1}), to(kBytes);
    bytes = 2.0 * kBytes / least_seconds([&] {
              stream.pool().for_ranges(kBytes, kPiece, [&](int64_t begin, int64_t end) {
                std::memcpy(to.data() + begin, from.data() + begin, static_cast<size_t>(end - begin));
              });
            });
  }
};

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

/// Takes our own flags out of the command line.
int take_flags(int argc, char** argv, int& threads) {
  static char json[] = "--benchmark_format=json";
  int kept = 1;
  for (int i = 1; i < argc; ++i) {
    const std::string_view flag = argv[i];
    if (flag == "--threads" && i + 1 < argc)
      threads = std::atoi(argv[++i]);
    else if (flag.starts_with("--threads="))
      threads = std::atoi(argv[i] + std::string_view("--threads=").size());
    else
      argv[kept++] = flag == "--json" ? json : argv[i];
  }
  return kept;
}

}  // namespace

int run(int argc, char** argv) {
  int threads = 0;
  argc = take_flags(argc, argv, threads);
  benchmark::Initialize(&argc, argv);
  if (benchmark::ReportUnrecognizedArguments(argc, argv)) return 2;
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

int main(int argc, char** argv) {
  try {
    return dino::bench::run(argc, argv);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 1;
  }
}
