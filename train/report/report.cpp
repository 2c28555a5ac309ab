#include "train/report/report.h"

#include <algorithm>
#include <cmath>
#include <set>

#include "train/report/line_chart.h"
#include "train/report/markup.h"

namespace dino {
namespace {

constexpr const char* kStyle = R"(
:root { color-scheme: light dark; --back: #fff; --text: #1c2024; --faint: #60646c; --grid: #e3e5e9; --card: #f6f7f9;
  --c0: #0b68cb; --c1: #b4470e; --c2: #1a7f4b; --c3: #8a3ffc; --good: #1a7f4b; --warn: #a15c00; --bad: #c6282d; }
@media (prefers-color-scheme: dark) { :root { --back: #14161a; --text: #e8eaee; --faint: #a0a6b0; --grid: #2d3138; --card: #1c1f25;
  --c0: #6cb2ff; --c1: #ff9a62; --c2: #5fd39a; --c3: #c4a1ff; --good: #5fd39a; --warn: #ffc067; --bad: #ff8a8a; } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 1180px; padding: 16px; font: 15px/1.5 system-ui, sans-serif; background: var(--back); color: var(--text); }
h1 { font-size: 1.5em; margin: 0.3em 0; } h2 { font-size: 1.15em; margin: 1.8em 0 0.5em; }
p, td, th { overflow-wrap: anywhere; } .faint { color: var(--faint); }
.facts { display: grid; grid-template-columns: repeat(auto-fill, minmax(150px, 1fr)); gap: 8px; }
.facts div { background: var(--card); border-radius: 8px; padding: 8px 12px; } .facts b { display: block; font-size: 1.25em; }
.charts { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 460px), 1fr)); gap: 12px; }
figure { margin: 0; background: var(--card); border-radius: 8px; padding: 10px 12px; }
figcaption { font-weight: 600; } .legend { float: right; font-weight: 400; } .legend span { margin-left: 12px; }
.legend i { display: inline-block; width: 14px; height: 0; border-top: 3px solid; margin-right: 5px; vertical-align: middle; }
svg { width: 100%; height: auto; display: block; } svg text { fill: var(--faint); font-size: 12px; }
@media (max-width: 600px) { svg text { font-size: 19px; } .legend { float: none; display: block; } }
.grid { stroke: var(--grid); } .line { fill: none; stroke-width: 2; } .reference { stroke: var(--faint); stroke-dasharray: 5 4; }
i.reference { border-top-style: dashed; color: var(--faint); }
.c0 { stroke: var(--c0); color: var(--c0); } .c1 { stroke: var(--c1); color: var(--c1); }
.c2 { stroke: var(--c2); color: var(--c2); } .c3 { stroke: var(--c3); color: var(--c3); }
.value { fill: transparent; outline: none; } .value:hover, .value:focus { fill: var(--faint); fill-opacity: 0.25; }
.verdict { border-left: 5px solid var(--good); background: var(--card); padding: 8px 12px; border-radius: 4px; }
.verdict.watch { border-color: var(--warn); } .verdict.collapsing { border-color: var(--bad); }
table { border-collapse: collapse; width: 100%; } td, th { text-align: left; padding: 3px 10px 3px 0; border-bottom: 1px solid var(--grid); }
.columns { columns: 320px; } .row { display: flex; flex-wrap: wrap; gap: 10px; align-items: flex-start; padding: 8px 0; border-bottom: 1px solid var(--grid); }
.row h3 { font-size: 1em; font-weight: 400; width: 130px; margin: 0; overflow-wrap: anywhere; }
.row div { width: 100px; font-size: 12px; line-height: 1.3; color: var(--faint); overflow-wrap: anywhere; }
.row img { width: 100px; height: 100px; object-fit: contain; image-rendering: pixelated; display: block; }
details { margin: 8px 0; } summary { cursor: pointer; }
)";

/// A logged quantity and how it is called on the page.
struct Quantity {
  const char* key;
  const char* name;
};

/// Quantities that are drawn together.
struct Group {
  const char* title;
  std::vector<Quantity> quantities;
  bool against_uniform = false;  ///< ln(prototypes) is drawn too
};

const std::vector<Group>& results() {
  static const std::vector<Group> groups{
      {"Loss (nats)", {{"loss", "loss"}}, true},
      {"Targets (nats)", {{"marginal_entropy", "entropy of the mean target"}, {"teacher_entropy", "mean entropy of targets"}, {"kl", "KL to the student"}}, true},
      {"k-NN on --val (%)", {{"knn_top1", "top-1"}}},
      {"View retrieval (%)", {{"view_retrieval_top1", "top-1"}}},
      {"Features, compared with those of --init (cosine)", {{"feature_similarity_to_init", "similarity"}}},
      {"Prototypes in use (share)", {{"prototypes_used", "in use"}}},
      {"Images that could not be read, per logged step", {{"bad_images", "images"}}}};
  return groups;
}

const std::vector<Group>& schedules() {
  static const std::vector<Group> groups{{"Learning rate", {{"lr", "learning rate"}}},
                                         {"Weight decay", {{"wd", "weight decay"}}},
                                         {"Momentum of the teacher", {{"momentum", "momentum"}}},
                                         {"Temperature of the teacher", {{"teacher_temp", "temperature"}}}};
  return groups;
}

class Page {
 public:
  Page(const RunRecord& run, const ReportExtras& extras) : run_(run), extras_(extras) {}

