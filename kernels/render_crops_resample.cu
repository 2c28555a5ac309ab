#include <cuda_pipeline.h>

#include "kernels/crop_resize.h"
#include "kernels/render_crops.cuh"

// A block makes kBand rows of a tile of a crop; a thread owns one column of bytes of it. The part of the image under it
// passes through shared memory: each thread weighs the pixels of a row to one byte, as the first pass of `resize` does,
// and adds that to the sums of those of its rows that it belongs to, the second pass. So nothing lies between the
// passes, at the price that neighbouring bands do the rows that both read twice: (kBand + 4) / kBand times the work
// when shrinking. Sums are of whole numbers, which may be in any order. Boxes too large for shared memory are read
// where they lie, row by row: slower, and rare.
namespace dino::cuda {
inline namespace render_crops_resample_cu {

constexpr int kBand = 16;
constexpr int kChunk = 4;  ///< rows of the image that a thread weighs at a time
constexpr int kMaxTile = 256;
constexpr int kStageRows = 32, kStageBytes = 16 << 10;  ///< enough for boxes up to about 50 times the crop
constexpr int kWeightSlots = 4 << 10;                   ///< enough for boxes up to about 13 times the crop
constexpr int kHalf = 1 << (ResampleWeights::kFractionBits - 1);

__device__ int rounded(int sum) { return min(max(sum >> ResampleWeights::kFractionBits, 0), 255); }

/// A table of weights: see `CropDescriptor`.
struct AxisTable {
  const int32_t* data;
  int size;

  __device__ int first(int i) const { return data[i]; }
  __device__ int count(int i) const { return data[size + i]; }
  __device__ int end(int i) const { return first(i) + count(i); }
  __device__ int weight(int tap, int i) const { return data[int64_t{tap + 2} * size + i]; }
};

struct Shared {
  alignas(16) uint8_t stage[kStageBytes];                               ///< rows of the image
  alignas(16) int32_t row_weights[kStageRows / kChunk][kBand][kChunk];  ///< of these rows in the sums of the band's
  int32_t column_weights[kWeightSlots];                                 ///< [taps][pixels of the tile]
  int32_t first[kBand], end[kBand];                                     ///< what the rows of the band are made of
};

/// The weights of `count` rows of the image, from `row` on, in the band's rows, which begin at y0.
__device__ void load_row_weights(Shared& shared, const AxisTable& rows, int row, int count, int y0) {
  const int slots = (count + kChunk - 1) / kChunk * kChunk * kBand;
#pragma unroll 1
  for (int i = static_cast<int>(threadIdx.x); i < slots; i += static_cast<int>(blockDim.x)) {
    const int k = i / (kChunk * kBand) * kChunk + i % kChunk, r = i / kChunk % kBand;
    const bool used = k < count && row + k >= shared.first[r] && row + k < shared.end[r];
    (&shared.row_weights[0][0][0])[i] = used ? rows.weight(row + k - shared.first[r], y0 + r) : 0;
  }
}

template <int kChannels>
__global__ void __launch_bounds__(kMaxTile) resample(CropSelection selection, CropPixels to, int tiles, int bands) {
  __shared__ Shared shared;
  const int part = static_cast<int>(blockIdx.x % static_cast<unsigned>(tiles * bands));
  const int64_t index = blockIdx.x / static_cast<unsigned>(tiles * bands);
  const int size = to.size, threads = static_cast<int>(blockDim.x), thread = static_cast<int>(threadIdx.x);
  const int warp = thread / 32, lane = thread % 32, warps = threads / 32;
  const CropDescriptor& crop = selection[index];
  const AxisTable columns{reinterpret_cast<const int32_t*>(selection.packed + crop.columns), size};
  const AxisTable rows{reinterpret_cast<const int32_t*>(selection.packed + crop.rows), size};

  // This tile of columns, mirrored in the box if the crop is, and the part of the image's rows under it.
  const int values = size * kChannels, tile_begin = part % tiles * threads,
            tile_end = min(tile_begin + threads, values);
  const bool flip = crop.flip;
  const auto source = [&](int value) { return flip ? size - 1 - value / kChannels : value / kChannels; };
  const int x0 = source(flip ? tile_end - 1 : tile_begin), x1 = source(flip ? tile_begin : tile_end - 1),
            pixels = x1 - x0 + 1;
  const int segment = columns.first(x0), segment_bytes = (columns.end(x1) - segment) * kChannels;
  const int value = min(tile_begin + thread, values - 1), x = source(value);
  const int count = columns.count(x), taps = crop.column_taps;
  const int offset = (columns.first(x) - segment) * kChannels + value % kChannels;

  // Rows are moved as they lie, in whole packs of 16 bytes; all of them begin at the same place in a pack.
  const auto* image = reinterpret_cast<const uint8_t*>(selection.packed + crop.pixels) + segment * kChannels;
  const int64_t stride = crop.image_row_bytes;
  const int shift = static_cast<int>(reinterpret_cast<uintptr_t>(image) % 16);
  const int packs = (shift + segment_bytes + 15) / 16, pitch = 16 * packs;
  const bool staged = pitch <= kStageBytes && taps <= kWeightSlots / pixels;
  const int most = staged ? min(kStageRows, kStageBytes / pitch) : 1;
  if (staged) {
#pragma unroll 1
    for (int tap = warp; tap < taps; tap += warps)
#pragma unroll 1
      for (int i = lane; i < pixels; i += 32) shared.column_weights[tap * pixels + i] = columns.weight(tap, x0 + i);
  }

  const int y0 = part / tiles * kBand, y1 = min(y0 + kBand, size) - 1;
  const int band_row = min(y0 + lane % kBand, y1), band_first = rows.first(band_row), band_end = rows.end(band_row);
  if (thread < kBand) {
    shared.first[thread] = band_first;
    shared.end[thread] = y0 + thread <= y1 ? band_end : band_first;
  }
  int sum[kBand];
#pragma unroll
  for (int& s : sum) s = kHalf;

  const int bottom = rows.end(y1);
  for (int stage_row = rows.first(y0); stage_row < bottom; stage_row += most) {
    const int here = min(most, bottom - stage_row);
    __syncthreads();
    if (staged) {
#pragma unroll 1
      for (int k = warp; k < here; k += warps) {
        const uint8_t* from = image + (stage_row + k) * stride - shift;
        for (int i = lane; i < packs; i += 32)
          __pipeline_memcpy_async(shared.stage + k * pitch + 16 * i, from + 16 * i, 16);
      }
      __pipeline_commit();
    }
    load_row_weights(shared, rows, stage_row, here, y0);
    __pipeline_wait_prior(0);
    __syncthreads();

#pragma unroll 1
    for (int row = 0; row < here; row += kChunk) {
      const int rows_end = stage_row + min(row + kChunk, here);
      const unsigned takers = __ballot_sync(0xFFFFFFFFu, band_first < rows_end && band_end > stage_row + row);
      int pixel[kChunk];
#pragma unroll
      for (int& p : pixel) p = kHalf;
      if (staged) {
        const uint8_t* line[kChunk];  // rows that are not there repeat the last, and weigh nothing
#pragma unroll
        for (int k = 0; k < kChunk; ++k) line[k] = shared.stage + min(row + k, here - 1) * pitch + shift + offset;
        const int32_t* weights = shared.column_weights + (x - x0);
#pragma unroll 4
        for (int tap = 0; tap < count; ++tap) {
          const int weight = *weights;
          weights += pixels;
#pragma unroll
          for (int k = 0; k < kChunk; ++k) pixel[k] += int{line[k][tap * kChannels]} * weight;
        }
      } else {
        const uint8_t* line = image + stage_row * stride + offset;
#pragma unroll 1
        for (int tap = 0; tap < count; ++tap) pixel[0] += int{line[int64_t{tap} * kChannels]} * columns.weight(tap, x);
      }
#pragma unroll
      for (int& p : pixel) p = rounded(p);
#pragma unroll
      for (int r = 0; r < kBand; ++r) {
        if (!(takers >> r & 1)) continue;
        const int4 weight = *reinterpret_cast<const int4*>(shared.row_weights[row / kChunk][r]);
        sum[r] += pixel[0] * weight.x + pixel[1] * weight.y + pixel[2] * weight.z + pixel[3] * weight.w;
      }
    }
  }

  if (tile_begin + thread >= values) return;
  uint8_t* out = to.crop(index) + int64_t{y0} * to.pitch() + value;
#pragma unroll
  for (int r = 0; r < kBand; ++r)
    if (y0 + r <= y1) out[r * to.pitch()] = static_cast<uint8_t>(rounded(sum[r]));
}

}  // namespace render_crops_resample_cu

void resample_crops(CudaStream& stream, const CropSelection& selection, const CropPixels& to) {
  const int values = to.row_values();
  const int at_least = (values + kMaxTile - 1) / kMaxTile;
  const int threads = ((values + at_least - 1) / at_least + 31) / 32 * 32;
  const int tiles = (values + threads - 1) / threads, bands = (to.size + kBand - 1) / kBand;
  with_channels(to.channels, [&](auto channels) {
    launch(stream, "resample crops", resample<channels>,
           {blocks_for(selection.count * tiles * bands, 1), static_cast<unsigned>(threads)}, selection, to, tiles,
           bands);
  });
}

}  // namespace dino::cuda
