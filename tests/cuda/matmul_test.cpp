#include "kernels/matmul.cuh"

#include "kernels/column_sums.cuh"
#include "kernels/cuda_graph.h"
#include "tests/cuda/cuda_harness.h"

using namespace dino;
using namespace dino::test;

namespace {

constexpr float kAlpha = 0.75f, kBeta = -0.5f;

/// One product with all that it needs, on both sides.
struct Problem {
  int64_t m, n, k;
  bool transpose_a, transpose_b;
  Dtype in, out;
  int64_t padding;
  bool with_bias;

  Buffer a, b, before, bias;

  void make() {
    const auto random = [&](Shape shape, Dtype dtype, uint32_t seed, int64_t row_padding) {
      Buffer buffer(Spec{dtype, shape}, row_padding);
      Draws draws(seed);
      fill(buffer, Fill::normal, draws);
      return buffer;
    };
    a = random(transpose_a ? Shape{k, m} : Shape{m, k}, in, 1, padding);
    b = random(transpose_b ? Shape{n, k} : Shape{k, n}, in, 2, padding);
    before = random({m, n}, out, 3, padding);
    if (with_bias) bias = random({n}, out, 4, 0);
  }

  double at_a(int64_t i, int64_t l) const { return a.at(transpose_a ? l * m + i : i * k + l); }
  double at_b(int64_t l, int64_t j) const { return b.at(transpose_b ? j * k + l : l * n + j); }

  Buffer expected(float beta) const {
    Buffer result(Spec{Dtype::f64, Shape{m, n}});
    for (int64_t i = 0; i < m; ++i)
      for (int64_t j = 0; j < n; ++j) {
        double sum = 0;
        for (int64_t l = 0; l < k; ++l) sum += at_a(i, l) * at_b(l, j);
        sum *= static_cast<double>(kAlpha);
        if (beta != 0) sum += static_cast<double>(beta) * before.at(i * n + j);
        if (with_bias) sum += bias.at(j);
        result.set(i * n + j, sum);
      }
    return result;
  }

