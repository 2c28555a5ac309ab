#include "train/evaluate/linear.h"

#include <catch2/catch.hpp>
#include <cmath>
#include <nlohmann/json.hpp>

#include "engine/safetensors.h"
#include "kernels/philox.h"
#include "tests/engine/files.h"
#include "train/evaluate/knn.h"

using namespace dino;

namespace {

/// Points in the plane and a constant; class = sector, with a gap between sectors.
FeatureSet sectors(int64_t images, int classes, uint32_t part) {
  FeatureSet set{.images = images, .dim = 3};
  Random random(5, Purpose::test, part);
  for (int64_t image = 0; image < images; ++image) {
    const auto label = static_cast<int>(random.below(static_cast<uint32_t>(classes)));
    const double angle = 6.283185307 * (label + 0.2 + 0.6 * static_cast<double>(random.uniform())) / classes;
    const double radius = 1 + static_cast<double>(random.uniform());
    set.labels.push_back(label);
    set.values.insert(set.values.end(), {static_cast<float>(radius * std::cos(angle)),
                                         static_cast<float>(radius * std::sin(angle)), 1.0f});
  }
  return set;
}

/// One step of softmax regression with momentum in f64.
struct PlainRegression {
  std::vector<double> weight, bias, weight_velocity, bias_velocity;
  int64_t dim, classes;

  double step(const FeatureSet& set, double lr, double momentum) {
    std::vector<double> dw(weight.size()), db(bias.size());
    double loss = 0;
    for (int64_t image = 0; image < set.images; ++image) {
      std::vector<double> p(static_cast<size_t>(classes));
      double sum = 0;
      for (int64_t c = 0; c < classes; ++c) {
        double z = bias[static_cast<size_t>(c)];
        for (int64_t i = 0; i < dim; ++i)
          z += weight[static_cast<size_t>(c * dim + i)] * static_cast<double>(set.row(image)[i]);
        sum += p[static_cast<size_t>(c)] = std::exp(z);
      }
      for (int64_t c = 0; c < classes; ++c) {
        const bool own = set.labels[static_cast<size_t>(image)] == c;
        const double share = p[static_cast<size_t>(c)] / sum,
                     g = (share - (own ? 1 : 0)) / static_cast<double>(set.images);
        if (own) loss -= std::log(share) / static_cast<double>(set.images);
        db[static_cast<size_t>(c)] += g;
        for (int64_t i = 0; i < dim; ++i)
          dw[static_cast<size_t>(c * dim + i)] += g * static_cast<double>(set.row(image)[i]);
      }
    }
    const auto update = [&](std::vector<double>& w, std::vector<double>& v, const std::vector<double>& g) {
      for (size_t i = 0; i < w.size(); ++i) w[i] -= lr * (v[i] = momentum * v[i] + g[i]);
    };
    update(weight, weight_velocity, dw);
    update(bias, bias_velocity, db);
    return loss;
  }
};

}  // namespace

TEST_CASE("the learning rate of the linear probe follows half a cosine, stepped per epoch") {
  CHECK(cosine_epoch_lr(0.3, 0, 100) == Approx(0.3));
  CHECK(cosine_epoch_lr(0.3, 25, 100) == Approx(0.15 * (1 + std::sqrt(0.5))));
  CHECK(cosine_epoch_lr(0.3, 50, 100) == Approx(0.15));
  CHECK(cosine_epoch_lr(0.3, 99, 100) == Approx(7.4015e-5).epsilon(1e-3));
}

TEST_CASE(
    "classifiers side by side learn what each would learn alone, and what softmax regression in f64 learns") {
  Context context(2);
  const FeatureSet set = sectors(50, 4, 1);
  constexpr int64_t kClasses = 4;
  const std::vector<double> rates = {0.05, 0.5};
  LinearClassifiers both(set.dim, kClasses, 2, 9);
  std::vector<PlainRegression> plain;
  for (int64_t i = 0; i < 2; ++i) {
    const std::vector<float> w = both.weight(i), b = both.bias(i);
    plain.push_back({{w.begin(), w.end()},
                     {b.begin(), b.end()},
                     std::vector<double>(w.size()),
                     std::vector<double>(b.size()),
                     set.dim,
                     kClasses});
  }
  CHECK(both.weight(0) == both.weight(1));
  for (int step = 0; step < 20; ++step) {
    const std::vector<double> losses = both.step(context, set.tensor(), set.labels, rates, 0.9);
    for (size_t i = 0; i < 2; ++i)
      CHECK(losses[i] == Approx(plain[i].step(set, rates[i], 0.9)).epsilon(1e-4));
  }
  for (size_t i = 0; i < 2; ++i) {
    const std::vector<float> w = both.weight(static_cast<int64_t>(i));
    for (size_t j = 0; j < w.size(); ++j)
      CHECK(static_cast<double>(w[j]) == Approx(plain[i].weight[j]).margin(1e-4));
  }
}

