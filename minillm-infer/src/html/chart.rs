//! Figures as SVG that stands alone: in a page, or as a file of its own.
//!
//! Sizes are in units of the `viewBox`, 480 wide: at the width of a telephone a unit is three quarters of a pixel, so
//! labels stay readable. What is not finite, or not positive on a logarithmic scale, is left out and breaks the line.

use std::fmt::Write as _;

use super::axis::Axis;
pub use super::axis::Scale;
use super::escape;
use crate::number::exact;

/// Width of every figure.
const WIDTH: f64 = 480.0;
/// Height of the area with the curves.
const PLOT_HEIGHT: f64 = 236.0;
/// What a character of a label takes, 12 high: on average in a wide font (`DejaVu Sans`), so that names are not cut off.
const CHARACTER: f64 = 7.4;
/// How many colours there are; the eleventh series has the first again.
const COLOURS: usize = 10;
/// Up to this many points of a series are marked with dots.
const MOST_DOTS: usize = 16;

/// In the figure itself, so that it keeps its colours outside a page. Plain rules: not every program that draws SVG knows
/// variables.
const STYLE: &str = "\
.chart text{font:12px system-ui,-apple-system,'Segoe UI',Roboto,'Noto Sans',sans-serif;fill:#667080;font-variant-numeric:tabular-nums}\
.chart .title{font-size:14px;font-weight:600;fill:#23272e}.chart .name{fill:#23272e}\
.chart .paper{fill:#fff}.chart .grid{stroke:#e9ebef;stroke-width:1}.chart .axis{stroke:#98a2b0;stroke-width:1}\
.chart .reference{stroke:#667080;stroke-width:1;stroke-dasharray:4 3}\
.chart .s0{stroke:#2f6db5;fill:#2f6db5}.chart .s1{stroke:#cf6a1f;fill:#cf6a1f}.chart .s2{stroke:#2f8f5b;fill:#2f8f5b}\
.chart .s3{stroke:#b13f6d;fill:#b13f6d}.chart .s4{stroke:#7a5cc0;fill:#7a5cc0}.chart .s5{stroke:#8d7218;fill:#8d7218}\
.chart .s6{stroke:#178f99;fill:#178f99}.chart .s7{stroke:#c23b34;fill:#c23b34}.chart .s8{stroke:#5b6673;fill:#5b6673}\
.chart .s9{stroke:#99579b;fill:#99579b}\
@media(prefers-color-scheme:dark){\
.chart text{fill:#98a2b0}.chart .title,.chart .name{fill:#dfe3e8}\
.chart .paper{fill:#16191d}.chart .grid{stroke:#282d34}.chart .axis{stroke:#667080}.chart .reference{stroke:#98a2b0}\
.chart .s0{stroke:#6fa8ea;fill:#6fa8ea}.chart .s1{stroke:#ec9655;fill:#ec9655}.chart .s2{stroke:#62c08b;fill:#62c08b}\
.chart .s3{stroke:#e57fa8;fill:#e57fa8}.chart .s4{stroke:#ab92ea;fill:#ab92ea}.chart .s5{stroke:#cfb04c;fill:#cfb04c}\
.chart .s6{stroke:#54c1ca;fill:#54c1ca}.chart .s7{stroke:#f0817a;fill:#f0817a}.chart .s8{stroke:#a3adba;fill:#a3adba}\
.chart .s9{stroke:#cd92cf;fill:#cd92cf}}\
.chart .line{fill:none;stroke-width:1.75;stroke-linejoin:round;stroke-linecap:round}\
.chart .band{stroke:none;fill-opacity:.16}.chart .dot{stroke:none}.chart .whisker{stroke-width:1.75}\
.chart .hollow{stroke-width:1.75;fill-opacity:0}";

