// How memory instructions are spelled: order, scope, state space, address.
#include "exec/memory.h"

namespace emulator {

namespace {
constexpr std::uint16_t kOrderShift = 4, kCtaScope = 128;
}

std::uint16_t decode_order(Decoder& decoder) {
  const int order = decoder.take_one_of({"weak", "volatile", "relaxed", "acquire", "release", "acq_rel"});
  static constexpr Access::Order kOrders[] = {Access::Order::weak,    Access::Order::relaxed,
                                              Access::Order::relaxed, Access::Order::acquire,
                                              Access::Order::release, Access::Order::acquire_release};
  if (order < 0) return 0;
  std::uint16_t bits = static_cast<std::uint16_t>(static_cast<std::uint16_t>(kOrders[order]) << kOrderShift);
  if (order >= 2) bits = static_cast<std::uint16_t>(bits | decode_scope(decoder));
  return bits;
}

std::uint16_t decode_scope(Decoder& decoder) {
  return decoder.take_one_of({"gpu", "sys", "cluster", "cta"}) == 3 ? kCtaScope : std::uint16_t{0};
}

bool reaches_other_blocks(const Ins& ins) { return (ins.aux2 & kCtaScope) == 0; }

Access::Order order_of(const Ins& ins) { return static_cast<Access::Order>(ins.aux2 >> kOrderShift & 7); }

Window decode_window(Decoder& decoder) {
  switch (decoder.take_one_of(
      {"global", "shared", "shared::cta", "local", "const", "param", "shared::cluster"})) {
    case 0:
      return Window::global;
    case 1:
    case 2:
    case 6:
      return Window::shared;
    case 3:
      return Window::local;
    case 4:
      return Window::constant;
    case 5:
      return Window::param;
    default:
      return Window::generic;
  }
}

void decode_address(Decoder& decoder, Ins& ins, const ptx::Operand& operand, Window window) {
  static constexpr ptx::Space kSpaces[] = {ptx::Space::global,   ptx::Space::shared, ptx::Space::local,
                                           ptx::Space::constant, ptx::Space::param,  ptx::Space::none};
  const Decoder::Address address = decoder.address(operand, kSpaces[static_cast<int>(window)]);
  ins.a = address.base;
  ins.imm = address.offset;
  if (address.wide) ins.aux2 |= kWideAddress;
}

}  // namespace emulator
