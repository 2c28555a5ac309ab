#include "kernels/optimizer.h"

#include "tests/cuda/cuda_harness.h"

using namespace dino;
using namespace dino::test;

// What the tests of all ops do not reach: bf16 copies, updates in place, buffers that begin anywhere, sick gradients.
namespace {

std::vector<Case<AdamW>> cases_with_teacher() {
  std::vector<Case<AdamW>> result;
  for (const Case<AdamW>& c : AdamW::cases(Tiny{}))
    if (c.inputs.size() > AdamW::teacher) result.push_back(c);
  return result;
}

Buffer rounded_to_bf16(const Buffer& values) { return values.as(Dtype::bf16); }

TEST_CASE("adamw's bf16 copies are its f32 results, rounded, and change nothing else") {
  for (Case<AdamW> c : cases_with_teacher()) {
    const Buffers in = make_inputs(c, Dtype::f32);
    const Buffers expected = cuda_forward(c.op, in);
    CHECK(!expected[AdamW::weight_copy].defined());
    c.op.bf16_copies = true;
    const Buffers out = cuda_forward(c.op, in);
    for (const int i : {AdamW::new_weight, AdamW::new_m, AdamW::new_v, AdamW::new_steps, AdamW::new_teacher})
      CHECK(out[static_cast<size_t>(i)].equal_bits(expected[static_cast<size_t>(i)]));
    CHECK(out[AdamW::weight_copy].equal_bits(rounded_to_bf16(expected[AdamW::new_weight])));
    CHECK(out[AdamW::teacher_copy].equal_bits(rounded_to_bf16(expected[AdamW::new_teacher])));
  }
}

TEST_CASE("adamw makes bf16 copies of the weights alone where there is no teacher") {
  Case<AdamW> c = cases_with_teacher().front();
  c.op.bf16_copies = true;
  Buffers in = make_inputs(c, Dtype::f32);
  in[AdamW::teacher] = Buffer();
  const Buffers out = cuda_forward(c.op, in);
  CHECK(!out[AdamW::teacher_copy].defined());
  CHECK(out[AdamW::weight_copy].equal_bits(rounded_to_bf16(out[AdamW::new_weight])));
}

/// The same values, but for `shift` elements before them.
DeviceBuffer shifted(const Buffer& values, int64_t shift) {
  if (!values.defined()) return {};
  Buffer longer(Spec{values.spec().dtype, Shape{values.count() + shift}});
  for (int64_t i = 0; i < values.count(); ++i) longer.set(i + shift, values.at(i));
  return DeviceBuffer(longer);
}
View without_first(const View& view, int64_t shift) {
  if (!view.defined()) return {};
  return View(view.as<float>() + shift, view.dtype, Shape{view.count() - shift}, 0, Device::cuda);
}

TEST_CASE("adamw in place, in buffers that begin anywhere, gives the same bits") {
  for (const Case<AdamW>& c : cases_with_teacher())
    for (const int64_t shift : {0, 1}) {
      const Buffers in = make_inputs(c, Dtype::f32);
      const Buffers expected = cuda_forward(c.op, in);
      DeviceBuffers memory;
      std::vector<View> view;
      for (const Buffer& buffer : in) {
        const bool is_flat = buffer.is_float() && buffer.count() > 100;
        memory.push_back(is_flat ? shifted(buffer, shift) : DeviceBuffer(buffer));
        view.push_back(is_flat ? without_first(memory.back().view(), shift) : memory.back().view());
      }
      const std::vector<View> out = {view[AdamW::weight],  view[AdamW::m], view[AdamW::v], view[AdamW::steps],
                                     view[AdamW::teacher], View(),         View()};
      c.op.forward(cuda_stream(), view, out);
      for (size_t i = 0; i < out.size(); ++i) {
        if (!out[i].defined()) continue;
        INFO(AdamW::kOutputs[i] << ", shift " << shift);
        const size_t input = std::array{AdamW::weight, AdamW::m, AdamW::v, AdamW::steps, AdamW::teacher}[i];
        const Buffer got = memory[input].host();
        const int64_t skipped = got.count() - expected[i].count();
        bool equal = true;
        for (int64_t e = 0; e < expected[i].count(); ++e) equal = equal && got.at(e + skipped) == expected[i].at(e);
        CHECK(equal);
        CHECK(memory[input].guards_intact());
      }
    }
}

TEST_CASE("gradient norms of buffers that begin anywhere are those of others") {
  for (const Case<GradNorm>& c : GradNorm::cases(Tiny{})) {
    const Buffers in = make_inputs(c, Dtype::f32);
    const Buffers out = cuda_forward(c.op, in);
    const Buffer& expected = out[0];
    const DeviceBuffer grad = shifted(in[GradNorm::grad], 3), segments(in[GradNorm::segments]), norms(expected, true);
    const std::vector<View> views = {without_first(grad.view(), 3), segments.view()};
    c.op.forward(cuda_stream(), views, std::vector<View>{norms.view()});
    CHECK(distance(norms.host(), expected) <= 4 * epsilon(Dtype::f32) * largest(expected));
  }
}

TEST_CASE("a step is healthy on the GPU if the loss and all norms that count are finite") {
  const Case<Health> c = Health::cases(Tiny{}).front();  // the last of its tensors is not active
  constexpr double kInf = std::numeric_limits<double>::infinity(), kNan = std::numeric_limits<double>::quiet_NaN();
  const auto healthy = [&](double loss, int64_t tensor, double norm) {
    Buffers in = make_inputs(c, Dtype::f32);
    in[Health::loss].set(0, loss);
    in[Health::norms].set(tensor, norm);
    return cuda_forward(c.op, in)[0].at(0);
  };
  CHECK(healthy(1, 0, 1) == 1);
  CHECK(healthy(kNan, 0, 1) == 0);
  CHECK(healthy(-kInf, 0, 1) == 0);
  CHECK(healthy(1, 1, kNan) == 0);
  CHECK(healthy(1, 0, kInf) == 0);
  CHECK(healthy(1, 2, kNan) == 1);
}

}  // namespace
