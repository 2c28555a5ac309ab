#include "kernels/patchify.h"

#include <algorithm>

namespace dino {
namespace {

/// Where one image and its patches lie.
struct Place {
  int input;
  int64_t image, first_patch;
};

/// Runs body(place) for every image of every group.
template <class F>
void for_images(const Patchify& op, CpuStream& stream, F&& body) {
  stream.pool().for_ranges(op.sequences.count(), 1, [&](int64_t sequence, int64_t) {
    const Sequences::Place place = op.sequences.place(sequence);
    int64_t image = sequence;
    for (int g = 0; g < place.group; ++g) image -= op.sequences.group[static_cast<size_t>(g)].count;
    body(Place{place.group, image, place.first_token - sequence});
  });
}

/// Calls f(pixel, value) with pointers to corresponding elements of one image and of its patches.
template <class T, class F>
void for_pixels(const Patchify& op, const View& images, const View& patches, const Place& place, F&& f) {
  const int64_t height = images.shape[1], width = images.shape[2], channels = images.shape[3], p = op.patch;
  T* image = images.as<T>() + place.image * height * width * channels;
  T* out = patches.row<T>(place.first_patch);
  for (int64_t row = 0; row < height / p; ++row)
    for (int64_t col = 0; col < width / p; ++col)
      for (int64_t c = 0; c < channels; ++c)
        for (int64_t y = 0; y < p; ++y)
          for (int64_t x = 0; x < p; ++x) f(image + ((row * p + y) * width + col * p + x) * channels + c, out++);
}

}  // namespace

std::vector<Spec> Patchify::infer(std::span<const Spec> in) const {
  require_float_dtypes<Patchify>(in);
  require<Patchify>(sequences.groups > 0, "needs at least one group of images", in);
  for (int g = 0; g < Sequences::kMaxGroups; ++g) {
    const Spec& images = in[static_cast<size_t>(g)];
    require<Patchify>(images.defined() == (g < sequences.groups), "needs one input for each group", in);
    if (!images.defined()) continue;
    const Sequences::Group& group = sequences.group[static_cast<size_t>(g)];
    require<Patchify>(images.shape.rank == 4 && images.shape[3] == in[0].shape[3],
                      "images must be [count, height, width, channels] with equal channels", in);
    require<Patchify>(images.shape[0] == group.count && images.shape[1] / patch == group.rows &&
                          images.shape[2] / patch == group.cols,
                      "image sizes must match the sequences", in);
  }
  return {{output == Dtype::none ? in[0].dtype : output, Shape{sequences.patches(), in[0].shape[3] * patch * patch}}};
}

void Patchify::forward(CpuStream& stream, std::span<const View> in, std::span<const View> out) const {
  with_float(out[patches].dtype, [&](auto zero) {
    using T = decltype(zero);
    for_images(*this, stream, [&](const Place& place) {
      for_pixels<T>(*this, in[static_cast<size_t>(place.input)], out[patches], place,
                    [](const T* pixel, T* value) { *value = *pixel; });
    });
  });
}

void Patchify::backward(CpuStream& stream, std::span<const View>, std::span<const View>, std::span<const View> dout,
                        std::span<const Grad> din) const {
  with_float(dout[patches].dtype, [&](auto zero) {
    using T = decltype(zero);
    for_images(*this, stream, [&](const Place& place) {
      const Grad& grad = din[static_cast<size_t>(place.input)];
      if (!grad.wanted()) return;
      if (grad.mode == GradMode::write) {  // pixels that are in no patch have gradient 0
        const int64_t count = grad.view.count() / grad.view.shape[0];
        std::fill_n(grad.view.as<T>() + place.image * count, count, T{0});
      }
      for_pixels<T>(*this, grad.view, dout[patches], place, [](T* pixel, const T* value) { *pixel += *value; });
    });
  });
}

std::vector<Case<Patchify>> Patchify::cases(Tiny) {
  const auto one = [](int64_t patch, const Shape& images) {
    Patchify op{.patch = patch, .sequences = {}};
    op.sequences.append(images[0], images[1] / patch, images[2] / patch);
    return Case<Patchify>{op, {{images}, {{}}, {{}}, {{}}}};
  };
  Patchify two{.patch = 2, .sequences = {}};
  two.sequences.append(2, 2, 3);
  two.sequences.append(1, 1, 2);
  Patchify four{.patch = 2, .sequences = {}};
  for (int64_t rows = 1; rows <= 4; ++rows) four.sequences.append(1, rows, 2);
  return {{four, {{{1, 2, 4, 1}}, {{1, 4, 4, 1}}, {{1, 6, 4, 1}}, {{1, 8, 4, 1}}}},
          {two, {{{2, 4, 6, 3}}, {{1, 3, 5, 3}}, {{}}, {{}}}},
          one(3, {2, 3, 6, 1}),
          one(4, {1, 8, 8, 2}),
          one(8, {2, 8, 24, 1}),
          one(16, {1, 16, 400, 1})};  // more patches beside each other than a block takes on a GPU
}

std::vector<Case<Patchify>> Patchify::cases(Real) {
  Patchify op{.patch = 16, .sequences = {}};
  op.sequences.append(8, 14, 14);
  op.sequences.append(24, 6, 6);
  return {{op, {{{8, 224, 224, 3}}, {{24, 96, 96, 3}}, {{}}, {{}}}}};
}

}  // namespace dino
