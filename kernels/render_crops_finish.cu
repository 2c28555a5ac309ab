#include "kernels/color_math.h"
#include "kernels/device_math.cuh"
#include "kernels/render_crops.cuh"

// A block works on one crop, in shared memory if that can hold it: 8-bit values are read once and floats written once.
// Where values do not depend on neighbours a warp has a row, its lanes four bytes or a pixel; where they do, in the
// blur, a thread has a line. Rows begin at odd multiples of 4 bytes, so that neighbouring rows lie in different banks.
namespace dino::cuda {
inline namespace render_crops_finish_cu {

constexpr int kMaxThreads = 1024;

/// A crop that a block works on, rows `pitch` bytes apart, a multiple of 4.
struct Canvas {
  uint8_t* pixels;
  int size, pitch;

  __device__ uint8_t* row(int y) const { return pixels + int64_t{y} * pitch; }
};

__device__ int byte_of(uint32_t word, int i) { return static_cast<int>(word >> 8 * i & 255); }

/// Calls f(y, i) for the numbers i below `per_row`, with the lanes of the warp that has row y.
template <class F>
__device__ void for_rows(int size, int per_row, const F& f) {
  for (int y = static_cast<int>(threadIdx.x / 32); y < size; y += static_cast<int>(blockDim.x / 32)) {
    for (int i = static_cast<int>(threadIdx.x % 32); i < per_row; i += 32) f(y, i);
  }
  __syncwarp();  // the next step may deal the bytes of a row to other lanes
}

/// Replaces every value by f(value). What fills up a row to whole words changes too, and nobody reads it.
template <int kChannels, class F>
__device__ void map_values(const Canvas& crop, const F& f) {
  for_rows(crop.size, (crop.size * kChannels + 3) / 4, [&](int y, int i) {
    uint32_t& word = reinterpret_cast<uint32_t*>(crop.row(y))[i];
    const uint32_t before = word;
    uint32_t after = 0;
#pragma unroll
    for (int b = 0; b < 4; ++b) after |= uint32_t{f(byte_of(before, b))} << 8 * b;
    word = after;
  });
}

/// Calls f(pixel) with a pointer to each pixel of three channels.
template <class F>
__device__ void for_pixels(const Canvas& crop, const F& f) {
  for_rows(crop.size, crop.size, [&](int y, int x) { f(crop.row(y) + 3 * x); });
}

/// The sum over the block, in every thread.
__device__ uint64_t block_total(uint32_t mine) {
  __shared__ uint32_t partial[32];
#pragma unroll
  for (int offset = 16; offset > 0; offset /= 2) mine += __shfl_xor_sync(0xFFFFFFFFu, mine, offset);
  __syncthreads();
  if (threadIdx.x % 32 == 0) partial[threadIdx.x / 32] = mine;
  __syncthreads();
  uint64_t total = 0;
  for (unsigned warp = 0; warp < blockDim.x / 32; ++warp) total += partial[warp];
  return total;
}

template <int kChannels>
__device__ int contrast_level(const Canvas& crop) {
  uint32_t sum = 0;  // a thread of 1024 adds at most 2^16 values of the largest crop
  if constexpr (kChannels == 3) {
    for_pixels(crop, [&](const uint8_t* pixel) { sum += luma(pixel[0], pixel[1], pixel[2]); });
  } else {
    const int values = crop.size * kChannels;
    for_rows(crop.size, (values + 3) / 4, [&](int y, int i) {
      const uint32_t word = reinterpret_cast<const uint32_t*>(crop.row(y))[i];
#pragma unroll
      for (int b = 0; b < 4; ++b) sum += 4 * i + b < values ? static_cast<uint32_t>(byte_of(word, b)) : 0;
    });
  }
  const double values = double(crop.size) * crop.size * (kChannels == 3 ? 1 : kChannels);
  return static_cast<int>(static_cast<double>(block_total(sum)) / values + 0.5);
}

__device__ void turn_hue(uint8_t* pixel, int shift) {
  const HueParts parts = hue_parts(pixel[0], pixel[1], pixel[2]);
  const HueSaturation turned = hue_saturation(parts);
  const HueLevels levels = hue_levels((turned.hue + shift) & 255, turned.saturation, parts.high);
  pixel[0] = static_cast<uint8_t>(red_of(levels, parts.high));
  pixel[1] = static_cast<uint8_t>(green_of(levels, parts.high));
  pixel[2] = static_cast<uint8_t>(blue_of(levels, parts.high));
}

template <int kChannels>
__device__ void apply(const ColorStep& step, const Canvas& crop) {
  const float factor = step.factor;
  switch (step.op) {
    case ColorOp::brightness:
      return map_values<kChannels>(crop, [&](int value) { return blend(0, value, factor); });
    case ColorOp::contrast: {
      const int level = contrast_level<kChannels>(crop);
      return map_values<kChannels>(crop, [&](int value) { return blend(level, value, factor); });
    }
    case ColorOp::saturation:
      if constexpr (kChannels == 3) {
        for_pixels(crop, [&](uint8_t* pixel) {
          const int gray = luma(pixel[0], pixel[1], pixel[2]);
#pragma unroll
          for (int c = 0; c < 3; ++c) pixel[c] = blend(gray, pixel[c], factor);
        });
      }
      return;
    case ColorOp::hue:
      if constexpr (kChannels == 3) {
        const int shift = hue_shift(factor);
        for_pixels(crop, [&](uint8_t* pixel) { turn_hue(pixel, shift); });
      }
      return;
  }
}

__device__ uint8_t weighed(uint32_t inner, uint32_t outer, const BoxFilter& filter) {
  return static_cast<uint8_t>((filter.full * inner + filter.edge * outer + (1u << 23)) >> 24);
}

/// One pass along a line whose values lie `step` bytes apart, in place: a window of values moves along with the place.
template <int kRadius>
__device__ void box_pass_in_place(uint8_t* line, int step, int count, const BoxFilter& filter) {
  constexpr int kReach = kRadius + 1, kAtOnce = 4;
  uint32_t window[2 * kReach + kAtOnce];  // the old values from x - kReach on
#pragma unroll
  for (int i = 0; i < kReach; ++i) {
    window[i] = line[0];
    window[kReach + i] = line[min(i, count - 1) * step];
  }
  for (int x = 0; x < count; x += kAtOnce) {
#pragma unroll
    for (int i = 0; i < kAtOnce; ++i) window[2 * kReach + i] = line[min(x + kReach + i, count - 1) * step];
#pragma unroll
    for (int i = 0; i < kAtOnce; ++i) {
      uint32_t inner = 0;
#pragma unroll
      for (int d = 1; d < 2 * kReach; ++d) inner += window[i + d];
      if (x + i < count) line[(x + i) * step] = weighed(inner, window[i] + window[i + 2 * kReach], filter);
    }
#pragma unroll
    for (int i = 0; i < 2 * kReach; ++i) window[i] = window[i + kAtOnce];
  }
}

/// One pass along a line, into another line.
__device__ void box_pass(const uint8_t* in, int in_step, uint8_t* out, int out_step, int count,
                         const BoxFilter& filter) {
  const auto at = [&](int x) { return uint32_t{in[int64_t{min(max(x, 0), count - 1)} * in_step]}; };
  const int radius = filter.radius;
  uint32_t inner = 0;
  for (int d = -radius; d <= radius; ++d) inner += at(d);
  for (int x = 0; x < count; ++x) {
    const uint32_t next = at(x + radius + 1);
    out[int64_t{x} * out_step] = weighed(inner, at(x - radius - 1) + next, filter);
    inner += next - at(x - radius);
  }
}

template <int kRadius, int kChannels>
__device__ void blur_in_place(const Canvas& crop, const BoxFilter& filter) {
  const int lines = crop.size * kChannels;
  for (int i = static_cast<int>(threadIdx.x); i < lines; i += static_cast<int>(blockDim.x)) {
    uint8_t* line = crop.row(i % crop.size) + i / crop.size;
    for (int pass = 0; pass < 3; ++pass) box_pass_in_place<kRadius>(line, kChannels, crop.size, filter);
  }
  __syncthreads();
  for (int i = static_cast<int>(threadIdx.x); i < lines; i += static_cast<int>(blockDim.x)) {
    for (int pass = 0; pass < 3; ++pass) box_pass_in_place<kRadius>(crop.pixels + i, crop.pitch, crop.size, filter);
  }
}

/// The same for any radius, back and forth between two canvases. The result ends where it was.
template <int kChannels>
__device__ void blur(const Canvas& crop, const Canvas& other, const BoxFilter& filter) {
  const int lines = crop.size * kChannels;
  for (int i = static_cast<int>(threadIdx.x); i < lines; i += static_cast<int>(blockDim.x)) {
    uint8_t* line = crop.row(i % crop.size) + i / crop.size;
    uint8_t* copy = other.row(i % crop.size) + i / crop.size;
    box_pass(line, kChannels, copy, kChannels, crop.size, filter);
    box_pass(copy, kChannels, line, kChannels, crop.size, filter);
    box_pass(line, kChannels, copy, kChannels, crop.size, filter);
  }
  __syncthreads();
  for (int i = static_cast<int>(threadIdx.x); i < lines; i += static_cast<int>(blockDim.x)) {
    uint8_t *line = crop.pixels + i, *copy = other.pixels + i;
    box_pass(copy, other.pitch, line, crop.pitch, crop.size, filter);
    box_pass(line, crop.pitch, copy, other.pitch, crop.size, filter);
    box_pass(copy, other.pitch, line, crop.pitch, crop.size, filter);
  }
}

/// Mean and deviation of a pixel's channels, and of those that follow when four values begin with any of them.
struct ScaleTable {
  static constexpr int kEntries = 7;
  float mean[kEntries], deviation[kEntries];

  /// To be followed by a barrier.
  template <int kChannels>
  __device__ void fill(const PixelScale& scale) {
    if (threadIdx.x != 0) return;
#pragma unroll
    for (int i = 0; i < kEntries; ++i) {
      mean[i] = scale.mean[i % kChannels];
      deviation[i] = scale.deviation[i % kChannels];
    }
  }
};

/// Four values in one access, which the compiler would split; nobody reads them through this multiprocessor's cache.
__device__ void store_pack(float* to, const float (&from)[4]) {
  __stcg(reinterpret_cast<float4*>(to), make_float4(from[0], from[1], from[2], from[3]));
}
__device__ void store_pack(bf16* to, const float (&from)[4]) {
  const auto both = [](float low, float high) {
    return uint32_t{__bfloat16_as_ushort(__float2bfloat16_rn(high))} << 16 |
           __bfloat16_as_ushort(__float2bfloat16_rn(low));
  };
  __stcg(reinterpret_cast<uint2*>(to), make_uint2(both(from[0], from[1]), both(from[2], from[3])));
}

/// Normalises and writes the crop, four values at a time if `kPacks`.
template <int kChannels, bool kPacks, class T>
__device__ void write(const Canvas& crop, const ScaleTable& scale, T* out) {
  const int values = crop.size * kChannels;
  for_rows(crop.size, (values + 3) / 4, [&](int y, int i) {
    const uint32_t word = reinterpret_cast<const uint32_t*>(crop.row(y))[i];
    float result[4];
#pragma unroll
    for (int b = 0; b < 4; ++b) {
      const int entry = 4 * i % kChannels + b;
      result[b] = normalized(byte_of(word, b), scale.mean[entry], scale.deviation[entry]);
    }
    T* to = out + int64_t{y} * values + 4 * i;
    if constexpr (kPacks) {
      store_pack(to, result);
    } else {
#pragma unroll
      for (int b = 0; b < 4; ++b)
        if (4 * i + b < values) to[b] = from_float<T>(result[b]);
    }
  });
}

template <int kChannels, bool kInShared, class T>
__global__ void __launch_bounds__(kMaxThreads, 1)
    finish(CropSelection selection, CropPixels crops, int shared_pitch, uint8_t* spare, PixelScale scale, T* out) {
  extern __shared__ uint32_t shared[];
  __shared__ ScaleTable table;
  table.fill<kChannels>(scale);
  const int64_t index = blockIdx.x;
  const CropDescriptor& plan = selection[index];
  const Canvas stored{crops.crop(index), crops.size, crops.pitch()};
  Canvas crop = stored, other = stored;
  if constexpr (kInShared) {
    crop = {reinterpret_cast<uint8_t*>(shared), crops.size, shared_pitch};
    for_rows(crop.size, stored.pitch / 4, [&](int y, int i) {
      reinterpret_cast<uint32_t*>(crop.row(y))[i] = reinterpret_cast<const uint32_t*>(stored.row(y))[i];
    });
  } else {
    other.pixels = spare + index * crops.crop_bytes();
  }
  __syncthreads();  // the table is there

  for (int i = 0; i < plan.color_steps; ++i) apply<kChannels>(plan.color[i], crop);
  if constexpr (kChannels == 3) {
    if (plan.gray)
      for_pixels(crop, [&](uint8_t* pixel) { pixel[0] = pixel[1] = pixel[2] = luma(pixel[0], pixel[1], pixel[2]); });
  }
  const BoxFilter filter = plan.blur;
  if (filter.radius >= 0) {
    __syncthreads();
    if (filter.radius == 0)
      blur_in_place<0, kChannels>(crop, filter);
    else if (filter.radius == 1)
      blur_in_place<1, kChannels>(crop, filter);
    else
      blur<kChannels>(crop, other, filter);
    __syncthreads();
  }
  if (plan.solarize) map_values<kChannels>(crop, [](int value) { return solarized(value); });
  out += index * crop.size * crop.size * kChannels;
  if (crop.size * kChannels % 4 == 0 && reinterpret_cast<uintptr_t>(out) % (4 * sizeof(T)) == 0)
    write<kChannels, true>(crop, table, out);
  else
    write<kChannels, false>(crop, table, out);
}

int odd_pitch(const CropPixels& crops) { return crops.pitch() / 4 % 2 == 1 ? crops.pitch() : crops.pitch() + 4; }

size_t shared_bytes(const CropPixels& crops) { return size_t(crops.size) * odd_pitch(crops); }

}  // namespace render_crops_finish_cu

bool crops_fit_shared_memory(const CropPixels& crops) {
  int device = 0, most = 0;
  check(cudaGetDevice(&device), "finish crops");
  check(cudaDeviceGetAttribute(&most, cudaDevAttrMaxSharedMemoryPerBlockOptin, device), "finish crops");
  constexpr size_t kStatic = 1024;  // more than the partial sums, and what the system reserves
  return shared_bytes(crops) + kStatic <= static_cast<size_t>(most);
}

void finish_crops(CudaStream& stream, const CropSelection& selection, const CropPixels& crops, uint8_t* spare,
                  const PixelScale& scale, const View& out) {
  const bool in_shared = crops_fit_shared_memory(crops);
  const unsigned threads = static_cast<unsigned>(std::min(kMaxThreads, (crops.row_values() + 31) / 32 * 32));
  const Grid grid{static_cast<unsigned>(selection.count), threads, in_shared ? shared_bytes(crops) : 0};
  with_channels(crops.channels, [&](auto channels) {
    with_dtype(out.dtype, [&](auto zero) {
      using T = decltype(zero);
      T* rows = out.as<T>() + selection.begin * crops.size * crops.size * crops.channels;
      const auto kernel = in_shared ? finish<channels, true, T> : finish<channels, false, T>;
      launch(stream, "finish crops", kernel, grid, selection, crops, odd_pitch(crops), spare, scale, rows);
    });
  });
}

}  // namespace dino::cuda
