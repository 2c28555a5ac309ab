#include <catch2/catch.hpp>
#include <cmath>

#include "kernels/rows.h"

using namespace dino;

TEST_CASE("the tanh form of GELU has the published values, and lies near the exact form without being it") {
  // 0.5 * x * (1 + math.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))) in Python
  const double x[] = {-3, -1, -0.5, 0, 0.5, 1, 3};
  const double y[] = {-0.0036373920817729943, -0.15880800939172324, -0.15428599017485606, 0,
                      0.34571400982514394,    0.8411919906082768,   2.996362607918227};
  double got[7];
  rows::gelu_tanh(x, got, 7);
  for (int i = 0; i < 7; ++i) CHECK(std::abs(got[i] - y[i]) <= 1e-15);

  double furthest = 0;
  for (double at = -6; at <= 6; at += 0.01) {
    double exact, approximate;
    rows::gelu(&at, &exact, 1);
    rows::gelu_tanh(&at, &approximate, 1);
    furthest = std::max(furthest, std::abs(exact - approximate));
  }
  CHECK(furthest < 5e-4);
  CHECK(furthest > 4e-4);
}

TEST_CASE("GELU by tanh in f32 keeps relative precision in its tail, and slopes stay finite") {
  constexpr int kCount = 4001;
  std::vector<float> x(kCount), y(kCount), ones(kCount, 1.0f), slope(kCount);
  for (int i = 0; i < kCount; ++i) x[static_cast<size_t>(i)] = static_cast<float>(i - 2000) * 0.004f;
  rows::gelu_tanh(x.data(), y.data(), kCount);
  rows::gelu_tanh_backward(x.data(), ones.data(), slope.data(), kCount, false);
  for (size_t i = 0; i < x.size(); ++i) {
    const double v = x[i], u = rows::kGeluTanhScale * (v + 0.044715 * v * v * v),
                 exact = v / (1 + std::exp(-2 * u));
    INFO("x " << v);
    CHECK(std::abs(y[i] - exact) <=
          1e-5 * std::abs(exact));  // e^(−2u) makes 2u roundings of one: up to 70 here
    double one = 1, wanted;
    rows::gelu_tanh_backward(&v, &one, &wanted, 1, false);
    CHECK(std::abs(slope[i] - wanted) <= 1e-6);
  }
  const float far[] = {-1e30f, -1e19f, -20, 20, 1e19f, 1e30f, std::nanf("")};
  float value[7], one[7] = {1, 1, 1, 1, 1, 1, 1}, steep[7];
  rows::gelu_tanh(far, value, 7);
  rows::gelu_tanh_backward(far, one, steep, 7, false);
  for (int i = 0; i < 3; ++i) CHECK((value[i] == 0 && steep[i] == 0));
  for (int i = 3; i < 6; ++i) CHECK((value[i] == far[i] && steep[i] == 1));
  CHECK((std::isnan(value[6]) && std::isnan(steep[6])));
}
