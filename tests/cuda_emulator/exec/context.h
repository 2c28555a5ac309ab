#pragma once

#include <map>
#include <string>
#include <unordered_map>
#include <unordered_set>

#include "exec/allocate.h"
#include "exec/decoder.h"

namespace emulator {

/// Registers whose value the machine provides. The first group is fixed for the life of a warp in a frame,
/// the clocks are read anew each time.
enum class Special : int {
  tid_x,
  tid_y,
  tid_z,
  ntid_x,
  ntid_y,
  ntid_z,
  ctaid_x,
  ctaid_y,
  ctaid_z,
  nctaid_x,
  nctaid_y,
  nctaid_z,
  laneid,
  warpid,
  nwarpid,
  smid,
  nsmid,
  gridid,
  lanemask_eq,
  lanemask_le,
  lanemask_lt,
  lanemask_ge,
  lanemask_gt,
  dynamic_smem_size,
  total_smem_size,
  aggr_smem_size,
  envreg1,
  envreg2,
  reserved_smem_offset,
  reserved_smem_cap,
  zero,
  one,
  clock,
  clock_hi,
  clock64,
  globaltimer,
  globaltimer_lo,
  globaltimer_hi
};

/// Where a variable is, as its space sees it.
struct Place {
  ptx::Space space = ptx::Space::none;
  std::uint64_t value = 0;  // address (global, constant), offset in the block's shared memory, in the frame's
                            // local memory, in the frame's or kernel's parameters
  std::uint64_t bytes = 0;
  bool kernel_param = false;  // in the kernel's parameter buffer, the same for all lanes
};

/// What a module offers to the functions in it.
struct ModulePlaces {
  std::unordered_map<std::string, Place> variables;
  std::unordered_map<std::string, int> functions;  // index in LoadedModule::Content::programs
  std::unordered_set<std::string> declarations;    // functions without a body
};

/// A function's address: never mapped, tells its index in the module.
inline constexpr std::uint64_t kFunctionAddress = 0xfffff00000000000u;

/// What the decoders of one function share.
struct Decoder::Context {
  RegisterLayout layout;
  const ModulePlaces* module = nullptr;
  std::unordered_map<std::string, Place> places;  // of the function
  std::map<std::pair<std::uint64_t, int>, Slot> constants;
  std::map<int, Slot> specials;
};

/// Whether a function of the module has no body.
inline bool is_declaration(const Decoder& decoder, const std::string& name) {
  return decoder.context.module->declarations.count(name) != 0;
}

/// Where a name of the function or of the module is. Throws through decoder.fail if nowhere.
Place place_of(Decoder& decoder, const std::string& name);

/// Which special register an operand names. Throws through decoder.fail if it is unknown.
Special special_of(const Decoder& decoder, const ptx::Operand& operand);

/// Decodes a function. `own_shared`: where the .shared variables are that it can reach. Throws ptx::Error for
/// anything unknown.
void decode_function(const ptx::Function& function, const ModulePlaces& module,
                     const std::unordered_map<std::string, Place>& own_shared, Program& program);

}  // namespace emulator
