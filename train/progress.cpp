#include "train/progress.h"

#include <unistd.h>

#include <cmath>
#include <cstdio>
#include <cstdlib>

#include "kernels/error.h"

namespace dino {
namespace {

double seconds_since(std::chrono::steady_clock::time_point start) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

std::string clock_text(double seconds) {
  const auto total = static_cast<int64_t>(seconds);
  char text[32];
  std::snprintf(text, sizeof text, "%ld:%02ld:%02ld", static_cast<long>(total / 3600), static_cast<long>(total / 60 % 60),
                static_cast<long>(total % 60));
  return text;
}

/// The doctor's verdict as a traffic light; in colour on a terminal, unless NO_COLOR is set (no-color.org).
std::string light_of(std::string_view health, bool colored) {
  if (health.empty()) return "";
  const char* color = health == "healthy" ? "32" : health == "watch" ? "33" : "31";
  return colored ? str("\033[", color, "m[", health, "]\033[0m  ") : str("[", health, "]  ");
}

bool wants_color() {
  const char* const no = std::getenv("NO_COLOR");
  const char* const terminal = std::getenv("TERM");
  return (!no || !*no) && (!terminal || std::string_view(terminal) != "dumb");
}

}  // namespace

ProgressLine::ProgressLine(int64_t first_step, int64_t last_step, double epochs, int64_t batch_size, double log_of_out_dim, bool every_step)
    : terminal_(isatty(STDERR_FILENO) != 0 && !every_step),
      every_step_(every_step),
      first_step_(first_step),
      last_step_(last_step),
      batch_size_(batch_size),
      epochs_(epochs),
      log_of_out_dim_(log_of_out_dim),
      start_(std::chrono::steady_clock::now()),
      last_shown_(start_ - std::chrono::hours(1)) {}

void ProgressLine::show(int64_t step, double epoch, const StepReport& report, double learning_rate, double seconds_waited,
                    bool logged, std::string_view health) {
  if (terminal_ ? seconds_since(last_shown_) < 0.2 && step + 1 < last_step_ : !logged && !every_step_) return;
  last_shown_ = std::chrono::steady_clock::now();
  const double seconds = std::max(seconds_since(start_), 1e-9), done = static_cast<double>(step + 1 - first_step_);
  const double remaining = seconds / done * static_cast<double>(last_step_ - step - 1);
  const std::string light = light_of(health, terminal_ && wants_color());
  char text[320];
  std::snprintf(text, sizeof text,
                "epoch %.2f/%g  step %ld/%ld  %sloss %.4f (ln K %.2f)  lr %.2e  %.1f images/s  data %.0f%%  left %s", epoch,
                epochs_, static_cast<long>(step + 1), static_cast<long>(last_step_), light.c_str(), report.loss,
                log_of_out_dim_, learning_rate, done * static_cast<double>(batch_size_) / seconds, 100 * seconds_waited / seconds,
                clock_text(remaining).c_str());
  if (!terminal_) {
    std::fprintf(stderr, "%s\n", text);
    return;
  }
  clear();
  shown_width_ = static_cast<size_t>(std::fprintf(stderr, "%s", text)) - (light.size() - light_of(health, false).size());
  if (step + 1 == last_step_) {
    std::fputc('\n', stderr);
    shown_width_ = 0;
  }
}

void ProgressLine::say(const std::string& message) {
  clear();
  std::fprintf(stderr, "%s\n", message.c_str());
}

void ProgressLine::clear() {
  if (shown_width_ > 0) std::fprintf(stderr, "\r%*s\r", static_cast<int>(shown_width_), "");
  shown_width_ = 0;
}

}  // namespace dino
