#include <csetjmp>
#include <cstdio>

#include <jpeglib.h>
// jerror.h needs jpeglib.h before it.
#include <jerror.h>

#include "augment/decode_formats.h"

namespace dino {
namespace {

// A progressive file of a few bytes can ask for thousands of passes over a large image.
constexpr int kMaxScans = 500;

// libjpeg reports errors by a call that must not return. It jumps back into `guarded`, over libjpeg's own C
// frames and over functions of this file that hold no object with a destructor.
struct JpegReader {
  jpeg_decompress_struct state{};
  jpeg_error_mgr errors{};
  jpeg_progress_mgr progress{};
  std::jmp_buf escape;
  char message[JMSG_LENGTH_MAX] = "";

  JpegReader() = default;
  JpegReader(const JpegReader&) = delete;
  ~JpegReader() { jpeg_destroy_decompress(&state); }
};

[[noreturn]] void escape(j_common_ptr state) {
  JpegReader& reader = *static_cast<JpegReader*>(state->client_data);
  state->err->format_message(state, reader.message);
  std::longjmp(reader.escape, 1);
}

// Warnings tell of damage that decoders paint over. A file that ends early is an error to us; the rest is
// tolerated, as some pictures of ImageNet need.
void on_message(j_common_ptr state, int level) {
  if (level < 0 && state->err->msg_code == JWRN_JPEG_EOF) escape(state);
}

void on_progress(j_common_ptr state) {
  JpegReader& reader = *static_cast<JpegReader*>(state->client_data);
  if (reader.state.input_scan_number <= kMaxScans) return;
  std::snprintf(reader.message, sizeof reader.message, "more than %d scans", kMaxScans);
  std::longjmp(reader.escape, 1);
}

// Runs `body`, which must hold no object with a destructor; false if libjpeg gave up, with `reader.message`
// set.
template <class Body>
bool guarded(JpegReader& reader, Body body) {
  if (setjmp(reader.escape) != 0) return false;
  body();
  return true;
}

bool read_header(JpegReader& reader, std::span<const uint8_t> bytes) {
  return guarded(reader, [&] {
    jpeg_decompress_struct& state = reader.state;
    state.err = jpeg_std_error(&reader.errors);
    reader.errors.error_exit = escape;
    reader.errors.emit_message = on_message;
    state.client_data = &reader;
    jpeg_create_decompress(&state);
    reader.progress.progress_monitor = on_progress;
    state.progress = &reader.progress;
    jpeg_mem_src(&state, bytes.data(), bytes.size());
    jpeg_read_header(&state, TRUE);
  });
}

// Sets the size that `read_rows` will give.
bool reduce(JpegReader& reader, int reduction) {
  return guarded(reader, [&] {
    reader.state.scale_num = 1;
    reader.state.scale_denom = static_cast<unsigned>(reduction);
    jpeg_calc_output_dimensions(&reader.state);
  });
}

bool read_rows(JpegReader& reader, MutableImageView out) {
  return guarded(reader, [&] {
    jpeg_decompress_struct& state = reader.state;
    state.out_color_space = out.channels == 1 ? JCS_GRAYSCALE : out.channels == 3 ? JCS_RGB : JCS_CMYK;
    state.dct_method = JDCT_ISLOW;
    state.do_fancy_upsampling = TRUE;
    jpeg_start_decompress(&state);
    while (state.output_scanline < state.output_height) {
      JSAMPROW row = out.row(static_cast<int>(state.output_scanline));
      jpeg_read_scanlines(&state, &row, 1);
    }
  });
}

// Four-channel files hold inverted inks (Adobe's convention): `ink` is 255 - cyan, `key` is 255 - black.
uint8_t under_ink(int ink, int key) {
  const int product = (255 - ink) * key + 128;
  return static_cast<uint8_t>(key - ((product + (product >> 8)) >> 8));
}

Image rgb_from_cmyk(const Image& cmyk) {
  Image rgb(cmyk.height, cmyk.width, 3);
  const uint8_t* in = cmyk.pixels.data();
  for (size_t i = 0; i < rgb.pixels.size(); i += 3, in += 4) {
    for (int c = 0; c < 3; ++c) rgb.pixels[i + c] = under_ink(in[c], in[3]);
  }
  return rgb;
}

}  // namespace

Image decode_jpeg(std::span<const uint8_t> bytes, std::string_view name, const ReductionChoice& choose) {
  JpegReader reader;
  if (!read_header(reader, bytes)) throw_undecodable(name, "JPEG", reader.message);
  // Every 8 x 8 block of a component costs at least one bit, and blocks may be enlarged four times each way.
  check_image_size(reader.state.image_width, reader.state.image_height, bytes.size(), 8 * 64 * 16, name);
  const int components = reader.state.num_components;
  if (components != 1 && components != 3 && components != 4) {
    throw_undecodable(name, "JPEG", str(components, " colour components"));
  }
  const int height = static_cast<int>(reader.state.image_height), width = static_cast<int>(reader.state.image_width);
  const int reduction = choose ? choose(height, width) : 1;
  check<UsageError>(reduction == 1 || reduction == 2 || reduction == 4 || reduction == 8,
                    "decode: JPEGs are reduced by 1, 2, 4 or 8; got ", reduction);
  if (!reduce(reader, reduction)) throw_undecodable(name, "JPEG", reader.message);
  Image image(static_cast<int>(reader.state.output_height), static_cast<int>(reader.state.output_width), components);
  if (!read_rows(reader, image.view())) throw_undecodable(name, "JPEG", reader.message);
  return components == 4 ? rgb_from_cmyk(image) : image;
}

}  // namespace dino
