#include <catch2/catch.hpp>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <set>

#include "augment/recipe.h"
#include "tests/augment/fixtures.h"

namespace dino {
namespace {

bool equal(const CropPlan& a, const CropPlan& b) {
  bool same = a.box.top == b.box.top && a.box.left == b.box.left && a.box.height == b.box.height &&
              a.box.width == b.box.width && a.size == b.size && a.flip == b.flip &&
              a.color_steps == b.color_steps && a.gray == b.gray && a.blur_sigma == b.blur_sigma &&
              a.solarize == b.solarize;
  for (size_t i = 0; i < 4; ++i)
    same = same && a.color[i].op == b.color[i].op && a.color[i].factor == b.color[i].factor;
  return same;
}

std::vector<CropPlan> plans(const AugmentConfig& config, int crop, int count) {
  std::vector<CropPlan> result;
  for (int i = 0; i < count; ++i)
    result.push_back(plan_crop(config, 375, 500, static_cast<uint64_t>(i), crop));
  return result;
}

template <class Condition>
double share(const std::vector<CropPlan>& plans, Condition condition) {
  return static_cast<double>(std::count_if(plans.begin(), plans.end(), condition)) /
         static_cast<double>(plans.size());
}

TEST_CASE("random boxes lie inside the image and have area and ratio in range") {
  const CropRange range{0.05f, 0.4f};
  double area_sum = 0;
  constexpr int kBoxes = 20000;
  for (uint64_t i = 0; i < kBoxes; ++i) {
    Random random(5, Purpose::test, i);
    const CropBox box = sample_crop_box(375, 500, range, random);
    const double area = double(box.height) * box.width / (375.0 * 500.0),
                 ratio = double(box.width) / box.height;
    const bool inside = box.top >= 0 && box.left >= 0 && box.height > 0 && box.width > 0 &&
                        box.top + box.height <= 375 && box.left + box.width <= 500;
    // Rounding the sides moves area and ratio by less than 2 % for sides above 80.
    const bool in_range = area > 0.049 && area < 0.408 && ratio > 0.735 && ratio < 1.36;
    if (!inside || !in_range)
      FAIL("box " << box.top << " " << box.left << " " << box.height << " " << box.width);
    area_sum += area;
  }
  // Standard error of the mean: 0.35 / sqrt(12 * 20000) = 0.0007.
  CHECK(area_sum / kBoxes == Approx(0.225).margin(0.004));
}

TEST_CASE("images too elongated for any box give a centred one with a ratio in range") {
  Random random(1, Purpose::test, 0);
  const CropBox wide = sample_crop_box(20, 2000, {0.9f, 1.0f}, random);
  CHECK(wide.height == 20);
  CHECK(wide.width == 27);
  CHECK(wide.left == (2000 - 27) / 2);
  const CropBox tall = sample_crop_box(2000, 20, {0.9f, 1.0f}, random);
  CHECK(tall.width == 20);
  CHECK(tall.height == 27);
  CHECK(tall.top == (2000 - 27) / 2);
  const CropBox pixel = sample_crop_box(1, 1, {0.05f, 0.4f}, random);
  CHECK(pixel.height == 1);
  CHECK(pixel.width == 1);
}

TEST_CASE("a plan is a function of its arguments") {
  const AugmentConfig config;
  std::set<int> boxes;
  for (int crop = 0; crop < config.crops(); ++crop) {
    CHECK(equal(plan_crop(config, 375, 500, 77, crop), plan_crop(config, 375, 500, 77, crop)));
    const CropPlan plan = plan_crop(config, 375, 500, 77, crop);
    boxes.insert(plan.box.top * 1000 + plan.box.left);
  }
  CHECK(boxes.size() > 7);
  AugmentConfig other;
  other.seed = 1;
  CHECK_FALSE(equal(plan_crop(config, 375, 500, 77, 0), plan_crop(other, 375, 500, 77, 0)));
}

TEST_CASE("decisions have the probabilities of the recipe") {
  const AugmentConfig config;
  constexpr int kPlans = 20000;
  constexpr double kMargin = 0.015;  // four standard errors of a probability of 1/2
  for (const int crop : {0, 1, 2, 9}) {
    CAPTURE(crop);
    const auto drawn = plans(config, crop, kPlans);
    CHECK(share(drawn, [](const CropPlan& p) { return p.flip; }) == Approx(0.5).margin(kMargin));
    CHECK(share(drawn, [](const CropPlan& p) { return p.color_steps == 4; }) == Approx(0.8).margin(kMargin));
    CHECK(share(drawn, [](const CropPlan& p) { return p.gray; }) == Approx(0.2).margin(kMargin));
    const double blurred = crop == 0 ? 1.0 : crop == 1 ? 0.1 : 0.5;
    CHECK(share(drawn, [](const CropPlan& p) { return p.blur_sigma > 0; }) ==
          Approx(blurred).margin(kMargin));
    CHECK(share(drawn, [](const CropPlan& p) { return p.solarize; }) ==
          Approx(crop == 1 ? 0.2 : 0.0).margin(kMargin));
    CHECK(drawn.front().size == (crop < 2 ? 224 : 96));
  }
}

TEST_CASE("probability 0 never applies and probability 1 always") {
  for (const float p : {0.0f, 1.0f}) {
    AugmentConfig config;
    config.flip_prob = config.jitter_prob = config.grayscale_prob = config.solarize_prob = p;
    config.blur_prob_global1 = config.blur_prob_global2 = config.blur_prob_local = p;
    for (const int crop : {0, 1, 2}) {
      for (const CropPlan& plan : plans(config, crop, 3000)) {
        const bool always = p == 1.0f;
        const bool as_said = plan.flip == always && (plan.color_steps == 4) == always &&
                             plan.gray == always && (plan.blur_sigma > 0) == always &&
                             plan.solarize == (always && crop == 1);
        if (!as_said) FAIL("probability " << p << ", crop " << crop);
      }
    }
  }
}

TEST_CASE("jitter factors are in range and all orders occur") {
  std::set<std::array<int, 4>> orders;
  for (const CropPlan& plan : plans(AugmentConfig{}, 0, 3000)) {
    std::array<int, 4> order{};
    for (size_t i = 0; i < static_cast<size_t>(plan.color_steps); ++i) {
      const auto [op, factor] = plan.color[i];
      order[i] = static_cast<int>(op);
      const float strength = op == ColorOp::saturation ? 0.2f : op == ColorOp::hue ? 0.1f : 0.4f;
      const float center = op == ColorOp::hue ? 0.0f : 1.0f;
      if (std::abs(factor - center) > strength + 1e-6f) FAIL("factor " << factor);
    }
    if (plan.color_steps == 4) orders.insert(order);
  }
  CHECK(orders.size() == 24);
}

TEST_CASE("a jitter of strength 0 leaves its operation out and changes nothing else") {
  AugmentConfig config, without_hue;
  without_hue.hue = 0;
  for (int i = 0; i < 200; ++i) {
    CropPlan with = plan_crop(config, 375, 500, static_cast<uint64_t>(i), 1);
    const CropPlan without = plan_crop(without_hue, 375, 500, static_cast<uint64_t>(i), 1);
    CHECK(without.color_steps == (with.color_steps == 0 ? 0 : 3));
    CHECK(with.blur_sigma == without.blur_sigma);
    for (int j = 0; j < without.color_steps; ++j)
      CHECK(without.color[static_cast<size_t>(j)].op != ColorOp::hue);
  }
}

TEST_CASE("an image is read only so small that no crop has fewer pixels than it asks for") {
  const auto plan_of = [](int height, int width, int size) {
    CropPlan plan{};
    plan.box = {0, 0, height, width};
    plan.size = size;
    return plan;
  };
  const auto reduction = [](std::vector<CropPlan> plans) { return reduction_for(plans); };
  CHECK(reduction({plan_of(3000, 4000, 224)}) == 8);
  CHECK(reduction({plan_of(8 * 224, 8 * 224, 224)}) == 8);
  CHECK(reduction({plan_of(8 * 224, 8 * 224 - 1, 224)}) == 4);
  CHECK(reduction({plan_of(4 * 224 - 1, 4000, 224)}) == 2);
  CHECK(reduction({plan_of(375, 500, 224)}) == 1);
  CHECK(reduction({plan_of(100, 100, 224)}) == 1);
  CHECK(reduction({plan_of(3000, 4000, 224), plan_of(700, 500, 96)}) == 4);
}

TEST_CASE("a box lies in a smaller image where it lies in the whole one") {
  CropPlan plan{};
  plan.box = {13, 40, 30, 50};  // top, left, height, width
  const CropSource whole = source_of(plan);
  CHECK((whole.pixels.top == 13 && whole.pixels.left == 40 && whole.pixels.height == 30 && whole.pixels.width == 50));
  CHECK((whole.part.top == 0 && whole.part.left == 0 && whole.part.bottom == 30 && whole.part.right == 50));
  plan.reduction = 4;  // rows 3.25 to 10.75, columns 10 to 22.5
  const CropSource reduced = source_of(plan);
  CHECK((reduced.pixels.top == 3 && reduced.pixels.left == 10 && reduced.pixels.height == 8 && reduced.pixels.width == 13));
  CHECK((reduced.part.top == 0.25f && reduced.part.left == 0 && reduced.part.bottom == 7.75f && reduced.part.right == 12.5f));
}

TEST_CASE("rendering executes the plan step by step") {
  const Image image = fixtures::pattern(60, 80);
  AugmentConfig config;
  config.global_crops_size = 24;
  config.mean = {0, 0, 0};
  config.deviation = {1.0f / 255, 1.0f / 255, 1.0f / 255};
  CropPlan plan{};
  plan.box = {3, 4, 24, 24};
  plan.size = 24;
  CropScratch scratch;
  std::vector<float> out(24 * 24 * 3);
  render_crop(config, image, plan, out.data(), scratch);
  CHECK(std::lround(out[0]) == image.view().row(3)[12]);
  plan.flip = true;
  plan.solarize = true;
  render_crop(config, image, plan, out.data(), scratch);
  const int x = image.view().row(3)[3 * (4 + 23)];
  CHECK(std::lround(out[0]) == (x < 128 ? x : 255 - x));
}

TEST_CASE("configurations that cannot be are refused") {
  const auto refused = [](auto change) {
    AugmentConfig config;
    change(config);
    CHECK_THROWS_AS(check_config(config), UsageError);
  };
  CHECK_NOTHROW(check_config(AugmentConfig{}));
  refused([](AugmentConfig& c) { c.channels = 65; });
  refused([](AugmentConfig& c) { c.global_crops_size = 0; });
  refused([](AugmentConfig& c) { c.local_crops_number = -1; });
  refused([](AugmentConfig& c) { c.local_crops_scale = {0.5f, 0.1f}; });
  refused([](AugmentConfig& c) { c.flip_prob = 1.5f; });
  refused([](AugmentConfig& c) { c.hue = 0.6f; });
  refused([](AugmentConfig& c) { c.mean = {0.5f}; });
  refused([](AugmentConfig& c) { c.deviation = {0, 0, 0}; });
  refused([](AugmentConfig& c) { c.jitter_prob = std::nanf(""); });
}

}  // namespace
}  // namespace dino
