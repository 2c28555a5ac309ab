#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdio>

#include "train/recipe.h"

namespace dino {
namespace {

std::string with_commas(int64_t number) {
  std::string digits = std::to_string(number);
  for (auto at = static_cast<int64_t>(digits.size()) - 3; at > 0; at -= 3) digits.insert(static_cast<size_t>(at), ",");
  return digits;
}

/// Without the zeros that a fixed number of decimals ends with.
std::string decimal(double value, int digits) {
  char text[32];
  std::snprintf(text, sizeof text, "%.*f", digits, value);
  std::string result = text;
  if (result.find('.') != std::string::npos) result.erase(result.find_last_not_of('0') + 1);
  if (result.ends_with('.')) result.pop_back();
  return result;
}

int64_t power_of_two_near(double value) { return int64_t{1} << std::max(0L, std::lround(std::log2(std::max(value, 1.0)))); }

/// The momentum under which half of a teacher comes from the last `steps` students.
double momentum_of(double half_life) { return std::exp(std::log(0.5) / half_life); }

/// Chooses one group of options after the other; later ones see what the earlier ones, or the user, said.
class Chooser {
 public:
  Chooser(const DataFacts& facts, std::vector<Option>& options, TrainConfig& config) : facts_(facts), options_(options), config_(config) {}

  void choose_all() {
    choose_sizes();
    choose_batch();
    choose_epochs();
    choose_prototypes();
    choose_teacher();
    choose_warm_up();
    for (const RecipeValue& value : recipe_table(tiny() ? "tiny-images" : "small")) choose(options_, value);
  }

 private:
  bool tiny() const { return facts_.side < 64; }
  void set(const char* option, const std::string& value, const std::string& reason) { choose(options_, {option, value, reason}); }
  std::string images() const { return with_commas(facts_.images) + " images"; }

  int64_t steps_per_epoch() const { return std::max<int64_t>(1, facts_.images / std::max<int64_t>(1, config_.batch_size)); }
  double total_steps() const { return config_.epochs * static_cast<double>(steps_per_epoch()); }

  void choose_sizes() {
    const std::string side = str(facts_.side, "-pixel images");
    set("arch", tiny() ? "conv_small" : "vit_small",
        side + (tiny() ? ": a small convolutional network learns within minutes, a transformer from scratch does not (docs/results.md)"
                       : ": the paper's smallest transformer; on a CPU, --arch conv_small takes far less time"));
    const int64_t patch = tiny() ? 4 : facts_.side < 160 ? 8 : 16;
    set("patch-size", str(patch), str(side, ": near the 14 x 14 patches of the paper's crops; transformers only"));
    const int64_t whole = std::max(config_.patch_size, std::min<int64_t>(facts_.side, 224) / config_.patch_size * config_.patch_size);
    set("global-crops-size", str(whole), facts_.side > 224 ? str("the paper's; the ", side, " are larger") : str(side, ": a larger crop would only be enlarged"));
    const double share = tiny() ? 0.5 : 96.0 / 224;
    const double patches = share * config_.augment.global_crops_size / static_cast<double>(config_.patch_size);
    set("local-crops-size", str(std::max<int64_t>(1, std::lround(patches)) * config_.patch_size),
        str(tiny() ? "half" : "96/224, as in the paper,", " of the global crops' ", config_.augment.global_crops_size, " pixels, in whole patches"));
    if (!tiny() && facts_.side < 160)
      set("local-crops-scale", "0.1,0.4", str("a tenth of a ", facts_.side, "-pixel image has a side of ", std::lround(std::sqrt(0.1) * static_cast<double>(facts_.side)), " pixels"));
  }

