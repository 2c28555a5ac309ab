#include "train/evaluate/knn.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <nlohmann/json.hpp>
#include <set>

#include "engine/ops.h"

namespace dino {
namespace {

constexpr int64_t kTop = 5;

/// How many classes have more votes than class `label`, or as many and a lower number. A class that nobody voted for comes
/// after all classes, so that it is no hit because of its number.
int64_t rank_of(const std::vector<double>& votes, int label) {
  int64_t before = 0;
  const double own = votes[static_cast<size_t>(label)];
  if (own <= 0) return static_cast<int64_t>(votes.size()) + kTop;
  for (size_t c = 0; c < votes.size(); ++c)
    before += votes[c] > own || (votes[c] == own && static_cast<int>(c) < label) ? 1 : 0;
  return before;
}

/// The nearest training images of every validation image, nearest first.
struct Neighbours {
  Tensor cosines;  ///< [val, k]
  Tensor indices;  ///< [val, k]
};

/// What every image finds: its predicted class, and the rank of its true one.
struct Found {
  std::vector<int> predictions;
  std::vector<int64_t> ranks;
};

Found vote(Context& context, const Neighbours& neighbours, int64_t k, double temperature,
           const std::vector<int>& train_labels, const std::vector<int>& val_labels, int64_t classes) {
  const int64_t images = neighbours.cosines.shape().rows();
  Found found{std::vector<int>(val_labels.size()), std::vector<int64_t>(val_labels.size())};
  constexpr int64_t kImagesPerPiece = 32;
  context.pool().for_ranges(images, kImagesPerPiece, [&](int64_t begin, int64_t end) {
    std::vector<double> votes(static_cast<size_t>(classes));
    for (int64_t image = begin; image < end; ++image) {
      const float* cosines = neighbours.cosines.view().row<float>(image);
      const int64_t* indices = neighbours.indices.view().row<int64_t>(image);
      std::fill(votes.begin(), votes.end(), 0.0);
      for (int64_t i = 0; i < k; ++i) {
        // Relative to the nearest, which changes no order and cannot overflow.
        const double weight =
            std::exp((static_cast<double>(cosines[i]) - static_cast<double>(cosines[0])) / temperature);
        votes[static_cast<size_t>(train_labels[static_cast<size_t>(indices[i])])] += weight;
      }
      const auto row = static_cast<size_t>(image);
      found.predictions[row] = static_cast<int>(std::max_element(votes.begin(), votes.end()) - votes.begin());
      found.ranks[row] = rank_of(votes, val_labels[row]);
    }
  });
  return found;
}

double percent_within(const std::vector<int64_t>& ranks, int64_t places) {
  const auto hits = std::count_if(ranks.begin(), ranks.end(), [&](int64_t rank) { return rank < places; });
  return 100 * static_cast<double>(hits) / static_cast<double>(ranks.size());
}

std::vector<int64_t> sorted_k(const KnnConfig& config) {
  std::vector<int64_t> k = config.k;
  std::sort(k.begin(), k.end());
  k.erase(std::unique(k.begin(), k.end()), k.end());
  check<UsageError>(!k.empty() && k.front() >= 1, "--nb-knn must be at least 1");
  check<UsageError>(config.temperature > 0, "--temperature must be positive; got ", config.temperature);
  return k;
}

}  // namespace

std::vector<int> labels_as_in(const std::vector<std::string>& classes, const FeatureSet& set) {
  for (size_t i = 0; i < set.labels.size(); ++i)
    check<UsageError>(set.labels[i] >= 0,
                      "evaluation: ", i < set.names.size() ? set.names[i] : str("image ", i),
                      " has no label; give a folder with one subfolder per class, or a list of `path label`");
  if (classes.empty() || set.classes.empty() || classes == set.classes) return set.labels;
  std::map<std::string_view, int> numbers;
  for (const std::string& name : classes) numbers.emplace(name, static_cast<int>(numbers.size()));
  for (const std::string& name : set.classes) numbers.emplace(name, static_cast<int>(numbers.size()));
  std::vector<int> labels = set.labels;
  for (int& label : labels) label = numbers[set.classes.at(static_cast<size_t>(label))];
  return labels;
}

void check_features(const FeatureSet& set, const std::string& what, std::vector<std::string>& notes) {
  check<DataError>(set.images > 0 && set.dim > 0, what, ": there are no features");
  int64_t zeros = 0;
  bool constant = set.images > 1;
  for (int64_t image = 0; image < set.images; ++image) {
    const float* row = set.row(image);
    const bool finite = std::all_of(row, row + set.dim, [](float x) { return std::isfinite(x); });
    check<DataError>(finite, what, ": the feature of ",
                     static_cast<size_t>(image) < set.names.size() ? set.names[static_cast<size_t>(image)]
                                                                   : str("image ", image),
                     " is not finite: the network diverged, or its weights are damaged");
    zeros += std::all_of(row, row + set.dim, [](float x) { return x == 0; }) ? 1 : 0;
    constant = constant && std::equal(row, row + set.dim, set.row(0));
  }
  if (zeros > 0) notes.push_back(str(what, ": ", zeros, " of ", set.images, " features are zero"));
  if (constant)
    notes.push_back(str(what, ": all features are equal: the network has collapsed, or never saw the image"));
}

KnnResult knn(Context& context, const FeatureSet& train, const FeatureSet& val, const KnnConfig& config) {
  const std::vector<int64_t> wanted = sorted_k(config);
  KnnResult result{.temperature = config.temperature, .train_images = train.images, .val_images = val.images};
  check_features(train, "training images", result.notes);
  check_features(val, "validation images", result.notes);
  check<UsageError>(train.dim == val.dim, "k-NN: features must have equal length; got ", train.dim, " and ",
                    val.dim);
  const std::vector<int> train_labels = labels_as_in({}, train),
                         val_labels = labels_as_in(train.classes, val);
  result.classes = 1 + std::max(*std::max_element(train_labels.begin(), train_labels.end()),
                                *std::max_element(val_labels.begin(), val_labels.end()));
  const std::set<int> known(train_labels.begin(), train_labels.end());
  if (const auto strangers = std::count_if(val_labels.begin(), val_labels.end(),
                                           [&](int label) { return !known.contains(label); }))
    result.notes.push_back(str(strangers, " validation images are of classes without training images"));

  const Tensor bank = run(context, L2Normalize{}, {context.on_device(train.tensor())})[L2Normalize::y];
  const Tensor queries = run(context, L2Normalize{}, {context.on_device(val.tensor())})[L2Normalize::y];
  const int64_t most = std::min(wanted.back(), train.images);
  const auto nearest_images = run(context, TopK{.k = most}, {queries, bank});
  const Neighbours neighbours{context.on_host(nearest_images[TopK::scores]),
                              context.on_host(nearest_images[TopK::indices])};
  for (const int64_t k : wanted) {
    const int64_t used = std::min(k, train.images);
    if (used < k)
      result.notes.push_back(str("k = ", k, ": there are ", used, " training images, which all vote"));
    Found found =
        vote(context, neighbours, used, config.temperature, train_labels, val_labels, result.classes);
    result.scores.push_back({k, used, percent_within(found.ranks, 1),
                             percent_within(found.ranks, std::min(kTop, used)),
                             std::move(found.predictions)});
  }
  return result;
}

nlohmann::json to_json(const KnnResult& result) {
  nlohmann::json k = nlohmann::json::array(), scores = nlohmann::json::object();
  for (const KnnScore& score : result.scores) {
    k.push_back(score.k);
    scores[std::to_string(score.k)] = {{"top1", score.top1}, {"top5", score.top5}};
  }
  return {
      {"protocol",
       {{"k", k}, {"temperature", result.temperature}, {"metric", "cosine"}, {"classes", result.classes}}},
      {"k", scores},
      {"train_images", result.train_images},
      {"val_images", result.val_images},
      {"notes", result.notes}};
}

}  // namespace dino
