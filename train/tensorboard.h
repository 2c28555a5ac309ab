#pragma once

#include <cstdint>
#include <cstdio>
#include <nlohmann/json_fwd.hpp>
#include <span>
#include <string>

namespace dino {

/// CRC-32C (Castagnoli), as RFC 3720 and TFRecord files use it.
uint32_t crc32c(std::span<const std::byte> data);

/// An event file that TensorBoard reads: TFRecord frames around Event messages (protocol buffers), one per logged step. Source:
/// TensorFlow's tf_record and event.proto. Each session of a run writes a file of its own, which begins with a mark at its first
/// step, so that TensorBoard drops what an interrupted session had written beyond it.
class TensorBoardLog {
 public:
  /// Creates `folder`/events.out.tfevents.<seconds since 1970>.dino_engine. Throws Error if it cannot be written.
  TensorBoardLog(const std::string& folder, int64_t first_step);
  ~TensorBoardLog();
  TensorBoardLog(const TensorBoardLog&) = delete;
  TensorBoardLog& operator=(const TensorBoardLog&) = delete;

  /// All finite numbers of a line of the log but "step", under their names, at its step.
  void write(const nlohmann::json& line);

 private:
  void write_record(const std::string& event);

  std::string path_;
  std::FILE* file_;
};

}  // namespace dino
