#include "kernels/optimizer.h"

#include "tests/op_compare.h"

using namespace dino;
using namespace dino::test;

// What the tests of all ops do not reach: copies in bf16.

TEST_CASE("adamw's copies in bf16 are its results in f32, rounded, and change nothing else") {
  auto stream = make_stream(2);
  for_cases<AdamW>(Dtype::f32, [&](const Case<AdamW>& c, const Buffers& in, const std::string&) {
    const Buffers expected = forward(c.op, *stream, in);
    AdamW op = c.op;
    op.bf16_copies = true;
    const Buffers out = forward(op, *stream, in);
    for (const int i : {AdamW::new_weight, AdamW::new_m, AdamW::new_v, AdamW::new_steps, AdamW::new_teacher})
      CHECK(out[static_cast<size_t>(i)].equal_bits(expected[static_cast<size_t>(i)]));
    CHECK(out[AdamW::weight_copy].equal_bits(expected[AdamW::new_weight].as(Dtype::bf16)));
    CHECK(out[AdamW::teacher_copy].defined() == in[AdamW::teacher].defined());
    if (in[AdamW::teacher].defined())
      CHECK(out[AdamW::teacher_copy].equal_bits(expected[AdamW::new_teacher].as(Dtype::bf16)));
  });
}

TEST_CASE("adamw refuses copies of weights in f64") {
  AdamW op = AdamW::cases(Tiny{}).front().op;
  op.bf16_copies = true;
  const Buffers in = make_inputs(AdamW::cases(Tiny{}).front(), Dtype::f64);
  CHECK_THROWS_WITH(op.infer(specs(in)), Catch::Contains("only f32 has copies in bf16"));
}
