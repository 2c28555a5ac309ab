#include "train/doctor.h"

#include <catch2/catch.hpp>
#include <cmath>

using namespace dino;

namespace {

constexpr double kUnknown = Signs::kUnknown;

/// 512 prototypes (ln: 6.24), 64 images (ln: 4.16), 64 dimensions (1/√: 0.125).
Patient patient() {
  return {.prototypes = 512, .images = 64, .feature_dim = 64, .warmup_steps = 100, .student_temp = 0.1, .centering = true};
}

Signs healthy_signs() {
  return {.teacher_entropy = 4.5, .marginal_entropy = 5.6, .teacher_temp = 0.04, .feature_std = 0.08, .half_life = 69};
}

/// The diagnosis after steps [begin, end) with the same signs, every tenth of them logged.
Diagnosis after(Doctor& doctor, Signs signs, int64_t begin, int64_t end) {
  Diagnosis diagnosis;
  for (signs.step = begin; signs.step < end; signs.step += 10) diagnosis = doctor.examine(signs);
  return diagnosis;
}

Diagnosis after(const Patient& who, const Signs& signs, int64_t end = 300) {
  Doctor doctor(who);
  return after(doctor, signs, 0, end);
}

}  // namespace

TEST_CASE("a run with healthy signs is healthy from step 50 on and has no verdict before") {
  CHECK(after(patient(), healthy_signs(), 50).verdict == Verdict::none);
  CHECK(after(patient(), healthy_signs(), 60).verdict == Verdict::healthy);
  CHECK(after(patient(), healthy_signs()).verdict == Verdict::healthy);
  CHECK(after(patient(), healthy_signs()).reason.empty());
}

TEST_CASE("nearly one target for all images is a collapse, and the help is what is missing") {
  Signs signs = healthy_signs();
  signs.teacher_entropy = 0.1;
  signs.marginal_entropy = 0.3;
  CHECK(after(patient(), signs).verdict == Verdict::collapsing);
  CHECK_THAT(after(patient(), signs).reason, Catch::Contains("marginal entropy 0.30 of 6.24 nats") && Catch::Contains("--sinkhorn 3"));
  Patient uncentered = patient();
  uncentered.centering = false;
  CHECK_THAT(after(uncentered, signs).reason, Catch::Contains("--centering on"));
  signs.half_life = 0;
  CHECK_THAT(after(uncentered, signs).reason, Catch::Contains("half-life of 0.000 steps") && Catch::Contains("--momentum-teacher"));
}

TEST_CASE("uniform targets are a collapse, and the help is the temperature") {
  Signs signs = healthy_signs();
  signs.teacher_entropy = 6.22;
  signs.marginal_entropy = 6.23;
  signs.teacher_temp = 1;
  const Diagnosis diagnosis = after(patient(), signs);
  CHECK(diagnosis.verdict == Verdict::collapsing);
  CHECK_THAT(diagnosis.reason, Catch::Contains("uniform") && Catch::Contains("lower --teacher-temp") && Catch::Contains("below the student's 0.1"));
}

TEST_CASE("targets and features are not held against a run whose learning rate still warms up") {
  Signs signs = healthy_signs();
  signs.teacher_entropy = signs.marginal_entropy = 6.23;
  signs.feature_std = 0.001;
  CHECK(after(patient(), signs, 100).verdict == Verdict::healthy);
  CHECK(after(patient(), signs, 150).verdict == Verdict::collapsing);
}

TEST_CASE("equal features are a collapse, also where targets are no probabilities") {
  Signs signs = healthy_signs();
  signs.teacher_entropy = signs.marginal_entropy = kUnknown;
  signs.feature_std = 0.001;
  const Diagnosis diagnosis = after(patient(), signs);
  CHECK(diagnosis.verdict == Verdict::collapsing);
  CHECK_THAT(diagnosis.reason, Catch::Contains("standard deviation of the features 0.001, healthy is near 0.12"));
}

