#include "tests/train/golden_run.h"

using namespace dino;
using namespace dino::golden;

TEST_CASE("six training steps in f64 equal the reference to ten digits") {
  const nlohmann::json expected = golden::reference();
  for (const Variant& variant : kVariants) {
    INFO(variant.name);
    Run run(variant, {.dtype = Dtype::f64});
    for (int64_t step = 0; step < kSteps; ++step) {
      const auto& want = expected[variant.name][static_cast<size_t>(step)];
      const StepPlan plan = run.plan(step);
      // The cosine of the reference's library differs from the C library's by one unit in the last place.
      CHECK(near(plan.scalars.learning_rate, want["lr"], 2.3e-16));
      CHECK(near(plan.scalars.weight_decay, want["wd"], 2.3e-16));
      CHECK(near(plan.scalars.teacher_momentum, want["m"], 2.3e-16));
      const StepReport report = run.step(step);
      INFO("step " << step);
      CHECK(near(report.loss, want["loss"]));
      if (!want["preclip_norm_patch_w"].is_null()) {
        CHECK(near(run.grad_norm("backbone.patch_embed.proj.weight"), want["preclip_norm_patch_w"]));
        CHECK(near(run.grad_norm("backbone.blocks.0.attn.qkv.weight"), want["preclip_norm_qkv0_w"]));
      }
      CHECK(near(golden::l2(run.loss.center()), want["center_l2"]));
      const Totals student = totals(run.student.parameters()), teacher = totals(run.teacher.network().parameters());
      CHECK(near(student.l2, want["student_l2"]));
      CHECK(near(teacher.l2, want["teacher_l2"]));
      CHECK(near(student.sum, want["student_sum"]));
      CHECK(near(teacher.sum, want["teacher_sum"]));
    }
  }
}

TEST_CASE("six training steps in f32 stay within f32 of the reference") {
  const nlohmann::json expected = golden::reference();
  for (const Variant& variant : kVariants) {
    INFO(variant.name);
    Run run(variant, {});
    for (int64_t step = 0; step < kSteps; ++step) {
      const auto& want = expected[variant.name][static_cast<size_t>(step)];
      INFO("step " << step);
      CHECK(near(run.step(step).loss, want["loss"], 1e-5));
      CHECK(near(golden::l2(run.loss.center()), want["center_l2"], 1e-5));
      CHECK(near(totals(run.student.parameters()).l2, want["student_l2"], 1e-4));
    }
  }
}

TEST_CASE("six training steps in bf16 stay near the reference") {
  const nlohmann::json expected = golden::reference();
  for (const Variant& variant : kVariants) {
    INFO(variant.name);
    Run run(variant, {.bf16 = true});
    for (int64_t step = 0; step < kSteps; ++step) {
      const auto& want = expected[variant.name][static_cast<size_t>(step)];
      INFO("step " << step);
      // Logits are cosines of bf16 vectors of 8 elements, divided by temperatures of 0.1 and 0.04.
      CHECK(near(run.step(step).loss, want["loss"], 2e-2));
      CHECK(near(totals(run.student.parameters()).l2, want["student_l2"], 1e-2));
    }
  }
}
