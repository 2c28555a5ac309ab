#include "kernels/patchify.h"

#include "kernels/device_math.cuh"
#include "kernels/launch.cuh"
#include "kernels/token_rows.cuh"

// A block turns up to 24 KiB of neighbouring patches of one image around in shared memory: pixels are read
// along the image's rows, patches are written in packs of up to 16 bytes, each once. Backward, which no
// training needs, has a thread per element of an image. One launch is enough for all groups.
namespace dino {
inline namespace patchify_cu {

using namespace cuda;

constexpr int kThreads = 256;
constexpr size_t kTileBytes = 24 << 10;

/// One group of images, cut into tiles of `width` patches beside each other.
struct Tiling {
  int64_t images, height, image_width;
  int patch, channels, rows, cols, width, tiles;  ///< rows and cols in patches; tiles of one row of patches
  int pitch;  ///< between rows of pixels of a tile, odd to spread them over the banks
  float* pixels = nullptr;
  int64_t first_patch = 0;
  bool add = false;  ///< to pixels; backward
  unsigned first_block = 0;

  Tiling() = default;
  Tiling(const Shape& shape, int64_t patch_size)
      : images(shape[0]),
        height(shape[1]),
        image_width(shape[2]),
        patch(static_cast<int>(patch_size)),
        channels(static_cast<int>(shape[3])),
        rows(static_cast<int>(shape[1] / patch_size)),
        cols(static_cast<int>(shape[2] / patch_size)) {
    const int patch_bytes = patch * patch * channels * static_cast<int>(sizeof(float));
    const int widest = std::max(2, static_cast<int>(kTileBytes) / patch_bytes / 2 * 2);
    tiles = (cols + widest - 1) / widest;
    width = tiles > 0 ? ((cols + tiles - 1) / tiles + 1) / 2 * 2 : 0;
    pitch = width * patch * channels | 1;
  }
  size_t shared_bytes() const {
    return static_cast<size_t>(patch) * static_cast<size_t>(pitch) * sizeof(float);
  }
  int64_t blocks() const { return images * rows * tiles; }
  __device__ int64_t elements() const { return images * height * image_width * channels; }
};
using Tilings = GroupBlocks<Tiling>;

template <class T, int N>
__global__ void __launch_bounds__(kThreads) cut_patches(Tilings groups, T* patches) {
  extern __shared__ float tile[];
  const Tiling t = groups.of(blockIdx.x);
  const unsigned block = blockIdx.x - t.first_block;
  const int64_t strip = block / t.tiles;  // a row of patches of one image
  const int first = static_cast<int>(block % t.tiles) * t.width, width = min(t.width, t.cols - first);
  const int row_elements = width * t.patch * t.channels, line = t.patch * t.channels;
  const int64_t image = strip / t.rows, stride = t.image_width * t.channels;
  const float* source =
      t.pixels + (image * t.height + strip % t.rows * t.patch) * stride + int64_t{first} * line;
  for (int y = static_cast<int>(threadIdx.x) / 32; y < t.patch; y += kThreads / 32)
#pragma unroll 4
    for (int i = static_cast<int>(threadIdx.x) % 32; i < row_elements; i += 32)
      tile[y * t.pitch + i] = source[y * stride + i];
  __syncthreads();
  // Neighbouring threads take the packs of a row of a patch, then two neighbouring patches, then rows of
  // pixels: for 16 × 16 patches of 3 channels no two threads of a warp read the same bank.
  const int packs = t.patch / N, pairs = (width + 1) / 2, items = packs * 2 * t.patch * pairs * t.channels;
  T* target = patches + (t.first_patch + strip * t.cols + first) * t.patch * line;
  for (int item = static_cast<int>(threadIdx.x); item < items; item += kThreads) {
    int rest = item;
    const auto digit = [&rest](int base) {
      const int quotient = rest / base, remainder = rest - quotient * base;
      rest = quotient;
      return remainder;
    };
    const int x = digit(packs) * N, of_pair = digit(2), y = digit(t.patch),
              patch = digit(pairs) * 2 + of_pair, channel = rest;
    if (patch >= width) continue;
    const float* from = tile + y * t.pitch + (patch * t.patch + x) * t.channels + channel;
    float value[N];
#pragma unroll
    for (int e = 0; e < N; ++e) value[e] = from[e * t.channels];
    store(target + ((patch * t.channels + channel) * t.patch + y) * int64_t{t.patch} + x, value);
  }
}

/// Each pixel is part of one patch, or of none beyond the last whole one.
template <class T>
__global__ void __launch_bounds__(kThreads) cut_patches_backward(Tilings groups, const T* dpatches) {
  const Tiling t = groups.of(blockIdx.x);
  const int64_t i = int64_t{blockIdx.x - t.first_block} * kThreads + threadIdx.x;
  if (i >= t.elements()) return;
  const int64_t channel = i % t.channels, pixel = i / t.channels, x = pixel % t.image_width,
                line = pixel / t.image_width;
  const int64_t y = line % t.height, image = line / t.height, row = y / t.patch, col = x / t.patch;
  float value = 0;
  if (row < t.rows && col < t.cols) {
    const int64_t patch = t.first_patch + (image * t.rows + row) * t.cols + col;
    value =
        to_float(dpatches[((patch * t.channels + channel) * t.patch + y % t.patch) * t.patch + x % t.patch]);
  }
  t.pixels[i] = t.add ? t.pixels[i] + value : value;
}

/// Calls f(input, tiling) for every group.
template <class F>
void for_groups(const Patchify& op, std::span<const View> in, const F& f) {
  int64_t first_patch = 0;
  for (int g = 0; g < op.sequences.groups; ++g) {
    const size_t input = static_cast<size_t>(g);
    Tiling tiling(in[input].shape, op.patch);
    tiling.first_patch = first_patch;
    f(g, tiling);
    first_patch += op.sequences.group[input].count * op.sequences.group[input].patches();
  }
}

}  // namespace patchify_cu

void Patchify::forward(CudaStream& stream, std::span<const View> in, std::span<const View> out) const {
  Tilings groups;
  size_t shared_bytes = 0;
  for_groups(*this, in, [&](int g, Tiling tiling) {
    tiling.pixels = in[static_cast<size_t>(g)].as<float>();
    groups.add(g, tiling, tiling.blocks());
    shared_bytes = std::max(shared_bytes, tiling.shared_bytes());
  });
  with_dtype(out[patches].dtype, [&](auto zero) {
    using T = decltype(zero);
    constexpr int kPack = 16 / sizeof(T);
    const bool packed = patch % kPack == 0 && reinterpret_cast<uintptr_t>(out[patches].data) % 16 == 0;
    launch(stream, "patchify", packed ? cut_patches<T, kPack> : cut_patches<T, 1>,
           {groups.blocks, kThreads, shared_bytes}, groups, out[patches].as<T>());
  });
}

void Patchify::backward(CudaStream& stream, std::span<const View> in, std::span<const View>,
                        std::span<const View> dout, std::span<const Grad> din) const {
  Tilings groups;
  int wanted = 0;
  for_groups(*this, in, [&](int g, Tiling tiling) {
    const Grad& grad = din[static_cast<size_t>(g)];
    if (!grad.wanted()) return;
    tiling.pixels = grad.view.as<float>();
    tiling.add = grad.mode == GradMode::add;
    groups.add(wanted++, tiling, blocks_for(grad.view.count(), kThreads));
  });
  with_dtype(dout[patches].dtype, [&](auto zero) {
    using T = decltype(zero);
    launch(stream, "patchify backward", cut_patches_backward<T>, {groups.blocks, kThreads}, groups,
           dout[patches].as<T>());
  });
}

}  // namespace dino
