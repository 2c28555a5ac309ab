// ld.param and st.param: parameters of kernels and of device functions.
#include "exec/element_moves.h"

namespace emulator {
namespace {

template <int B, int V, int R, bool Signed>
void load_param(Warp& warp, const Ins& ins, Mask active) {
  if ((ins.a & kConstantBank) != 0) {
    // Usual: one parameter, named by its address.
    const std::uint64_t at = *warp.lanes<std::uint64_t>(ins.a) + static_cast<std::uint64_t>(ins.imm);
    if (at % (B * V) == 0 && at <= warp.launch->params.size() && at + B * V <= warp.launch->params.size()) {
      Resolved resolved;
      resolved.uniform = true;
      resolved.pointer[0] = const_cast<std::uint8_t*>(&warp.launch->params[at]);
      return move_in<B, V, R, Signed>(warp, ins, active, resolved);
    }
  }
  std::uint64_t offset[kLanes];
  lane_addresses(warp, ins, offset);
  const AddressSpace& space = DeviceMemory::instance().space();
  for (int lane = 0; lane < kLanes; ++lane)
    if (offset[lane] >= space.param_begin && offset[lane] < space.param_end)
      offset[lane] -= space.param_begin;
  load_kernel_param<B, V, R, Signed>(warp, ins, active, offset);
}

// .param variables of a frame: parameters and results of device functions.
template <int B, int V, int R, bool Signed>
void load_frame_param(Warp& warp, const Ins& ins, Mask active) {
  Frame& frame = *warp.frame;
  Resolved resolved;
  for (int lane = 0; lane < kLanes; ++lane)
    resolved.pointer[lane] = &frame.params[static_cast<std::size_t>(lane) * frame.program->param_bytes +
                                           static_cast<std::size_t>(ins.imm)];
  move_in<B, V, R, Signed>(warp, ins, active, resolved);
}

template <int B, int V, int R, bool>
void store_frame_param(Warp& warp, const Ins& ins, Mask active) {
  Frame& frame = *warp.frame;
  Resolved resolved;
  each_lane(active, [&](int lane) {
    resolved.pointer[lane] = &frame.params[static_cast<std::size_t>(lane) * frame.program->param_bytes +
                                           static_cast<std::size_t>(ins.imm)];
  });
  move_out<B, V, R>(warp, ins, active, resolved);
}

}  // namespace

PICK_WIDTHS(load_param)
PICK_WIDTHS(load_frame_param)
PICK_WIDTHS(store_frame_param)

}  // namespace emulator