/// A point of a curve, with the interval around it; `low == high == y` where there is none.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Point {
    /// The horizontal coordinate.
    pub x: f64,
    /// Up.
    pub y: f64,
    /// Lower edge of the band.
    pub low: f64,
    /// Upper edge of the band.
    pub high: f64,
}

impl Point {
    /// Without a band.
    pub fn at(x: f64, y: f64) -> Self {
        Self { x, y, low: y, high: y }
    }
}

/// A curve.
#[derive(Clone, Debug, PartialEq)]
pub struct Series {
    /// The name in the legend.
    pub name: String,
    /// In the order in which they are joined.
    pub points: Vec<Point>,
}

/// Curves over a common axis.
#[derive(Clone, Debug, PartialEq)]
pub struct LineChart {
    /// Above the figure.
    pub title: String,
    /// What is to the right, with its unit.
    pub x_label: String,
    /// What is up, with its unit.
    pub y_label: String,
    /// The scale of the horizontal axis.
    pub x_scale: Scale,
    /// The scale of the vertical axis.
    pub y_scale: Scale,
    /// The curves, in the order of the legend.
    pub series: Vec<Series>,
}

impl LineChart {
    /// The figure.
    pub fn svg(&self) -> String {
        let drawn = |point: &&Point| self.x_scale.has(point.x) && self.y_scale.has(point.y);
        let points = || self.series.iter().flat_map(|series| &series.points).filter(drawn);
        let x = Axis::over(self.x_scale, points().map(|point| point.x), 0.0);
        let values = || points().flat_map(|point| [point.y, point.low, point.high]);
        let y = Axis::over(self.y_scale, values(), 0.05).with_zero(values());

        let mut head = Head::new(&self.title);
        if self.series.len() > 1 {
            head.legend(self.series.iter().map(|series| series.name.as_str()));
        }
        let y_ticks = y.ticks(5);
        let widest = y_ticks.iter().map(|(_, label)| label.chars().count()).max().unwrap_or(1);
        let frame = Frame {
            left: 14.0 + widest as f64 * CHARACTER,
            right: WIDTH - 16.0,
            top: head.height + 22.0,
            bottom: head.height + 22.0 + PLOT_HEIGHT,
        };

        let mut svg = head.svg;
        // The vertical axis says what it is above it, not turned on its side.
        let _ = write!(svg, "<text x=\"4\" y=\"{:.1}\">{}</text>", frame.top - 9.0, escape(&self.y_label));
        for (at, label) in &y_ticks {
            let v = frame.y(*at);
            let _ = write!(
                svg,
                "<line class=\"grid\" x1=\"{:.1}\" x2=\"{:.1}\" y1=\"{v:.1}\" y2=\"{v:.1}\"/>\
                 <text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{label}</text>",
                frame.left,
                frame.right,
                frame.left - 6.0,
                v + 4.0
            );
        }
        x_axis(&mut svg, &frame, &x, &self.x_label);
        if points().next().is_none() {
            let (x, y) = (f64::midpoint(frame.left, frame.right), f64::midpoint(frame.top, frame.bottom));
            let _ = write!(svg, "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"middle\">no data</text>");
        }
        // All bands below all curves.
        let series = || self.series.iter().enumerate().map(|(index, series)| (index % COLOURS, series));
        for (colour, series) in series() {
            runs(&series.points, drawn).for_each(|run| band(&mut svg, &frame, (&x, &y), colour, run));
        }
        for (colour, series) in series() {
            let _ = write!(svg, "<g><title>{}</title>", escape(&series.name));
            let dots = series.points.len() <= MOST_DOTS;
            runs(&series.points, drawn).for_each(|run| curve(&mut svg, &frame, (&x, &y), colour, run, dots));
            svg.push_str("</g>");
        }
        whole(&self.title, frame.bottom + 44.0, &svg)
    }
}

/// A value and how sure one is of it.
#[derive(Clone, Debug, PartialEq)]
pub struct Interval {
    /// What was measured.
    pub name: String,
    /// Its value.
    pub value: f64,
    /// Lower end of the interval.
    pub low: f64,
    /// Upper end of the interval.
    pub high: f64,
}

