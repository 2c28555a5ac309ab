#pragma once

#include "exec/access.h"
#include "exec/decoder.h"

namespace emulator {

/// Host memory behind one request of a warp, checked: bounds, alignment, initialisation.
struct Resolved {
  std::uint8_t* contiguous = nullptr;  // all 32 lanes side by side, in lane order; null: use pointer[]
  bool uniform = false;                // reads: all lanes have the same address
  std::uint8_t* pointer[kLanes];       // lanes that are not active point to the memory of one that is
  std::uint8_t scratch[kLanes][16];    // stands for memory with bytes that nobody wrote: those are 0xFF
};

/// Checks a request and finds its memory. Reads: reports bytes that nobody wrote. Writes: marks them as
/// written. Calls no race check and no counters. Throws KernelFault for addresses outside of live objects and
/// misaligned ones.
void resolve(Warp& warp, const Access& access, Resolved& resolved);

/// Tells the race check and the counters, if they are on.
void observe(Warp& warp, const Access& access);

/// Lane addresses of an instruction: slot ins.a (64-bit lanes if aux2 & 1, otherwise 32-bit) + ins.imm.
void lane_addresses(const Warp& warp, const Ins& ins, std::uint64_t* address);

/// The spaces that an instruction can name; generic addresses are sorted by the window that they point into.
enum class Window : std::uint8_t { global, shared, local, constant, param, generic };

/// Calls f(where, active lanes, addresses in that space) for each space that generic addresses point into.
template <class F>
void sort_generic(const std::uint64_t* address, Mask active, F&& f) {
  const AddressSpace& space = DeviceMemory::instance().space();
  Mask shared = 0, local = 0, param = 0;
  for (int lane = 0; lane < kLanes; ++lane) {
    const std::uint64_t a = address[lane];
    shared |= static_cast<Mask>(a >= space.shared_begin && a < space.shared_end) << lane;
    local |= static_cast<Mask>(a >= space.local_begin && a < space.local_end) << lane;
    param |= static_cast<Mask>(a >= space.param_begin && a < space.param_end) << lane;
  }
  shared &= active, local &= active, param &= active;
  const auto shifted = [&](Window window, Mask lanes, std::uint64_t begin) {
    if (lanes == 0) return;
    std::uint64_t moved[kLanes];
    for (int lane = 0; lane < kLanes; ++lane) moved[lane] = address[lane] - begin;
    f(window, lanes, static_cast<const std::uint64_t*>(moved));
  };
  shifted(Window::shared, shared, space.shared_begin);
  shifted(Window::local, local, space.local_begin);
  shifted(Window::param, param, space.param_begin);
  if (const Mask rest = active & ~(shared | local | param); rest != 0) f(Window::global, rest, address);
}

/// Decodes the modifiers between an opcode and its type that say how strong an access is: .volatile,
/// .relaxed, .acquire, .release, .acq_rel, scope. Leaves the space modifier to the caller. Packed for
/// Ins::aux2, see order_of().
std::uint16_t decode_order(Decoder& decoder);
std::uint16_t decode_scope(Decoder& decoder);
Access::Order order_of(const Ins& ins);
bool reaches_other_blocks(const Ins& ins);  // the scope is wider than .cta

/// Takes a state space modifier (.global, .shared, .shared::cta, .local, .const, .param, or none for
/// generic).
Window decode_window(Decoder& decoder);
/// The address operand into ins.a, ins.imm and aux2.
void decode_address(Decoder& decoder, Ins& ins, const ptx::Operand& operand, Window window);

inline constexpr std::uint16_t kWideAddress = 1;  // of Ins::aux2

}  // namespace emulator
