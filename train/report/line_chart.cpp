#include "train/report/line_chart.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>

#include "kernels/error.h"
#include "train/report/markup.h"

namespace dino {
namespace {

constexpr double kWidth = 640, kHeight = 220, kLeft = 58, kRight = 628, kTop = 12, kBottom = 192;
constexpr size_t kMostPoints = 240;

struct Range {
  double least = std::numeric_limits<double>::infinity(), largest = -least;

  void take(double value) {
    least = std::min(least, value);
    largest = std::max(largest, value);
  }
  /// Room above and below, also around a single value.
  void widen() {
    const double room = largest > least ? 0.05 * (largest - least) : largest == 0 ? 1 : std::abs(largest) * 0.1;
    least -= room;
    largest += room;
  }
  /// Where `value` lies between `from` and `to`.
  double place(double value, double from, double to) const {
    return largest > least ? from + (value - least) / (largest - least) * (to - from) : (from + to) / 2;
  }
};

/// Evenly chosen points, the first and the last among them.
std::vector<ChartPoint> thinned(const std::vector<ChartPoint>& points) {
  if (points.size() <= kMostPoints) return points;
  std::vector<ChartPoint> result;
  for (size_t i = 0; i < kMostPoints; ++i) result.push_back(points[i * (points.size() - 1) / (kMostPoints - 1)]);
  return result;
}

class Drawing {
 public:
  explicit Drawing(const LineChart& chart) : chart_(chart) {
    for (const Curve& curve : chart.curves) {
      curves_.push_back(thinned(curve.points));
      for (const ChartPoint& point : curves_.back()) {
        x_.take(point.x);
        y_.take(point.y);
      }
    }
    if (chart.reference) y_.take(chart.reference->y);
    y_.widen();
  }

  std::string svg() const {
    std::string text = str("<svg viewBox=\"0 0 ", kWidth, " ", kHeight, "\" role=\"img\" aria-label=\"", escaped(chart_.title), "\">");
    text += axes() + reference();
    for (size_t i = 0; i < curves_.size(); ++i) text += line(i);
    return text + values() + "</svg>";
  }

 private:
  double x(double value) const { return x_.place(value, kLeft, kRight); }
  double y(double value) const { return y_.place(value, kBottom, kTop); }

  std::string axes() const {
    std::string text;
    for (const double tick : round_ticks(y_.least, y_.largest, 4))
      text += str("<path class=\"grid\" d=\"M", kLeft, " ", short_number(y(tick)), "H", kRight, "\"/><text x=\"", kLeft - 6, "\" y=\"",
                  short_number(y(tick) + 4), "\" text-anchor=\"end\">", short_number(tick), "</text>");
    for (const double tick : round_ticks(x_.least, x_.largest, 6))
      text += str("<text x=\"", short_number(x(tick)), "\" y=\"", kBottom + 18, "\" text-anchor=\"middle\">", short_number(tick), "</text>");
    return text;
  }

  std::string reference() const {
    if (!chart_.reference) return "";
    const std::string height = short_number(y(chart_.reference->y));
    return str("<path class=\"reference\" d=\"M", kLeft, " ", height, "H", kRight, "\"/>");
  }

  std::string line(size_t number) const {
    std::string path;
    for (const ChartPoint& point : curves_[number])
      path += str(path.empty() ? "M" : "L", short_number(x(point.x)), " ", short_number(y(point.y)));
    return str("<path class=\"line c", number, "\" d=\"", path, "\"/>");
  }

  /// A strip for each x with what the curves are worth there.
  std::string values() const {
    std::map<double, std::string> texts;
    for (size_t i = 0; i < curves_.size(); ++i)
      for (const ChartPoint& point : curves_[i])
        texts[point.x] += str("\n", chart_.curves[i].name, " ", short_number(point.y, 5));
    const double half = texts.size() > 1 ? (kRight - kLeft) / static_cast<double>(texts.size()) / 2 : (kRight - kLeft) / 2;
    std::string text;
    for (const auto& [value, words] : texts)
      text += str("<rect class=\"value\" tabindex=\"0\" x=\"", short_number(x(value) - half), "\" y=\"", kTop, "\" width=\"",
                  short_number(2 * half), "\" height=\"", kBottom - kTop, "\"><title>", escaped(chart_.x_name), " ", short_number(value),
                  escaped(words), "</title></rect>");
    return text;
  }

  const LineChart& chart_;
  std::vector<std::vector<ChartPoint>> curves_;
  Range x_, y_;
};

}  // namespace

std::vector<double> round_ticks(double least, double largest, int count) {
  if (!(largest > least)) return {least};
  const double raw = (largest - least) / count, power = std::pow(10.0, std::floor(std::log10(raw)));
  double step = 10 * power;
  for (const double factor : {1.0, 2.0, 5.0})
    if (factor * power >= raw) {
      step = factor * power;
      break;
    }
  std::vector<double> ticks;
  for (double i = std::ceil(least / step); i * step <= largest; ++i) ticks.push_back(i * step + 0.0);  // not −0
  return ticks;
}

std::string to_svg(const LineChart& chart) {
  check(chart.curves.size() <= 4, "line chart: at most 4 curves; got ", chart.curves.size());
  std::string legend;
  for (size_t i = 0; i < chart.curves.size(); ++i)
    legend += str("<span><i class=\"c", i, "\"></i>", escaped(chart.curves[i].name), "</span>");
  if (chart.reference) legend += str("<span><i class=\"reference\"></i>", escaped(chart.reference->name), "</span>");
  return str("<figure><figcaption>", escaped(chart.title), "<span class=\"legend\">", legend, "</span></figcaption>", Drawing(chart).svg(),
             "</figure>");
}

}  // namespace dino