/// Intervals below one another. A dot is filled where its interval does not reach the reference, and hollow where it does.
#[derive(Clone, Debug, PartialEq)]
pub struct IntervalChart {
    /// Above the figure.
    pub title: String,
    /// What is to the right, with its unit.
    pub x_label: String,
    /// What the values are compared with: a dashed line.
    pub reference: Option<f64>,
    /// The rows, from top to bottom.
    pub rows: Vec<Interval>,
}

impl IntervalChart {
    /// The figure.
    pub fn svg(&self) -> String {
        const ROW: f64 = 25.0;
        let values = self.rows.iter().flat_map(|row| [row.value, row.low, row.high]).chain(self.reference);
        let x = Axis::over(Scale::Linear, values, 0.05);
        let head = Head::new(&self.title);
        let longest = self.rows.iter().map(|row| row.name.chars().count()).max().unwrap_or(0);
        // Names are cut rather than leaving no room for the intervals.
        let most = ((0.42 * WIDTH) / CHARACTER) as usize;
        let frame = Frame {
            left: 14.0 + longest.min(most) as f64 * CHARACTER,
            right: WIDTH - 18.0,
            top: head.height + 8.0,
            bottom: head.height + 16.0 + ROW * self.rows.len().max(1) as f64,
        };
        let mut svg = head.svg;
        for (at, _) in x.ticks(5) {
            vertical(&mut svg, &frame, "grid", at);
        }
        if let Some(at) = self.reference.and_then(|reference| x.place(reference)) {
            vertical(&mut svg, &frame, "reference", at);
        }
        x_axis(&mut svg, &frame, &x, &self.x_label);
        for (index, row) in self.rows.iter().enumerate() {
            let y = frame.top + 4.0 + ROW * (index as f64 + 0.5);
            interval(&mut svg, &frame, &x, row, (y, most, self.reference));
        }
        whole(&self.title, frame.bottom + 44.0, &svg)
    }
}

/// One row: its name, a line from low to high, a dot at the value.
fn interval(
    svg: &mut String,
    frame: &Frame,
    axis: &Axis,
    row: &Interval,
    (y, most, reference): (f64, usize, Option<f64>),
) {
    let name = if row.name.chars().count() > most {
        row.name.chars().take(most - 1).chain(['…']).collect()
    } else {
        row.name.clone()
    };
    let _ = write!(
        svg,
        "<text class=\"name\" x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
        frame.left - 8.0,
        y + 4.0,
        escape(&name)
    );
    let Some(at) = axis.place(row.value) else { return };
    let title = format!("{}: {} [{}, {}]", row.name, exact(row.value), exact(row.low), exact(row.high));
    let _ = write!(svg, "<g class=\"s0\"><title>{}</title>", escape(&title));
    let reaches = reference.is_some_and(|reference| row.low <= reference && reference <= row.high);
    let (kind, radius) = if reaches { ("hollow", 3.6) } else { ("dot", 4.4) };
    let centre = frame.x(at);
    if let (Some(low), Some(high)) = (axis.place(row.low), axis.place(row.high)) {
        // A whisker does not cross a hollow dot.
        let inner = if reaches { radius } else { 0.0 };
        for (end, inner) in [(frame.x(low), centre - inner), (frame.x(high), centre + inner)] {
            if (end - centre).abs() > (inner - centre).abs() {
                let _ = write!(
                    svg,
                    "<line class=\"s0 whisker\" x1=\"{end:.1}\" x2=\"{inner:.1}\" y1=\"{y:.1}\" y2=\"{y:.1}\"/>"
                );
            }
        }
    }
    let _ = write!(svg, "<circle class=\"s0 {kind}\" cx=\"{centre:.1}\" cy=\"{y:.1}\" r=\"{radius}\"/></g>");
}

