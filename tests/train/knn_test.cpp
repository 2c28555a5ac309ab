#include "train/evaluate/knn.h"

#include <algorithm>
#include <catch2/catch.hpp>
#include <cmath>
#include <limits>
#include <nlohmann/json.hpp>

#include "kernels/philox.h"

using namespace dino;

namespace {

/// Random features around one random point per class.
FeatureSet clusters(int64_t images, int64_t dim, int classes, double spread, uint32_t part) {
  FeatureSet set{.images = images, .dim = dim};
  Random random(3, Purpose::test, part);
  const auto center = [&](int label, int64_t i) {
    return std::sin(1.7 * label + 2.3 * static_cast<double>(i));
  };
  for (int64_t image = 0; image < images; ++image) {
    const auto label = static_cast<int>(random.below(static_cast<uint32_t>(classes)));
    set.labels.push_back(label);
    for (int64_t i = 0; i < dim; ++i)
      set.values.push_back(
          static_cast<float>(center(label, i) + spread * (static_cast<double>(random.uniform()) - 0.5)));
  }
  return set;
}

/// The classifier written down again in f64: cosines, the k largest, votes, the rank of the true class.
std::pair<double, double> brute_force(const FeatureSet& train, const FeatureSet& val, int64_t k,
                                      int classes) {
  double top1 = 0, top5 = 0;
  for (int64_t v = 0; v < val.images; ++v) {
    std::vector<std::pair<double, int64_t>> all;
    for (int64_t t = 0; t < train.images; ++t) {
      double dot = 0, a = 0, b = 0;
      for (int64_t i = 0; i < val.dim; ++i) {
        const double x = static_cast<double>(val.row(v)[i]), y = static_cast<double>(train.row(t)[i]);
        dot += x * y;
        a += x * x;
        b += y * y;
      }
      all.emplace_back(-dot / std::sqrt(a * b), t);
    }
    std::sort(all.begin(), all.end());
    std::vector<std::pair<double, int>> votes;
    for (int c = 0; c < classes; ++c) votes.emplace_back(0, c);
    for (int64_t i = 0; i < k; ++i) {
      const auto& [minus_cosine, t] = all[static_cast<size_t>(i)];
      votes[static_cast<size_t>(train.labels[static_cast<size_t>(t)])].first -=
          std::exp(-minus_cosine / 0.07);
    }
    std::sort(votes.begin(), votes.end());
    for (int64_t place = 0; place < std::min<int64_t>({k, 5, classes}); ++place) {
      const auto& [minus_votes, c] = votes[static_cast<size_t>(place)];
      const bool hit = minus_votes < 0 && c == val.labels[static_cast<size_t>(v)];
      top1 += hit && place == 0 ? 1 : 0;
      top5 += hit ? 1 : 0;
    }
  }
  const auto images = static_cast<double>(val.images);
  return {100 * top1 / images, 100 * top5 / images};
}

FeatureSet set_of(std::vector<float> values, int64_t dim, std::vector<int> labels) {
  FeatureSet set{.values = std::move(values), .dim = dim, .labels = std::move(labels)};
  set.images = static_cast<int64_t>(set.labels.size());
  return set;
}

}  // namespace

TEST_CASE("k-NN scores equal those of a brute-force classifier in f64") {
  Context context(2);
  constexpr int kClasses = 12;
  const FeatureSet train = clusters(300, 10, kClasses, 5, 1), val = clusters(83, 10, kClasses, 5, 2);
  const KnnResult result = knn(context, train, val, {.k = {1, 3, 10, 20, 100}});
  REQUIRE(result.scores.size() == 5);
  for (const KnnScore& score : result.scores) {
    INFO("k = " << score.k);
    const auto [top1, top5] = brute_force(train, val, score.k, kClasses);
    CHECK(score.top1 == Approx(top1));
    CHECK(score.top5 == Approx(top5));
  }
  CHECK(result.scores[3].top1 > 20);  // better than chance, worse than perfect: the comparison says something
  CHECK(result.scores[3].top1 < 100);
  CHECK(result.notes.empty());
}

