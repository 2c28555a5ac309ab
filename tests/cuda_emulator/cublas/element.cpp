#include "cublas/element.h"

#include <library_types.h>

#include <bit>
#include <cmath>

namespace emulator::blas {
namespace {

__extension__ typedef _Float16 Half;

struct Bfloat {
  std::uint16_t bits;
};

float widen(Half value) { return static_cast<float>(value); }
float widen(Bfloat value) { return std::bit_cast<float>(static_cast<std::uint32_t>(value.bits) << 16); }
float widen(float value) { return value; }
double widen(double value) { return value; }

void narrow(double value, Half& to) { to = static_cast<Half>(value); }
void narrow(double value, float& to) { to = static_cast<float>(value); }
void narrow(double value, double& to) { to = value; }
void narrow(float value, Half& to) { to = static_cast<Half>(value); }
void narrow(float value, float& to) { to = value; }
void narrow(float value, double& to) { to = value; }
void narrow(float value, Bfloat& to) {
  const auto bits = std::bit_cast<std::uint32_t>(value);
  const std::uint32_t rounded = (bits + 0x7FFFu + ((bits >> 16) & 1u)) >> 16;
  to.bits = static_cast<std::uint16_t>(value != value ? 0x7FFFu : rounded);
}
void narrow(double value, Bfloat& to) { narrow(static_cast<float>(value), to); }

template <class Element, class Real>
void load_as(const void* from, std::int64_t stride, std::int64_t count, Real* to) {
  const auto* elements = static_cast<const Element*>(from);
  if (stride == 1) {
    for (std::int64_t i = 0; i < count; ++i) to[i] = static_cast<Real>(widen(elements[i]));
  } else {
    for (std::int64_t i = 0; i < count; ++i) to[i] = static_cast<Real>(widen(elements[i * stride]));
  }
}

template <class Element, class Real>
void store_as(void* to, std::int64_t stride, std::int64_t count, const Real* from) {
  auto* elements = static_cast<Element*>(to);
  for (std::int64_t i = 0; i < count; ++i) narrow(from[i], elements[i * stride]);
}

template <class Element>
float through(float value) {
  Element element;
  narrow(value, element);
  return widen(element);
}

float to_tf32(float value) {
  const auto bits = std::bit_cast<std::uint32_t>(value);
  return std::isfinite(value) ? std::bit_cast<float>((bits + 0x1000u) & 0xFFFFE000u) : value;
}

}  // namespace

const char* name_of(Type type) {
  switch (type) {
    case Type::f16:
      return "f16";
    case Type::bf16:
      return "bf16";
    case Type::f32:
      return "f32";
    case Type::f64:
      return "f64";
    case Type::none:
      break;
  }
  return "a type that is not emulated";
}

Type type_of(int cuda_data_type) {
  switch (cuda_data_type) {
    case CUDA_R_16F:
      return Type::f16;
    case CUDA_R_16BF:
      return Type::bf16;
    case CUDA_R_32F:
      return Type::f32;
    case CUDA_R_64F:
      return Type::f64;
    default:
      return Type::none;
  }
}

template <class Real>
void load(Type type, const void* from, std::int64_t stride, std::int64_t count, Real* to) {
  switch (type) {
    case Type::f16:
      return load_as<Half>(from, stride, count, to);
    case Type::bf16:
      return load_as<Bfloat>(from, stride, count, to);
    case Type::f32:
      return load_as<float>(from, stride, count, to);
    case Type::f64:
      return load_as<double>(from, stride, count, to);
    case Type::none:
      return;
  }
}

template <class Real>
void store(Type type, void* to, std::int64_t stride, std::int64_t count, const Real* from) {
  switch (type) {
    case Type::f16:
      return store_as<Half>(to, stride, count, from);
    case Type::bf16:
      return store_as<Bfloat>(to, stride, count, from);
    case Type::f32:
      return store_as<float>(to, stride, count, from);
    case Type::f64:
      return store_as<double>(to, stride, count, from);
    case Type::none:
      return;
  }
}

template void load(Type, const void*, std::int64_t, std::int64_t, float*);
template void load(Type, const void*, std::int64_t, std::int64_t, double*);
template void store(Type, void*, std::int64_t, std::int64_t, const float*);
template void store(Type, void*, std::int64_t, std::int64_t, const double*);

double load_one(Type type, const void* from) {
  double value = 0;
  load(type, from, 1, 1, &value);
  return value;
}

void round_inputs(InputRounding rounding, float* values, std::int64_t count) {
  switch (rounding) {
    case InputRounding::none:
      return;
    case InputRounding::tf32:
      for (std::int64_t i = 0; i < count; ++i) values[i] = to_tf32(values[i]);
      return;
    case InputRounding::bf16:
      for (std::int64_t i = 0; i < count; ++i) values[i] = through<Bfloat>(values[i]);
      return;
    case InputRounding::f16:
      for (std::int64_t i = 0; i < count; ++i) values[i] = through<Half>(values[i]);
      return;
  }
}

}  // namespace emulator::blas
