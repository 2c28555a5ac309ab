#pragma once

#include "exec/interleave.h"
#include "exec/lanes.h"
#include "exec/memory.h"

/// Elements of 1 to 8 bytes, 1 to 4 per lane, between memory and registers of the same width or a larger one.
namespace emulator {

template <int Bytes>
struct Unsigned;
template <>
struct Unsigned<1> {
  using type = std::uint8_t;
  using sign = std::int8_t;
};
template <>
struct Unsigned<2> {
  using type = std::uint16_t;
  using sign = std::int16_t;
};
template <>
struct Unsigned<4> {
  using type = std::uint32_t;
  using sign = std::int32_t;
};
template <>
struct Unsigned<8> {
  using type = std::uint64_t;
  using sign = std::int64_t;
};

template <int V>
void move_in_words(const Warp& warp, const Slot* slots, const std::uint8_t* memory) {
  const auto d = [&](int v) { return warp.lanes<std::uint32_t>(slots[v]); };
  if constexpr (V == 2) {
    take_of_pairs<0>(memory, d(0));
    take_of_pairs<1>(memory, d(1));
  } else {
    take_of_fours<0>(memory, d(0));
    take_of_fours<1>(memory, d(1));
    take_of_fours<2>(memory, d(2));
    take_of_fours<3>(memory, d(3));
  }
}

template <int V>
void move_out_words(const Warp& warp, const Slot* slots, std::uint8_t* memory) {
  const auto s = [&](int v) { return warp.lanes<std::uint32_t>(slots[v]); };
  if constexpr (V == 2)
    put_pairs(memory, s(0), s(1));
  else
    put_fours(memory, s(0), s(1), s(2), s(3));
}

// Elements of B bytes in memory, V per lane, into registers of R bytes; wider registers are filled by sign or
// zero extension.
template <int B, int V, int R, bool Signed>
void move_in(Warp& warp, const Ins& ins, Mask active, const Resolved& resolved) {
  using Memory = std::conditional_t<Signed, typename Unsigned<B>::sign, typename Unsigned<B>::type>;
  using Register = typename Unsigned<R>::type;
  const Slot* slots = &warp.frame->program->slots[ins.list];
  if constexpr (B == 4 && R == 4 && V > 1) {
    if (resolved.contiguous != nullptr) return move_in_words<V>(warp, slots, resolved.contiguous);
  }
  for (int v = 0; v < V; ++v) {
    Register* d = warp.lanes<Register>(slots[v]);
    if (resolved.contiguous != nullptr) {
      const auto* source = reinterpret_cast<const Memory*>(resolved.contiguous) + v;
#pragma GCC ivdep
      for (int lane = 0; lane < kLanes; ++lane) d[lane] = static_cast<Register>(source[lane * V]);
    } else if (resolved.uniform) {
      Memory value;
      std::memcpy(&value, resolved.pointer[0] + v * B, B);
      map_lanes(
          active, d, [value](Register) { return static_cast<Register>(value); }, d);
    } else {
      Register values[kLanes];
      for (int lane = 0; lane < kLanes; ++lane) {
        Memory value;
        std::memcpy(&value, resolved.pointer[lane] + v * B, B);
        values[lane] = static_cast<Register>(value);
      }
      map_lanes(
          active, d, [](Register value) { return value; }, static_cast<const Register*>(values));
    }
  }
}

template <int B, int V, int R>
void move_out(Warp& warp, const Ins& ins, Mask active, const Resolved& resolved) {
  using Memory = typename Unsigned<B>::type;
  using Register = typename Unsigned<R>::type;
  const Slot* slots = &warp.frame->program->slots[ins.list];
  if constexpr (B == 4 && R == 4 && V > 1) {
    if (resolved.contiguous != nullptr) return move_out_words<V>(warp, slots, resolved.contiguous);
  }
  for (int v = 0; v < V; ++v) {
    const Register* s = warp.lanes<Register>(slots[v]);
    if (resolved.contiguous != nullptr) {
      auto* target = reinterpret_cast<Memory*>(resolved.contiguous) + v;
#pragma GCC ivdep
      for (int lane = 0; lane < kLanes; ++lane) target[lane * V] = static_cast<Memory>(s[lane]);
    } else {
      each_lane(active, [&](int lane) {
        const auto value = static_cast<Memory>(s[lane]);
        std::memcpy(resolved.pointer[lane] + v * B, &value, B);
      });
    }
  }
}

/// Parameters of the kernel: the same bytes for all lanes.
template <int B, int V, int R, bool Signed>
void load_kernel_param(Warp& warp, const Ins& ins, Mask active, const std::uint64_t* offset) {
  Resolved resolved;
  const auto params = warp.launch->params;
  const int first = __builtin_ctz(active);
  resolved.uniform = true;
  each_lane(active, [&](int lane) {
    resolved.uniform = resolved.uniform && offset[lane] == offset[first];
    if (offset[lane] > params.size() || offset[lane] + B * V > params.size()) {
      report(warp, FindingKind::out_of_bounds, lane, offset[lane],
             "read past the end of the kernel's parameters", 700);
      throw KernelFault{700};
    }
    if (offset[lane] % (B * V) != 0)
      report(warp, FindingKind::misaligned, lane, offset[lane], "misaligned read of the kernel's parameters",
             716);
  });
  for (int lane = 0; lane < kLanes; ++lane)
    resolved.pointer[lane] =
        const_cast<std::uint8_t*>(&params[offset[(active >> lane & 1u) != 0 ? lane : first]]);
  move_in<B, V, R, Signed>(warp, ins, active, resolved);
}

/// .param space: the kernel's parameters, and those of device functions in their frame. Null for widths that
/// do not go together.
Run pick_load_param(int bytes, int count, int register_bytes, bool sign);
Run pick_load_frame_param(int bytes, int count, int register_bytes, bool sign);
Run pick_store_frame_param(int bytes, int count, int register_bytes, bool sign);

// Defines pick_F, which gives the instance of a handler template for run-time widths.
#define PICK_REGISTER(F, B, V)                                           \
  if (wide == B) return &F<B, V, B, false>;                              \
  if constexpr (B <= 2 && B < 2)                                         \
    if (wide == 2) return sign ? &F<B, V, 2, true> : &F<B, V, 2, false>; \
  if constexpr (B < 4)                                                   \
    if (wide == 4) return sign ? &F<B, V, 4, true> : &F<B, V, 4, false>; \
  if constexpr (B < 8)                                                   \
    if (wide == 8) return sign ? &F<B, V, 8, true> : &F<B, V, 8, false>; \
  return nullptr;
#define PICK_WIDTHS(F)                                                                                       \
  template <int B, int V>                                                                                    \
  Run F##_of_width(int wide, bool sign){PICK_REGISTER(F, B, V)} Run pick_##F(int bytes, int count, int wide, \
                                                                             bool sign) {                    \
    switch (bytes * 16 + count) {                                                                            \
      case 17:                                                                                               \
        return F##_of_width<1, 1>(wide, sign);                                                               \
      case 18:                                                                                               \
        return F##_of_width<1, 2>(wide, sign);                                                               \
      case 20:                                                                                               \
        return F##_of_width<1, 4>(wide, sign);                                                               \
      case 33:                                                                                               \
        return F##_of_width<2, 1>(wide, sign);                                                               \
      case 34:                                                                                               \
        return F##_of_width<2, 2>(wide, sign);                                                               \
      case 36:                                                                                               \
        return F##_of_width<2, 4>(wide, sign);                                                               \
      case 65:                                                                                               \
        return F##_of_width<4, 1>(wide, sign);                                                               \
      case 66:                                                                                               \
        return F##_of_width<4, 2>(wide, sign);                                                               \
      case 68:                                                                                               \
        return F##_of_width<4, 4>(wide, sign);                                                               \
      case 129:                                                                                              \
        return F##_of_width<8, 1>(wide, sign);                                                               \
      case 130:                                                                                              \
        return F##_of_width<8, 2>(wide, sign);                                                               \
      default:                                                                                               \
        return nullptr;                                                                                      \
    }                                                                                                        \
  }

}  // namespace emulator