/// Ticks, their labels and the label of the axis, below the frame.
fn x_axis(svg: &mut String, frame: &Frame, axis: &Axis, label: &str) {
    let y = frame.bottom;
    let _ = write!(
        svg,
        "<line class=\"axis\" x1=\"{:.1}\" x2=\"{:.1}\" y1=\"{y:.1}\" y2=\"{y:.1}\"/>",
        frame.left, frame.right
    );
    for (at, label) in axis.ticks(6) {
        let x = frame.x(at);
        // The last label keeps inside the figure.
        let half = label.chars().count() as f64 * CHARACTER / 2.0;
        let text_x = x.min(WIDTH - 2.0 - half);
        let _ = write!(
            svg,
            "<line class=\"axis\" x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"{y:.1}\" y2=\"{:.1}\"/>\
             <text x=\"{text_x:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{label}</text>",
            y + 4.0,
            y + 18.0
        );
    }
    let middle = f64::midpoint(frame.left, frame.right);
    let _ =
        write!(svg, "<text x=\"{middle:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{}</text>", y + 37.0, escape(label));
}

fn vertical(svg: &mut String, frame: &Frame, class: &str, at: f64) {
    let (x, top, bottom) = (frame.x(at), frame.top, frame.bottom);
    let _ = write!(svg, "<line class=\"{class}\" x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"{top:.1}\" y2=\"{bottom:.1}\"/>");
}

/// Neighbouring points that are drawn.
fn runs<'a>(points: &'a [Point], drawn: impl Fn(&&Point) -> bool + 'a) -> impl Iterator<Item = &'a [Point]> {
    points.split(move |point| !drawn(&point)).filter(|run| !run.is_empty())
}

fn band(svg: &mut String, frame: &Frame, (x, y): (&Axis, &Axis), colour: usize, run: &[Point]) {
    if run.iter().all(|point| point.low >= point.high) {
        return;
    }
    let place = |point: &Point, edge: f64| {
        // An edge without a place (below zero on a logarithmic scale) is at the border.
        let at = y.place(edge).unwrap_or(if edge > point.y { 1.0 } else { 0.0 });
        format!("{:.1},{:.1}", frame.x(x.place(point.x).unwrap_or(0.0)), frame.y(at))
    };
    let upper = run.iter().map(|point| place(point, point.high));
    let lower = run.iter().rev().map(|point| place(point, point.low));
    let corners: Vec<String> = upper.chain(lower).collect();
    let _ = write!(svg, "<polygon class=\"s{colour} band\" points=\"{}\"/>", corners.join(" "));
}

fn curve(svg: &mut String, frame: &Frame, (x, y): (&Axis, &Axis), colour: usize, run: &[Point], dots: bool) {
    let places: Vec<(f64, f64)> =
        run.iter().filter_map(|point| Some((frame.x(x.place(point.x)?), frame.y(y.place(point.y)?)))).collect();
    if places.len() > 1 {
        let points: Vec<String> = places.iter().map(|(x, y)| format!("{x:.1},{y:.1}")).collect();
        let _ = write!(svg, "<polyline class=\"s{colour} line\" points=\"{}\"/>", points.join(" "));
    }
    // Where a line from point to point ends needs no dot.
    if (dots && places.len() != 2) || places.len() == 1 {
        for (x, y) in places {
            let _ = write!(svg, "<circle class=\"s{colour} dot\" cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"2.6\"/>");
        }
    }
}

/// The element around all that was drawn.
fn whole(title: &str, height: f64, content: &str) -> String {
    format!(
        "<svg class=\"chart\" xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height:.0}\" width=\"100%\" \
         role=\"img\" aria-label=\"{}\"><style>{STYLE}</style><rect class=\"paper\" width=\"{WIDTH}\" \
         height=\"{height:.0}\"/>{content}</svg>",
        escape(title)
    )
}

