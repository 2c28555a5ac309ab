#pragma once

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <cstring>
#include <limits>
#include <memory>
#include <new>
#include <string>
#include <vector>

#include "kernels/op.h"
#include "kernels/philox.h"
#include "kernels/widened.h"

/// What tests need to run any op on any of its cases: memory with guards around it, fills, and forward and
/// backward in one call each.
namespace dino::test {

/// The upper half of a float, rounded to nearest even; NaN stays NaN.
inline uint16_t nearest_bf16(float value) {
  const auto bits = std::bit_cast<uint32_t>(value);
  if (value != value) return static_cast<uint16_t>(bits >> 16 | 0x40);
  return static_cast<uint16_t>((bits + 0x7FFF + (bits >> 16 & 1)) >> 16);
}

/// Memory of one tensor between two guard zones. It starts out as NaN (all bits set).
class Buffer {
 public:
  Buffer() = default;
  /// With `row_padding` the rows lie that many elements further apart than they must.
  explicit Buffer(Spec spec, int64_t row_padding = 0)
      : spec_(spec), stride_(spec.shape.cols() + row_padding) {
    if (!spec.defined()) return;
    bytes_ = static_cast<size_t>(spec.shape.rows() * stride_) * bytes_of(spec.dtype);
    memory_.reset(
        static_cast<unsigned char*>(::operator new (bytes_ + 2 * kGuard, std::align_val_t{kGuard})));
    std::memset(memory_.get(), kMark, bytes_ + 2 * kGuard);
    fill_with_nan();
  }

  bool defined() const { return memory_ != nullptr; }
  Spec spec() const { return spec_; }
  View view() const {
    return defined() ? View(memory_.get() + kGuard, spec_.dtype, spec_.shape, stride_) : View();
  }
  /// A view with a shape but without data, as of a value that was not kept.
  View without_data() const { return defined() ? View(nullptr, spec_.dtype, spec_.shape, stride_) : View(); }

  void fill_with_nan() { std::memset(memory_.get() + kGuard, 0xFF, bytes_); }

  /// Whether nothing was written outside of the memory.
  bool guards_intact() const {
    const auto marked = [](const unsigned char* p) {
      return std::all_of(p, p + kGuard, [](int c) { return c == kMark; });
    };
    return !defined() || (marked(memory_.get()) && marked(memory_.get() + kGuard + bytes_));
  }

  /// Element i in row-major order as a number. Exact for everything but large i64.
  double at(int64_t i) const {
    const std::byte* p = element(i);
    switch (spec_.dtype) {
      case Dtype::f64:
        return load<double>(p);
      case Dtype::f32:
        return static_cast<double>(load<float>(p));
      case Dtype::bf16:
        return static_cast<double>(std::bit_cast<float>(uint32_t{load<uint16_t>(p)} << 16));
      case Dtype::i64:
        return static_cast<double>(load<int64_t>(p));
      case Dtype::i32:
        return static_cast<double>(load<int32_t>(p));
      case Dtype::u8:
        return static_cast<double>(load<uint8_t>(p));
      default:
        throw Error(str("tests: cannot read elements of ", name_of(spec_.dtype)));
    }
  }
  void set(int64_t i, double value) {
    std::byte* p = const_cast<std::byte*>(element(i));
    switch (spec_.dtype) {
      case Dtype::f64:
        return store(p, value);
      case Dtype::f32:
        return store(p, static_cast<float>(value));
      case Dtype::bf16:
        return store(p, nearest_bf16(static_cast<float>(value)));
      case Dtype::i64:
        return store(p, static_cast<int64_t>(value));
      case Dtype::i32:
        return store(p, static_cast<int32_t>(value));
      case Dtype::u8:
        return store(p, static_cast<uint8_t>(value));
      default:
        throw Error(str("tests: cannot write elements of ", name_of(spec_.dtype)));
    }
  }
  int64_t count() const { return defined() ? spec_.shape.count() : 0; }
  bool is_float() const { return spec_.dtype == Dtype::f32 || spec_.dtype == Dtype::f64 || spec_.dtype == Dtype::bf16; }

  /// The same values in another floating-point type.
  Buffer as(Dtype dtype) const {
    if (!defined() || !is_float()) return defined() ? copy() : Buffer();
    Buffer result(Spec{dtype, spec_.shape});
    for (int64_t i = 0; i < count(); ++i) result.set(i, at(i));
    return result;
  }

  /// The memory itself, rows and padding.
  const void* data() const { return memory_.get() + kGuard; }
  void* data() { return memory_.get() + kGuard; }
  size_t bytes() const { return bytes_; }

