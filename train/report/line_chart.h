#pragma once

#include <optional>
#include <string>
#include <vector>

namespace dino {

/// One value of a curve.
struct ChartPoint {
  double x, y;
};

struct Curve {
  std::string name;
  std::vector<ChartPoint> points;  ///< x rises
};

/// A horizontal line to compare curves with.
struct ReferenceLine {
  std::string name;
  double y;
};

struct LineChart {
  std::string title;
  std::string x_name;         ///< such as "epoch"
  std::vector<Curve> curves;  ///< at most 4
  std::optional<ReferenceLine> reference{};
};

/// The chart as an SVG figure with a legend. Colours come from the page's CSS classes `c0` to `c3`, so that it follows the page's
/// theme. Values show when the pointer rests on a place, or the place has the keyboard's focus, without any script; long curves are
/// drawn through at most 240 of their points.
std::string to_svg(const LineChart& chart);

/// About `count` round numbers, 1, 2 or 5 times a power of ten apart, inside of [least, largest].
std::vector<double> round_ticks(double least, double largest, int count);

}  // namespace dino
