#include <CLI/CLI.hpp>
#include <cstdio>
#include <nlohmann/json.hpp>

#include "bench/cuda_gates/figures.h"
#include "bench/gpu_machine.h"
#include "tests/cuda/device_buffer.h"

// Times every op on every real case of its own, on a GPU:
//   cuda_bench [--filter attention] [--precision bf16] [--json]
// Without a GPU it prints what was counted of the kernels instead, and says so.

namespace dino::bench {
namespace {

using namespace dino::test;
using nlohmann::json;

double bytes_of(const Buffers& buffers, uint32_t mask = ~0u) {
  double bytes = 0;
  for (size_t i = 0; i < buffers.size(); ++i)
    if (mask >> i & 1) bytes += static_cast<double>(buffers[i].bytes());
  return bytes;
}

template <class O>
std::string name_of_case(const Variant<O>& variant, const Buffers& in, bool backward) {
  std::string name = str(O::kName, backward ? "/backward" : "/forward");
  for (const Buffer& buffer : in) {
    if (!buffer.defined()) continue;
    name += "/";
    for (int axis = 0; axis < buffer.spec().shape.rank; ++axis) name += str(axis ? "x" : "", buffer.spec().shape[axis]);
  }
  return name + "/" + variant.name;
}

class OpBench {
 public:
  OpBench(Context& context, const GpuCeilings& ceilings, std::string filter, Dtype dtype)
      : context_(context), ceilings_(ceilings), filter_(std::move(filter)), dtype_(dtype) {}

  template <class O>
  void run(const Case<O>& c, json& rows) {
    for (const Variant<O>& variant : variants(c.op, {Dtype::f32})) {
      if (variant.dtype != dtype_ && takes_bf16<O>()) continue;
      const Buffers in = make_inputs(c, variant.dtype);
      if (name_of_case(variant, in, true).find(filter_) == std::string::npos &&
          name_of_case(variant, in, false).find(filter_) == std::string::npos)
        continue;
      Buffers out;
      for (const Spec& spec : variant.op.infer(specs(in))) out.emplace_back(spec);
      const DeviceBuffers device_in = on_device(in), device_out = on_device(out);
      const double forward =
          seconds_per_call(context_, [&] { variant.op.forward(context_.cuda(), views(device_in), views(device_out)); });
      add(rows, variant, in, false, forward, bytes_of(in) + bytes_of(out));
      if constexpr (DifferentiableOp<O>) {
        const Buffers dout = make_output_gradients<O>(out), din = make_input_gradients<O>(in);
        const DeviceBuffers device_dout = on_device(dout), device_din = on_device(din);
        const double backward = seconds_per_call(context_, [&] {
          variant.op.backward(context_.cuda(), views(device_in), views(device_out), views(device_dout), grads(device_din, GradMode::write));
        });
        const Keep keep = variant.op.keep();
        add(rows, variant, in, true, backward,
            bytes_of(in, keep.inputs) + bytes_of(out, keep.outputs) + bytes_of(dout) + bytes_of(din));
      }
    }
  }

 private:
  template <class O>
  void add(json& rows, const Variant<O>& variant, const Buffers& in, bool backward, double seconds, double bytes) const {
    json row{{"name", name_of_case(variant, in, backward)},
             {"us", seconds * 1e6},
             {"gb_per_s", bytes / seconds * 1e-9},
             {"of_copy", bytes / seconds / ceilings_.bytes}};
    if constexpr (requires { variant.op.flops(specs(in)); }) {
      // By convention a backward pass counts twice the forward pass, whatever it computes again.
      const double flops = (backward ? 2 : 1) * variant.op.flops(specs(in));
      row["tflop_per_s"] = flops / seconds * 1e-12;
      row["of_matmul"] = flops / seconds / ceilings_.flops;
    }
    rows.push_back(std::move(row));
  }

  Context& context_;
  const GpuCeilings& ceilings_;
  std::string filter_;
  Dtype dtype_;
};

void print(const json& rows) {
  std::printf("%-64s %10s %9s %8s %10s %10s\n", "op", "us", "GB/s", "of copy", "TFLOP/s", "of matmul");
  for (const json& row : rows)
    std::printf("%-64s %10.1f %9.1f %8.2f %10.2f %10.2f\n", row["name"].get<std::string>().c_str(), row["us"].get<double>(),
                row["gb_per_s"].get<double>(), row["of_copy"].get<double>(), row.value("tflop_per_s", 0.0), row.value("of_matmul", 0.0));
}

/// What was counted of the kernels whose names have `filter` in them.
void print_counted(const std::string& path, const std::string& filter, bool as_json) {
  json kernels = json::array();
  std::string text;
  for (const auto& [name, figures] : read_figures(path)) {
    if (name.find(filter) == std::string::npos) continue;
    json row{{"name", name}};
    text += name;
    for (const auto& [key, value] : figures) {
      row[key] = value;
      text += str("  ", key, " ", value);
    }
    text += '\n';
    kernels.push_back(std::move(row));
  }
  if (as_json)
    std::printf("%s\n", json{{"device", nullptr}, {"counted", kernels}}.dump(2).c_str());
  else
    std::printf("no GPU: nothing was timed. Counted, not measured (%s says what; bench/gates.sh counts anew):\n%s", path.c_str(),
                text.c_str());
}

}  // namespace

int run(int argc, char** argv) {
  CLI::App app("Times every op on every real case of its own, on a GPU.", "cuda_bench");
  std::string filter, precision = "bf16", counted = DINO_GATES_LOCK;
  bool as_json = false;
  app.add_option("--filter", filter, "Only what has this in its name");
  app.add_option("--precision", precision, "bf16 or f32")->check(CLI::IsMember({"bf16", "f32"}))->capture_default_str();
  app.add_flag("--json", as_json, "Print one JSON object instead of a table");
  app.add_option("--counted", counted, "What to print without a GPU")->capture_default_str();
  CLI11_PARSE(app, argc, argv);
  if (cuda::emulated() || cuda::devices().empty()) {
    print_counted(counted, filter, as_json);
    return 0;
  }
  Context context(0, Device::cuda);
  context.set_step(kStep);
  const Dtype dtype = precision == "bf16" ? Dtype::bf16 : Dtype::f32;
  const GpuCeilings ceilings(context, dtype);
  json rows = json::array();
  OpBench bench(context, ceilings, filter, dtype);
  for_each_op<AllOps>([&]<class O>() {
    for (const Case<O>& c : O::cases(Real{})) bench.run(c, rows);
  });
  const std::string device = cuda::devices().front().name;
  if (as_json) {
    std::printf("%s\n", json{{"device", device},
                             {"matmul_tflop_per_s", ceilings.flops * 1e-12},
                             {"copy_gb_per_s", ceilings.bytes * 1e-9},
                             {"ops", rows}}
                            .dump(2)
                            .c_str());
  } else {
    std::printf("%s: %s matmul %.1f TFLOP/s, copy %.0f GB/s\n", device.c_str(), precision.c_str(), ceilings.flops * 1e-12,
                ceilings.bytes * 1e-9);
    print(rows);
  }
  return 0;
}

}  // namespace dino::bench

int main(int argc, char** argv) { return dino::bench::main_of(dino::bench::run, argc, argv); }
