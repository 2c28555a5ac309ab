#pragma once

#include <memory>
#include <string>

#include "train/config.h"
#include "train/trainer.h"

namespace dino {

/// How good the teacher's features are while it trains.
class Validation {
 public:
  virtual ~Validation() = default;

  /// Name of the score in the log.
  virtual const char* name() const = 0;
  /// What the score is, for people.
  virtual const char* title() const = 0;

  /// In percent. The trainer's step must be finished.
  virtual double score(Trainer& trainer) const = 0;
};

/// With `val`: top-1 of k-NN (20 neighbours, temperature 0.07) on these labelled images, with those of `train` as the
/// neighbours. Without, but with `eval_every`: view retrieval, which needs no labels: how many of up to 1,024 images of `train`
/// are found again, as the nearest of all, from another random crop of theirs; the crops are the same through the whole run. Else
/// null. `train` and `config` must outlive the result. Throws UsageError for labels that are missing, DataError for
/// images that cannot be read.
std::unique_ptr<Validation> make_validation(const TrainConfig& config, const Dataset& train);

}  // namespace dino
