#pragma once

#include <array>
#include <cstdint>
#include <cstring>
#include <deque>
#include <memory>
#include <new>
#include <span>
#include <string>
#include <vector>

#include "check/finding.h"
#include "exec/launch.h"
#include "memory/device_memory.h"
#include "ptx/module.h"

/// The emulated machine: decoded instructions, warps of 32 lanes, blocks.
///
/// Registers are stored lane by lane (structure of arrays): a 32-bit register is uint32_t[32], a 64-bit
/// register uint64_t[32], a 16-bit register uint16_t[32], a predicate one 32-bit mask. Immediates live in the
/// same form in a bank of constants, so that no instruction asks what kind its operands are.
namespace emulator {

inline constexpr int kLanes = 32;
using Mask = std::uint32_t;

/// Memory that begins at a multiple of a cache line, as vector instructions like it.
template <class T>
struct LineAllocator {
  using value_type = T;
  LineAllocator() = default;
  template <class U>
  LineAllocator(const LineAllocator<U>&) {}
  T* allocate(std::size_t n) { return static_cast<T*>(::operator new (n * sizeof(T), std::align_val_t{64})); }
  void deallocate(T* p, std::size_t) { ::operator delete (p, std::align_val_t{64}); }
  bool operator==(const LineAllocator&) const { return true; }
};
using Bytes = std::vector<std::uint8_t, LineAllocator<std::uint8_t>>;

/// Where a register or constant is: byte offset from Warp::bank[slot >> 31].
using Slot = std::uint32_t;
inline constexpr Slot kConstantBank = 0x80000000u;
inline constexpr Slot kNoSlot = 0xffffffffu;

struct Warp;
struct Block;
struct Program;
struct Ins;
namespace ptx {
struct Function;
}

/// Executes one instruction for the lanes of `active` (never empty), which is a subset of warp.mask.
using Run = void (*)(Warp& warp, const Ins& ins, Mask active);

/// One decoded instruction. What the fields mean is up to `run`; d: destination, e: second destination, a, b,
/// c: sources.
struct alignas(64) Ins {
  Run run = nullptr;
  Slot d = kNoSlot, e = kNoSlot, a = kNoSlot, b = kNoSlot, c = kNoSlot;
  Slot guard = kConstantBank;  // predicate slot; constant 0 is "all lanes"
  Mask guard_flip = 0;         // all ones for @!p
  std::uint32_t list = 0;      // first entry in Program::slots, of vector operands
  std::int64_t imm = 0;        // address offset, branch target, …
  std::uint16_t aux = 0, aux2 = 0;
  std::uint32_t extra = 0;
};
static_assert(sizeof(Ins) == 64);

/// Classes of warp instructions, as the counters report them.
enum class Class : std::uint8_t {
  integer,
  fp32,
  fp64,
  half,
  special,
  convert,
  move,
  predicate,
  load_global,
  store_global,
  load_shared,
  store_shared,
  load_local,
  store_local,
  load_constant,
  load_param,
  atomic,
  shuffle,
  vote,
  barrier,
  fence,
  control,
  call,
  async_copy,
  matrix_load,
  tensor,
  other,
  count_
};
const char* name_of(Class c);

/// One decoded function (kernels included).
struct Program {
  std::string name;
  std::vector<Ins> code;                        // ends with a sentinel that reports running off the end
  std::vector<const ptx::Instruction*> source;  // per instruction, for messages
  std::vector<Class> classes;                   // per instruction
  std::vector<Slot> slots;                      // operand lists
  Bytes constants;                              // the bank; begins with an all-ones predicate
  std::uint32_t register_bytes = 0;             // per warp
  std::vector<std::pair<Slot, std::uint32_t>>
      poison;  // registers that may be read before they are written: slot, bytes
  std::vector<std::pair<Slot, int>>
      specials;  // slots that hold special registers fixed for a warp's life: which (Special)
  std::uint64_t local_bytes = 0;  // per thread: own .local variables
  std::uint64_t param_bytes = 0;  // per thread: incoming parameters, results and .param variables of calls
  std::uint64_t stack_bytes = 0;  // per thread: own and callees' local memory
  const ptx::Function* function = nullptr;
  std::vector<std::vector<int>> tables;  // of brx.idx: instruction indices
};

/// A function call in progress in some lanes of a warp.
struct Frame {
  const Program* program = nullptr;
  Bytes registers;
  std::vector<std::uint8_t> params;  // [lane][param_bytes]
  std::uint64_t local_base = 0;      // of the function's .local variables in the thread's local memory
  Frame* caller = nullptr;           // null: the kernel itself
  std::uint32_t return_pc = 0;
  std::uint32_t return_call = 0;  // index of the call instruction in the caller
  int depth = 0;
  Mask lanes = 0;  // that still run in it
};

/// Lanes of a warp which are at the same instruction.
struct Group {
  enum class State : std::uint8_t { running, at_sync, at_barrier } state = State::running;
  std::uint32_t pc = 0;
  Mask mask = 0;
  Frame* frame = nullptr;
  std::uint8_t barrier = 0;   // at_barrier: which
  std::uint32_t sync_pc = 0;  // at_sync, at_barrier: the instruction that waits
};

/// One cp.async of a warp that has been issued but need not have arrived. The data is read at the issue: the
/// source must not change before the wait.
struct AsyncCopy {
  Mask lanes = 0;                     // whose bytes have not arrived yet
  std::uint32_t bytes = 0;            // written per lane; what lies beyond the source is zero
  std::uint32_t group[kLanes] = {};   // the lane's commit group
  std::uint64_t shared[kLanes] = {};  // destinations, offsets in shared memory
  std::uint8_t data[kLanes][16] = {};
};

struct LaunchCounts;  // count/counters.h
class RaceCheck;      // check/race.h
struct Launch;

/// 32 lanes in (mostly) lockstep. Lanes that diverge become groups; the group with the lowest program counter
/// runs first, which makes them meet again.
struct Warp {
  std::uint8_t* bank[2] = {nullptr, nullptr};  // registers of the current frame, constants of its program
  const Ins* code = nullptr;
  std::uint32_t pc = 0;         // of the next instruction
  Mask mask = 0;                // lanes of the current group
  std::uint32_t next_stop = 0;  // the run loop leaves when pc reaches it
  std::uint32_t budget = 0;     // branches left before others get their turn
  Frame* frame = nullptr;
  Block* block = nullptr;
  Launch* launch = nullptr;
  std::uint32_t index = 0;    // in the block
  Mask live = 0;              // lanes that have not exited
  std::vector<Group> groups;  // all groups but the current one
  std::vector<std::unique_ptr<Frame>> frames, spare_frames;
  std::vector<std::uint8_t> local;         // [lane][local_stride]
  std::vector<std::uint8_t> local_shadow;  // one byte per four bytes of local
  std::uint64_t local_stride = 0;
  std::vector<std::unique_ptr<AsyncCopy>> copies, spare_copies;  // oldest first
  std::array<std::uint32_t, kLanes> committed_groups{};          // cp.async.commit_group so far, per lane
  std::uint64_t steps = 0;                                       // counts groups that ran: progress
  std::uint32_t turns = 0;  // counts turns that were handed over to another group
  Mask carry = 0;           // the condition code of add.cc and its kin, per lane
  bool force_sync =
      false;  // lanes that wait for others go on without them: they can never come, which has been reported
  LaunchCounts* counts = nullptr;  // of this worker; null: not counting
  RaceCheck* race = nullptr;       // of the block; null: off
  std::array<Extent, 4> cached;    // objects that addresses were found in
  std::uint32_t cached_generation = 0, next_cached = 0;

