#pragma once

#include <condition_variable>
#include <cstdint>
#include <exception>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "augment/crop_batch.h"
#include "augment/dataset.h"
#include "augment/recipe.h"

namespace dino {

/// The input of one training step.
struct Batch {
  int64_t step = -1;
  std::vector<size_t> samples;  ///< [batch] which image of the dataset each row shows
  std::vector<float> globals;   ///< [2 * batch, S, S, channels]; rows 0 .. batch - 1 are crop 0
  std::vector<float> locals;    ///< [L * batch, s, s, channels]; rows 0 .. batch - 1 are the first local crop
  CropBatch images;             ///< with `decode_only`, which leaves the crops empty: what they are made from
  std::vector<std::string> bad;  ///< one line per unreadable image that was replaced
};

struct LoaderConfig {
  AugmentConfig augment;
  int batch_size = 64;
  bool shuffle = true;
  uint64_t seed = 0;  ///< of the replacements; the crops have `augment.seed`
  uint64_t shuffle_seed = 0;
  int workers = 0;           ///< threads; 0 means one per processor
  int queue = 3;             ///< batches that are ready or in work at most
  int64_t first_step = 0;    ///< of the whole run; more than 0 when a run goes on
  int64_t steps = 0;         ///< how many batches are made, from `first_step` on
  bool fast_decode = false;  ///< read a JPEG smaller where its crops need no more; not the same bits
  bool decode_only = false;  ///< decode and decide, but leave rendering to the receiver of a batch
};

/// Decodes and augments images in worker threads and hands out batches in the order of the steps.
///
/// A batch depends on the seeds, the step and the dataset only: not on the number of threads, the queue or
/// where a run was interrupted. Epoch e visits the images in a random order drawn from (shuffle_seed, e); the
/// images that do not fill a last batch are left out. An unreadable image is replaced by another, drawn from
/// (seed, position in the run).
class Loader {
 public:
  /// Starts the workers. `dataset` must outlive the loader. Throws UsageError for a configuration that cannot
  /// be, as a batch larger than the dataset.
  Loader(const Dataset& dataset, LoaderConfig config);
  ~Loader();
  Loader(const Loader&) = delete;
  Loader& operator=(const Loader&) = delete;

  /// Whole batches in the dataset.
  int64_t steps_per_epoch() const { return steps_per_epoch_; }

  /// Waits for the batch of the next step. Throws what a worker threw when it made this batch (DataError
  /// after 100 unreadable images for one position, and again at every later call), UsageError after the last
  /// step.
  Batch next();

  /// Gives the memory of a used batch back, so that a later one need not be allocated.
  void recycle(Batch&& used);

  /// Total time that `next` waited for workers.
  double seconds_waited() const { return seconds_waited_; }

 private:
  struct PlannedImage {
    Image image;
    std::vector<CropPlan> plans;
  };

  // A batch in work. Its rows are rendered by several workers at once.
  struct Slot {
    Batch batch;
    std::vector<std::string> bad;  // per row; empty where the image was fine
    std::shared_ptr<const std::vector<uint32_t>> order;
    int rows_left = 0;
    std::exception_ptr error;
  };

  void work();
  void prepare(Slot& slot, int64_t step);
  void fill_row(Slot& slot, int64_t step, int row, CropScratch& scratch) const;
  PlannedImage load_and_plan(size_t sample, uint64_t position) const;
  PlannedImage load_or_replace(uint64_t position, size_t& sample, std::string& bad) const;
  std::shared_ptr<const std::vector<uint32_t>> order_of(int64_t epoch);
  void allocate(Batch& batch) const;
  Slot& slot_of(int64_t step) { return slots_[static_cast<size_t>(step % config_.queue)]; }

  const Dataset& dataset_;
  const LoaderConfig config_;
  const int64_t steps_per_epoch_;
  double seconds_waited_ = 0;

  std::mutex
      mutex_;  // guards what follows, but not the rows of a slot's batch, each of which one worker owns
  std::condition_variable room_, ready_;
  std::vector<Slot> slots_;
  std::vector<Batch> used_;
  int64_t next_item_ = 0;  // step * batch_size + row, the next to be handed to a worker
  int64_t next_step_ = 0;  // the next to be handed out
  int64_t order_epoch_ = -1;
  std::shared_ptr<const std::vector<uint32_t>> order_;
  bool stop_ = false;
  std::vector<std::thread> workers_;
};

}  // namespace dino
