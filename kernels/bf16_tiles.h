#pragma once

#include "kernels/bf16_pairs.h"

/// The same products by AMX: one instruction multiplies a tile of 16 rows and 16 pairs by another of 16 pairs and 16 columns.
namespace dino::bf16_tiles {

/// Whether the processor has AMX, the system lets us use it, and oneDNN is allowed to (DNNL_MAX_CPU_ISA), which is the switch for both.
bool supported();

/// By AMX where it is there and the product is large enough, else by AVX512_BF16.
void multiply(const bf16_pairs::Product& product);

}  // namespace dino::bf16_tiles