  template <class T>
  T* lanes(Slot slot) const {
    return reinterpret_cast<T*>(bank[slot >> 31] + (slot & 0x7fffffffu));
  }
  Mask& predicate(Slot slot) const { return *lanes<Mask>(slot); }
  const Ins& current() const { return code[pc - 1]; }  // inside of Run
};

/// The state of barrier 0–15 of a block.
struct Barrier {
  std::uint32_t waiting_warps = 0;  // bit per warp all of whose live lanes wait here
  std::uint32_t arrived_warps = 0;  // bit per warp that has arrived without waiting (bar.arrive)
  bool in_use = false;              // somebody has come in this phase
  std::uint32_t threads = 0;        // arrived, rounded up to warps for forms with a count
  std::uint32_t expected = 0;       // of forms with a count; 0: all threads of the block
  std::uint32_t reduction_and = ~0u, reduction_or = 0, reduction_count = 0;
  std::uint32_t result_and = 0, result_or = 0, result_count = 0;
  std::uint32_t phase = 0;
};

/// Work that ends in an arrival at an mbarrier: copies of a thread (cp.async.mbarrier.arrive) or of bytes
/// (cp.async.bulk). It happens as late as it may: when somebody asks the mbarrier.
struct PendingArrival {
  std::uint32_t barrier = 0;       // offset in shared memory
  std::vector<AsyncCopy> copies;   // of cp.async, with the bytes of one lane
  std::uint32_t shared = 0;        // of a bulk copy: destination
  std::vector<std::uint8_t> data;  // of a bulk copy
  Warp* warp = nullptr;            // that issued it
  bool arrives = false;            // counts as an arrival (cp.async.mbarrier.arrive)
  std::uint8_t lane = 0;
};

/// A block (CTA) while it runs.
struct Block {
  std::uint32_t index[3] = {0, 0, 0};
  std::uint64_t linear = 0;
  std::vector<std::uint8_t> shared;         // reserved part, static and dynamic
  std::vector<std::uint8_t> shared_shadow;  // bit i of byte n: byte 4n + i has been written
  std::vector<std::unique_ptr<Warp>> warps;
  std::array<Barrier, 16> barriers{};
  std::vector<PendingArrival> pending_arrivals;
  std::uint32_t threads = 0;     // at start
  std::uint32_t live_warps = 0;  // bit per warp with lanes that have not exited
  Launch* launch = nullptr;
  std::unique_ptr<RaceCheck> race;
  std::uint64_t turn = 0;      // counts calls of run_block
  std::uint32_t released = 0;  // counts barrier completions: progress
};

/// What a kernel's run shares between workers.
struct Launch {
  const Kernel* kernel = nullptr;
  const Program* program = nullptr;
  LaunchConfig config;
  std::span<const std::uint8_t> params;
  std::uint64_t shared_bytes = 0;    // per block, reserved part included
  std::uint64_t number = 0;          // counts launches of the process
  std::uint64_t grid_workspace = 0;  // of the grid barrier of cooperative groups; 0: not cooperative
};

/// Thrown by an instruction that stops the kernel; the finding has been reported.
struct KernelFault {
  int error;  // cudaError_t
};

/// Reports a mistake at the current instruction, for one lane. Throws KernelFault{error} if error is not 0.
void report(Warp& warp, FindingKind kind, int lane, std::uint64_t address, const std::string& message,
            int error = 0);

/// The first 1 KiB of shared memory belongs to the system on compute capability 8.0 and later.
inline constexpr std::uint32_t kReservedShared = 1024;

// ---- memory (exec/memory.h has the fast paths) ----

/// The host address of [address, address + bytes) of shared memory of the warp's block, checked; `write`
/// marks the bytes as written, a read of bytes that nobody wrote is reported. For instructions that access
/// memory in their own ways (ldmatrix, cp.async, mbarrier).
std::uint8_t* shared_at(Warp& warp, int lane, std::uint64_t offset, std::uint32_t bytes, bool write);
/// The same for a generic or global address.
std::uint8_t* generic_at(Warp& warp, int lane, std::uint64_t address, std::uint32_t bytes, bool write);
/// Turns a generic address into an offset in shared memory; reports one that does not point there.
std::uint32_t shared_offset(Warp& warp, int lane, std::uint64_t generic);

/// For `.sync` instructions: returns those lanes of `active` whose member mask is complete at this
/// instruction. The others are parked until the missing lanes come. `members[lane]` is each lane's member
/// mask. May return 0: the instruction does nothing this time and is executed again later.
Mask ready_lanes(Warp& warp, const Ins& ins, Mask active, const std::uint32_t* members);
/// The same for `.aligned` instructions without a mask operand, which need all live lanes of the warp.
Mask ready_aligned(Warp& warp, const Ins& ins, Mask active);

template <class F>
inline void each_lane(Mask mask, F&& f) {
  for (; mask != 0; mask &= mask - 1) f(__builtin_ctz(mask));
}

}  // namespace emulator
