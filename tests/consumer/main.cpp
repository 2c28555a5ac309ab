// A program outside of the project: trains one step on images that it makes itself.
#include <cmath>
#include <cstdio>
#include <dino_engine.h>
#include <fstream>
#include <string>

namespace {

void write_image(const std::string& path, int seed) {
  std::ofstream file(path, std::ios::binary);
  file << "P6\n40 40\n255\n";
  for (int i = 0; i < 40 * 40 * 3; ++i) file.put(static_cast<char>((i * (seed + 3) + (i / 120) * 7) % 251));
}

}  // namespace

int main(int argc, char** argv) {
  const std::string folder = argc > 1 ? argv[1] : ".";
  for (int i = 0; i < 4; ++i) write_image(folder + "/image" + std::to_string(i) + ".ppm", i);

  dino::TrainConfig config;
  config.data = folder;
  config.arch = "vit_tiny";
  config.embed_dim = 24;
  config.depth = 2;
  config.heads = 3;
  config.patch_size = 8;
  config.out_dim = 32;
  config.head_hidden_dim = 32;
  config.head_bottleneck_dim = 16;
  config.batch_size = 4;
  config.epochs = 2;
  config.warmup_epochs = 0;
  config.augment.global_crops_size = 32;
  config.augment.local_crops_size = 16;
  config.augment.local_crops_number = 2;

  const auto images = dino::Dataset::open(config.data);
  dino::Trainer trainer(config, *images);
  const dino::StepReport report = trainer.train_step();
  std::printf("loss %.6f after %ld step\n", report.loss, static_cast<long>(trainer.step()));
  return report.healthy && std::isfinite(report.loss) && trainer.step() == 1 ? 0 : 1;
}
