// A program outside of the project, as docs/embedding.md explains it: trains on images that it makes itself, looks at the features,
// and differentiates an expression of its own.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <dino_engine.h>
#include <stdexcept>
#include <string>

namespace {

// images
/// Stripes of two widths, in memory; elsewhere a camera or a database takes their place.
class Stripes : public dino::Dataset {
 public:
  explicit Stripes(int count) : Dataset(3) {
    for (int i = 0; i < count; ++i) add("stripes " + std::to_string(i), i % 2);
    class_names_ = {"narrow", "wide"};
  }

  dino::Image load(size_t index) const override {
    dino::Image image(40, 40, 3);
    const size_t width = label(index) == 0 ? 2 : 5;
    for (size_t i = 0; i < image.pixels.size(); ++i)
      image.pixels[i] = static_cast<uint8_t>((i / 3 % 40 + index) / width % 2 * 150 + 5 * (index % 16));
    return image;
  }
};
// end

dino::TrainConfig small_run() {
  // configuration
  dino::TrainConfig config;
  config.data = "stripes";  // a name for messages, as the images do not come from a path
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
  // end
  return config;
}

void train(const dino::Dataset& images, const std::string& checkpoint) {
  const dino::TrainConfig config = small_run();
  // training
  dino::Trainer trainer(config, images);
  while (!trainer.finished()) {
    const dino::StepReport report = trainer.train_step();
    if (!report.healthy) throw std::runtime_error("loss or gradient is not finite");
    std::printf("step %ld: loss %.4f\n", static_cast<long>(trainer.step()), report.loss);
  }
  trainer.save(checkpoint);
  // end
}

double score(const dino::Dataset& images, const std::string& checkpoint) {
  // features
  dino::Context context;  // all processors; Context(4) for four threads, Context(0, dino::Device::cuda) for a GPU
  const dino::LoadedBackbone network = dino::load_backbone({.path = checkpoint});
  dino::FeatureConfig settings;
  settings.images.size = 32;
  const dino::FeatureSet features = dino::extract_features(context, network.backbone, images, settings);
  const dino::KnnResult neighbours = dino::knn(context, features, features, {.k = {3}});
  // end
  std::printf("%ld features of %ld numbers, k-NN %.1f %%\n", static_cast<long>(features.images), static_cast<long>(features.dim), neighbours.scores[0].top1);
  return neighbours.scores[0].top1;
}

/// How far the gradient of Σ gelu(x) is from differences.
double gradient_error() {
  // gradients
  dino::Context context;
  dino::Tensor x = context.host_tensor({dino::Dtype::f64, dino::Shape{2, 3}});
  for (int i = 0; i < 6; ++i) x.view().as<double>()[i] = 0.3 * i - 0.8;
  x.set_grad(std::make_shared<dino::GradSlot>(&context.arena(), x.spec()));  // its gradient is wanted

  dino::Tape tape(context);  // from here on, ops are recorded
  const dino::Tensor y = dino::run(context, dino::Gelu{}, {x})[dino::Gelu::y];
  const dino::Tensor ones = context.host_tensor(y.spec());
  for (int i = 0; i < 6; ++i) ones.view().as<double>()[i] = 1;
  y.grad()->assign(ones);
  tape.undo();
  const double* gradient = x.grad()->value().as<double>();
  // end
  const auto gelu = [](double v) { return v * std::erfc(-v / std::sqrt(2.0)) / 2; };
  double worst = 0;
  for (int i = 0; i < 6; ++i) {
    const double v = x.view().as<double>()[i];
    worst = std::max(worst, std::abs(gradient[i] - (gelu(v + 1e-5) - gelu(v - 1e-5)) / 2e-5));
  }
  return worst;
}

}  // namespace

int main(int argc, char** argv) {
  const std::string folder = argc > 1 ? argv[1] : ".";
  // errors
  try {
    const Stripes images(12);
    train(images, folder + "/checkpoint.safetensors");
    return score(images, folder + "/checkpoint.safetensors") > 50 && gradient_error() < 1e-8 ? 0 : 1;
  } catch (const dino::Error& error) {  // UsageError, DataError, FormatError, DivergedError: one line that says what to do
    std::fprintf(stderr, "%s\n", error.what());
    return 2;
  }
  // end
}
