#include "train/limits.h"

#include <charconv>
#include <cmath>
#include <type_traits>

#include "augment/image_kind.h"
#include "kernels/error.h"

namespace dino {
namespace {

// Counts that doubles still hold one by one; as many as nobody waits for, or has.
constexpr double kCount = 1e15, kEpochs = 1e9, kThreads = 4096;
// Of the dimensions of networks: memory is asked for by them.
constexpr double kWidest = 1 << 16, kDeepest = 1000;
// A float holds the square.
constexpr double kStrongest = 1e18;

constexpr Limit kLimits[] = {
    // data
    {"eval-every", 0, kEpochs},
    {"channels", 0, kMostChannels},
    {"mean", -kStrongest, kStrongest},
    {"std", 0, kStrongest, true},
    {"num-workers", 0, kThreads},
    // network
    {"patch-size", 1, 4096},
    {"embed-dim", 0, kWidest},
    {"depth", 0, kDeepest},
    {"heads", 0, kWidest},
    {"mlp-ratio", 0, 1000},
    {"conv-widths", 1, kWidest},
    {"conv-pool", 1, 4096},
    {"out-dim", 2, 1 << 26},
    {"head-hidden-dim", 1, kWidest},
    {"head-bottleneck-dim", 1, kWidest},
    {"head-layers", 1, 100},
    {"drop-path-rate", 0, 0.999},
    {"predictor-hidden-dim", 1, kWidest},
    // method
    {"momentum-teacher", 0, 1},
    {"momentum-teacher-end", 0, 1},
    {"warmup-teacher-temp", 0, 1000},
    {"teacher-temp", 0, 1000},
    {"warmup-teacher-temp-epochs", 0, kEpochs},
    {"student-temp", 0, 1000},
    {"center-momentum", 0, 1},
    {"sinkhorn", 0, 1000},
    // optimization
    {"lr", 0, kStrongest},
    {"min-lr", 0, kStrongest},
    {"warmup-epochs", 0, kCount},
    {"weight-decay", 0, kStrongest},
    {"weight-decay-end", 0, kStrongest},
    {"layer-decay", 0, 1, true},
    {"clip-grad", 0, kStrongest},
    {"batch-size", 1, 1 << 20},
    {"accumulate", 1, 1 << 20},
    {"epochs", 0, kCount},
    {"freeze-last-layer", 0, kCount},
    {"freeze-backbone-epochs", 0, kCount},
    {"steps", 0, kCount},
    {"max-bad-fraction", 0, 1},
    {"max-bad-steps", 0, kCount},
    // crops
    {"global-crops-size", 1, 4096},
    {"local-crops-size", 1, 4096},
    {"local-crops-number", 0, 1000},
    {"global-crops-scale", 0, 1},
    {"local-crops-scale", 0, 1},
    {"crops-ratio", 0.01, 100},
    {"flip-prob", 0, 1},
    {"jitter-prob", 0, 1},
    {"brightness", 0, 100},
    {"contrast", 0, 100},
    {"saturation", 0, 100},
    {"hue", 0, 0.5},
    {"grayscale-prob", 0, 1},
    {"blur-prob-global1", 0, 1},
    {"blur-prob-global2", 0, 1},
    {"blur-prob-local", 0, 1},
    {"blur-sigma", 0, 100},
    {"solarize-prob", 0, 1},
    // run
    {"checkpoint-every-steps", 0, kCount},
    {"saveckp-freq", 0, kEpochs},
    {"keep", 0, kEpochs},
    {"log-every", 1, kCount},
    {"replay", 0, kCount},
    {"seed", 0, 18446744073709551615.0},
    {"shuffle-seed", 0, 9223372036854775807.0},
    {"threads", 0, kThreads},
    // evaluation
    {"image-size", 1, 8192},
    {"nb-knn", 1, 1 << 20},
    {"temperature", 0, 1000, true},
    {"n-last-blocks", 1, kDeepest},
    {"val-freq", 1, kEpochs},
    {"threshold", 0, 0.999999},
    {"images", 0, 24},
};

/// The shortest text that reads back as `value`.
std::string text_of(double value) {
  char text[32];
  return {text, std::to_chars(text, text + sizeof text, value).ptr};
}

}  // namespace

const Limit* limit_of(const std::string& option) {
  for (const Limit& limit : kLimits)
    if (option == limit.option) return &limit;
  return nullptr;
}

std::string shown_value(const std::string& text) {
  constexpr size_t kLongest = 60;
  if (text.empty()) return "''";
  return text.size() <= kLongest ? text : text.substr(0, kLongest) + str("... (", text.size(), " bytes)");
}

template <class T>
T number_of(const std::string& option, const std::string& text) {
  constexpr bool whole = std::is_integral_v<T>;
  T value{};
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  bool read = end == text.data() + text.size() && !text.empty() && error != std::errc::invalid_argument;
  if constexpr (!whole) read = read && !std::isnan(value);
  check<UsageError>(read, "--", option, " ", shown_value(text), " is not a ",
                    whole ? "whole number" : "number");
  bool finite = error == std::errc();
  if constexpr (!whole) finite = finite && std::isfinite(value);
  const Limit* limit = limit_of(option);
  if (finite && !limit) return value;
  check<UsageError>(limit != nullptr, "--", option, " ", shown_value(text), " is not in range");
  const auto number = static_cast<double>(value);
  double low = limit->low;
  if constexpr (!whole) low = static_cast<double>(static_cast<T>(low));  // 0.01 as a float is less
  const bool within = finite && (limit->above_low ? number > low : number >= low) && number <= limit->high;
  check<UsageError>(within, "--", option, " ", shown_value(text), " must ",
                    limit->above_low ? "be above " : "lie between ", text_of(limit->low),
                    limit->above_low ? " and at most " : " and ", text_of(limit->high));
  return value;
}

template int number_of(const std::string&, const std::string&);
template int64_t number_of(const std::string&, const std::string&);
template uint64_t number_of(const std::string&, const std::string&);
template float number_of(const std::string&, const std::string&);
template double number_of(const std::string&, const std::string&);

}  // namespace dino
