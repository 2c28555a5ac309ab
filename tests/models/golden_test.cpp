#include "tests/golden.h"

using namespace dino;
using golden::near;

namespace {

struct Fixture {
  nlohmann::json expected = golden::reference();
  Context context{2};
  Network network{golden::tiny_config(), {.dtype = Dtype::f64}, 0, false};
  const VisionTransformer& vit = std::get<VisionTransformer>(network.backbone());

  Fixture() { golden::fill(network.parameters()); }
};

}  // namespace

TEST_CASE_METHOD(Fixture, "the tiny network has the reference's parameters in the reference's order") {
  const auto& list = expected["params"];
  const auto& entries = network.parameters().entries();
  REQUIRE(entries.size() == list.size());
  for (size_t k = 0; k < list.size(); ++k) {
    INFO(entries[k].name);
    CHECK(entries[k].name == list[k][0].get<std::string>());
    REQUIRE(static_cast<size_t>(entries[k].shape.rank) == list[k][1].size());
    for (size_t axis = 0; axis < list[k][1].size(); ++axis)
      CHECK(entries[k].shape[static_cast<int>(axis)] == list[k][1][axis].get<int64_t>());
    CHECK(near(golden::sum(network.parameters().tensor(static_cast<int>(k))), list[k][2]));
    CHECK(near(golden::at(network.parameters().tensor(static_cast<int>(k)), 0), list[k][3]));
  }
}

TEST_CASE_METHOD(Fixture, "backbone features equal the reference at every resolution") {
  const auto check_features = [&](const char* name, int64_t images, int64_t height, int64_t width) {
    INFO(name);
    const Tensor in = golden::input(context, Dtype::f64, 0, images, height, width);
    const Tensor out = features(context, network.backbone(), std::span(&in, 1), {});
    for (size_t i = 0; i < 6; ++i) CHECK(near(golden::at(out, static_cast<int64_t>(i)), expected[name]["cls0"][i]));
    CHECK(near(golden::sum(out), expected[name]["sum"]));
    CHECK(near(golden::l2(out), expected[name]["l2"]));
  };
  check_features("backbone_32x32", 2, 32, 32);
  check_features("backbone_16x16", 2, 16, 16);
  check_features("backbone_h24_w40", 1, 24, 40);
  check_features("backbone_48x48", 1, 48, 48);
}

TEST_CASE_METHOD(Fixture, "attention of the last block equals the reference") {
  const Tensor in = golden::input(context, Dtype::f64, 0, 1, 24, 40);
  const Tensor p = vit.last_attention(context, in);
  REQUIRE(p.shape() == Shape{1, 3, 16, 16});
  for (size_t i = 0; i < 16; ++i)
    CHECK(near(golden::at(p, static_cast<int64_t>(i)), expected["attn_h24_w40"]["cls_row_head0"][i]));
  CHECK(near(golden::l2(p) * golden::l2(p), expected["attn_h24_w40"]["sum_sq"]));
}

TEST_CASE_METHOD(Fixture, "intermediate layers equal the reference") {
  const Tensor in = golden::input(context, Dtype::f64, 0, 1, 24, 40);
  const auto layers = vit.last_blocks(context, std::span(&in, 1), 2);
  REQUIRE(layers.size() == 2);
  for (size_t n = 0; n < 2; ++n) {
    const auto& want = expected["inter_n2"][n];
    for (size_t i = 0; i < 6; ++i) CHECK(near(golden::at(layers[n], 24 + static_cast<int64_t>(i)), want["tok1"][i]));
    CHECK(near(golden::l2(layers[n]), want["l2"]));
  }
}

TEST_CASE_METHOD(Fixture, "interpolated position embeddings equal the reference") {
  const auto check_positions = [&](const char* name, int64_t height, int64_t width) {
    const Tensor in = golden::input(context, Dtype::f64, 0, 1, height, width);
    const Tensor table = vit.positions(context, std::span(&in, 1));
    for (size_t i = 0; i < 6; ++i) CHECK(near(golden::at(table, 24 + static_cast<int64_t>(i)), expected[name]["tok1"][i]));
    CHECK(near(golden::l2(table), expected[name]["l2"]));
  };
  check_positions("posemb_h24_w40", 24, 40);
  check_positions("posemb_16", 16, 16);
}

TEST_CASE_METHOD(Fixture, "logits of five crops of two sizes equal the reference") {
  const std::vector<Tensor> crops = {golden::inputs(context, Dtype::f64, 0, 2, 3, 32), golden::inputs(context, Dtype::f64, 2, 3, 3, 16)};
  const Tensor logits = network(context, crops, {.training = true});
  REQUIRE(logits.shape() == Shape{15, 20});
  for (size_t i = 0; i < 5; ++i) {
    CHECK(near(golden::at(logits, static_cast<int64_t>(i)), expected["wrapper"]["row0"][i]));
    CHECK(near(golden::at(logits, 14 * 20 + static_cast<int64_t>(i)), expected["wrapper"]["row14"][i]));
  }
  CHECK(near(golden::l2(logits), expected["wrapper"]["l2"]));
}

TEST_CASE_METHOD(Fixture, "loss, its gradient and the new center equal the reference") {
  const auto& want = expected["loss"];
  const auto filled = [&](Shape shape, uint64_t k, double factor) {
    const Tensor t = context.tensor({Dtype::f64, shape});
    golden::set_elements(t, [&](int64_t i) { return factor * golden::value(k, static_cast<uint64_t>(i)); });
    return t;
  };
  Tensor student = filled(Shape{8, 5}, 1060, 0.8);
  const Tensor teacher = filled(Shape{4, 5}, 1061, 0.8), center = filled(Shape{1, 5}, 50, 0.3);
  context.set_step({.teacher_temp = 0.055});
  student.set_grad(std::make_shared<GradSlot>(&context.arena(), student.spec()));
  Tape tape(context);
  const Tensor targets = run(context, TeacherSoftmax{}, {teacher, center})[TeacherSoftmax::p];
  const Tensor loss = run(context, DinoCrossEntropy{.crops = 4}, {student, targets})[DinoCrossEntropy::loss];
  CHECK(near(golden::at(loss, 0), want["loss"]));
  tape.backward(loss);
  const Tensor grad(student.grad()->value(), nullptr);
  for (size_t i = 0; i < 5; ++i) {
    CHECK(near(golden::at(grad, static_cast<int64_t>(i)), want["grad_row0"][i]));
    CHECK(near(golden::at(grad, 35 + static_cast<int64_t>(i)), want["grad_row7"][i]));
  }
  CHECK(near(golden::l2(grad), want["grad_l2"]));
  const Tensor healthy = context.tensor({Dtype::f64, Shape{1}});
  healthy.view().as<double>()[0] = 1;
  const Tensor sums = run(context, ColumnSums{}, {teacher})[ColumnSums::sums];
  const Tensor updated = run(context, UpdateCenter{.rows = 4}, {center, sums, healthy})[UpdateCenter::updated];
  for (size_t i = 0; i < 5; ++i) CHECK(near(golden::at(updated, static_cast<int64_t>(i)), want["center_after"][i]));
}