TEST_CASE("k-NN does not depend on the number of threads") {
  const FeatureSet train = clusters(200, 7, 5, 4, 1), val = clusters(60, 7, 5, 4, 2);
  Context one(1), two(2);
  const KnnResult a = knn(one, train, val, {}), b = knn(two, train, val, {});
  for (size_t i = 0; i < a.scores.size(); ++i) CHECK(a.scores[i].predictions == b.scores[i].predictions);
}

TEST_CASE("k-NN takes a k larger than the training set as all of it and says so") {
  Context context(1);
  const FeatureSet train = clusters(15, 4, 3, 1, 1), val = clusters(9, 4, 3, 1, 2);
  const KnnResult result = knn(context, train, val, {.k = {200, 5}});
  REQUIRE(result.scores.size() == 2);
  CHECK(result.scores[1].k == 200);
  CHECK(result.scores[1].neighbours == 15);
  CHECK(result.scores[1].top1 == Approx(brute_force(train, val, 15, 3).first));
  CHECK(result.notes.size() == 1);
}

TEST_CASE("k-NN gives a tie to the lower class") {
  Context context(1);
  const FeatureSet train = set_of({1, 0, 1, 0}, 2, {1, 0});
  const KnnResult result = knn(context, train, set_of({1, 0}, 2, {0}), {.k = {2}});
  CHECK(result.scores[0].predictions == std::vector<int>{0});
  CHECK(result.scores[0].top1 == 100);
}

TEST_CASE("k-NN survives temperatures at which the votes themselves would overflow") {
  Context context(1);
  const FeatureSet train = set_of({1, 0, 0, 1}, 2, {0, 1});
  const KnnResult result = knn(context, train, set_of({0.1f, 1}, 2, {1}), {.k = {2}, .temperature = 1e-5});
  CHECK(result.scores[0].top1 == 100);
}

TEST_CASE("k-NN matches classes by name where the two sets number them differently") {
  Context context(1);
  FeatureSet train = set_of({1, 0, 0, 1}, 2, {0, 1}), val = set_of({0, 1, 1, 1}, 2, {0, 1});
  train.classes = {"cat", "dog"};
  val.classes = {"dog", "fox"};
  const KnnResult result = knn(context, train, val, {.k = {1}});
  CHECK(result.scores[0].predictions[0] == 1);
  CHECK(result.scores[0].top1 == 50);  // the fox has no training image
  CHECK(result.notes.size() == 1);
}

TEST_CASE("k-NN refuses features that are not finite and labels that are unknown") {
  Context context(1);
  const FeatureSet good = set_of({1, 0, 0, 1}, 2, {0, 1});
  const FeatureSet bad = set_of({1, std::numeric_limits<float>::quiet_NaN()}, 2, {0});
  CHECK_THROWS_AS(knn(context, good, bad, {}), DataError);
  CHECK_THROWS_AS(knn(context, good, set_of({1, 0}, 2, {-1}), {}), UsageError);
  CHECK_THROWS_AS(knn(context, good, set_of({1, 0, 0}, 3, {0}), {}), UsageError);
  CHECK_THROWS_AS(knn(context, good, good, {.k = {0}}), UsageError);
  CHECK_THROWS_AS(knn(context, good, good, {.temperature = 0}), UsageError);
}

TEST_CASE("k-NN notes features that are all equal, and zero ones") {
  Context context(1);
  const FeatureSet good = set_of({1, 0, 0, 1}, 2, {0, 1});
  CHECK(knn(context, set_of({2, 1, 2, 1}, 2, {0, 1}), good, {.k = {1}}).notes.size() == 1);
  CHECK(knn(context, set_of({0, 0, 2, 1}, 2, {0, 1}), good, {.k = {1}}).notes.size() == 1);
}

TEST_CASE("the JSON of k-NN has the scores under k") {
  Context context(1);
  const FeatureSet set = set_of({1, 0, 0, 1}, 2, {0, 1});
  const nlohmann::json json = to_json(knn(context, set, set, {.k = {1, 2}}));
  CHECK(json["k"]["1"]["top1"] == 100.0);
  CHECK(json["k"]["2"].contains("top5"));
  CHECK(json["train_images"] == 2);
  CHECK(json["val_images"] == 2);
  CHECK(json["protocol"]["metric"] == "cosine");
  CHECK(json["protocol"]["k"] == std::vector<int>{1, 2});
}
