#include <catch2/catch.hpp>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <set>

#include "augment/evaluation_images.h"
#include "augment/geometry.h"
#include "augment/loader.h"
#include "tests/augment/fixtures.h"

namespace dino {
namespace {

using namespace fixtures;

// Images made on the spot; those in `broken` cannot be read.
class MadeImages : public Dataset {
 public:
  MadeImages(int count, std::set<size_t> broken = {}) : Dataset(3), broken_(std::move(broken)) {
    for (int i = 0; i < count; ++i) add("made" + std::to_string(i), -1);
  }
  Image load(size_t index) const override {
    ++loads;
    if (broken_.count(index)) throw DataError(name(index) + ": broken");
    Image image = pattern(20 + static_cast<int>(index % 7), 25 + static_cast<int>(index % 5));
    for (uint8_t& value : image.pixels) value = static_cast<uint8_t>(value + 11 * index);
    return image;
  }
  mutable std::atomic<int> loads{0};

 private:
  std::set<size_t> broken_;
};

LoaderConfig small_config() {
  LoaderConfig config;
  config.augment.global_crops_size = 16;
  config.augment.local_crops_size = 8;
  config.augment.local_crops_number = 3;
  config.batch_size = 4;
  config.workers = 1;
  config.steps = 9;
  return config;
}

std::vector<Batch> batches_of(const Dataset& dataset, const LoaderConfig& config) {
  Loader loader(dataset, config);
  std::vector<Batch> batches;
  for (int64_t i = 0; i < config.steps; ++i) batches.push_back(loader.next());
  return batches;
}

bool equal(const Batch& a, const Batch& b) {
  return a.step == b.step && a.samples == b.samples && a.globals == b.globals && a.locals == b.locals &&
         a.bad == b.bad;
}

TEST_CASE("batches do not depend on the number of workers or the length of the queue") {
  const MadeImages dataset(18, {3, 4, 11});
  LoaderConfig config = small_config();
  const std::vector<Batch> expected = batches_of(dataset, config);
  for (const int workers : {2, 3, 5}) {
    for (const int queue : {1, 2, 7}) {
      CAPTURE(workers, queue);
      config.workers = workers;
      config.queue = queue;
      const std::vector<Batch> batches = batches_of(dataset, config);
      bool same = true;
      for (size_t i = 0; i < expected.size(); ++i) same = same && equal(batches[i], expected[i]);
      CHECK(same);
    }
  }
}

TEST_CASE("a loader that starts at step k goes on as one that started before") {
  const MadeImages dataset(18, {5});
  LoaderConfig config = small_config();
  const std::vector<Batch> whole = batches_of(dataset, config);
  for (const int64_t first : {1, 4, 6}) {
    config.first_step = first;
    config.steps = 9 - first;
    const std::vector<Batch> rest = batches_of(dataset, config);
    for (size_t i = 0; i < rest.size(); ++i) CHECK(equal(rest[i], whole[i + static_cast<size_t>(first)]));
  }
}

TEST_CASE("recycled memory gives the same batches") {
  const MadeImages dataset(18, {5});
  const LoaderConfig config = small_config();
  const std::vector<Batch> expected = batches_of(dataset, config);
  Loader loader(dataset, config);
  for (const Batch& batch : expected) {
    Batch got = loader.next();
    CHECK(equal(got, batch));
    loader.recycle(std::move(got));
  }
}

TEST_CASE("batches that are only decoded do not depend on the number of workers, and replace unreadable images") {
  const MadeImages dataset(18, {3, 4, 11});
  LoaderConfig config = small_config();
  const std::vector<Batch> rendered = batches_of(dataset, config);
  config.decode_only = true;
  const auto bytes = [](const Batch& batch) {
    std::vector<std::byte> packed(batch.images.bytes());
    batch.images.write(packed.data());
    return packed;
  };
  const std::vector<Batch> expected = batches_of(dataset, config);
  config.workers = 3;
  Loader loader(dataset, config);
  for (size_t i = 0; i < expected.size(); ++i) {
    Batch got = loader.next();
    CHECK(got.images.images() == 4);
    CHECK(got.images.crops() == 5);
    CHECK(bytes(got) == bytes(expected[i]));
    CHECK(got.samples == rendered[i].samples);
    CHECK(got.bad == rendered[i].bad);
    CHECK(got.globals.empty());
    loader.recycle(std::move(got));
  }
}

TEST_CASE("an epoch visits each image at most once, in another order than the next epoch") {
  const MadeImages dataset(18);
  LoaderConfig config = small_config();
  config.steps = 8;
  const std::vector<Batch> batches = batches_of(dataset, config);
  CHECK(Loader(dataset, config).steps_per_epoch() == 4);
  std::vector<size_t> epochs[2];
  for (size_t i = 0; i < 8; ++i) {
    epochs[i / 4].insert(epochs[i / 4].end(), batches[i].samples.begin(), batches[i].samples.end());
  }
  CHECK(std::set<size_t>(epochs[0].begin(), epochs[0].end()).size() == 16);
  CHECK(std::set<size_t>(epochs[1].begin(), epochs[1].end()).size() == 16);
  CHECK(epochs[0] != epochs[1]);
}

TEST_CASE("without shuffling the images come in their order, and crops differ from epoch to epoch") {
  const MadeImages dataset(4);
  LoaderConfig config = small_config();
  config.shuffle = false;
  config.steps = 2;
  const std::vector<Batch> batches = batches_of(dataset, config);
  CHECK(batches[0].samples == std::vector<size_t>{0, 1, 2, 3});
  CHECK(batches[1].samples == batches[0].samples);
  CHECK(batches[0].globals != batches[1].globals);
}

TEST_CASE("rows are crop by crop and hold what the recipe renders") {
  const MadeImages dataset(18);
  LoaderConfig config = small_config();
  config.workers = 3;
  const std::vector<Batch> batches = batches_of(dataset, config);
  const Batch& batch = batches[1];
  constexpr size_t kGlobal = 16 * 16 * 3, kLocal = 8 * 8 * 3, kRow = 2, kBatch = 4;
  const uint64_t position = 1 * kBatch + kRow;
  const Image image = dataset.load(batch.samples[kRow]);
  CropScratch scratch;
  for (int crop = 0; crop < 5; ++crop) {
    CAPTURE(crop);
    std::vector<float> expected(crop < 2 ? kGlobal : kLocal);
    render_crop(config.augment, image, plan_crop(config.augment, image.height, image.width, position, crop),
                expected.data(), scratch);
    const float* got = crop < 2 ? &batch.globals[(size_t(crop) * kBatch + kRow) * kGlobal]
                                : &batch.locals[(size_t(crop - 2) * kBatch + kRow) * kLocal];
    CHECK(std::equal(expected.begin(), expected.end(), got));
  }
}

TEST_CASE("an unreadable image is replaced by a readable one and reported") {
  const MadeImages dataset(18, {3});
  LoaderConfig config = small_config();
  config.shuffle = false;
  config.steps = 1;
  const std::vector<Batch> batches = batches_of(dataset, config);
  REQUIRE(batches[0].bad.size() == 1);
  CHECK(batches[0].samples[3] != 3);
  CHECK(batches[0].bad[0] == "made3: broken");
}

TEST_CASE("when nothing can be read, next throws a DataError, and again at the next call") {
  std::set<size_t> all;
  for (size_t i = 0; i < 18; ++i) all.insert(i);
  const MadeImages dataset(18, all);
  LoaderConfig config = small_config();
  config.workers = 2;
  Loader loader(dataset, config);
  CHECK_THROWS_AS(loader.next(), DataError);
  CHECK_THROWS_AS(loader.next(), DataError);
}

TEST_CASE("destroying a loader in the middle of its work ends the workers") {
  const MadeImages dataset(40);
  for (int consumed = 0; consumed < 4; ++consumed) {
    LoaderConfig config = small_config();
    config.workers = 4;
    config.steps = 1000;
    Loader loader(dataset, config);
    for (int i = 0; i < consumed; ++i) loader.next();
  }
  SUCCEED();
}

TEST_CASE("workers stay within the queue") {
  const MadeImages dataset(400);
  LoaderConfig config = small_config();
  config.workers = 2;
  config.queue = 2;
  config.steps = 50;
  Loader loader(dataset, config);
  loader.next();
  std::this_thread::sleep_for(std::chrono::milliseconds(100));
  CHECK(dataset.loads <= 3 * 4);
  CHECK(loader.seconds_waited() > 0);
}

TEST_CASE("loaders that cannot be are refused, and the end of the steps is an error") {
  const MadeImages dataset(3);
  LoaderConfig config = small_config();
  CHECK_THROWS_AS(Loader(dataset, config), UsageError);
  config.batch_size = 3;
  config.queue = 0;
  CHECK_THROWS_AS(Loader(dataset, config), UsageError);
  config.queue = 1;
  config.steps = 1;
  Loader loader(dataset, config);
  loader.next();
  CHECK_THROWS_AS(loader.next(), UsageError);
}

TEST_CASE("a run without local crops has no local rows") {
  const MadeImages dataset(8);
  LoaderConfig config = small_config();
  config.augment.local_crops_number = 0;
  config.steps = 1;
  CHECK(batches_of(dataset, config)[0].locals.empty());
}

// A class of one photograph and one of a small picture.
std::string photographs(const TemporaryFolder& folder) {
  Image large(900, 1200, 3);
  for (size_t i = 0; i < large.pixels.size(); ++i) {
    const double y = static_cast<double>(i / 3 / 1200), x = static_cast<double>(i / 3 % 1200);
    large.pixels[i] = static_cast<uint8_t>(128 + 60 * std::sin(x / 20 + double(i % 3)) + 60 * std::sin(y / 20));
  }
  folder.write("large/a.jpg", jpeg(large, 95));
  folder.write("small/b.jpg", jpeg(pattern(24, 28), 95));
  return folder.path();
}

// Crops of which the smallest still has 16 times its size, so that the photograph is read at an eighth.
LoaderConfig photograph_config(bool fast) {
  LoaderConfig config = small_config();
  config.augment.global_crops_scale = {0.5f, 1.0f};
  config.augment.local_crops_scale = {0.2f, 0.5f};
  config.augment.mean = {0, 0, 0};
  config.augment.deviation = std::vector<float>(3, 1.0f / 255);
  config.batch_size = 2;
  config.shuffle = false;
  config.fast_decode = fast;
  return config;
}

TEST_CASE("fast decoding shows the same boxes with nearly the same pixels, and small pictures with the same bits") {
  const TemporaryFolder folder;
  const auto dataset = Dataset::open(photographs(folder));
  LoaderConfig config = photograph_config(false);
  // Solarization turns a difference of 1 at level 128 into one of 254; the rest changes differences by little.
  config.augment.solarize_prob = 0;
  const std::vector<Batch> exact = batches_of(*dataset, config);
  config.fast_decode = true;
  const std::vector<Batch> fast = batches_of(*dataset, config);
  double difference = 0, count = 0;
  const auto compare = [&](const std::vector<float>& a, const std::vector<float>& b, size_t size) {
    REQUIRE(a.size() == b.size());
    for (size_t at = 0; at < a.size(); at += 2 * size) {
      for (size_t i = at; i < at + size; ++i, ++count) difference += std::abs(static_cast<double>(a[i] - b[i]));
      CHECK(std::equal(a.begin() + static_cast<ptrdiff_t>(at + size), a.begin() + static_cast<ptrdiff_t>(at + 2 * size),
                       b.begin() + static_cast<ptrdiff_t>(at + size)));
    }
  };
  for (size_t i = 0; i < exact.size(); ++i) {
    CHECK(exact[i].samples == fast[i].samples);
    compare(exact[i].globals, fast[i].globals, 16 * 16 * 3);
    compare(exact[i].locals, fast[i].locals, 8 * 8 * 3);
  }
  CHECK(difference > 0);
  // In levels of 256: 0.63. Boxes rounded to whole pixels of the smaller image give 4.3.
  INFO(difference / count);
  CHECK(difference / count < 1.5);
}

TEST_CASE("with fast decoding the smaller image is what crops are made from, rendered here or on a GPU") {
  const TemporaryFolder folder;
  const auto dataset = Dataset::open(photographs(folder));
  LoaderConfig config = photograph_config(true);
  config.steps = 1;
  const Batch batch = batches_of(*dataset, config)[0];
  const Image eighth = dataset->load_reduced(0, [](int, int) { return 8; });
  CHECK((eighth.height == 113 && eighth.width == 150));
  CropScratch scratch;
  std::vector<float> expected(16 * 16 * 3);
  for (int crop = 0; crop < 2; ++crop) {
    CropPlan plan = plan_crop(config.augment, 900, 1200, 0, crop);
    plan.reduction = 8;
    render_crop(config.augment, eighth, plan, expected.data(), scratch);
    CHECK(std::equal(expected.begin(), expected.end(), &batch.globals[size_t(crop) * 2 * expected.size()]));
  }
  const auto packed_bytes = [&] {
    config.decode_only = true;
    return batches_of(*dataset, config)[0].images.bytes();
  };
  const size_t reduced = packed_bytes();
  config.fast_decode = false;
  CHECK(packed_bytes() > reduced + 900 * 1200 * 3 * 9 / 10);
}

TEST_CASE("evaluation images are centre crops, and unreadable ones are listed and zero") {
  const MadeImages dataset(6, {2});
  const EvaluationConfig config{.size = 14, .channels = 3, .mean = {0, 0, 0}, .deviation = {1, 1, 1}};
  const std::vector<size_t> indices{5, 2, 0};
  std::vector<float> out(3 * 14 * 14 * 3, -1.0f);
  std::vector<LoadFailure> failures;
  ThreadPool pool(2);
  load_evaluation_images(dataset, indices, config, pool, out.data(), failures);
  REQUIRE(failures.size() == 1);
  CHECK(failures[0].row == 1);
  CHECK(failures[0].message == "made2: broken");
  CHECK(out[14 * 14 * 3] == 0.0f);
  const Image expected = resize_short_center_crop(dataset.load(0), 16, 14);
  const float* got = &out[2 * 14 * 14 * 3];
  bool same = true;
  for (size_t i = 0; i < expected.pixels.size(); ++i) {
    same = same && got[i] == static_cast<float>(expected.pixels[i]) / 255.0f;
  }
  CHECK(same);
}

TEST_CASE("probe images depend on seed, epoch and image, not on the threads") {
  const MadeImages dataset(6);
  const EvaluationConfig config{.size = 12};
  const std::vector<size_t> indices{4, 1, 0, 3};
  const auto load = [&](uint64_t seed, int64_t epoch, int threads) {
    std::vector<float> out(4 * 12 * 12 * 3);
    std::vector<LoadFailure> failures;
    ThreadPool pool(threads);
    load_probe_images(dataset, indices, config, seed, epoch, pool, out.data(), failures);
    return out;
  };
  const auto expected = load(1, 2, 1);
  CHECK(load(1, 2, 3) == expected);
  CHECK(load(1, 3, 1) != expected);
  CHECK(load(2, 2, 1) != expected);
}

}  // namespace
}  // namespace dino
