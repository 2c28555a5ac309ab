#include "augment/loader.h"

#include <algorithm>
#include <chrono>
#include <limits>
#include <numeric>
#include <utility>

#include "kernels/error.h"
#include "kernels/philox.h"

namespace dino {
namespace {

constexpr int kMaxAttempts = 100;

LoaderConfig checked(const Dataset& dataset, LoaderConfig config) {
  check_config(config.augment);
  check<UsageError>(
      config.batch_size > 0 && config.queue > 0 && config.workers >= 0 && config.first_step >= 0 &&
          config.steps >= 0,
      "loader: batch size and queue must be positive, workers and steps not negative; got batch size ",
      config.batch_size, ", queue ", config.queue, ", workers ", config.workers, ", first step ",
      config.first_step, ", steps ", config.steps);
  check<UsageError>(static_cast<size_t>(config.batch_size) <= dataset.size(), "loader: batch size ",
                    config.batch_size, " is larger than the dataset; at most ", dataset.size(),
                    " images fit");
  check<UsageError>(dataset.size() <= std::numeric_limits<uint32_t>::max(), "loader: more than 2^32 images");
  if (config.workers == 0)
    config.workers = std::max(1, static_cast<int>(std::thread::hardware_concurrency()));
  return config;
}

size_t crop_values(int size, int channels) { return size_t(size) * size * channels; }

}  // namespace

Loader::Loader(const Dataset& dataset, LoaderConfig config)
    : dataset_(dataset),
      config_(checked(dataset, std::move(config))),
      steps_per_epoch_(static_cast<int64_t>(dataset.size()) / config_.batch_size),
      slots_(static_cast<size_t>(config_.queue)),
      next_item_(config_.first_step * config_.batch_size),
      next_step_(config_.first_step) {
  for (Slot& slot : slots_) allocate(slot.batch);
  try {
    for (int i = 0; i < config_.workers; ++i) workers_.emplace_back([this] { work(); });
  } catch (...) {
    // The destructor does not run for an object whose constructor throws.
    {
      const std::lock_guard lock(mutex_);
      stop_ = true;
    }
    room_.notify_all();
    for (std::thread& worker : workers_) worker.join();
    throw;
  }
}

Loader::~Loader() {
  {
    const std::lock_guard lock(mutex_);
    stop_ = true;
  }
  room_.notify_all();
  for (std::thread& worker : workers_) worker.join();
}

Batch Loader::next() {
  std::unique_lock lock(mutex_);
  check<UsageError>(next_step_ < config_.first_step + config_.steps, "loader: all ", config_.steps,
                    " batches were handed out");
  Slot& slot = slot_of(next_step_);
  const auto begin = std::chrono::steady_clock::now();
  ready_.wait(lock, [&] { return slot.batch.step == next_step_ && slot.rows_left == 0; });
  seconds_waited_ += std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
  if (slot.error) std::rethrow_exception(slot.error);

  Batch batch = std::move(slot.batch);
  for (std::string& line : slot.bad) {
    if (!line.empty()) batch.bad.push_back(std::move(line));
  }
  slot.batch = {};
  if (!used_.empty()) {
    slot.batch = std::move(used_.back());
    used_.pop_back();
  }
  lock.unlock();
  // Until next_step_ moves on no worker touches the slot, so the allocation needs no lock.
  allocate(slot.batch);
  lock.lock();
  ++next_step_;
  lock.unlock();
  room_.notify_all();
  return batch;
}

void Loader::recycle(Batch&& used) {
  const std::lock_guard lock(mutex_);
  if (used_.size() < slots_.size()) used_.push_back(std::move(used));
}

void Loader::allocate(Batch& batch) const {
  const AugmentConfig& augment = config_.augment;
  const size_t rows = static_cast<size_t>(config_.batch_size);
  batch.step = -1;
  batch.bad.clear();
  batch.samples.resize(rows);
  if (config_.decode_only) return batch.images.reset(config_.batch_size, augment.crops(), augment.channels);
  batch.globals.resize(rows * 2 * crop_values(augment.global_crops_size, augment.channels));
  batch.locals.resize(rows * size_t(augment.local_crops_number) *
                      crop_values(augment.local_crops_size, augment.channels));
}

void Loader::work() {
  CropScratch scratch;
  const int64_t end = (config_.first_step + config_.steps) * config_.batch_size;
  std::unique_lock lock(mutex_);
  while (true) {
    room_.wait(lock, [&] {
      return stop_ || next_item_ >= end || next_item_ / config_.batch_size < next_step_ + config_.queue;
    });
    if (stop_ || next_item_ >= end) return;
    const int64_t item = next_item_++;
    const int64_t step = item / config_.batch_size;
    const int row = static_cast<int>(item % config_.batch_size);
    Slot& slot = slot_of(step);
    std::exception_ptr error;
    try {
      if (row == 0) prepare(slot, step);
      if (!slot.error) {
        lock.unlock();
        fill_row(slot, step, row, scratch);
      }
    } catch (...) {
      error = std::current_exception();
    }
    if (!lock.owns_lock()) lock.lock();
    if (error && !slot.error) slot.error = error;
    if (--slot.rows_left == 0) ready_.notify_all();
  }
}

void Loader::prepare(Slot& slot, int64_t step) {
  slot.rows_left = config_.batch_size;
  slot.batch.step = step;
  slot.error = nullptr;
  slot.bad.assign(static_cast<size_t>(config_.batch_size), {});
  slot.order = order_of(step / steps_per_epoch_);
}

std::shared_ptr<const std::vector<uint32_t>> Loader::order_of(int64_t epoch) {
  if (epoch == order_epoch_) return order_;
  auto order = std::make_shared<std::vector<uint32_t>>(dataset_.size());
  std::iota(order->begin(), order->end(), 0u);
  if (config_.shuffle) {
    Random random(config_.shuffle_seed, Purpose::shuffle, static_cast<uint64_t>(epoch));
    for (size_t i = order->size() - 1; i > 0; --i) {
      std::swap((*order)[i], (*order)[random.below(static_cast<uint32_t>(i) + 1)]);
    }
  }
  order_ = order;
  order_epoch_ = epoch;
  return order_;
}

void Loader::fill_row(Slot& slot, int64_t step, int row, CropScratch& scratch) const {
  const AugmentConfig& augment = config_.augment;
  const size_t batch = static_cast<size_t>(config_.batch_size), r = static_cast<size_t>(row);
  const int64_t epoch = step / steps_per_epoch_;
  const size_t in_epoch = static_cast<size_t>(step % steps_per_epoch_) * batch + r;
  const uint64_t position = static_cast<uint64_t>(epoch) * dataset_.size() + in_epoch;

  size_t sample = (*slot.order)[in_epoch];
  auto [image, plans] = load_or_replace(position, sample, slot.bad[r]);
  slot.batch.samples[r] = sample;
  if (config_.decode_only) return slot.batch.images.set(row, std::move(image), plans);

  const size_t global = crop_values(augment.global_crops_size, augment.channels);
  const size_t local = crop_values(augment.local_crops_size, augment.channels);
  for (int crop = 0; crop < augment.crops(); ++crop) {
    float* out = crop < 2 ? slot.batch.globals.data() + (size_t(crop) * batch + r) * global
                          : slot.batch.locals.data() + (size_t(crop - 2) * batch + r) * local;
    render_crop(augment, image, plans[static_cast<size_t>(crop)], out, scratch);
  }
}

Loader::PlannedImage Loader::load_and_plan(size_t sample, uint64_t position) const {
  PlannedImage planned;
  const auto plan = [&](int height, int width) {
    for (int crop = 0; crop < config_.augment.crops(); ++crop)
      planned.plans.push_back(plan_crop(config_.augment, height, width, position, crop));
  };
  // Boxes are drawn in the full size, so that the crops show the same with and without reduction.
  const auto plan_and_reduce = [&](int height, int width) {
    plan(height, width);
    const int reduction = reduction_for(planned.plans);
    for (CropPlan& crop : planned.plans) crop.reduction = reduction;
    return reduction;
  };
  planned.image = config_.fast_decode ? dataset_.load_reduced(sample, plan_and_reduce) : dataset_.load(sample);
  if (planned.plans.empty()) plan(planned.image.height, planned.image.width);
  return planned;
}

Loader::PlannedImage Loader::load_or_replace(uint64_t position, size_t& sample, std::string& bad) const {
  for (uint32_t attempt = 0; attempt < kMaxAttempts; ++attempt) {
    try {
      return load_and_plan(sample, position);
    } catch (const DataError& error) {
      if (bad.empty()) bad = error.what();
    }
    Random random(config_.seed, Purpose::replacement, position, attempt);
    sample = random.below(static_cast<uint32_t>(dataset_.size()));
  }
  throw DataError(str(bad, "; ", kMaxAttempts - 1,
                      " other images in its place could not be read either, check the "
                      "data"));
}

}  // namespace dino