  /// A copy of the elements, with its own guards and `row_padding`.
  Buffer copy(int64_t row_padding = 0) const {
    Buffer result(spec_, row_padding);
    for (int64_t i = 0; i < count(); ++i)
      std::memcpy(const_cast<std::byte*>(result.element(i)), element(i), bytes_of(spec_.dtype));
    return result;
  }
  bool equal_bits(const Buffer& other) const {
    if (spec_ != other.spec_) return false;
    for (int64_t i = 0; i < count(); ++i)
      if (std::memcmp(element(i), other.element(i), bytes_of(spec_.dtype)) != 0) return false;
    return true;
  }

 private:
  static constexpr size_t kGuard = 64;
  static constexpr int kMark = 0xA5;
  struct Free {
    void operator()(unsigned char* p) const { ::operator delete (p, std::align_val_t{kGuard}); }
  };
  template <class T>
  static T load(const std::byte* p) {
    T value;
    std::memcpy(&value, p, sizeof value);
    return value;
  }
  template <class T>
  static void store(std::byte* p, T value) {
    std::memcpy(p, &value, sizeof value);
  }
  const std::byte* element(int64_t i) const {
    const int64_t cols = spec_.shape.cols();
    return reinterpret_cast<const std::byte*>(memory_.get() + kGuard) +
           static_cast<size_t>(i / cols * stride_ + i % cols) * bytes_of(spec_.dtype);
  }

  Spec spec_;
  int64_t stride_ = 0;
  size_t bytes_ = 0;
  std::unique_ptr<unsigned char, Free> memory_;
};

using Buffers = std::vector<Buffer>;

inline std::vector<View> views(const Buffers& buffers) {
  std::vector<View> result;
  for (const Buffer& buffer : buffers) result.push_back(buffer.view());
  return result;
}
inline std::vector<Spec> specs(const Buffers& buffers) {
  std::vector<Spec> result;
  for (const Buffer& buffer : buffers) result.push_back(buffer.spec());
  return result;
}
inline Buffers copies(const Buffers& buffers, int64_t row_padding = 0) {
  Buffers result;
  for (const Buffer& buffer : buffers)
    result.push_back(buffer.copy(buffer.spec().shape.rank == 2 ? row_padding : 0));
  return result;
}
inline bool guards_intact(const Buffers& buffers) {
  return std::all_of(buffers.begin(), buffers.end(), [](const Buffer& b) { return b.guards_intact(); });
}

/// Draws for tests; two standard normal numbers at a time would be faster, and nobody would notice.
class Draws {
 public:
  explicit Draws(uint64_t sequence, uint32_t part = 0) : random_(20210429, Purpose::test, sequence, part) {}
  double uniform() { return static_cast<double>(random_.uniform()); }
  double normal() {
    const double radius = std::sqrt(-2 * std::log(1 - uniform()));
    return radius * std::cos(6.283185307179586 * uniform());
  }
  double sign() { return random_.bits() & 1 ? 1 : -1; }