  void choose_batch() {
    const int64_t largest = !tiny() && facts_.images >= 100'000 ? 256 : 128;
    const auto fits = static_cast<int64_t>(std::bit_floor(static_cast<uint64_t>(std::max<int64_t>(1, facts_.images / 50))));
    const int64_t batch = std::min(facts_.images, std::clamp<int64_t>(fits, 16, largest));
    set("batch-size", str(batch),
        str(images(), ": ", facts_.images / batch, " steps per epoch", batch == largest ? "; 57.9 % k-NN with 128, 59.9 % with 1,024 (paper, table 9)" : "; at least 50 are wanted, and 16 images"));
  }

  void choose_epochs() {
    const double wanted = tiny() ? 4000 : 20000;
    const int64_t least = tiny() ? 3 : 100, most = tiny() ? 100 : 300;
    const int64_t epochs = std::clamp<int64_t>(std::lround(wanted / static_cast<double>(steps_per_epoch())), least, most);
    set("epochs", str(epochs),
        str(steps_per_epoch(), " steps per epoch: ", with_commas(epochs * steps_per_epoch()), " steps; about ", with_commas(std::lround(wanted)), " are aimed at, within ", least, " to ",
            most, " epochs", tiny() ? " (900 beat pixels in the demo)" : " (100 to 300 in the paper's tables)"));
  }

  void choose_prototypes() {
    constexpr double kOfImageNet = 1281167.0 / 65536;
    const int64_t prototypes = std::clamp<int64_t>(power_of_two_near(static_cast<double>(facts_.images) / kOfImageNet), 512, 65536);
    set("out-dim", str(prototypes),
        str(images(), ": ", with_commas(prototypes), " prototypes, about ", decimal(static_cast<double>(facts_.images) / static_cast<double>(prototypes), 1),
            " images for each; ImageNet's 65,536 have 20, and 512 are the fewest that were tried (demo)"));
  }

  void choose_teacher() {
    const double total = total_steps();
    const double begin = std::clamp(total / 200, 5.0, 173.0);
    set("momentum-teacher", decimal(momentum_of(begin), 4),
        str(with_commas(std::lround(total)), " steps: a half-life of ", std::lround(begin), ", a 200th of the run; the reference's 0.996 has 173, and the demo's 0.95 14 of 936"));
    if (total < 15000)
      set("momentum-teacher-end", decimal(momentum_of(std::max(begin, total / 8)), 4),
          str("a half-life of ", std::lround(std::max(begin, total / 8)), " steps, an eighth of a short run; at 1 the teacher would stop to learn (demo)"));
    const bool warm = !tiny() && facts_.images >= 100'000 && config_.epochs >= 50;
    set("teacher-temp", warm ? "0.07" : "0.04",
        warm ? str(images(), ": enough to soften the targets after a warm-up (README of the reference)") : str(images(), ": sharp targets; 69.6 % k-NN, 69.7 % with 0.04 to 0.07 (paper, appendix)"));
    if (warm) set("warmup-teacher-temp-epochs", str(std::min<int64_t>(30, std::lround(config_.epochs * 0.3))), "30, or three tenths of a shorter run (README of the reference)");
  }

  void choose_warm_up() {
    const double warm_up = std::min(10.0, config_.epochs / 10);
    set("warmup-epochs", decimal(warm_up, 3), str("10, or a tenth of a shorter run: ", with_commas(std::lround(warm_up * static_cast<double>(steps_per_epoch()))), " steps"));
    const double frozen = std::min(1.0, config_.epochs / 30);
    set("freeze-last-layer", decimal(frozen, 3),
        str("1 epoch, or a thirtieth of a shorter run: ", with_commas(std::lround(frozen * static_cast<double>(steps_per_epoch()))), " steps"));
  }

  const DataFacts facts_;
  std::vector<Option>& options_;
  TrainConfig& config_;
};

}  // namespace

void apply_auto(const DataFacts& facts, std::vector<Option>& options, TrainConfig& config) {
  Chooser(facts, options, config).choose_all();
  if (facts.images < 1000 && config.init.empty())
    std::fprintf(stderr, "recipe auto: only %ld images; weights that have learned from more (--init) will help more than any option\n", static_cast<long>(facts.images));
}

}  // namespace dino
