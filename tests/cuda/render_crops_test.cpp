#include <algorithm>
#include <functional>

#include "augment/crop_batch.h"
#include "augment/loader.h"
#include "tests/cuda/cuda_harness.h"

using namespace dino;
using namespace dino::test;

// The GPU's crops have the bits of the CPU's.
namespace {

struct Free {
  void operator()(std::byte* p) const { cuda::release(p); }
};

/// Noise, dark and bright stripes, grays and pure colours: what takes all branches of colour arithmetic.
Image made_image(int height, int width, int channels, uint32_t number) {
  Random random(3, Purpose::test, number);
  Image image(height, width, channels);
  for (int y = 0; y < height; ++y) {
    for (int x = 0; x < width; ++x) {
      const int kind = (x / 7 + y / 5) % 4;
      const uint32_t bits = random.bits(), gray = bits >> 24;
      for (int c = 0; c < channels; ++c) {
        const uint32_t noise = bits >> 8 * c & 255;
        const uint32_t value = kind == 0   ? noise
                               : kind == 1 ? gray
                               : kind == 2 ? noise / 128 * 255
                                           : static_cast<uint32_t>(x * 3 + y + 40 * c);
        image.view().row(y)[x * channels + c] = static_cast<uint8_t>(value);
      }
    }
  }
  return image;
}

/// What images and plans make of a batch: plans are [images][crops].
struct Scene {
  AugmentConfig config;
  std::vector<Image> images;
  std::vector<std::vector<CropPlan>> plans;
};

Spec crops_spec(const AugmentConfig& config, bool locals, int64_t images, Dtype dtype) {
  const int64_t size = locals ? config.local_crops_size : config.global_crops_size;
  return {dtype, {(locals ? config.local_crops_number : 2) * images, size, size, config.channels}};
}

/// Globals and locals by the CPU, of `count` images from `first` on.
Buffers expected(const Scene& scene, size_t first, size_t count) {
  Buffers result;
  CropScratch scratch;
  for (const bool locals : {false, true}) {
    if (locals && scene.config.local_crops_number == 0) break;
    Buffer crops(crops_spec(scene.config, locals, static_cast<int64_t>(count), Dtype::f32));
    auto* out = static_cast<float*>(crops.data());
    const int64_t values = crops.count() / crops.spec().shape[0];
    for (int crop = locals ? 2 : 0; crop < (locals ? scene.config.crops() : 2); ++crop) {
      for (size_t i = first; i < first + count; ++i, out += values)
        render_crop(scene.config, scene.images[i], scene.plans[i][static_cast<size_t>(crop)], out, scratch);
    }
    result.push_back(std::move(crops));
  }
  return result;
}

std::unique_ptr<std::byte, Free> uploaded(const CropBatch& batch) {
  std::vector<std::byte> packed(batch.bytes());
  batch.write(packed.data());
  std::unique_ptr<std::byte, Free> memory(cuda::allocate(packed.size()));
  cuda::copy(memory.get(), packed.data(), packed.size());
  return memory;
}

/// Globals and locals by the GPU.
Buffers rendered(const AugmentConfig& config, const CropBatch& batch, size_t first, size_t count,
                 Dtype dtype = Dtype::f32, size_t scratch_bytes = size_t{64} << 20) {
  const auto packed = uploaded(batch);
  DeviceBuffers out;
  for (const bool locals : {false, true})
    if (!locals || config.local_crops_number > 0)
      out.emplace_back(Buffer(crops_spec(config, locals, static_cast<int64_t>(count), dtype)), true);
  render_crops(cuda_stream(), {packed.get(), batch.images()}, static_cast<int64_t>(first), pixel_scale(config),
               out[0].view(), out.size() > 1 ? out[1].view() : View(), scratch_bytes);
  Buffers result = on_host(out);
  CHECK(guards_intact(out));
  return result;
}

CropBatch packed(const Scene& scene) {
  CropBatch batch;
  batch.reset(static_cast<int>(scene.images.size()), scene.config.crops(), scene.config.channels);
  for (size_t i = 0; i < scene.images.size(); ++i) batch.set(static_cast<int>(i), scene.images[i], scene.plans[i]);
  return batch;
}

void check_scene(const Scene& scene) {
  const Buffers want = expected(scene, 0, scene.images.size());
  const Buffers got = rendered(scene.config, packed(scene), 0, scene.images.size());
  REQUIRE(got.size() == want.size());
  for (size_t i = 0; i < got.size(); ++i) CHECK(got[i].equal_bits(want[i]));
}

AugmentConfig config_of(int channels, int global, int local, int locals) {
  AugmentConfig config;
  config.channels = channels;
  config.global_crops_size = global;
  config.local_crops_size = local;
  config.local_crops_number = locals;
  for (int c = 0; c < channels; ++c) {
    config.mean.push_back(0.4f + 0.03f * static_cast<float>(c));
    config.deviation.push_back(0.2f + 0.01f * static_cast<float>(c));
  }
  return config;
}

/// Images with plans as training draws them.
Scene drawn(AugmentConfig config, int images, uint32_t seed, int largest_side = 80) {
  Scene scene{std::move(config), {}, {}};
  scene.config.seed = seed;
  Random random(4, Purpose::test, seed);
  for (int i = 0; i < images; ++i) {
    const auto side = [&] { return 17 + static_cast<int>(random.below(static_cast<uint32_t>(largest_side - 16))); };
    const int height = side(), width = side();
    scene.images.push_back(made_image(height, width, scene.config.channels, seed * 1000 + static_cast<uint32_t>(i)));
    scene.plans.emplace_back();
    for (int crop = 0; crop < scene.config.crops(); ++crop)
      scene.plans.back().push_back(plan_crop(scene.config, height, width, static_cast<uint64_t>(i), crop));
  }
  return scene;
}

/// Two crops of the same image, of `size` pixels, changed by `change`.
Scene pair(int channels, int height, int width, int size, CropBox box, const std::function<void(CropPlan&)>& change) {
  CropPlan plan{};
  plan.box = box;
  plan.size = size;
  CropPlan changed = plan;
  change(changed);
  return {config_of(channels, size, 8, 0), {made_image(height, width, channels, 1)}, {{plan, changed}}};
}

void nothing(CropPlan&) {}

TEST_CASE("cut and resized crops on the GPU have the bits of the CPU's", "[render_crops]") {
  for (int channels = 1; channels <= 4; ++channels) {
    CAPTURE(channels);
    check_scene(pair(channels, 37, 53, 13, {5, 7, 30, 41}, nothing));  // both axes shrink
    check_scene(pair(channels, 37, 53, 40, {0, 0, 37, 53}, nothing));  // one grows, one shrinks
    check_scene(pair(channels, 37, 53, 32, {3, 4, 32, 45}, nothing));  // only columns change
    check_scene(pair(channels, 37, 53, 32, {3, 4, 12, 32}, nothing));  // only rows change
    check_scene(pair(channels, 37, 53, 19, {3, 4, 19, 19}, nothing));  // nothing changes
    check_scene(pair(channels, 37, 53, 21, {36, 52, 1, 1}, nothing));  // one pixel
    check_scene(pair(channels, 37, 53, 1, {0, 0, 37, 53}, nothing));   // to one pixel
  }
  check_scene(pair(3, 300, 200, 96, {20, 10, 270, 185}, nothing));
}

TEST_CASE("crops on the GPU have the bits of the CPU's where boxes are larger than shared memory", "[render_crops]") {
  check_scene(pair(3, 13, 3000, 8, {0, 0, 13, 3000}, nothing));  // less than a chunk of rows
  check_scene(pair(4, 5, 9000, 8, {0, 1, 5, 8999}, nothing));    // not even one
  check_scene(pair(1, 9, 6000, 2, {1, 10, 8, 5900}, nothing));   // too many weights
  check_scene(pair(1, 2500, 11, 9, {1, 1, 2499, 10}, nothing));
}

TEST_CASE("each step on the GPU has the bits of the CPU's", "[render_crops]") {
  const auto check_step = [](const char* name, const std::function<void(CropPlan&)>& change) {
    INFO(name);
    for (int channels = 1; channels <= 4; ++channels) {
      CAPTURE(channels);
      check_scene(pair(channels, 41, 47, 23, {2, 3, 37, 40}, change));
      check_scene(pair(channels, 41, 47, 40, {2, 3, 37, 40}, change));
    }
  };
  check_step("flip", [](CropPlan& plan) { plan.flip = true; });
  check_step("gray", [](CropPlan& plan) { plan.gray = true; });
  check_step("solarize", [](CropPlan& plan) { plan.solarize = true; });
  for (const ColorOp op : {ColorOp::brightness, ColorOp::contrast, ColorOp::saturation, ColorOp::hue}) {
    for (const float factor : {0.0f, 0.07f, 0.83f, 1.0f, 1.31f, 40.0f, -0.07f, -0.5f, 0.5f}) {
      if (op == ColorOp::hue ? std::abs(factor) > 0.5f : factor < 0) continue;
      CAPTURE(static_cast<int>(op), factor);
      check_step("colour", [&](CropPlan& plan) {
        plan.color_steps = 1;
        plan.color[0] = {op, factor};
      });
    }
  }
  for (const float sigma : {0.001f, 0.1f, 0.9f, 1.4f, 1.5f, 2.0f, 2.9f, 7.0f, 60.0f}) {
    CAPTURE(sigma);
    check_step("blur", [&](CropPlan& plan) { plan.blur_sigma = sigma; });
  }
}

TEST_CASE("every colour of a grid turns its hue on the GPU as on the CPU", "[render_crops]") {
  // 52 levels per channel, a colour per pixel.
  constexpr int kLevels = 52, kSide = 375;
  Scene scene = pair(3, kSide, kSide, kSide, {0, 0, kSide, kSide}, [](CropPlan& plan) {
    plan.color_steps = 2;
    plan.color[0] = {ColorOp::hue, 0.08f};
    plan.color[1] = {ColorOp::saturation, 1.13f};
  });
  Image& image = scene.images[0];
  for (int i = 0; i < kSide * kSide; ++i) {
    for (int c = 0, rest = i; c < 3; ++c, rest /= kLevels)
      image.pixels[static_cast<size_t>(3 * i + c)] = static_cast<uint8_t>(rest % kLevels * 5);
  }
  check_scene(scene);
}

TEST_CASE("crops that no block can hold are rendered on the GPU with the same bits", "[render_crops]") {
  for (const float sigma : {0.5f, 1.9f, 4.0f}) {
    CAPTURE(sigma);
    check_scene(pair(4, 150, 140, 241, {2, 3, 140, 130}, [&](CropPlan& plan) {
      plan.color_steps = 2;
      plan.color[0] = {ColorOp::contrast, 0.7f};
      plan.color[1] = {ColorOp::brightness, 1.2f};
      plan.blur_sigma = sigma;
      plan.solarize = true;
    }));
  }
}

TEST_CASE("whole recipes on the GPU have the bits of the CPU's", "[render_crops]") {
  uint32_t seed = 0;
  for (const auto& [global, local] : {std::pair{40, 16}, {21, 9}, {24, 32}, {33, 12}, {16, 8}}) {
    for (int channels = 1; channels <= 4; ++channels) {
      CAPTURE(global, local, channels);
      check_scene(drawn(config_of(channels, global, local, 4), 6, ++seed));
    }
  }
  check_scene(drawn(config_of(3, 96, 40, 3), 2, 77, 300));
}

TEST_CASE("a part of a batch, and little scratch memory, give the same crops on the GPU", "[render_crops]") {
  const Scene scene = drawn(config_of(3, 20, 12, 3), 5, 5);
  const CropBatch batch = packed(scene);
  for (const auto& [first, count] : {std::pair<size_t, size_t>{0, 5}, {0, 2}, {3, 2}, {2, 1}}) {
    for (const size_t scratch : {size_t{1}, size_t{6000}, size_t{1} << 20}) {
      CAPTURE(first, count, scratch);
      const Buffers want = expected(scene, first, count),
                    got = rendered(scene.config, batch, first, count, Dtype::f32, scratch);
      for (size_t i = 0; i < got.size(); ++i) CHECK(got[i].equal_bits(want[i]));
    }
  }
}

TEST_CASE("crops in bf16 on the GPU are those in f32, rounded", "[render_crops]") {
  for (const int channels : {1, 3}) {
    const Scene scene = drawn(config_of(channels, 18, 11, 2), 3, 9);
    const Buffers want = expected(scene, 0, 3), got = rendered(scene.config, packed(scene), 0, 3, Dtype::bf16);
    for (size_t i = 0; i < got.size(); ++i) CHECK(got[i].equal_bits(want[i].as(Dtype::bf16)));
  }
}

TEST_CASE("views that do not fit a packed batch are refused", "[render_crops]") {
  const Scene scene = drawn(config_of(3, 16, 8, 2), 2, 3);
  const CropBatch batch = packed(scene);
  CHECK_THROWS_AS(rendered(scene.config, batch, 1, 2), UsageError);
  AugmentConfig other = scene.config;
  other.channels = 5;
  other.mean = other.deviation = {};
  CHECK_THROWS_AS(rendered(other, batch, 0, 2), UsageError);
}

/// Images made on the spot; one cannot be read.
class MadeImages : public Dataset {
 public:
  explicit MadeImages(int count) : Dataset(3) {
    for (int i = 0; i < count; ++i) add("made" + std::to_string(i), -1);
  }
  Image load(size_t index) const override {
    if (index == 4) throw DataError(name(index) + ": broken");
    return made_image(20 + static_cast<int>(index % 7), 25 + static_cast<int>(index % 5), 3,
                      static_cast<uint32_t>(index));
  }
};

TEST_CASE("a loader that only decodes gives what the GPU renders to the batches of one that renders",
          "[render_crops]") {
  const MadeImages dataset(14);
  LoaderConfig config{.augment = config_of(3, 16, 8, 3), .batch_size = 4, .workers = 2, .steps = 6};
  Loader rendering(dataset, config);
  config.decode_only = true;
  Loader decoding(dataset, config);
  for (int64_t step = 0; step < config.steps; ++step) {
    CAPTURE(step);
    Batch want = rendering.next(), got = decoding.next();
    CHECK(got.step == want.step);
    CHECK(got.samples == want.samples);
    CHECK(got.bad == want.bad);
    CHECK((got.globals.empty() && got.locals.empty() && want.images.images() == 0));
    const Buffers crops = rendered(config.augment, got.images, 0, 4);
    const auto same = [](const Buffer& a, const std::vector<float>& b) {
      return a.bytes() == b.size() * sizeof(float) && std::memcmp(a.data(), b.data(), a.bytes()) == 0;
    };
    CHECK(same(crops[0], want.globals));
    CHECK(same(crops[1], want.locals));
    decoding.recycle(std::move(got));
  }
}

}  // namespace
