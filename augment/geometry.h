#pragma once

#include "augment/image.h"
#include "kernels/crop_resize.h"
#include "kernels/philox.h"
#include "kernels/value_image.h"

namespace dino {

/// A part of an image in whole pixels.
struct CropBox {
  int top, left, height, width;
};

/// What RandomResizedCrop draws from: the share of the image's area, and width over height.
struct CropRange {
  float scale_min, scale_max;
  float ratio_min = 3.0f / 4.0f, ratio_max = 4.0f / 3.0f;
};

/// A random box: area share uniform in the scale range, logarithm of the ratio uniform. After ten draws that
/// do not fit, the largest centred box whose ratio is in range. Source: torchvision's RandomResizedCrop.
CropBox sample_crop_box(int height, int width, const CropRange& range, Random& random);

/// Memory that `resize` reuses from call to call; one per thread.
struct ImageScratch {
  ResizeScratch bytes;
  ValueScratch values;
};

/// The pixels of a box, [height, width, channels], at another size, in bytes or values as the image is. Throws UsageError if the box does not
/// lie inside the image.
Image resize_part(const Image& image, CropBox box, int height, int width, Filter filter, ImageScratch& scratch);

/// Mirrors left and right.
void flip_horizontally(Image& image);

/// The image at another size, [height, width, channels].
Image resize_to(const Image& image, int height, int width, Filter filter);

/// Resizes (bicubic) so that the short side is `resize` and the long side trunc(resize * long / short), then
/// cuts `crop` x `crop` pixels from the centre (offsets rounded half to even). An image that is `crop` x
/// `crop` already is returned as it is. Throws UsageError if crop > resize.
Image resize_short_center_crop(const Image& image, int resize, int crop);

/// Shrinks (Lanczos, after averaging cells when more than twice too large) until no side exceeds `side`,
/// keeping the aspect. Smaller images are returned as they are. Equal to Pillow's `Image.thumbnail`.
Image thumbnail(const Image& image, int side);

}  // namespace dino
