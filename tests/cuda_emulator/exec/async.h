#pragma once

#include "exec/decoder.h"

namespace emulator {

/// The lanes' part of an asynchronous copy arrives in shared memory.
void land(Warp& warp, const AsyncCopy& copy, Mask lanes);

void decode_bulk(Decoder& decoder, Ins& ins);         // cp.async.bulk…
void decode_copy_arrive(Decoder& decoder, Ins& ins);  // cp.async.mbarrier.arrive…
void decode_mbarrier(Decoder& decoder, Ins& ins);

}  // namespace emulator