TEST_CASE("the linear probe separates separable classes and reports the best rate of its sweep") {
  Context context(2);
  const FeatureSet train = sectors(400, 6, 1), val = sectors(120, 6, 2);
  int64_t epochs_seen = 0;
  const LinearConfig config{.epochs = 60, .batch_size = 32, .lr = {0.0001, 10}, .val_freq = 7};
  const LinearResult result = linear_probe(context, train, val, config, [&](const LinearEpoch& epoch) {
    ++epochs_seen;
    CHECK(epoch.lr[1] == Approx(cosine_epoch_lr(10 * 32 / 256.0, epoch.epoch, 60)));
  });
  CHECK(epochs_seen == 60 / 7 + 1);
  CHECK(result.best == 1);
  CHECK(result.sweep[1].last.top1 > 98);
  CHECK(result.sweep[0].last.top1 < result.sweep[1].last.top1);
  CHECK(result.sweep[1].last.top5 >= result.sweep[1].last.top1);
  CHECK(result.weight.size() == 6 * 3);

  const nlohmann::json json = to_json(result, config);
  CHECK(json["lr"] == 10.0);
  CHECK(json["sweep"].size() == 2);
  CHECK(json["top1"] == result.sweep[1].last.top1);
}

TEST_CASE("the linear probe is a function of its seed") {
  Context one(1), two(2);
  const FeatureSet train = sectors(100, 3, 1), val = sectors(30, 3, 2);
  const LinearConfig config{.epochs = 3, .batch_size = 16, .lr = {0.1}, .seed = 4};
  const LinearResult a = linear_probe(one, train, val, config), b = linear_probe(two, train, val, config);
  CHECK(a.weight == b.weight);
  LinearConfig other = config;
  other.seed = 5;
  CHECK(a.weight != linear_probe(one, train, val, other).weight);
}

TEST_CASE("a diverged classifier scores nothing instead of everything") {
  Context context(1);
  FeatureSet train = sectors(40, 3, 1);
  for (float& value : train.values) value *= 1e30f;
  const LinearResult result =
      linear_probe(context, train, train, {.epochs = 4, .batch_size = 8, .lr = {1e20}});
  CHECK(result.sweep[0].last.top1 == 0);
}

TEST_CASE("the linear probe refuses what cannot be trained on") {
  Context context(1);
  const FeatureSet set = sectors(10, 3, 1);
  FeatureSet one_class = set;
  for (int& label : one_class.labels) label = 0;
  CHECK_THROWS_AS(linear_probe(context, one_class, one_class, {.epochs = 1}), UsageError);
  CHECK_THROWS_AS(linear_probe(context, set, set, {.epochs = 0}), UsageError);
  CHECK_THROWS_AS(linear_probe(context, set, set, {.epochs = 1, .lr = {}}), UsageError);
}

TEST_CASE("a linear classifier is saved under the names of the reference") {
  Context context(1);
  const test::TemporaryFolder folder;
  const FeatureSet set = sectors(30, 3, 1);
  const LinearResult result = linear_probe(context, set, set, {.epochs = 1, .lr = {0.1}});
  save_linear(folder / "linear.safetensors", result);
  const TensorFile file = load_safetensors(folder / "linear.safetensors");
  REQUIRE(file.find("linear.weight"));
  CHECK(file.find("linear.weight")->shape == std::vector<int64_t>{3, 3});
  CHECK(to_floats(*file.find("linear.weight")) == result.weight);
  CHECK(to_floats(*file.find("linear.bias")) == result.bias);
}