  std::string html() {
    const std::string title = str("DINO run ", run_.folder);
    text_ = str("<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">"
                "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\"><title>",
                escaped(title), "</title><style>", kStyle, "</style></head><body><h1>", escaped(title), "</h1>\n");
    summary();
    verdict();
    charts("Curves", results());
    other_charts();
    charts("Schedules", schedules());
    for (const PictureTable& table : extras_.pictures) pictures(table);
    if (!extras_.notes.empty()) text_ += "<h2>Not shown</h2>";
    for (const std::string& note : extras_.notes) text_ += str("<p>", escaped(note), "</p>");
    names_and_values("Configuration", run_.options);
    if (run_.machine.is_object()) names_and_values("Machine of the run", run_.machine);
    else names_and_values("Machine that made this report", extras_.machine);
    return std::move(text_) + "</body></html>\n";
  }

 private:
  double uniform_entropy() const { return std::log(static_cast<double>(run_.config.out_dim)); }

  void fact(const std::string& name, const std::string& value) {
    text_ += str("<div>", escaped(name), "<b>", escaped(value), "</b></div>");
  }

  void summary() {
    const nlohmann::json& last = run_.log.back();
    const int64_t steps = last["step"].get<int64_t>() + 1;
    text_ += "<div class=\"facts\">";
    fact("network", run_.config.arch);
    fact("steps", std::to_string(steps));
    fact("epochs", str(short_number(last["epoch"].get<double>()), " of ", short_number(run_.config.epochs)));
    fact("images seen", std::to_string(steps * run_.config.batch_size));
    if (const auto losses = run_.values("loss"); !losses.empty()) fact("last loss", str(short_number(losses.back().second), " (ln K ", short_number(uniform_entropy(), 3), ")"));
    for (const auto& [key, title] : {std::pair{"knn_top1", "k-NN"}, std::pair{"view_retrieval_top1", "view retrieval"}}) {
      const auto scores = run_.values(key);
      if (scores.empty()) continue;
      const auto best = std::max_element(scores.begin(), scores.end(), [](const auto& a, const auto& b) { return a.second < b.second; });
      fact(str(title, ", last"), short_number(scores.back().second) + " %");
      fact(str(title, ", best"), str(short_number(best->second), " % at epoch ", short_number(best->first)));
    }
    text_ += "</div>";
  }

  /// What the log says about collapse: its last word, and each change of it.
  void verdict() {
    std::string before, changes;
    for (const nlohmann::json& line : run_.log) {
      const std::string now = line.value("verdict", "");
      if (now.empty() || now == before) continue;
      changes += str("<tr><td>", line["step"].get<int64_t>(), "</td><td>", escaped(now), "</td><td>", escaped(line.value("reason", "")), "</td></tr>");
      before = now;
    }
    if (before.empty()) return;
    text_ += str("<h2>Verdict</h2><p class=\"verdict ", escaped(before), "\"><b>", escaped(before), "</b> ",
                 escaped(run_.log.back().value("reason", "")), "</p><details><summary>Changes</summary><table><tr><th>step</th><th>verdict</th><th>why</th></tr>",
                 changes, "</table></details>");
  }

  /// Nothing, if none of the group's quantities was logged.
  std::string chart(const Group& group) {
    LineChart chart{.title = group.title, .x_name = "epoch", .curves = {}};
    for (const Quantity& quantity : group.quantities) {
      drawn_.insert(quantity.key);
      Curve curve{quantity.name, {}};
      for (const auto& [epoch, value] : run_.values(quantity.key)) curve.points.push_back({epoch, value});
      if (!curve.points.empty()) chart.curves.push_back(std::move(curve));
    }
    if (chart.curves.empty()) return "";
    if (group.against_uniform) chart.reference = ReferenceLine{str("ln ", run_.config.out_dim), uniform_entropy()};
    return to_svg(chart);
  }

  void charts(const std::string& title, const std::vector<Group>& groups) {
    text_ += str("<h2>", escaped(title), "</h2><div class=\"charts\">");
    for (const Group& group : groups) text_ += chart(group);
    text_ += "</div>";
  }

  /// Whatever else the log holds.
  void other_charts() {
    for (const std::vector<Group>* groups : {&results(), &schedules()})
      for (const Group& group : *groups)
        for (const Quantity& quantity : group.quantities) drawn_.insert(quantity.key);
    std::set<std::string> keys;
    for (const nlohmann::json& line : run_.log)
      for (const auto& [key, value] : line.items())
        if (value.is_number() && key != "step" && key != "epoch" && !drawn_.contains(key)) keys.insert(key);
    std::vector<Group> groups;
    for (const std::string& key : keys) groups.push_back({key.c_str(), {{key.c_str(), key.c_str()}}});
    if (!groups.empty()) charts("Also logged", groups);
  }

  void pictures(const PictureTable& table) {
    text_ += str("<h2>", escaped(table.title), "</h2><p class=\"faint\">", escaped(table.note), "</p>");
    for (const PictureRow& row : table.rows) {
      text_ += str("<div class=\"row\"><h3>", escaped(row.caption), "</h3>");
      for (const Picture& picture : row.pictures)
        text_ += str("<div><img alt=\"", escaped(picture.caption), "\" src=\"", data_uri(picture.png), "\">", escaped(picture.caption), "</div>");
      text_ += "</div>\n";
    }
  }

  void names_and_values(const std::string& title, const nlohmann::json& values) {
    text_ += str("<h2>", escaped(title), "</h2><div class=\"columns\"><table>");
    for (const auto& [name, value] : values.items())
      text_ += str("<tr><td>", escaped(name), "</td><td>", escaped(value.is_string() ? value.get<std::string>() : value.dump()), "</td></tr>");
    text_ += "</table></div>";
  }

  const RunRecord& run_;
  const ReportExtras& extras_;
  std::string text_;
  std::set<std::string> drawn_;
};

}  // namespace

std::string report_html(const RunRecord& run, const ReportExtras& extras) { return Page(run, extras).html(); }

}  // namespace dino
