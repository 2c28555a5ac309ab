#include "train/schedule.h"

#include "tests/golden.h"

using namespace dino;

TEST_CASE("schedules of a run of 100 ImageNet epochs equal the reference at every recorded step") {
  constexpr int64_t kEpochSteps = 2502, kSteps = 100 * kEpochSteps;
  const std::map<std::string, CosineSchedule> schedules = {
      {"lr", {0.0005 * 512 / 256, 1e-6, kSteps, 10 * kEpochSteps}}, {"wd", {0.04, 0.4, kSteps}}, {"m", {0.996, 1, kSteps}}};
  const auto expected = golden::reference()["sched"];
  for (const auto& [name, schedule] : schedules)
    for (const auto& [step, value] : expected[name].items()) {
      INFO(name << " at step " << step);
      // The cosine of the reference's library and of the C library may differ in the last place.
      CHECK(golden::near(schedule.at(std::stoll(step)), value, 2.3e-16));
    }
}

TEST_CASE("epoch means of learning rate and decay equal the published logs") {
  constexpr int64_t kEpochSteps = 2502, kSteps = 100 * kEpochSteps;
  const CosineSchedule lr{0.001, 1e-6, kSteps, 10 * kEpochSteps}, wd{0.04, 0.4, kSteps};
  const auto mean = [&](const CosineSchedule& schedule, int64_t epoch) {
    double sum = 0;
    for (int64_t i = 0; i < kEpochSteps; ++i) sum += schedule.at(epoch * kEpochSteps + i);
    return sum / kEpochSteps;
  };
  CHECK(golden::near(mean(lr, 0), 4.99820136696111e-05, 1e-15));
  CHECK(golden::near(mean(wd, 0), 0.0400295896, 1e-9));
  CHECK(golden::near(mean(lr, 50), 0.00057863848957, 1e-13));
  CHECK(golden::near(mean(wd, 50), 0.222826070965, 1e-11));
}

TEST_CASE("the first step has learning rate 0 and the peak comes twice") {
  const CosineSchedule lr{1, 0, 100, 10};
  CHECK(lr.at(0) == 0);
  CHECK(lr.at(9) == 1);
  CHECK(lr.at(10) == 1);
  CHECK(lr.at(99) > 0);
  CHECK(lr.at(1000) == lr.at(99));
}

TEST_CASE("the teacher's temperature includes both ends of its warm-up") {
  const TemperatureSchedule temperature{0.04, 0.07, 3};
  const double expected[] = {0.04, 0.055, 0.07, 0.07, 0.07};
  for (int64_t epoch = 0; epoch < 5; ++epoch) CHECK(golden::near(temperature.at(epoch), expected[epoch], 1e-15));
  CHECK(TemperatureSchedule{0.04, 0.07, 1}.at(0) == 0.04);
  CHECK(TemperatureSchedule{0.04, 0.07, 0}.at(0) == 0.07);
}