/// Title and legend.
struct Head {
    svg: String,
    height: f64,
}

impl Head {
    fn new(title: &str) -> Self {
        /// Of a title's character, 14 high and bold.
        const TITLE_CHARACTER: f64 = 7.6;
        let mut lines = vec![String::new()];
        for word in title.split_whitespace() {
            let last = lines.len() - 1;
            if (lines[last].chars().count() + word.chars().count()) as f64 * TITLE_CHARACTER > WIDTH - 12.0 {
                lines.push(String::new());
            }
            let line = lines.last_mut().unwrap_or_else(|| unreachable!("there is one at least"));
            if !line.is_empty() {
                line.push(' ');
            }
            line.push_str(word);
        }
        let (mut svg, mut height) = (String::new(), 2.0);
        for line in lines.iter().filter(|line| !line.is_empty()) {
            height += 18.0;
            let _ = write!(svg, "<text class=\"title\" x=\"4\" y=\"{:.1}\">{}</text>", height - 3.0, escape(line));
        }
        Self { svg, height }
    }

    /// As many names beside one another as there is room for.
    fn legend<'a>(&mut self, names: impl Iterator<Item = &'a str>) {
        const MARK: f64 = 20.0;
        let mut x = 4.0;
        self.height += 20.0;
        for (index, name) in names.enumerate() {
            let width = MARK + name.chars().count() as f64 * CHARACTER + 14.0;
            if x > 4.0 && x + width > WIDTH {
                x = 4.0;
                self.height += 18.0;
            }
            let (y, colour) = (self.height - 4.0, index % COLOURS);
            let _ = write!(
                self.svg,
                "<line class=\"s{colour} line\" x1=\"{:.1}\" x2=\"{:.1}\" y1=\"{:.1}\" y2=\"{:.1}\"/>\
                 <text class=\"name\" x=\"{:.1}\" y=\"{y:.1}\">{}</text>",
                x + 1.0,
                x + 14.0,
                y - 4.0,
                y - 4.0,
                x + MARK,
                escape(name)
            );
            x += width;
        }
    }
}

/// The rectangle in which curves are drawn.
struct Frame {
    left: f64,
    right: f64,
    top: f64,
    bottom: f64,
}

impl Frame {
    /// The x of a place between 0 (left) and 1 (right).
    fn x(&self, at: f64) -> f64 {
        self.left + at * (self.right - self.left)
    }

