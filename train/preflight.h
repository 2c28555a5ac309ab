#pragma once

#include <cstdint>
#include <functional>
#include <string>

#include "augment/dataset.h"
#include "augment/scan.h"
#include "train/config.h"
#include "train/memory_plan.h"

/// What is asked before a run starts: is there enough memory and disk, is the data sound, how long will it take?
namespace dino {

/// "3 KiB", "12 MiB", "3.41 GiB".
std::string size_text(uint64_t bytes);

/// How large networks and their state are.
struct StateSize {
  int64_t backbone = 0, head = 0;  ///< parameters of the student
  uint64_t checkpoint = 0;         ///< bytes of a file
};
StateSize state_size(const TrainConfig& config);

/// What a run writes to its folder, in bytes.
struct DiskNeed {
  uint64_t checkpoint = 0;  ///< of one file
  int64_t kept = 0;         ///< checkpoints under names of their own that are there at one time; see --saveckp-freq and --keep
  int64_t checkpoints = 0;  ///< these, the newest, the best, and the one that is being written
  uint64_t log = 0;         ///< log.jsonl and TensorBoard's events, about
  uint64_t total = 0;
  uint64_t present = 0;      ///< of all this, what earlier sessions have written
  uint64_t missing() const;  ///< what is still to be written at the same time; at least one checkpoint
};
DiskNeed disk_need(const TrainConfig& config, const RunPlan& plan, uint64_t checkpoint_bytes);

/// What the file system of a folder has left, also if the folder does not exist yet; UINT64_MAX if it does not tell.
uint64_t free_bytes_at(const std::string& folder);

/// Throws UsageError, with what would do, if the run does not fit.
void check_disk(const TrainConfig& config, const DiskNeed& need, uint64_t free);

/// What a run needs and what there is, for people. Throws UsageError if a GPU has too little free, or a host
/// too little at all; a host that has too little free is only told so, since others may give memory back.
std::string memory_text(const TrainConfig& config, const MemoryPlan& plan);

/// How fast steps are.
struct Speed {
  int64_t steps = 0;  ///< that were timed
  double seconds_per_step = 0;
  double waiting = 0;  ///< share of that time in which the step waited for the loader
  double images_per_second = 0;
};

/// Takes `steps` steps of the run, after some more that nobody times, with loader and all but without writing anything; fewer if they take
/// longer than two minutes. `progress` is called before each. Throws what a Trainer does.
Speed measure_speed(const TrainConfig& config, const Dataset& dataset, int64_t steps,
                    const std::function<void(int64_t done, int64_t all)>& progress);

/// One line for each thing that is wrong with the data, with the number of images and, but for unreadable ones, which the run
/// names when it meets them, the first.
std::vector<std::string> data_warnings(const DataReport& report, const TrainConfig& config);

/// What `train` asks before it starts, in a few lines on stderr: a sample of the images (of a run that goes on, none), memory and disk.
/// Throws UsageError if the run cannot fit, DataError if no image at all can be read.
void preflight(const TrainConfig& config, const Dataset& dataset, const RunPlan& plan);

}  // namespace dino