 private:
  Random random_;
};

/// Fills a floating-point buffer with values that f32 represents, so that all dtypes get the same numbers.
inline void fill(Buffer& target, Fill kind, Draws& draws) {
  const int64_t cols = target.spec().shape.cols();
  std::vector<double> row(static_cast<size_t>(cols));
  for (int64_t begin = 0; begin < target.count(); begin += cols) {
    for (double& value : row) switch (kind) {
        case Fill::normal:
          value = draws.normal();
          break;
        case Fill::away_from_zero:
          value = draws.sign() * (0.1 + draws.uniform());
          break;
        case Fill::positive:
          value = 0.5 + draws.uniform();
          break;
        case Fill::probabilities:
          value = 0.01 + draws.uniform();
          break;
        case Fill::keep_mask:
          value = draws.uniform() < 0.2 ? 0 : 1.25;
          break;
        case Fill::zero_to_one:
          value = draws.uniform();
          break;
        case Fill::pixels:
          value = std::floor(256 * draws.uniform());
          break;
      }
    double total = kind == Fill::probabilities ? 0 : 1;
    if (kind == Fill::probabilities)
      for (double value : row) total += value;
    for (int64_t c = 0; c < cols; ++c)
      target.set(begin + c, static_cast<double>(static_cast<float>(row[static_cast<size_t>(c)] / total)));
  }
}

template <class O>
Dtype input_dtype(size_t i, const CaseInput& input, Dtype dtype) {
  if (input.dtype != Dtype::none) return input.dtype;
  return wide_inputs<O>() >> i & 1 ? wide(dtype) : dtype;
}

/// The inputs of a case in floating-point type `dtype`.
template <class O>
Buffers make_inputs(const Case<O>& c, Dtype dtype) {
  Buffers inputs;
  for (size_t i = 0; i < c.inputs.size(); ++i) {
    const CaseInput& input = c.inputs[i];
    if (input.shape.rank == 0) {
      inputs.emplace_back();
      continue;
    }
    Buffer& buffer = inputs.emplace_back(Spec{input_dtype<O>(i, input, dtype), input.shape});
    if (input.values.empty()) {
      Draws draws(i);
      fill(buffer, input.fill, draws);
    } else {
      check(static_cast<int64_t>(input.values.size()) == buffer.count(), O::kName, ": a case gives ",
            input.values.size(), " values for ", buffer.count(), " elements of ", O::kInputs[i]);
      for (int64_t e = 0; e < buffer.count(); ++e)
        buffer.set(e, static_cast<double>(input.values[static_cast<size_t>(e)]));
    }
  }
  inputs.resize(O::kInputs.size());  // trailing optional inputs may be left out of a case
  return inputs;
}

/// Step scalars that all differ from their defaults.
inline constexpr StepScalars kStep{.seed = 77,
                                   .step = 3,
                                   .learning_rate = 0.01,
                                   .weight_decay = 0.3,
                                   .teacher_momentum = 0.9,
                                   .teacher_temp = 0.6,
                                   .grad_scale = 0.5};

/// A stream in the midst of step `kStep`.
inline std::unique_ptr<CpuStream> make_stream(int threads) {
  auto stream = std::make_unique<CpuStream>(threads);
  stream->set_step(kStep);
  return stream;
}

/// Mask of the outputs that receive a gradient: the op's `kGradOutputs`, or the first output alone.
template <class O>
constexpr uint32_t grad_outputs() {
  if constexpr (requires { O::kGradOutputs; })
    return O::kGradOutputs;
  else
    return 1;
}

template <class O>
Buffers forward(const O& op, CpuStream& stream, const Buffers& in) {
  Buffers out;
  for (const Spec& spec : op.infer(specs(in))) out.emplace_back(spec);
  forward_on(op, stream, views(in), views(out));
  return out;
}

/// Random gradients of the outputs that receive one; the others are absent.
template <class O>
Buffers make_output_gradients(const Buffers& out) {
  Buffers dout;
  for (size_t i = 0; i < out.size(); ++i) {
    Buffer& buffer = dout.emplace_back();
    if (!(grad_outputs<O>() >> i & 1)) continue;
    Spec spec = out[i].spec();
    if constexpr (requires { O::kWideOutputGradients; })
      if (O::kWideOutputGradients >> i & 1) spec.dtype = wide(spec.dtype);
    buffer = Buffer(spec);
    Draws draws(100 + i);
    fill(buffer, Fill::normal, draws);
  }
  return dout;
}

/// Whether input `i` is present and has a gradient.
template <class O>
bool differentiable(const Buffers& in, size_t i) {
  return in[i].defined() && (O::kDifferentiable >> i & 1);
}

/// Memory for the gradients of all inputs that have one.
template <class O>
Buffers make_input_gradients(const Buffers& in) {
  Buffers din(in.size());
  for (size_t i = 0; i < in.size(); ++i)
    if (differentiable<O>(in, i)) {
      Spec spec = in[i].spec();
      if (wide_gradients<O>() >> i & 1) spec.dtype = wide(spec.dtype);
      din[i] = Buffer(spec);
    }
  return din;
}

/// All gradients in one mode; absent inputs are skipped.
inline std::vector<Grad> grads(const Buffers& din, GradMode mode) {
  std::vector<Grad> result;
  for (const Buffer& buffer : din) result.push_back(buffer.defined() ? Grad{buffer.view(), mode} : Grad{});
  return result;
}

/// Gradients of all inputs, in mode write.
template <class O>
Buffers backward(const O& op, CpuStream& stream, const Buffers& in, const Buffers& out, const Buffers& dout) {
  Buffers din = make_input_gradients<O>(in);
  backward_on(op, stream, views(in), views(out), views(dout), grads(din, GradMode::write));
  return din;
}

/// One way in which an op may run.
template <class O>
struct Variant {
  O op;
  Dtype dtype;
  std::string name;
};

/// The op in each of `dtypes`, and in bf16, if it takes that, with each type that its result may have.
template <class O>
std::vector<Variant<O>> variants(const O& op, std::initializer_list<Dtype> dtypes) {
  std::vector<Variant<O>> result;
  for (const Dtype dtype : dtypes) result.push_back({op, dtype, std::string(name_of(dtype))});
  if constexpr (takes_bf16<O>()) {
    if constexpr (requires(O o) { o.output; }) {
      for (const Dtype output : {Dtype::bf16, Dtype::f32}) {
        O variant = op;
        variant.output = output;
        result.push_back({variant, Dtype::bf16, str("bf16 to ", name_of(output))});
      }
    } else {
      result.push_back({op, Dtype::bf16, "bf16"});
    }
  }
  return result;
}

/// Calls body.template operator()<O>() for every op of a type list.
template <class List, class Body>
void for_each_op(const Body& body) {
  [&]<class... O>(const std::tuple<O...>*) {
    (body.template operator()<O>(), ...);
  }(static_cast<List*>(nullptr));
}

/// Where in a test we are: "conv2d case 3 f32".
template <class O>
std::string place(size_t index, Dtype dtype) {
  return str(O::kName, " case ", index, " ", name_of(dtype));
}

}  // namespace dino::test
