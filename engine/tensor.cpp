#include "engine/tensor.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <utility>

#include "kernels/cuda_memory.h"

namespace dino {
namespace {

/// Sets rows [row, row + rows) × columns [col, col + cols) to zero; all-zero bytes are 0 in every dtype.
void fill_zero(const View& view, int64_t row, int64_t rows, int64_t col, int64_t cols) {
  const size_t size = bytes_of(view.dtype), pitch = static_cast<size_t>(view.row_stride) * size;
  auto* data = static_cast<std::byte*>(view.data) + static_cast<size_t>(row * view.row_stride + col) * size;
  if (view.device == Device::plan) return;
  if (view.device == Device::cuda) return cuda::clear(data, pitch, static_cast<size_t>(cols) * size, static_cast<size_t>(rows));
  for (int64_t r = 0; r < rows; ++r) std::memset(data + static_cast<size_t>(r) * pitch, 0, static_cast<size_t>(cols) * size);
}

void copy_bytes(void* to, const void* from, size_t bytes, Device device) {
  if (device == Device::plan) return;
  if (device == Device::cuda)
    cuda::copy(to, from, bytes);
  else
    std::memcpy(to, from, bytes);
}

View part_of(const View& view, Shape shape, int64_t row, int64_t col) {
  auto* data = static_cast<std::byte*>(view.data) + static_cast<size_t>(row * view.row_stride + col) * bytes_of(view.dtype);
  return View(data, view.dtype, shape, view.row_stride, view.device);
}

}  // namespace

Tensor Tensor::rows(int64_t begin, int64_t end) const {
  // The elements of a vector are its rows to the caller, but a view sees it as one row.
  return view_.shape.rank == 1 ? part(0, 1, begin, end) : part(begin, end, 0, view_.cols());
}

Tensor Tensor::cols(int64_t begin, int64_t end) const { return part(0, view_.rows(), begin, end); }

Tensor Tensor::part(int64_t row_begin, int64_t row_end, int64_t col_begin, int64_t col_end) const {
  const int64_t rows = row_end - row_begin, cols = col_end - col_begin;
  check(row_begin >= 0 && col_begin >= 0 && rows > 0 && cols > 0 && row_end <= view_.rows() && col_end <= view_.cols(),
        "tensor: part must lie inside; got rows ", row_begin, "–", row_end, ", columns ", col_begin, "–", col_end,
        " of ", view_.shape);
  const Shape shape = view_.shape.rank == 1 ? Shape{cols} : Shape{rows, cols};
  Tensor result(part_of(view_, shape, row_begin, col_begin), memory_);
  if (grad_) result.grad_ = std::make_shared<GradSlot>(grad_, shape, row_begin, col_begin, rows, cols);
  return result;
}

Tensor Tensor::reshaped(Shape shape) const {
  check(view_.dense() && shape.count() == view_.count(), "tensor: cannot see ", view_.shape, " as ", shape);
  Tensor result(View(view_.data, view_.dtype, shape, 0, view_.device), memory_);
  if (grad_) result.grad_ = std::make_shared<GradSlot>(grad_, shape, 0, 0, view_.rows(), view_.cols());
  return result;
}

GradSlot::GradSlot(std::shared_ptr<GradSlot> whole, Shape shape, int64_t row, int64_t col, int64_t rows, int64_t cols)
    : spec_{whole->spec_.dtype, shape}, parent_(std::move(whole)), place_{row, col, rows, cols} {}

Grad GradSlot::touch() {
  if (parent_) {
    const bool whole = place_ == Region{0, 0, parent_->spec_.shape.rows(), parent_->spec_.shape.cols()};
    const Grad grad = whole ? parent_->touch() : parent_->touch_region(place_);
    const bool reshaped = whole && !(spec_.shape == parent_->spec_.shape);
    if (reshaped) return {View(grad.view.data, spec_.dtype, spec_.shape, 0, grad.view.device), grad.mode};
    return {whole ? grad.view : part_of(grad.view, spec_.shape, place_.row, place_.col), grad.mode};
  }
  allocate();
  if (!regions_.empty()) fill_untouched();
  return {view_, std::exchange(whole_touched_, true) ? GradMode::add : GradMode::write};
}

Grad GradSlot::touch_region(const Region& region) {
  if (parent_) {
    check(place_.cols == spec_.shape.cols(), "tensor: parts of reshaped tensors have no gradient");
    const Grad grad = parent_->touch_region({place_.row + region.row, place_.col + region.col, region.rows, region.cols});
    return {part_of(grad.view, spec_.shape, place_.row, place_.col), grad.mode};
  }
  allocate();
  if (whole_touched_) return {view_, GradMode::add};
  if (std::find(regions_.begin(), regions_.end(), region) != regions_.end()) return {view_, GradMode::add};
  for (const Region& other : regions_)
    check(region.row >= other.row + other.rows || other.row >= region.row + region.rows ||
              region.col >= other.col + other.cols || other.col >= region.col + region.cols,
          "tensor: parts with gradients must be equal or disjoint");
  regions_.push_back(region);
  return {view_, GradMode::write};
}

void GradSlot::fill_untouched() {
  int64_t covered = 0;
  for (const Region& region : regions_) covered += region.rows * region.cols;
  const int64_t rows = spec_.shape.rows(), cols = spec_.shape.cols();
  for (int64_t row = 0; covered < rows * cols && row < rows; ++row) {
    std::vector<std::pair<int64_t, int64_t>> spans;
    for (const Region& region : regions_)
      if (row >= region.row && row < region.row + region.rows) spans.emplace_back(region.col, region.cols);
    std::sort(spans.begin(), spans.end());
    int64_t from = 0;
    for (const auto& [col, width] : spans) {
      fill_zero(view_, row, 1, from, col - from);
      from = col + width;
    }
    fill_zero(view_, row, 1, from, cols - from);
  }
  regions_.clear();
  whole_touched_ = true;
}

bool GradSlot::touched() const {
  if (!parent_) return whole_touched_ || !regions_.empty();
  return parent_->touched();
}

View GradSlot::value() {
  if (parent_) {
    const View whole = parent_->value();
    if (!whole.defined()) return {};
    const bool reshaped = place_ == Region{0, 0, whole.rows(), whole.cols()};
    return reshaped ? View(whole.data, spec_.dtype, spec_.shape, spec_.shape.cols() == whole.cols() ? whole.row_stride : 0, whole.device)
                    : part_of(whole, spec_.shape, place_.row, place_.col);
  }
  if (!touched()) return {};
  if (!whole_touched_) fill_untouched();
  return view_;
}

void GradSlot::assign(const Tensor& value) {
  check(!parent_ && !touched() && value.spec() == spec_, "tensor: a gradient is assigned once, before anything else");
  view_ = value.view();
  memory_ = std::make_shared<Tensor>(value);
  whole_touched_ = true;
}

void GradSlot::take(GradSlot& other) {
  check(!parent_ && !other.parent_ && !touched() && spec_ == other.spec_, "tensor: a gradient is taken over once, before anything else");
  view_ = std::exchange(other.view_, View());
  memory_ = std::exchange(other.memory_, nullptr);
  whole_touched_ = std::exchange(other.whole_touched_, false);
  regions_ = std::exchange(other.regions_, {});
}

void GradSlot::reset() {
  whole_touched_ = false;
  regions_.clear();
}

void GradSlot::allocate() {
  if (view_.defined()) return;
  const Tensor tensor = dino::allocate(*arena_, spec_);
  view_ = tensor.view();
  memory_ = std::make_shared<Tensor>(tensor);
}

Tensor allocate(Arena& arena, Spec spec) {
  auto block = std::make_shared<Block>(arena.allocate(static_cast<size_t>(spec.shape.count()) * bytes_of(spec.dtype)));
  const View view(block->data(), spec.dtype, spec.shape, 0, arena.device());
  return Tensor(view, std::move(block));
}

void copy_to_host(const View& view, void* to) {
  check(view.dense(), "tensor: only dense tensors are copied");
  copy_bytes(to, view.data, static_cast<size_t>(view.count()) * bytes_of(view.dtype), view.device);
}

void copy_from_host(const void* from, const View& view) {
  check(view.dense(), "tensor: only dense tensors are copied");
  copy_bytes(view.data, from, static_cast<size_t>(view.count()) * bytes_of(view.dtype), view.device);
}

void copy_elements(const View& from, const View& to) {
  check(from.dense() && to.dense() && from.dtype == to.dtype && from.count() == to.count(),
        "tensor: only dense tensors of one type and size are copied");
  // Host memory is within reach of every device's copies.
  copy_bytes(to.data, from.data, static_cast<size_t>(from.count()) * bytes_of(from.dtype), std::max(from.device, to.device));
}

void clear(const View& view) { fill_zero(view, 0, view.rows(), 0, view.cols()); }

std::vector<double> values_of(const Tensor& tensor) {
  std::vector<double> values(static_cast<size_t>(tensor.shape().count()));
  if (tensor.dtype() == Dtype::bf16) {
    std::vector<uint16_t> halves(values.size());
    copy_to_host(tensor.view(), halves.data());
    std::transform(halves.begin(), halves.end(), values.begin(),
                   [](uint16_t half) { return static_cast<double>(std::bit_cast<float>(uint32_t{half} << 16)); });
    return values;
  }
  with_float(tensor.dtype(), [&](auto zero) {
    std::vector<decltype(zero)> exact(values.size());
    copy_to_host(tensor.view(), exact.data());
    std::copy(exact.begin(), exact.end(), values.begin());
  });
  return values;
}

}  // namespace dino
