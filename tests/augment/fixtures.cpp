#include "tests/augment/fixtures.h"

#include <cstdio>

#include <jpeglib.h>
#include <tiffio.h>
#include <unistd.h>
#include <webp/encode.h>
#include <zlib.h>

#include <bit>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <stdexcept>

namespace dino::fixtures {
namespace {

void append(Bytes& to, std::span<const uint8_t> bytes) { to.insert(to.end(), bytes.begin(), bytes.end()); }
void append(Bytes& to, const std::string& text) { to.insert(to.end(), text.begin(), text.end()); }

void append_big_endian(Bytes& to, uint32_t value) {
  for (int shift = 24; shift >= 0; shift -= 8) to.push_back(static_cast<uint8_t>(value >> shift));
}

void append_little_endian(Bytes& to, uint32_t value, int bytes = 4) {
  for (int i = 0; i < bytes; ++i) to.push_back(static_cast<uint8_t>(value >> (8 * i)));
}

Bytes compress_jpeg(const Image& image, int quality, J_COLOR_SPACE space) {
  jpeg_compress_struct state{};
  jpeg_error_mgr errors{};
  state.err = jpeg_std_error(&errors);
  jpeg_create_compress(&state);
  unsigned char* memory = nullptr;
  unsigned long size = 0;
  jpeg_mem_dest(&state, &memory, &size);
  state.image_width = static_cast<JDIMENSION>(image.width);
  state.image_height = static_cast<JDIMENSION>(image.height);
  state.input_components = image.channels;
  state.in_color_space = space;
  jpeg_set_defaults(&state);
  jpeg_set_quality(&state, quality, TRUE);
  jpeg_start_compress(&state, TRUE);
  while (state.next_scanline < state.image_height) {
    JSAMPROW row = const_cast<uint8_t*>(image.view().row(static_cast<int>(state.next_scanline)));
    jpeg_write_scanlines(&state, &row, 1);
  }
  jpeg_finish_compress(&state);
  jpeg_destroy_compress(&state);
  Bytes bytes(memory, memory + size);
  std::free(memory);
  return bytes;
}

void append_chunk(Bytes& to, const std::string& kind, const Bytes& data) {
  append_big_endian(to, static_cast<uint32_t>(data.size()));
  const size_t begin = to.size();
  append(to, kind);
  append(to, data);
  append_big_endian(to,
                    static_cast<uint32_t>(crc32(0, to.data() + begin, static_cast<uInt>(to.size() - begin))));
}

Bytes make_png(const Image& image, int sample_bytes) {
  constexpr uint8_t kColorTypes[] = {0, 4, 2, 6};
  Bytes header;
  append_big_endian(header, static_cast<uint32_t>(image.width));
  append_big_endian(header, static_cast<uint32_t>(image.height));
  header.push_back(static_cast<uint8_t>(8 * sample_bytes));
  header.push_back(kColorTypes[image.channels - 1]);
  header.insert(header.end(), 3, 0);
  Bytes rows;
  for (int y = 0; y < image.height; ++y) {
    rows.push_back(0);  // no filter
    for (size_t i = 0; i < image.view().row_bytes(); ++i) {
      rows.push_back(image.view().row(y)[i]);
      if (sample_bytes == 2) rows.push_back(static_cast<uint8_t>(37 * i));
    }
  }
  uLongf size = compressBound(rows.size());
  Bytes packed(size);
  compress(packed.data(), &size, rows.data(), rows.size());
  packed.resize(size);
  Bytes file{0x89, 'P', 'N', 'G', '\r', '\n', 0x1A, '\n'};
  append_chunk(file, "IHDR", header);
  append_chunk(file, "IDAT", packed);
  append_chunk(file, "IEND", {});
  return file;
}

// What libtiff writes to.
struct Sink {
  Bytes bytes;
  uint64_t position = 0;
};

tmsize_t sink_write(thandle_t handle, void* data, tmsize_t size) {
  Sink& sink = *static_cast<Sink*>(handle);
  const size_t n = static_cast<size_t>(size);
  if (sink.bytes.size() < sink.position + n) sink.bytes.resize(sink.position + n);
  std::memcpy(sink.bytes.data() + sink.position, data, n);
  sink.position += n;
  return size;
}

tmsize_t sink_read(thandle_t handle, void* data, tmsize_t size) {
  Sink& sink = *static_cast<Sink*>(handle);
  const size_t n = std::min<size_t>(static_cast<size_t>(size), sink.bytes.size() - sink.position);
  std::memcpy(data, sink.bytes.data() + sink.position, n);
  sink.position += n;
  return static_cast<tmsize_t>(n);
}

toff_t sink_seek(thandle_t handle, toff_t offset, int whence) {
  Sink& sink = *static_cast<Sink*>(handle);
  return sink.position = whence == SEEK_SET   ? offset
                         : whence == SEEK_CUR ? sink.position + offset
                                              : sink.bytes.size() + offset;
}

}  // namespace

Image pattern(int rows, int columns) {
  Image image(rows, columns, 3);
  uint8_t* out = image.pixels.data();
  for (int y = 0; y < rows; ++y) {
    for (int x = 0; x < columns; ++x) {
      for (int c = 0; c < 3; ++c) {
        *out++ = static_cast<uint8_t>(7 * x + 13 * y + 101 * c + ((x * x + 3 * y * y + x * y) >> 4));
      }
    }
  }
  return image;
}

Image gray_pattern(int rows, int columns) {
  const Image color = pattern(rows, columns);
  Image image(rows, columns, 1);
  for (size_t i = 0; i < image.pixels.size(); ++i) image.pixels[i] = color.pixels[3 * i];
  return image;
}

uint32_t crc_of(const Image& image) {
  return static_cast<uint32_t>(crc32(0, image.pixels.data(), static_cast<uInt>(image.pixels.size())));
}

Bytes jpeg(const Image& image, int quality) {
  return compress_jpeg(image, quality, image.channels == 1 ? JCS_GRAYSCALE : JCS_RGB);
}

Bytes cmyk_jpeg(const Image& image) { return compress_jpeg(image, 100, JCS_CMYK); }

Bytes png(const Image& image) { return make_png(image, 1); }
Bytes png16(const Image& image) { return make_png(image, 2); }

Bytes bmp(const Image& image) {
  const uint32_t stride = (static_cast<uint32_t>(image.width) * 3 + 3) / 4 * 4;
  Bytes file{'B', 'M'};
  append_little_endian(file, 54 + stride * static_cast<uint32_t>(image.height));
  append_little_endian(file, 0);
  append_little_endian(file, 54);
  append_little_endian(file, 40);
  append_little_endian(file, static_cast<uint32_t>(image.width));
  append_little_endian(file, static_cast<uint32_t>(image.height));
  append_little_endian(file, 1, 2);
  append_little_endian(file, 24, 2);
  file.resize(54, 0);
  for (int y = image.height - 1; y >= 0; --y) {
    const size_t begin = file.size();
    for (int x = 0; x < image.width; ++x) {
      for (int c = 2; c >= 0; --c) file.push_back(image.view().row(y)[3 * x + c]);
    }
    file.resize(begin + stride, 0);
  }
  return file;
}

Bytes pnm(const Image& image) {
  Bytes file;
  append(file, (image.channels == 1 ? "P5\n" : "P6\n") + std::to_string(image.width) + " " +
                   std::to_string(image.height) + "\n255\n");
  append(file, image.pixels);
  return file;
}

Bytes webp(const Image& image) {
  uint8_t* memory = nullptr;
  const size_t size =
      WebPEncodeLosslessRGB(image.pixels.data(), image.width, image.height, 3 * image.width, &memory);
  Bytes bytes(memory, memory + size);
  WebPFree(memory);
  return bytes;
}

namespace {

TIFF* open_to_write(Sink& sink) {
  return TIFFClientOpen(
      "test", "wm", &sink, sink_read, sink_write, sink_seek, [](thandle_t) { return 0; },
      [](thandle_t handle) -> toff_t { return static_cast<Sink*>(handle)->bytes.size(); },
      [](thandle_t, void**, toff_t*) { return 0; }, [](thandle_t, void*, toff_t) {});
}

size_t bytes_of_sample(SampleType type) { return type == SampleType::uint8 ? 1 : type == SampleType::uint16 ? 2 : 4; }

void append_sample(Bytes& bytes, double sample, SampleType type, bool big_endian = false) {
  const auto real = static_cast<float>(sample);
  const uint32_t word = type == SampleType::float32 ? std::bit_cast<uint32_t>(real) : static_cast<uint32_t>(sample);
  const size_t count = bytes_of_sample(type);
  for (size_t i = 0; i < count; ++i) bytes.push_back(static_cast<uint8_t>(word >> 8 * (big_endian ? count - 1 - i : i)));
}

}  // namespace

WideImage wide_pattern(int height, int width, int channels, SampleType type, int number) {
  WideImage image{height, width, channels, type, {}};
  const double range = type == SampleType::uint8 ? 255 : 65535;
  const auto count = static_cast<size_t>(height * width * channels);
  for (size_t i = 0; i < count; ++i) {
    const double share = static_cast<double>((i * 40503 + static_cast<size_t>(number) * 7919 + i / 7) % 65536) / 65535;
    image.samples.push_back(type == SampleType::float32 ? static_cast<double>(static_cast<float>(100 * share - 50)) : std::floor(share * range));
  }
  return image;
}

std::vector<float> values_of(const WideImage& image) {
  const float range = image.type == SampleType::uint8 ? 255.0f : image.type == SampleType::uint16 ? 65535.0f : 1.0f;
  std::vector<float> values;
  for (const double sample : image.samples) values.push_back(static_cast<float>(sample) / range);
  return values;
}

Bytes wide_tiff(const WideImage& image) {
  constexpr uint32_t kTile = 16;
  Sink sink;
  TIFF* file = open_to_write(sink);
  const auto width = static_cast<uint32_t>(image.width), height = static_cast<uint32_t>(image.height);
  const auto channels = static_cast<size_t>(image.channels);
  TIFFSetField(file, TIFFTAG_IMAGEWIDTH, width);
  TIFFSetField(file, TIFFTAG_IMAGELENGTH, height);
  TIFFSetField(file, TIFFTAG_BITSPERSAMPLE, 8 * static_cast<int>(bytes_of_sample(image.type)));
  TIFFSetField(file, TIFFTAG_SAMPLEFORMAT, image.type == SampleType::float32 ? SAMPLEFORMAT_IEEEFP : SAMPLEFORMAT_UINT);
  TIFFSetField(file, TIFFTAG_SAMPLESPERPIXEL, image.channels);
  TIFFSetField(file, TIFFTAG_PHOTOMETRIC, PHOTOMETRIC_MINISBLACK);
  TIFFSetField(file, TIFFTAG_PLANARCONFIG, image.planes ? PLANARCONFIG_SEPARATE : PLANARCONFIG_CONTIG);
  TIFFSetField(file, TIFFTAG_COMPRESSION, COMPRESSION_ADOBE_DEFLATE);
  std::vector<uint16_t> extra(channels - 1, uint16_t{EXTRASAMPLE_UNSPECIFIED});
  if (image.alpha) extra.back() = EXTRASAMPLE_UNASSALPHA;
  if (!extra.empty()) TIFFSetField(file, TIFFTAG_EXTRASAMPLES, static_cast<int>(extra.size()), extra.data());
  uint32_t rows = 1, columns = width;
  if (image.tiles) {
    rows = columns = kTile;
    TIFFSetField(file, TIFFTAG_TILEWIDTH, kTile);
    TIFFSetField(file, TIFFTAG_TILELENGTH, kTile);
  } else {
    TIFFSetField(file, TIFFTAG_ROWSPERSTRIP, 7);
  }
  for (size_t plane = 0; plane < (image.planes ? channels : 1); ++plane)
    for (uint32_t top = 0; top < height; top += rows)
      for (uint32_t left = 0; left < width; left += columns) {
        Bytes part;
        for (uint32_t y = top; y < top + rows; ++y)
          for (uint32_t x = left; x < left + columns; ++x)
            for (size_t c = image.planes ? plane : 0; c < (image.planes ? plane + 1 : channels); ++c)
              append_sample(part, y < height && x < width ? image.samples[(y * width + x) * channels + c] : 0, image.type);
        if (image.tiles)
          TIFFWriteTile(file, part.data(), left, top, 0, static_cast<uint16_t>(plane));
        else
          TIFFWriteScanline(file, part.data(), top, static_cast<uint16_t>(plane));
      }
  TIFFClose(file);
  return sink.bytes;
}

Bytes npy_with(const std::string& header, std::span<const uint8_t> data) {
  Bytes file;
  append(file, std::string("\x93NUMPY\x01\x00", 8));
  append_little_endian(file, static_cast<uint32_t>(header.size()), 2);
  append(file, header);
  file.insert(file.end(), data.begin(), data.end());
  return file;
}

Bytes npy(const WideImage& image, bool channels_first, bool big_endian) {
  const std::string height = std::to_string(image.height), width = std::to_string(image.width), channels = std::to_string(image.channels);
  const std::string shape = image.channels == 1 ? height + ", " + width
                            : channels_first    ? channels + ", " + height + ", " + width
                                                : height + ", " + width + ", " + channels;
  const std::string order = image.type == SampleType::uint8 ? "|" : big_endian ? ">" : "<";
  const std::string type = image.type == SampleType::uint8 ? "u1" : image.type == SampleType::uint16 ? "u2" : "f4";
  Bytes data;
  const auto depth = static_cast<size_t>(image.channels), plane = image.samples.size() / depth;
  for (size_t i = 0; i < image.samples.size(); ++i)
    append_sample(data, image.samples[channels_first ? i % plane * depth + i / plane : i], image.type, big_endian);
  return npy_with("{'descr': '" + order + type + "', 'fortran_order': False, 'shape': (" + shape + "), }\n", data);
}

Bytes tiff(const Image& image) {
  Sink sink;
  TIFF* file = open_to_write(sink);
  TIFFSetField(file, TIFFTAG_IMAGEWIDTH, static_cast<uint32_t>(image.width));
  TIFFSetField(file, TIFFTAG_IMAGELENGTH, static_cast<uint32_t>(image.height));
  TIFFSetField(file, TIFFTAG_BITSPERSAMPLE, 8);
  TIFFSetField(file, TIFFTAG_SAMPLESPERPIXEL, image.channels);
  TIFFSetField(file, TIFFTAG_PHOTOMETRIC, image.channels == 1 ? PHOTOMETRIC_MINISBLACK : PHOTOMETRIC_RGB);
  TIFFSetField(file, TIFFTAG_PLANARCONFIG, PLANARCONFIG_CONTIG);
  TIFFSetField(file, TIFFTAG_COMPRESSION, COMPRESSION_LZW);
  TIFFSetField(file, TIFFTAG_ROWSPERSTRIP, 7);
  if (image.channels == 4) {
    const uint16_t alpha = EXTRASAMPLE_UNASSALPHA;
    TIFFSetField(file, TIFFTAG_EXTRASAMPLES, 1, &alpha);
  }
  for (int y = 0; y < image.height; ++y) {
    TIFFWriteScanline(file, const_cast<uint8_t*>(image.view().row(y)), static_cast<uint32_t>(y), 0);
  }
  TIFFClose(file);
  return sink.bytes;
}

Bytes gzip(std::span<const uint8_t> plain) {
  z_stream stream{};
  deflateInit2(&stream, 6, Z_DEFLATED, 15 + 16, 8, Z_DEFAULT_STRATEGY);
  Bytes packed(deflateBound(&stream, plain.size()));
  stream.next_in = const_cast<uint8_t*>(plain.data());
  stream.avail_in = static_cast<uInt>(plain.size());
  stream.next_out = packed.data();
  stream.avail_out = static_cast<uInt>(packed.size());
  deflate(&stream, Z_FINISH);
  packed.resize(stream.total_out);
  deflateEnd(&stream);
  return packed;
}

void append_member(Bytes& archive, const std::string& name, std::span<const uint8_t> contents, char type) {
  char header[512] = {};
  std::memcpy(header, name.data(), std::min<size_t>(name.size(), 100));
  std::snprintf(header + 100, 8, "%07o", 0644);
  std::snprintf(header + 124, 12, "%011zo", contents.size());
  std::memset(header + 148, ' ', 8);
  header[156] = type;
  std::memcpy(header + 257,
              "ustar\0"
              "00",
              8);
  unsigned sum = 0;
  for (const char c : header) sum += static_cast<unsigned char>(c);
  std::snprintf(header + 148, 8, "%06o", sum);
  archive.insert(archive.end(), header, header + sizeof header);
  append(archive, contents);
  archive.resize((archive.size() + 511) / 512 * 512, 0);
}

void finish_archive(Bytes& archive) { archive.resize(archive.size() + 1024, 0); }

Bytes idx_images(int count, int rows, int columns) {
  Bytes file{0, 0, 8, 3};
  for (const int value : {count, rows, columns}) append_big_endian(file, static_cast<uint32_t>(value));
  for (int i = 0; i < count * rows * columns; ++i) file.push_back(static_cast<uint8_t>(31 * i + i / 256));
  return file;
}

Bytes idx_labels(int count, int classes) {
  Bytes file{0, 0, 8, 1};
  append_big_endian(file, static_cast<uint32_t>(count));
  for (int i = 0; i < count; ++i) file.push_back(static_cast<uint8_t>(i % classes));
  return file;
}

Bytes cifar(int count, int label_bytes) {
  Bytes file;
  for (int i = 0; i < count; ++i) {
    if (label_bytes == 2) file.push_back(3);
    file.push_back(static_cast<uint8_t>(i % 10));
    for (int j = 0; j < 3072; ++j) file.push_back(static_cast<uint8_t>(i + 7 * j + j / 1024));
  }
  return file;
}

TemporaryFolder::TemporaryFolder() {
  std::string name = (std::filesystem::temp_directory_path() / "dino_test_XXXXXX").string();
  if (::mkdtemp(name.data()) == nullptr) throw std::runtime_error("cannot make a temporary folder");
  root_ = name;
}

TemporaryFolder::~TemporaryFolder() {
  std::error_code ignored;
  std::filesystem::remove_all(root_, ignored);
}

std::string TemporaryFolder::write(const std::string& name, std::span<const uint8_t> contents) const {
  const std::filesystem::path file = root_ / name;
  std::filesystem::create_directories(file.parent_path());
  std::ofstream(file, std::ios::binary)
      .write(reinterpret_cast<const char*>(contents.data()), static_cast<std::streamsize>(contents.size()));
  return file.string();
}

std::string TemporaryFolder::write(const std::string& name, const std::string& text) const {
  return write(name, std::span(reinterpret_cast<const uint8_t*>(text.data()), text.size()));
}

}  // namespace dino::fixtures