TEST_CASE("a teacher that follows at once is watched, unless a predictor makes up for it") {
  Signs signs = healthy_signs();
  signs.half_life = 0.7;
  const Diagnosis diagnosis = after(patient(), signs);
  CHECK(diagnosis.verdict == Verdict::watch);
  CHECK_THAT(diagnosis.reason, Catch::Contains("half-life of 0.70 steps") && Catch::Contains("--momentum-teacher"));
  Patient with_predictor = patient();
  with_predictor.predictor = true;
  CHECK(after(with_predictor, signs).verdict == Verdict::healthy);
}

TEST_CASE("what would be watched is a collapse if the teacher follows at once") {
  Signs signs = healthy_signs();
  signs.marginal_entropy = 1.7;
  signs.teacher_entropy = 1;
  CHECK(after(patient(), signs).verdict == Verdict::watch);
  signs.half_life = 0;
  CHECK(after(patient(), signs).verdict == Verdict::collapsing);
}

TEST_CASE("a run that swings in and out of collapse behind a fast teacher is a collapse") {
  Signs good = healthy_signs(), bad = healthy_signs();
  good.half_life = bad.half_life = 0;
  bad.marginal_entropy = 0.3;
  Doctor doctor(patient());
  after(doctor, good, 0, 200);
  for (int64_t step = 200; step < 320; step += 40) {
    CHECK(after(doctor, bad, step, step + 10).verdict == Verdict::watch);
    CHECK(after(doctor, good, step + 10, step + 40).verdict == (step == 280 ? Verdict::collapsing : Verdict::watch));
  }
}

TEST_CASE("a bad sign counts after three logged steps over thirty steps, and recovery at once") {
  Signs bad = healthy_signs();
  bad.marginal_entropy = 0.3;
  bad.teacher_entropy = 0;
  Doctor doctor(patient());
  after(doctor, healthy_signs(), 0, 100);
  CHECK(after(doctor, bad, 100, 130).verdict == Verdict::healthy);   // steps 100, 110 and 120
  CHECK(after(doctor, bad, 130, 140).verdict == Verdict::collapsing);
  CHECK(after(doctor, healthy_signs(), 140, 150).verdict == Verdict::healthy);
  CHECK(after(doctor, bad, 150, 160).verdict == Verdict::healthy);

  Doctor rarely(patient());
  bad.step = 1000;
  CHECK(rarely.examine(bad).verdict == Verdict::healthy);
  bad.step = 2000;
  CHECK(rarely.examine(bad).verdict == Verdict::healthy);
  bad.step = 3000;
  CHECK(rarely.examine(bad).verdict == Verdict::collapsing);
}

TEST_CASE("signs between the limits are watched") {
  Signs signs = healthy_signs();
  signs.teacher_entropy = 1;
  signs.marginal_entropy = 1.7;
  CHECK(after(patient(), signs).verdict == Verdict::watch);
}

TEST_CASE("a step without signs leaves the verdict, and NaN is never held against a run") {
  Signs bad = healthy_signs();
  bad.marginal_entropy = 0.3;
  Doctor doctor(patient());
  after(doctor, bad, 0, 300);
  const Signs silent{.step = 300};
  CHECK(doctor.examine(silent).verdict == Verdict::collapsing);
  CHECK(after(patient(), Signs{}).verdict == Verdict::none);
  for (double Signs::*sign : {&Signs::teacher_entropy, &Signs::marginal_entropy, &Signs::teacher_temp, &Signs::feature_std, &Signs::half_life}) {
    Signs signs = healthy_signs();
    signs.*sign = kUnknown;
    CHECK(after(patient(), signs).verdict == Verdict::healthy);
  }
}

TEST_CASE("a batch of two images is too small to judge targets by") {
  Patient small = patient();
  small.images = 2;
  Signs signs = healthy_signs();
  signs.teacher_entropy = signs.marginal_entropy = 0.1;
  CHECK(after(small, signs).verdict == Verdict::healthy);
}
