#include "kernels/attention.h"

#include "tests/cuda/cuda_harness.h"

using namespace dino;
using namespace dino::test;

// Attention as networks run it: q, k and v are columns of one matrix, and so are their gradients.
namespace {

struct Result {
  Buffer o, lse, dqkv;
};

Attention attention_of(std::initializer_list<Sequences::Group> groups, int64_t heads, int64_t head_dim) {
  Attention op{.heads = heads,
               .scale = 1 / std::sqrt(static_cast<double>(head_dim)),
               .sequences = {},
               .cls_only = false};
  for (const auto& group : groups) op.sequences.append(group.count, group.rows, group.cols);
  return op;
}

Buffer random(int64_t rows, int64_t cols, Dtype dtype, uint64_t seed) {
  Buffer result(Spec{dtype, Shape{rows, cols}});
  Draws draws(seed);
  fill(result, Fill::normal, draws);
  return result;
}

View columns(const View& all, int part) {
  const int64_t dim = all.cols() / 3;
  return View(static_cast<std::byte*>(all.data) + static_cast<size_t>(part * dim) * bytes_of(all.dtype),
              all.dtype, Shape{all.rows(), dim}, all.row_stride, all.device);
}

/// Forward and backward; `make(buffer, empty)` makes memory where the op runs, and `read` copies it back.
template <class Stream, class Make, class Read>
Result run(const Attention& op, Stream& stream, const Buffer& qkv, const Buffer& grad_o, const Make& make,
           const Read& read) {
  const Dtype dtype = qkv.spec().dtype;
  const int64_t tokens = op.sequences.tokens(), dim = qkv.spec().shape.cols() / 3;
  const auto x = make(qkv, false), dy = make(grad_o, false);
  const auto o = make(Buffer(Spec{dtype, {tokens, dim}}), true),
             lse = make(Buffer(Spec{wide(dtype), {tokens, op.heads}}), true);
  const auto dx = make(Buffer(qkv.spec()), true);
  const std::vector<View> in = {columns(x.view(), 0), columns(x.view(), 1), columns(x.view(), 2)};
  const std::vector<View> out = {o.view(), lse.view()}, dout = {dy.view(), View()};
  std::vector<Grad> din;
  for (int i = 0; i < 3; ++i) din.push_back({columns(dx.view(), i), GradMode::write});
  op.forward(stream, in, out);
  op.backward(stream, in, out, dout, din);
  CHECK(dx.guards_intact());
  CHECK(o.guards_intact());
  return {read(o), read(lse), read(dx)};
}

Result run_on_gpu(const Attention& op, const Buffer& qkv, const Buffer& grad_o) {
  return run(
      op, cuda_stream(), qkv, grad_o,
      [](const Buffer& host, bool empty) { return DeviceBuffer(host, empty); },
      [](const DeviceBuffer& x) { return x.host(); });
}

Result run_on_cpu(const Attention& op, const Buffer& qkv, const Buffer& grad_o) {
  auto stream = make_stream(2);
  return run(
      op, *stream, qkv.as(Dtype::f64), grad_o.as(Dtype::f64),
      [](const Buffer& host, bool) { return host.copy(); }, [](const Buffer& x) { return x.copy(); });
}

/// ‖a − b‖ / ‖b‖ of columns [first, first + count).
double relative_error(const Buffer& a, const Buffer& b, int64_t first, int64_t count) {
  double difference = 0, norm = 0;
  const int64_t cols = b.spec().shape.cols();
  for (int64_t i = 0; i < b.count(); ++i) {
    if (i % cols < first || i % cols >= first + count) continue;
    difference += (a.at(i) - b.at(i)) * (a.at(i) - b.at(i));
    norm += b.at(i) * b.at(i);
  }
  return std::sqrt(difference / norm);
}

void check_against_cpu(const Attention& op, int64_t head_dim, Dtype dtype) {
  const int64_t dim = op.heads * head_dim;
  const Buffer qkv = random(op.sequences.tokens(), 3 * dim, dtype, 1),
               grad_o = random(op.sequences.tokens(), dim, dtype, 2);
  const Result got = run_on_gpu(op, qkv, grad_o), exact = run_on_cpu(op, qkv, grad_o);
  // Forward rounds probabilities and results, each to within `unit`; backward in turn starts from those
  // results.
  const double unit = dtype == Dtype::bf16 ? 0x1p-9 : 16 * epsilon(dtype);
  INFO("o " << relative_error(got.o, exact.o, 0, dim));
  CHECK(relative_error(got.o, exact.o, 0, dim) <= 2 * unit);
  INFO("lse " << distance(got.lse, exact.lse));
  CHECK(distance(got.lse, exact.lse) <= 1e-5 * largest(exact.lse));
  for (int i = 0; i < 3; ++i) {
    INFO("gradient of " << Attention::kInputs[static_cast<size_t>(i)] << ' '
                        << relative_error(got.dqkv, exact.dqkv, i * dim, dim));
    CHECK(relative_error(got.dqkv, exact.dqkv, i * dim, dim) <= 4 * unit);
  }
}

TEST_CASE("attention of sequences of every length agrees with f64 on the CPU") {
  // Rows that fill tiles, that miss a tile by one, and real ones: 96 / 16, 224 / 16, 224 / 8.
  for (const int64_t patches :
       {1, 6, 15, 16, 31, 36, 63, 111, 143, 196, 207, 239, 240, 255, 256, 319, 400, 784}) {
    INFO(patches + 1 << " tokens");
    check_against_cpu(attention_of({{1, 1, patches}}, 1, 64), 64, Dtype::bf16);
  }
  check_against_cpu(attention_of({{1, 1, 1999}}, 1, 64), 64, Dtype::bf16);
  check_against_cpu(attention_of({{1, 1, 1200}}, 1, 64), 64, Dtype::f32);
  check_against_cpu(attention_of({{1, 14, 14}, {2, 6, 6}}, 2, 80), 80, Dtype::bf16);
}

TEST_CASE("attention of a real batch agrees with f64 on the CPU") {
  check_against_cpu(attention_of({{1, 14, 14}, {5, 6, 6}}, 6, 64), 64, Dtype::bf16);
}

TEST_CASE("attention copes with scores far from zero") {
  // A column of large values makes all scores about 200 or -200; e^200 overflows, also for keys that do not
  // exist.
  for (const int64_t patches : {36, 196, 300}) {
    for (const double sign : {1.0, -1.0}) {
      const Attention op = attention_of({{1, 1, patches}}, 1, 64);
      Buffer qkv = random(patches + 1, 192, Dtype::bf16, 1);
      const Buffer grad_o = random(patches + 1, 64, Dtype::bf16, 2);
      for (int64_t row = 0; row <= patches; ++row) {
        qkv.set(row * 192, 40);
        qkv.set(row * 192 + 64, sign * 40);
      }
      const Result got = run_on_gpu(op, qkv, grad_o), exact = run_on_cpu(op, qkv, grad_o);
      INFO(patches + 1 << " tokens");
      CHECK(relative_error(got.o, exact.o, 0, 64) <= 0x1p-8);
      // Gradients of the large columns are sums that cancel.
      for (int i = 0; i < 3; ++i) CHECK(relative_error(got.dqkv, exact.dqkv, i * 64 + 1, 63) <= 0x1p-7);
    }
  }
}

TEST_CASE("attention of the CLS tokens of real batches agrees with f64 on the CPU") {
  Attention op = attention_of({{1, 14, 14}, {2, 6, 6}, {1, 28, 28}}, 2, 64);
  op.cls_only = true;
  auto stream = make_stream(2);
  for (const Dtype dtype : {Dtype::bf16, Dtype::f32}) {
    const int64_t tokens = op.sequences.tokens(), dim = 128;
    Buffers in;
    for (const int64_t rows : {op.sequences.count(), tokens, tokens})
      in.push_back(random(rows, dim, dtype, 5 + in.size()));
    const Buffers out = cuda_forward(op, in), dout = make_output_gradients<Attention>(out),
                  din = cuda_backward(op, in, out, dout);
    Buffers wide_in, wide_dout;
    for (const Buffer& buffer : in) wide_in.push_back(buffer.as(Dtype::f64));
    for (const Buffer& buffer : dout) wide_dout.push_back(buffer.as(Dtype::f64));
    const Buffers exact = forward(op, *stream, wide_in),
                  exact_din = backward(op, *stream, wide_in, exact, wide_dout);
    const double unit = dtype == Dtype::bf16 ? 0x1p-9 : 16 * epsilon(dtype);
    INFO(name_of(dtype));
    CHECK(relative_error(out[0], exact[0], 0, dim) <= 2 * unit);
    CHECK(distance(out[1], exact[1]) <= 1e-5 * largest(exact[1]));
    for (size_t i = 0; i < 3; ++i) CHECK(relative_error(din[i], exact_din[i], 0, dim) <= 4 * unit);
  }
}

TEST_CASE("gradients of long attention are added, or left alone, as asked") {
  const Attention op = attention_of({{1, 1, 299}}, 1, 64);
  Buffers in, before;
  for (uint64_t i = 0; i < 3; ++i) {
    in.push_back(random(300, 64, Dtype::bf16, 10 + i));
    before.push_back(random(300, 64, Dtype::bf16, 20 + i));
  }
  const Buffers out = cuda_forward(op, in), dout = make_output_gradients<Attention>(out);
  const Buffers written = cuda_backward(op, in, out, dout), sum = cuda_backward(op, in, out, dout, &before);
  for (size_t i = 0; i < 3; ++i) {
    INFO("gradient of " << Attention::kInputs[i]);
    Buffer expected = before[i].as(Dtype::f64);
    for (int64_t e = 0; e < expected.count(); ++e) expected.set(e, before[i].at(e) + written[i].at(e));
    CHECK(distance(sum[i], expected) <= 2 * epsilon(Dtype::bf16) * largest(expected));
    CHECK(cuda_backward(op, in, out, dout, nullptr, {~0u, ~0u}, bit(static_cast<int>(i)))[i].equal_bits(
        written[i]));
  }
}

TEST_CASE("without a gradient of its output attention writes zeros") {
  const Attention op = attention_of({{1, 2, 3}}, 1, 8);
  Buffers in;
  for (uint64_t i = 0; i < 3; ++i) in.push_back(random(7, 8, Dtype::f32, i));
  const Buffers din = cuda_backward(op, in, cuda_forward(op, in), Buffers(2));
  for (const Buffer& gradient : din) CHECK(largest(gradient) == 0);
}

/// Rows [first, first + count) of a matrix.
Buffer rows_of(const Buffer& all, int64_t first, int64_t count) {
  const int64_t cols = all.spec().shape.cols();
  Buffer result(Spec{all.spec().dtype, Shape{count, cols}});
  for (int64_t i = 0; i < count * cols; ++i) result.set(i, all.at(first * cols + i));
  return result;
}

TEST_CASE("attention of a sequence has the same bits alone and anywhere in a pack") {
  for (const Dtype dtype : {Dtype::bf16, Dtype::f32}) {
    for (const int64_t patches : {36, 196, 300}) {
      const Attention pack = attention_of({{2, 1, 5}, {3, 1, patches}, {1, 1, 20}}, 2, 64);
      const Attention alone = attention_of({{1, 1, patches}}, 2, 64);
      const int64_t tokens = pack.sequences.tokens(), first = 12 + 2 * (patches + 1), count = patches + 1;
      const Buffer qkv = random(tokens, 3 * 128, dtype, 3), grad_o = random(tokens, 128, dtype, 4);
      const Result all = run_on_gpu(pack, qkv, grad_o);
      const Result one = run_on_gpu(alone, rows_of(qkv, first, count), rows_of(grad_o, first, count));
      INFO(name_of(dtype) << ", " << count << " tokens");
      CHECK(rows_of(all.o, first, count).equal_bits(one.o));
      CHECK(rows_of(all.lse, first, count).equal_bits(one.lse));
      CHECK(rows_of(all.dqkv, first, count).equal_bits(one.dqkv));
    }
  }
}

}  // namespace
