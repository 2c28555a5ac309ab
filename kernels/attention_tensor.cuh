#pragma once

#include "kernels/attention_kernels.cuh"

/// Attention on tensor cores (`mma.sync.m16n8k16`, bf16 with f32 sums) with heads of 64 columns: what its
/// kernels share.
///
/// Rows of a head lie in shared memory as 8 chunks of 16 bytes, chunk c of row r at place c ^ (r % 8): rows
/// of one chunk, which `ldmatrix` reads, and chunks of one row, which copies write, touch every bank once.
///
/// Fragments, with lane = 4 g + t: of a 16 × 8 accumulator a lane holds rows g and g + 8, columns 2t and
/// 2t + 1; two accumulators side by side are, rounded to bf16, a 16 × 16 left operand.
namespace dino::cuda::tensor {

constexpr int kRowBytes = kTensorHeadDim * 2, kTile = 16;

inline __device__ int lane() { return static_cast<int>(threadIdx.x) % 32; }
inline __device__ int warp() { return static_cast<int>(threadIdx.x) / 32; }

/// Tiles that hold `rows` rows.
__host__ __device__ constexpr int tiles_of(int rows) { return (rows + kTile - 1) / kTile; }

inline __device__ uint32_t shared_address(const void* p) {
  return static_cast<uint32_t>(__cvta_generic_to_shared(p));
}

inline __device__ uint32_t chunk_place(int row, int chunk) {
  return static_cast<uint32_t>(row * kRowBytes + ((chunk ^ (row & 7)) << 4));
}

inline __device__ void ldmatrix(uint32_t (&to)[4], uint32_t address) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3])
               : "r"(address)
               : "memory");
}

inline __device__ void ldmatrix_transposed(uint32_t (&to)[4], uint32_t address) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3])
               : "r"(address)
               : "memory");
}

/// c += a · b.
inline __device__ void mma(float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
      "{%0, %1, %2, %3};"
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

/// The same where only the first 8 of the 16 columns of a, and rows of b, are not zero.
inline __device__ void mma_half(float (&c)[4], const uint32_t (&a)[4], uint32_t b) {
  asm volatile(
      "mma.sync.aligned.m16n8k8.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5}, {%6}, {%0, %1, %2, %3};"
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
      : "r"(a[0]), "r"(a[1]), "r"(b));
}

/// 2^x within 2 ulp, which is exact beside the rounding of probabilities to bf16.
inline __device__ float exp2_fast(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}

inline __device__ uint32_t pack(float low, float high) {
  const __nv_bfloat162 both = __floats2bfloat162_rn(low, high);
  return reinterpret_cast<const uint32_t&>(both);
}

/// Places in a block of rows of what lanes pass to `ldmatrix`. Rows of the block start at a multiple of 8.
struct LanePlaces {
  uint32_t by_column;  ///< 8 rows × 32 columns, right operand whose rows are columns of the product; ^ 64:
                       ///< the next 32
  uint32_t
      by_row;  ///< 16 rows × 16 columns, left operand, or transposed right operand; ^ (c << 5): columns 16c …

  __device__ LanePlaces()
      : by_column(chunk_place(lane() % 8, lane() / 8)), by_row(chunk_place(lane() % 16, lane() / 16)) {}
};

inline __device__ void copy_async(uint32_t to, const void* from, bool valid) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(to), "l"(from), "r"(valid ? 16 : 0)
               : "memory");
}
inline __device__ void commit_copies() { asm volatile("cp.async.commit_group;" ::: "memory"); }
/// Waits for the lane's copies but for the last `Newer` groups.
template <int Newer>
__device__ void wait_for_copies() {
  asm volatile("cp.async.wait_group %0;" ::"n"(Newer) : "memory");
}

/// Warps that work on one piece, a head of a sequence. A block has as many such teams as it has warps for.
struct Team {
  int number, warp, warps;  ///< in the block; in the team

  /// `most`: warps that one piece can occupy.
  __device__ explicit Team(int most)
      : number(tensor::warp() / most), warp(tensor::warp() % most), warps(min(most, static_cast<int>(blockDim.x) / 32)) {}
  /// Whether the warp is one of those that are left over.
  __device__ bool idle() const { return (number + 1) * warps > static_cast<int>(blockDim.x) / 32; }
  __device__ int thread() const { return warp * 32 + lane(); }
  __device__ int threads() const { return warps * 32; }