    /// Of a place between 0 and 1, counted from below.
    fn y(&self, at: f64) -> f64 {
        self.bottom - at * (self.bottom - self.top)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chart(points: Vec<Point>) -> LineChart {
        LineChart {
            title: "Loss & <speed>".to_owned(),
            x_label: "step".to_owned(),
            y_label: "nats".to_owned(),
            x_scale: Scale::Linear,
            y_scale: Scale::Linear,
            series: vec![Series { name: "a".to_owned(), points }],
        }
    }

    #[test]
    fn points_lie_where_they_should() {
        let svg = chart(vec![Point::at(0.0, 0.0), Point::at(10.0, 1.0)]).svg();
        let points = svg.split("polyline").nth(1).unwrap().split("points=\"").nth(1).unwrap();
        let numbers: Vec<f64> =
            points.split('"').next().unwrap().split([' ', ',']).map(|number| number.parse().unwrap()).collect();
        let [x0, y0, x1, y1] = numbers[..] else { panic!("two points") };
        assert!(x0 < 60.0 && (x1 - (WIDTH - 16.0)).abs() < 0.1, "from the left border to the right: {x0} {x1}");
        // A margin of 5 % below and above, of a range of 1.1.
        assert!((y0 - y1 - PLOT_HEIGHT / 1.1).abs() < 0.2, "{y0} {y1}");
        assert!(svg.contains("Loss &amp; &lt;speed&gt;") && !svg.contains("polygon"));
    }

    #[test]
    fn what_is_not_a_number_breaks_the_line() {
        let hole = [1.0, 2.0, f64::NAN, 4.0, f64::INFINITY, 6.0, 7.0];
        let points = hole.iter().enumerate().map(|(x, &y)| Point::at(x as f64, y)).collect();
        let svg = chart(points).svg();
        assert_eq!(svg.matches("<polyline").count(), 2);
        assert_eq!(svg.matches("<circle").count(), 1, "the point without neighbours");
        assert!(!svg.contains("NaN") && !svg.contains("inf"), "{svg}");
    }

    #[test]
    fn bands_are_drawn_below_the_curves() {
        let points =
            (1..=3).map(|x| Point { x: f64::from(x), y: 2.0, low: f64::from(x) - 2.0, high: 3.0 }).collect::<Vec<_>>();
        for y_scale in [Scale::Linear, Scale::Log] {
            let svg = LineChart { y_scale, ..chart(points.clone()) }.svg();
            assert_eq!(svg.matches("<polygon").count(), 1);
            assert!(svg.find("<polygon").unwrap() < svg.find("<polyline").unwrap());
            assert!(!svg.contains("NaN") && !svg.contains("inf"));
        }
    }

    #[test]
    fn nothing_to_draw_is_said_and_no_panic() {
        let values = [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, 0.0, -1.0, 1e308, -1e308, 1e-308, 5.0];
        for (x_scale, y_scale) in [(Scale::Linear, Scale::Log), (Scale::Log, Scale::Linear), (Scale::Log, Scale::Log)] {
            let empty = LineChart { x_scale, y_scale, series: Vec::new(), ..chart(Vec::new()) };
            assert!(empty.svg().contains("no data"));
            for a in values {
                for b in values {
                    let points = vec![Point { x: a, y: b, low: b, high: a }, Point::at(b, a), Point::at(a, a)];
                    let svg = LineChart { x_scale, y_scale, ..chart(points) }.svg();
                    assert!(!svg.contains("NaN") && !svg.contains("inf\""), "{a} {b}: {svg}");
                }
            }
        }
        for a in values {
            let rows = vec![Interval { name: "x".repeat(200), value: a, low: -a, high: f64::NAN }];
            let chart = IntervalChart { title: String::new(), x_label: String::new(), reference: Some(a), rows };
            assert!(chart.svg().ends_with("</svg>"));
        }
        let none = IntervalChart { title: "t".repeat(300), x_label: String::new(), reference: None, rows: Vec::new() };
        assert!(none.svg().contains(&"t".repeat(300)));
    }

    #[test]
    fn a_dot_is_hollow_where_the_interval_reaches_the_reference() {
        let row =
            |name: &str, low, high| Interval { name: name.to_owned(), value: f64::midpoint(low, high), low, high };
        let rows = vec![row("clear", 0.2, 0.4), row("unclear", -0.1, 0.3)];
        let chart = IntervalChart { title: "d".to_owned(), x_label: "nats".to_owned(), reference: Some(0.0), rows };
        let svg = chart.svg();
        let kinds: Vec<bool> = svg.split("<circle").skip(1).map(|circle| circle.contains("hollow")).collect();
        assert_eq!(kinds, [false, true]);
        assert_eq!(svg.matches("\"s0 whisker\"").count(), 4);
        assert_eq!(svg.matches("\"reference\"").count(), 1);
    }

    #[test]
    fn legends_wrap_and_colours_repeat() {
        let names = (0..12).map(|index| format!("variant number {index}"));
        let series = names.map(|name| Series { name, points: vec![Point::at(1.0, 1.0)] }).collect();
        let svg = LineChart { series, ..chart(Vec::new()) }.svg();
        assert_eq!(svg.matches("class=\"name\"").count(), 12);
        assert_eq!(svg.matches("\"s0 dot\"").count(), 2);
        assert!(!svg.contains("\"s10 "));
    }
}