  /// Calls product(stream, m, …, target, bias) on the device.
  template <class F>
  Buffer run(float beta, const F& product) const {
    const DeviceBuffer on_a(a), on_b(b), on_bias(bias), d(before, beta == 0);
    product(cuda_stream(), m, n, k, kAlpha, cuda::Matrix(on_a.view(), transpose_a),
            cuda::Matrix(on_b.view(), transpose_b), beta, cuda::Target(d.view()), on_bias.view().data);
    cuda_stream().synchronize();
    CHECK(d.guards_intact());
    return d.host();
  }
};

/// Calls body(problem) for all transposes, dtypes and paddings of some shapes.
template <class Body>
void for_problems(const Body& body) {
  constexpr std::array<std::array<int64_t, 3>, 5> shapes = {
      {{1, 1, 1}, {70, 66, 33}, {16, 130, 8}, {5, 3, 600}, {64, 64, 16}}};
  for (const auto& [m, n, k] : shapes)
    for (int transposes = 0; transposes < 4; ++transposes)
      for (const auto& [in, out] :
           {std::pair(Dtype::f32, Dtype::f32), std::pair(Dtype::bf16, Dtype::bf16), std::pair(Dtype::bf16, Dtype::f32)})
        for (int64_t padding : {0, 3}) {
          Problem problem{m,  n,  k, (transposes & 1) != 0, (transposes & 2) != 0, in, out, padding, padding == 0, {},
                          {}, {}, {}};
          problem.make();
          INFO(m << " x " << n << " x " << k << ", transposes " << transposes << ", " << name_of(in) << " to "
                 << name_of(out) << ", padding " << padding);
          body(problem);
        }
}

void check_product(const Buffer& got, const Buffer& expected, const Problem& problem) {
  const double rounding = epsilon(problem.out) * largest(expected);
  const double summing = 4 * epsilon(Dtype::f32) * static_cast<double>(problem.k + 2);
  CHECK(distance(got, expected) <= rounding + summing);
}

TEST_CASE("products of all types, transposes and strides, by the library and by our own kernel") {
  for_problems([](const Problem& problem) {
    for (float beta : {0.0f, kBeta}) {
      INFO("beta " << beta);
      const Buffer expected = problem.expected(beta);
      check_product(problem.run(beta, [](auto&&... x) { cuda::matmul(x...); }), expected, problem);
      check_product(problem.run(beta, [](auto&&... x) { cuda::matmul_without_library(x...); }), expected, problem);
    }
  });
}

TEST_CASE("a product can sum the rows of its first factor on the way") {
  for_problems([](const Problem& problem) {
    if (problem.out != Dtype::f32 || problem.with_bias) return;
    const DeviceBuffer sums(Buffer(Spec{Dtype::f32, Shape{problem.m}}), true);
    bool did_sum = false;
    const Buffer got =
        problem.run(kBeta, [&](CudaStream& stream, int64_t m, int64_t n, int64_t k, float alpha, const cuda::Matrix& a,
                               const cuda::Matrix& b, float beta, const cuda::Target& d, const void*) {
          did_sum = cuda::matmul_with_sums(stream, m, n, k, alpha, a, b, beta, d, sums.view().as<float>());
        });
    REQUIRE(did_sum);
    check_product(got, problem.expected(kBeta), problem);
    Buffer expected(Spec{Dtype::f64, Shape{problem.m}});
    for (int64_t i = 0; i < problem.m; ++i) {
      double sum = 0;
      for (int64_t l = 0; l < problem.k; ++l) sum += problem.at_a(i, l);
      expected.set(i, sum);
    }
    CHECK(distance(sums.host(), expected) <= 4 * epsilon(Dtype::f32) * static_cast<double>(problem.k));
  });
}

TEST_CASE("a product over nothing scales what was there and adds the bias") {
  Problem problem{3, 4, 0, false, true, Dtype::f32, Dtype::f32, 0, true, {}, {}, {}, {}};
  problem.a = Buffer(Spec{Dtype::f32, Shape{3, 0}});
  problem.b = Buffer(Spec{Dtype::f32, Shape{4, 0}});
  problem.before = Buffer(Spec{Dtype::f32, Shape{3, 4}});
  problem.bias = Buffer(Spec{Dtype::f32, Shape{4}});
  Draws draws(5);
  fill(problem.before, Fill::normal, draws);
  fill(problem.bias, Fill::normal, draws);
  const Buffer got = problem.run(kBeta, [](auto&&... x) { cuda::matmul(x...); });
  CHECK(distance(got, problem.expected(kBeta)) <= 2 * epsilon(Dtype::f32) * largest(got));
}

TEST_CASE("products can be part of a recorded graph") {
  Problem problem{20, 12, 40, false, false, Dtype::bf16, Dtype::f32, 0, true, {}, {}, {}, {}};
  problem.make();
  const DeviceBuffer a(problem.a), b(problem.b), bias(problem.bias), d(problem.before);
  CudaStream& stream = cuda_stream();
  const CudaGraph graph(stream, [&] {
    cuda::matmul(stream, problem.m, problem.n, problem.k, kAlpha, cuda::Matrix(a.view()), cuda::Matrix(b.view()), 0,
                 cuda::Target(d.view()), bias.view().data);
  });
  CHECK(d.host().equal_bits(problem.before));
  graph.launch(stream);
  stream.synchronize();
  check_product(d.host(), problem.expected(0), problem);
}

TEST_CASE("column sums of tall, wide, padded and empty matrices, written and added") {
  constexpr std::array<std::array<int64_t, 2>, 8> shapes = {
      {{1, 1}, {7, 5}, {300, 264}, {5000, 16}, {3000, 3}, {2100, 1}, {40000, 8}, {0, 8}}};
  for (const auto& [rows, cols] : shapes)
    for (Dtype in : {Dtype::f32, Dtype::bf16})
      for (Dtype out : {Dtype::f32, Dtype::bf16})
        for (GradMode mode : {GradMode::write, GradMode::add}) {
          INFO(rows << " x " << cols << ", " << name_of(in) << " to " << name_of(out) << ", add "
                    << (mode == GradMode::add));
          Buffer x(Spec{in, Shape{rows, cols}}, rows == 300 ? 1 : 0), before(Spec{out, Shape{cols}});
          Draws draws(6);
          fill(x, Fill::normal, draws);
          fill(before, Fill::normal, draws);
          const DeviceBuffer on_device_x(x), sums(before, mode == GradMode::write);
          const View view = on_device_x.view();
          const Buffer scratch(Spec{Dtype::u8, Shape{static_cast<int64_t>(cuda::column_sums_scratch(view)) + 1}});
          const DeviceBuffer on_device_scratch(scratch, true);
          cuda::column_sums(cuda_stream(), view, sums.view(), mode, on_device_scratch.view().data);
          cuda_stream().synchronize();
          Buffer expected(Spec{Dtype::f64, Shape{cols}});
          for (int64_t j = 0; j < cols; ++j) {
            double sum = mode == GradMode::add ? before.at(j) : 0;
            for (int64_t i = 0; i < rows; ++i) sum += x.at(i * cols + j);
            expected.set(j, sum);
          }
          CHECK(distance(sums.host(), expected) <=
                epsilon(out) * largest(expected) + 1e-6 * static_cast<double>(rows + 1));
          CHECK(sums.guards_intact());
          CHECK(on_device_scratch.guards_intact());
        }
}

}  // namespace