  /// Waits until all of the team are here.
  __device__ void sync() const {
    asm volatile("bar.sync %0, %1;" ::"r"(number + 1), "r"(threads()) : "memory");
  }
};

/// Pieces per block of `warps` warps.
__host__ __device__ constexpr int pieces_per_block(int most, int warps) { return most < warps ? warps / most : 1; }

/// Starts to copy rows [first, first + count) of a head to shared memory, with `threads` threads of which this one has the
/// number `thread`; zeros for rows from `end` on.
inline __device__ void copy_rows_async(uint32_t to, int count, const HeadRows<const bf16>& from, int64_t base,
                                       int first, int end, int col, int thread = static_cast<int>(threadIdx.x),
                                       int threads = static_cast<int>(blockDim.x)) {
  const bf16* origin = from.at(base + first, col);
  for (int i = thread; i < count * 8; i += threads) {
    const int row = i / 8, chunk = i % 8;
    const bool valid = first + row < end;
    copy_async(to + chunk_place(row, chunk), valid ? origin + row * from.stride + chunk * 8 : from.data,
               valid);
  }
}

/// Turns the two pairs of columns that a lane has in neighbouring 8-column tiles, 2t and 8 + 2t, into four
/// columns in a row, `quad_column`, and back. So four lanes move 32 bytes of a row at once.
inline __device__ void exchange_columns(uint32_t& low, uint32_t& high) {
  const bool odd = threadIdx.x & 1;
  const uint32_t other = __shfl_xor_sync(0xFFFFFFFFu, odd ? low : high, 1);
  if (odd)
    low = other;
  else
    high = other;
}
inline __device__ int quad_column() { return (lane() & 1) * 8 + (lane() & 2) * 2; }

/// The left operand of 16 rows from `first` on, straight from global memory; zeros for rows from `end` on.
inline __device__ void load_rows(uint32_t (&a)[4][4], const HeadRows<const bf16>& from, int64_t base,
                                 int first, int end, int col) {
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const int row = first + lane() / 4 + 8 * half;
#pragma unroll
    for (int c = 0; c < 4; ++c) {
      uint2 pair = make_uint2(0, 0);
      if (row < end)
        pair = *reinterpret_cast<const uint2*>(from.at(base + row, col + 16 * c + quad_column()));
      exchange_columns(pair.x, pair.y);
      a[c][half] = pair.x;
      a[c][half + 2] = pair.y;
    }
  }
}

/// Stores rows g and g + 8 of columns [16c, 16c + 16), two accumulators times `factors`; or adds them. All
/// lanes of the warp must call it.
inline __device__ void store_columns(const HeadRows<bf16>& to, int64_t base, int first, int end, int col,
                                     const float (&left)[4], const float (&right)[4],
                                     const float (&factors)[2], bool add) {
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const float* l = left + 2 * half;
    const float* r = right + 2 * half;
    const float f = factors[half];
    const int row = first + lane() / 4 + 8 * half;
    if (!add) {
      uint2 pair = make_uint2(pack(l[0] * f, l[1] * f), pack(r[0] * f, r[1] * f));
      exchange_columns(pair.x, pair.y);
      if (row < end) *reinterpret_cast<uint2*>(to.at(base + row, col + quad_column())) = pair;
    } else if (row < end) {  // pairs of columns, so that the sum is rounded once
      __nv_bfloat162* a = reinterpret_cast<__nv_bfloat162*>(to.at(base + row, col + lane() % 4 * 2));
      __nv_bfloat162* b = reinterpret_cast<__nv_bfloat162*>(to.at(base + row, col + lane() % 4 * 2 + 8));
      const float2 x = __bfloat1622float2(*a), y = __bfloat1622float2(*b);
      *a = __floats2bfloat162_rn(x.x + l[0] * f, x.y + l[1] * f);
      *b = __floats2bfloat162_rn(y.x + r[0] * f, y.y + r[1] * f);
    }
  }
}

}  // namespace dino::cuda::tensor
