#pragma once

#include <array>
#include <map>
#include <memory>
#include <optional>
#include <vector>

#include "augment/crop_batch.h"
#include "kernels/cuda_graph.h"
#include "kernels/cuda_transfer.h"
#include "train/step.h"

namespace dino {

/// Runs steps where the networks live. On a GPU nothing waits: the crops travel while the step before runs, each kind of
/// step is recorded as a graph the second time it runs and replayed from then on, and reports come one step late.
class StepRunner {
 public:
  /// `planned_bytes`: how much memory a step on a GPU will need, if that is known.
  explicit StepRunner(TrainingState state, size_t planned_bytes = 0);

  /// A step that is done.
  struct Finished {
    int64_t step;
    StepReport report;
  };

  /// Starts a step on `micro_batches`, which are in host memory and may change after the call, and tells about the last
  /// step that is done: this one on the CPU, the one before on a GPU.
  std::optional<Finished> start(std::span<const Crops> micro_batches, const StepPlan& plan);

  /// The shape of a batch whose crops a GPU renders.
  struct Rendering {
    int64_t batch, micro_batch;  ///< images
    int64_t local_crops;         ///< of each image; there are two global ones
    int64_t global_size, local_size, channels;
    PixelScale scale;
  };
  /// The same for a step whose crops the GPU renders from decoded images.
  std::optional<Finished> start(const CropBatch& images, const Rendering& rendering, const StepPlan& plan);
  /// Waits for the step that was started last and tells about it, if nobody was told yet.
  std::optional<Finished> finish();

  /// Shows what later steps compute to `watch`, which must outlive them; null: to nobody.
  void watch(const StepWatch* watch) { state_.watch = watch; }

  /// Most memory that steps used at one time, in bytes.
  size_t peak_bytes() const;
  /// Kernels in the graph that was recorded last; 0 if there is none.
  int64_t kernels_per_step() const { return kernels_per_step_; }
  /// Copies and fills in it.
  int64_t copies_per_step() const { return copies_per_step_; }

 private:
  /// What decides which kernels a step starts.
  struct Kind {
    bool last_layer_frozen, backbone_frozen, teacher_changes, with_statistics;
    auto operator<=>(const Kind&) const = default;
  };
  struct Pending {
    int64_t step;
    bool with_statistics;
    int64_t micro_batches;
  };
  /// Where the results of steps wait to be read, on the device and on their way to the host. Graphs hold its address.
  struct Mailbox {
    StepResult result;       ///< parts of `memory`
    Tensor memory;
    std::unique_ptr<CudaReadback> readback;
  };
  /// What a step left, in host memory of its own.
  struct Unread {
    int64_t step;
    int64_t micro_batches;
    StepResult result;
    Finished read() const { return {step, read_report(result, micro_batches)}; }
  };

  std::optional<Finished> start_on_gpu(const StepPlan& plan);
  void upload(std::span<const Crops> micro_batches);
  void render(const CropBatch& images, const Rendering& rendering);
  void run_on_gpu(const Kind& kind, const StepPlan& plan);
  void run_eagerly(const StepPlan& plan);
  void post(const StepResult& result, Mailbox& mailbox);
  std::optional<Unread> collect();

  TrainingState state_;
  size_t bytes_before_;  // that lay in the context's arena before the first step
  std::optional<Pending> pending_;

  // On a GPU only. A graph's memory is kept apart: between steps everything in `memory_` is free.
  std::unique_ptr<Arena> memory_;
  std::unique_ptr<CudaUploader> uploader_;
  std::array<Mailbox, 2> mailboxes_;  // of steps without and with statistics
  std::vector<Crops> crops_;  // graphs hold addresses: those of every step lie where those of the first one lay
  std::map<Kind, int64_t> runs_;
  std::map<Kind, std::unique_ptr<CudaGraph>> graphs_;
  bool recording_works_ = true;
  int64_t kernels_per_step_ = 0, copies_per_step_ = 0;
};

}  // namespace dino
