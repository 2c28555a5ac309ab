// Integer arithmetic and the intrinsics on bits, bytes and halves, against plain C++ on the host.
#include <algorithm>
#include <climits>

#include "compare.h"

namespace {

using u8 = unsigned char;
using u16 = unsigned short;
using u32 = unsigned;
using u64 = unsigned long long;
using s64 = long long;

/// Numbers at the edges, and some of any size.
template <class T>
std::vector<T> interesting(int n) {
  std::vector<T> values{T(0),
                        T(1),
                        T(2),
                        T(-1),
                        T(-2),
                        T(3),
                        T(7),
                        std::numeric_limits<T>::max(),
                        std::numeric_limits<T>::min(),
                        T(std::numeric_limits<T>::max() - 1),
                        T(std::numeric_limits<T>::min() + 1),
                        T(0x80),
                        T(0xff),
                        T(100),
                        T(-100)};
  u64 state = 88172645463325252ull;
  while (static_cast<int>(values.size()) < n) {
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    values.push_back(static_cast<T>(state >> (state % (sizeof(T) * 8))));
  }
  return values;
}

// ---- what the language has ----

template <class T>
constexpr T kLeast = std::numeric_limits<T>::min();

template <class T>
struct Results {
  T sum, difference, product, quotient, remainder, left, right, conjunction, negative, least, absolute;
  int less, widened;
};

// Overflow wraps around: computed without signs where C++ leaves it open.
template <class T>
__host__ __device__ void arithmetic(T a, T b, Results<T>& r) {
  using U = std::make_unsigned_t<T>;
  r.sum = static_cast<T>(static_cast<U>(static_cast<U>(a) + static_cast<U>(b)));
  r.difference = static_cast<T>(static_cast<U>(static_cast<U>(a) - static_cast<U>(b)));
  r.product = static_cast<T>(static_cast<U>(static_cast<u64>(a) * static_cast<u64>(b)));
  const bool divides = b != 0 && !(std::is_signed<T>::value && a == kLeast<T> && b == static_cast<T>(-1));
  r.quotient = divides ? static_cast<T>(a / b) : T(0);
  r.remainder = divides ? static_cast<T>(a % b) : T(0);
  const int shift = static_cast<int>(static_cast<U>(b) % (sizeof(T) * 8));
  r.left = static_cast<T>(static_cast<U>(static_cast<U>(a) << shift));
  r.right = static_cast<T>(a >> shift);
  r.conjunction = static_cast<T>((a & b) | (a ^ static_cast<T>(~b)));
  r.negative = static_cast<T>(static_cast<U>(0 - static_cast<u64>(a)));
  r.least = a < b ? a : b;
  r.absolute = a < T(1) ? r.negative : a;
  r.less = (a < b) + 2 * (a <= b) + 4 * (a == b);
  r.widened =
      static_cast<int>(a) + static_cast<int>(static_cast<float>(b) * 0.25f > 3) + static_cast<signed char>(b);
}

template <class T>
__global__ void do_arithmetic(Results<T>* out, const T* a, int n) {
  const int i = static_cast<int>(blockIdx.x), j = static_cast<int>(threadIdx.x);
  if (j < n) arithmetic(a[i], a[j], out[i * n + j]);
}

template <class T>
void check_arithmetic(const char* type) {
  constexpr int kN = 48;
  Array<T> in(interesting<T>(kN));
  Array<Results<T>> out(kN * kN);
  do_arithmetic<T><<<kN, 64>>>(out, in, kN);
  finish(type);
  out.fetch();
  for (int i = 0; i < kN * kN; ++i) {
    Results<T> r{};
    const T a = in.host[static_cast<std::size_t>(i / kN)], b = in.host[static_cast<std::size_t>(i % kN)];
    arithmetic(a, b, r);
    const Results<T>& g = out.host[static_cast<std::size_t>(i)];
    const bool right = g.sum == r.sum && g.difference == r.difference && g.product == r.product &&
                       g.quotient == r.quotient && g.remainder == r.remainder && g.left == r.left &&
                       g.right == r.right && g.conjunction == r.conjunction && g.negative == r.negative &&
                       g.least == r.least && g.absolute == r.absolute && g.less == r.less &&
                       g.widened == r.widened;
    if (right) continue;
    std::printf("failed: arithmetic of %s: a %lld, b %lld\n", type, static_cast<s64>(a), static_cast<s64>(b));
    ++failures();
    return;
  }
}

// ---- intrinsics ----

constexpr int kBits = 44;

__global__ void bits(u64* out, const u32* numbers, int n) {
  const int i = static_cast<int>(blockIdx.x), j = static_cast<int>(threadIdx.x);
  const u32 a = numbers[i], b = numbers[j], c = numbers[(i * 7 + j) % n];
  const u64 wide = static_cast<u64>(a) << 32 | b, other = static_cast<u64>(c) << 32 | a;
  const int sa = static_cast<int>(a), sb = static_cast<int>(b), sc = static_cast<int>(c);
  u64* r = out + (i * n + j) * kBits;
  const auto put = [&](auto value) { *r++ = static_cast<u64>(value); };
  put(__popc(a)), put(__popcll(wide)), put(__clz(sa)), put(__clzll(static_cast<s64>(wide))), put(__ffs(sa)),
      put(__ffsll(static_cast<s64>(wide)));
  put(__brev(a)), put(__brevll(wide)), put(__byte_perm(a, b, c)), put(__funnelshift_l(a, b, c)),
      put(__funnelshift_r(a, b, c));
  put(__funnelshift_lc(a, b, c & 63)), put(__funnelshift_rc(a, b, c & 63)), put(__mulhi(sa, sb)),
      put(__umulhi(a, b)), put(__mul64hi(static_cast<s64>(wide), static_cast<s64>(other)));
  put(__umul64hi(wide, other)), put(__mul24(sa, sb)), put(__umul24(a, b)), put(__sad(sa, sb, c)),
      put(__usad(a, b, c));
  put(__hadd(sa, sb)), put(__rhadd(sa, sb)), put(__uhadd(a, b)), put(__urhadd(a, b));
  put(__dp4a(sa, sb, sc)), put(__dp4a(a, b, c)), put(__dp2a_lo(sa, sb, sc)), put(__dp2a_hi(a, b, c));
  put(__vadd4(a, b)), put(__vsub4(a, b)), put(__vmaxs2(a, b)), put(__vminu4(a, b)), put(__vabsdiffu4(a, b)),
      put(__vcmpgts4(a, b)), put(__vaddss2(a, b));
  put(__vavgu4(a, b)), put(__vnegss4(a)), put(__vseteq4(a, b)), put(__vabs2(a)), put(__sad(sb, sc, a)),
      put(abs(sa)), put(min(sa, sb)), put(max(wide, other));
}

template <class T, class F>
u32 each_part(u32 a, u32 b, F f) {
  u32 result = 0;
  constexpr int kWidth = sizeof(T) * 8;
  for (int at = 0; at < 32; at += kWidth) {
    const int value = f(static_cast<int>(static_cast<T>(a >> at)), static_cast<int>(static_cast<T>(b >> at)));
    result |= (static_cast<u32>(value) & (kWidth == 8 ? 0xffu : 0xffffu)) << at;
  }
  return result;
}

std::vector<u64> bits_on_host(u32 a, u32 b, u32 c) {
  const u64 wide = static_cast<u64>(a) << 32 | b, other = static_cast<u64>(c) << 32 | a;
  const int sa = static_cast<int>(a), sb = static_cast<int>(b), sc = static_cast<int>(c);
  std::vector<u64> r;
  const auto put = [&](auto value) { r.push_back(static_cast<u64>(value)); };
  const auto count = [](u64 v, int width) {
    int n = 0;
    for (int i = 0; i < width; ++i) n += v >> i & 1;
    return n;
  };
  const auto leading = [](u64 v, int width) {
    int n = 0;
    while (n < width && (v >> (width - 1 - n) & 1) == 0) ++n;
    return n;
  };
  const auto first = [](u64 v, int width) {
    for (int i = 0; i < width; ++i)
      if (v >> i & 1) return i + 1;
    return 0;
  };
  const auto reverse = [](u64 v, int width) {
    u64 x = 0;
    for (int i = 0; i < width; ++i) x |= (v >> i & 1) << (width - 1 - i);
    return x;
  };
  put(count(a, 32)), put(count(wide, 64)), put(leading(a, 32)), put(leading(wide, 64)), put(first(a, 32)),
      put(first(wide, 64));
  put(reverse(a, 32)), put(reverse(wide, 64));
  u32 bytes = 0;
  for (int i = 0; i < 4; ++i)
    bytes |= static_cast<u32>((static_cast<u64>(b) << 32 | a) >> 8 * (c >> 4 * i & 7) & 0xff) << 8 * i;
  put(bytes);
  const u64 pair = static_cast<u64>(b) << 32 | a;
  const u32 clamped = std::min(c & 63, 32u);
  put(static_cast<u32>(pair << (c & 31) >> 32)), put(static_cast<u32>(pair >> (c & 31)));
  put(clamped == 32 ? a : static_cast<u32>(pair << clamped >> 32)), put(static_cast<u32>(pair >> clamped));
  put(static_cast<int>(static_cast<s64>(sa) * sb >> 32)), put(static_cast<u64>(a) * b >> 32);
  put(static_cast<s64>(static_cast<__int128>(static_cast<s64>(wide)) * static_cast<s64>(other) >> 64)),
      put(static_cast<u64>(static_cast<unsigned __int128>(wide) * other >> 64));
  const auto low24 = [](int v) { return static_cast<s64>(static_cast<int>(static_cast<u32>(v) << 8) >> 8); };
  put(static_cast<int>(low24(sa) * low24(sb))),
      put(static_cast<u32>(static_cast<u64>(a & 0xffffff) * (b & 0xffffff)));
  const auto distance = [](s64 x, s64 y) { return static_cast<u32>(x > y ? x - y : y - x); };
  put(distance(sa, sb) + c), put(distance(a, b) + c);
  const auto half = [](s64 sum) { return sum >> 1; };
  put(static_cast<int>(half(static_cast<s64>(sa) + sb))),
      put(static_cast<int>(half(static_cast<s64>(sa) + sb + 1)));
  put(static_cast<u32>(half(static_cast<s64>(a) + b))),
      put(static_cast<u32>(half(static_cast<s64>(a) + b + 1)));
  u32 dot_signed = c, dot_unsigned = c, dot_low = c, dot_high = c;
  for (int i = 0; i < 4; ++i) {
    dot_signed +=
        static_cast<u32>(static_cast<signed char>(a >> 8 * i) * static_cast<signed char>(b >> 8 * i));
    dot_unsigned += static_cast<u8>(a >> 8 * i) * static_cast<u8>(b >> 8 * i);
  }
  for (int i = 0; i < 2; ++i) {
    dot_low += static_cast<u32>(static_cast<short>(a >> 16 * i) * static_cast<signed char>(b >> 8 * i));
    dot_high += static_cast<u32>(static_cast<u16>(a >> 16 * i)) * static_cast<u8>(b >> (16 + 8 * i));
  }
  put(static_cast<int>(dot_signed)), put(dot_unsigned), put(static_cast<int>(dot_low)), put(dot_high);
  using s8 = signed char;
  put(each_part<u8>(a, b, [](int x, int y) { return x + y; })),
      put(each_part<u8>(a, b, [](int x, int y) { return x - y; }));
  put(each_part<short>(a, b, [](int x, int y) { return std::max(x, y); })),
      put(each_part<u8>(a, b, [](int x, int y) { return std::min(x, y); }));
  put(each_part<u8>(a, b, [](int x, int y) { return std::abs(x - y); })),
      put(each_part<s8>(a, b, [](int x, int y) { return x > y ? 255 : 0; }));
  put(each_part<short>(a, b, [](int x, int y) { return std::clamp(x + y, -32768, 32767); })),
      put(each_part<u8>(a, b, [](int x, int y) { return (x + y + 1) / 2; }));
  put(each_part<s8>(a, b, [](int x, int) { return std::min(-x, 127); })),
      put(each_part<u8>(a, b, [](int x, int y) { return x == y ? 1 : 0; }));
  put(each_part<short>(a, b, [](int x, int) { return std::abs(x); })), put(distance(sb, sc) + a);
  put(sa == INT_MIN ? sa : std::abs(sa)), put(std::min(sa, sb)), put(std::max(wide, other));
  return r;
}

void check_bits() {
  constexpr int kN = 40;
  Array<u32> in(interesting<u32>(kN));
  Array<u64> out(kN * kN * kBits);
  bits<<<kN, kN>>>(out, in, kN);
  finish("bits");
  out.fetch();
  for (int i = 0; i < kN; ++i)
    for (int j = 0; j < kN; ++j) {
      const u32 a = in.host[static_cast<std::size_t>(i)], b = in.host[static_cast<std::size_t>(j)],
                c = in.host[static_cast<std::size_t>((i * 7 + j) % kN)];
      const std::vector<u64> expected = bits_on_host(a, b, c);
      for (int k = 0; k < kBits; ++k) {
        const u64 got = out.host[static_cast<std::size_t>((i * kN + j) * kBits + k)];
        if (got == expected[static_cast<std::size_t>(k)]) continue;
        std::printf("failed: intrinsic %d of %#x, %#x, %#x is %#llx, expected %#llx\n", k, a, b, c, got,
                    expected[static_cast<std::size_t>(k)]);
        if (++failures() > 20) return;
      }
    }
}

// ---- conversions between integers and floating point ----

__global__ void conversions(s64* out, const double* in) {
  const double d = in[threadIdx.x];
  const float f = static_cast<float>(d);
  s64* r = out + threadIdx.x * 14;
  r[0] = __float2int_rn(f), r[1] = __float2int_rz(f), r[2] = __float2int_ru(f), r[3] = __float2int_rd(f);
  r[4] = static_cast<s64>(__float2uint_rn(f)), r[5] = __float2ll_rz(f), r[6] = __double2int_rn(d),
  r[7] = __double2ll_rd(d);
  r[8] = static_cast<s64>(__float_as_uint(__int2float_rz(static_cast<int>(r[6])))),
  r[9] = static_cast<s64>(__float_as_uint(__ll2float_ru(r[7])));
  r[10] = __double_as_longlong(__ll2double_rd(r[5])), r[11] = static_cast<s64>(__double2uint_rz(d));
  r[12] = static_cast<s64>(static_cast<u8>(static_cast<int>(r[1]))),
  r[13] = static_cast<s64>(__float_as_uint(__uint2float_rn(static_cast<u32>(r[4]))));
}

// Towards zero, up and down, from the neighbours of the value that is rounded to nearest.
float toward(s64 value, int direction) {
  const float nearest = static_cast<float>(value);
  const __int128 error = static_cast<__int128>(static_cast<long double>(nearest)) - value;
  if (direction == 0) direction = value > 0 ? -1 : 1;
  if (direction < 0 && error > 0) return std::nextafterf(nearest, -INFINITY);
  if (direction > 0 && error < 0) return std::nextafterf(nearest, INFINITY);
  return nearest;
}

void check_conversions() {
  const std::vector<double> numbers{
      0,           0.5,          1.5,      2.5,       -0.5,       -1.5,          -2.75,      1e9 + 0.5,
      -1e9 - 0.25, 123456789.75, 16777217, -33554435, 2147483520, -2147483648.0, 1e6 + 0.49, 77.999,
      -77.999,     3e5,          -3e5,     255.5,     256.5,      1e-30,         -1e-30,     4e8 + 3,
      99999.5,     -99999.5,     7,        -7,        8.25,       1023.0625,     -1024.5,    65535.5};
  Array<double> in(numbers);
  Array<s64> out(32 * 14);
  conversions<<<1, 32>>>(out, in);
  finish("conversions");
  const auto bits_of = [](float f) {
    u32 b;
    std::memcpy(&b, &f, 4);
    return static_cast<s64>(b);
  };
  std::vector<s64> expected;
  for (const double d : numbers) {
    const float f = static_cast<float>(d);
    const auto clamp = [](double v) { return static_cast<s64>(std::clamp(v, -2147483648.0, 2147483647.0)); };
    const s64 nearest = clamp(std::nearbyint(f)),
              unsigned_nearest = static_cast<s64>(std::max(0.0, std::nearbyint(static_cast<double>(f))));
    const s64 whole = static_cast<s64>(std::trunc(f)), of_double = clamp(std::nearbyint(d)),
              down = static_cast<s64>(std::floor(d));
    double wide = static_cast<double>(whole);
    s64 wide_bits;
    std::memcpy(&wide_bits, &wide, 8);
    for (const s64 v : {nearest, clamp(std::trunc(f)), clamp(std::ceil(f)), clamp(std::floor(f)),
                        unsigned_nearest, whole, of_double, down, bits_of(toward(of_double, 0)),
                        bits_of(toward(down, 1)), wide_bits, static_cast<s64>(std::max(0.0, std::trunc(d))),
                        static_cast<s64>(static_cast<u8>(clamp(std::trunc(f)))),
                        bits_of(static_cast<float>(unsigned_nearest))})
      expected.push_back(v);
  }
  expect_equal("conversions", out.fetch(), expected);
}

}  // namespace

int main() {
  check_arithmetic<signed char>("signed char");
  check_arithmetic<u8>("unsigned char");
  check_arithmetic<short>("short");
  check_arithmetic<u16>("unsigned short");
  check_arithmetic<int>("int");
  check_arithmetic<u32>("unsigned");
  check_arithmetic<s64>("long long");
  check_arithmetic<u64>("unsigned long long");
  check_bits();
  check_conversions();
  return status();
}
