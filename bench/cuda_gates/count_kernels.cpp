#include <CLI/CLI.hpp>
#include <fstream>

#include "augment/crop_batch.h"
#include "bench/cuda_gates/gate_cases.h"
#include "bench/machine.h"
#include "tests/cuda/device_buffer.h"

// Runs every op forward and backward once on a few representative shapes, in every type, for the emulator to count:
//   CUDA_EMULATOR_COUNTERS=counters.json count_kernels [--op attention] [--useful-flops useful.txt]
namespace dino::bench {
namespace {

using namespace dino::test;

/// FLOPs that tensor cores must do at least, by the beginning of the names of the files with the kernels that do them.
std::map<std::string, double> useful_flops;

template <class O>
void run(const Variant<O>& variant, const Buffers& in) {
  Buffers out;
  for (const Spec& spec : variant.op.infer(specs(in))) out.emplace_back(spec);
  const DeviceBuffers device_in = on_device(in), device_out = on_device(out, true);
  variant.op.forward(cuda_stream(), views(device_in), views(device_out));
  if constexpr (DifferentiableOp<O>) {
    const DeviceBuffers dout = on_device(make_output_gradients<O>(out)),
                        din = on_device(make_input_gradients<O>(in), true);
    variant.op.backward(cuda_stream(), views(device_in), views(device_out), views(dout), grads(din, GradMode::write));
  }
  cuda_stream().synchronize();
  if constexpr (std::is_same_v<O, Attention>) {
    if (variant.dtype != Dtype::bf16 || variant.op.cls_only) return;
    const double flops = variant.op.flops(specs(in));
    useful_flops["attention_tensor_forward"] += flops;
    useful_flops["attention_tensor_backward"] += 2.5 * flops;  // five products instead of two
  }
}

/// Two large and two small crops of one noisy image, as training draws them.
void run_crops() {
  AugmentConfig config;
  config.local_crops_number = 2;
  config.mean = {0.485f, 0.456f, 0.406f};
  config.deviation = {0.229f, 0.224f, 0.225f};
  Random random(1, Purpose::test, 0);
  Image image(300, 400, config.channels);
  for (int y = 0; y < 300; ++y)
    for (int x = 0; x < 400 * config.channels; ++x) image.view().row(y)[x] = static_cast<uint8_t>(random.bits());
  std::vector<CropPlan> plans;
  for (int crop = 0; crop < config.crops(); ++crop) plans.push_back(plan_crop(config, 300, 400, 0, crop));
  CropBatch batch;
  batch.reset(1, config.crops(), config.channels);
  batch.set(0, std::move(image), plans);
  Buffer packed(Spec{Dtype::u8, {static_cast<int64_t>(batch.bytes())}});
  batch.write(static_cast<std::byte*>(packed.data()));
  const DeviceBuffer on_gpu(packed);
  for (const Dtype dtype : {Dtype::f32, Dtype::bf16}) {
    const auto crops = [&](int size) {
      return DeviceBuffer(Buffer(Spec{dtype, {2, size, size, config.channels}}), true);
    };
    const DeviceBuffer globals = crops(config.global_crops_size), locals = crops(config.local_crops_size);
    render_crops(cuda_stream(), {on_gpu.view().as<std::byte>(), 1}, 0, pixel_scale(config), globals.view(),
                 locals.view());
  }
  cuda_stream().synchronize();
}

}  // namespace

int run(int argc, char** argv) {
  CLI::App app("Runs every op on a few shapes, for the emulator to count.", "count_kernels");
  std::string op, useful;
  app.add_option("--op", op, "Only this one");
  app.add_option("--useful-flops", useful, "Where to write the FLOPs that tensor cores must do at least");
  CLI11_PARSE(app, argc, argv);
  for_each_op<AllOps>([&]<class O>() {
    if (!op.empty() && op != O::kName) return;
    for (const Case<O>& c : gate_cases(O{}))
      for (const Variant<O>& variant : variants(c.op, {Dtype::f32})) run(variant, make_inputs(c, variant.dtype));
  });
  if (op.empty() || op == "render_crops") run_crops();
  if (std::ofstream file(useful); !useful.empty())
    for (const auto& [name, flops] : useful_flops) file << name << ' ' << std::fixed << flops << '\n';
  return 0;
}

}  // namespace dino::bench

int main(int argc, char** argv) { return dino::bench::main_of(dino::bench::run, argc, argv); }
