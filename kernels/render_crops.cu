#include "kernels/render_crops.cuh"

// Two kernels take turns over groups of crops, so that the 8-bit crops between them need little memory and stay in the
// second-level cache: the first reads images and writes crops of 8 bits, the second reads these and writes floats.
namespace dino {
inline namespace render_crops_cu {

using namespace cuda;

void check_view(const View& view, const char* name, int64_t rows_of) {
  const Shape& shape = view.shape;
  const bool fits = shape.rank == 4 && shape[0] % rows_of == 0 && shape[1] > 0 && shape[1] == shape[2] &&
                    shape[3] >= 1 && shape[3] <= 4 && view.dense() &&
                    (view.dtype == Dtype::f32 || view.dtype == Dtype::bf16);
  dino::check<UsageError>(fits, "render_crops: ", name, " must be dense [k * ", rows_of,
                          ", S, S, 1 to 4], f32 or bf16; got ", name_of(view.dtype), shape);
}

void render(CudaStream& stream, CropSelection selection, const PixelScale& scale, const View& out,
            size_t scratch_bytes) {
  const int64_t total = out.shape[0];
  CropPixels crops{nullptr, static_cast<int>(out.shape[1]), static_cast<int>(out.shape[3])};
  const size_t bytes = crops.crop_bytes() * (crops_fit_shared_memory(crops) ? 1 : 2);
  const int64_t most = std::max<int64_t>(1, static_cast<int64_t>(scratch_bytes / bytes));
  const int64_t launches = (total + most - 1) / most;
  const int64_t group = (total + launches - 1) / launches;  // all about as large
  crops.data = reinterpret_cast<uint8_t*>(stream.scratch(bytes * static_cast<size_t>(group)));
  uint8_t* spare = crops.data + crops.crop_bytes() * static_cast<size_t>(group);
  for (selection.begin = 0; selection.begin < total; selection.begin += group) {
    selection.count = std::min(group, total - selection.begin);
    resample_crops(stream, selection, crops);
    finish_crops(stream, selection, crops, spare, scale, out);
  }
}

}  // namespace render_crops_cu

void render_crops(CudaStream& stream, const PackedCrops& packed, int64_t first, const PixelScale& scale,
                  const View& globals, const View& locals, size_t scratch_bytes) {
  check_view(globals, "globals", 2);
  const int64_t images = globals.shape[0] / 2;
  dino::check<UsageError>(images > 0 && first >= 0 && first + images <= packed.images,
                          "render_crops: the images must be some of the batch; got ", images, " from ", first,
                          " on, of ", packed.images);
  dino::check<UsageError>(reinterpret_cast<uintptr_t>(packed.data) % PackedCrops::kAlignment == 0,
                          "render_crops: the packed batch must be aligned to ", PackedCrops::kAlignment, " bytes");
  CropSelection selection{
      .packed = packed.data, .batch = packed.images, .first = first, .images = images, .first_crop = 0};
  render(stream, selection, scale, globals, scratch_bytes);
  if (!locals.defined()) return;
  check_view(locals, "locals", images);
  dino::check<UsageError>(locals.shape[3] == globals.shape[3],
                          "render_crops: globals and locals must have the same channels; got ", globals.shape, " and ",
                          locals.shape);
  selection.first_crop = 2;
  render(stream, selection, scale, locals, scratch_bytes);
}

}  // namespace dino
