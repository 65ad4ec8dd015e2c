//! The run as a picture that a person reads: memory, counts, and how late cuts were, one above the
//! other over the same time. SVG by hand.

use std::fmt::Write as _;

use super::verdict::{LATE, MEMORY_IS};
use super::{Outcome, Plan, Sample};

const WIDTH: f64 = 1000.0;
const LEFT: f64 = 80.0;
const RIGHT: f64 = 20.0;
const TOP: f64 = 64.0;
/// Of one chart, and between two.
const HEIGHT: f64 = 210.0;
const GAP: f64 = 62.0;

/// Distinct in hue and in lightness (Okabe and Ito's colours, 2008).
const BLUE: &str = "#0072b2";
const ORANGE: &str = "#d55e00";
const GREEN: &str = "#009e73";
const PURPLE: &str = "#cc79a7";
const GREY: &str = "#888888";

struct Line<'a> {
    name: &'a str,
    colour: &'a str,
    points: Vec<(f64, f64)>,
}

/// An axis of ordinates.
struct Scale {
    low: f64,
    high: f64,
    log: bool,
}

impl Scale {
    /// From 0 to a round number above all values.
    fn linear(most: f64) -> Self {
        let high = most.max(1.0) * 1.08;
        let step = step(high);
        Self { low: 0.0, high: (high / step).ceil() * step, log: false }
    }

    /// Where a value lies: 0 at the bottom, 1 at the top.
    fn place(&self, value: f64) -> f64 {
        let part = if self.log {
            (value.max(self.low) / self.low).ln() / (self.high / self.low).ln()
        } else {
            (value - self.low) / (self.high - self.low)
        };
        part.clamp(0.0, 1.0)
    }

    fn ticks(&self) -> Vec<f64> {
        if self.log {
            let next = |value: &f64| Some(value * 10.0).filter(|it| *it <= self.high * 1.001);
            return std::iter::successors(Some(self.low), next).collect();
        }
        ticks(self.high)
    }
}

/// 1, 2 or 5 times a power of ten, of which about five make up `most`.
fn step(most: f64) -> f64 {
    let rough = most / 5.0;
    let power = 10_f64.powf(rough.log10().floor());
    let steps = [1.0, 2.0, 5.0, 10.0].map(|it| it * power);
    steps.into_iter().find(|it| *it >= rough).unwrap_or(rough)
}

fn ticks(most: f64) -> Vec<f64> {
    let step = step(most);
    std::iter::successors(Some(0.0), |it| Some(it + step).filter(|it| *it <= most * 1.0001))
        .collect()
}

/// Text as it stands in XML.
fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

struct Chart<'a> {
    svg: &'a mut String,
    top: f64,
    /// Seconds at the right end.
    until: f64,
    scale: Scale,
}

impl Chart<'_> {
    fn x(&self, seconds: f64) -> f64 {
        LEFT + (WIDTH - LEFT - RIGHT) * seconds / self.until
    }

    fn y(&self, value: f64) -> f64 {
        self.top + HEIGHT * (1.0 - self.scale.place(value))
    }

    fn text(&mut self, x: f64, y: f64, more: &str, text: &str) {
        let _ = writeln!(self.svg, "<text x='{x:.1}' y='{y:.1}' {more}>{}</text>", escaped(text));
    }

    fn stroke(&mut self, from: (f64, f64), to: (f64, f64), more: &str) {
        let ((x1, y1), (x2, y2)) = (from, to);
        let _ = writeln!(
            self.svg,
            "<line x1='{x1:.1}' y1='{y1:.1}' x2='{x2:.1}' y2='{y2:.1}' {more}/>"
        );
    }

    /// Frame, grid, ticks and names; the judged part is shaded.
    fn axes(&mut self, title: &str, unit: &str, judged: Option<(f64, f64)>) {
        let (bottom, right) = (self.top + HEIGHT, WIDTH - RIGHT);
        if let Some((from, to)) = judged {
            let (x, width) = (self.x(from), self.x(to) - self.x(from));
            let _ = writeln!(
                self.svg,
                "<rect x='{x:.1}' y='{:.1}' width='{width:.1}' height='{HEIGHT}' fill='#f2f2f2'/>",
                self.top
            );
        }
        for value in self.scale.ticks() {
            let y = self.y(value);
            self.stroke((LEFT, y), (right, y), "stroke='#dddddd'");
            self.text(LEFT - 8.0, y + 4.0, "text-anchor='end'", &format!("{value}"));
        }
        // In minutes from five of them on.
        let (each, name) = if self.until >= 300.0 { (60.0, "minutes") } else { (1.0, "seconds") };
        for value in ticks(self.until / each) {
            let x = self.x(value * each);
            self.stroke((x, bottom), (x, bottom + 5.0), "stroke='black'");
            self.text(x, bottom + 19.0, "text-anchor='middle'", &format!("{value}"));
        }
        self.text(
            f64::midpoint(LEFT, right),
            bottom + 34.0,
            "text-anchor='middle'",
            &format!("{name} of load"),
        );
        self.stroke((LEFT, self.top), (LEFT, bottom), "stroke='black'");
        self.stroke((LEFT, bottom), (right, bottom), "stroke='black'");
        self.text(LEFT, self.top - 9.0, "font-weight='bold'", title);
        let middle = self.top + HEIGHT / 2.0;
        let turned = format!("text-anchor='middle' transform='rotate(-90 18 {middle:.1})'");
        self.text(18.0, middle, &turned, unit);
    }

    fn line(&mut self, line: &Line<'_>, more: &str) {
        let points: Vec<String> = line
            .points
            .iter()
            .filter(|(_, value)| value.is_finite())
            .map(|(seconds, value)| format!("{:.1},{:.1}", self.x(*seconds), self.y(*value)))
            .collect();
        let _ = writeln!(
            self.svg,
            "<polyline points='{}' fill='none' stroke='{}' stroke-width='1.6' {more}/>",
            points.join(" "),
            line.colour
        );
    }

    /// Names at the right of the title.
    fn legend(&mut self, lines: &[Line<'_>]) {
        let mut x = WIDTH - RIGHT;
        for line in lines.iter().rev() {
            #[expect(clippy::cast_precision_loss, reason = "a short name")]
            let width = line.name.len() as f64 * 6.9;
            x -= width;
            self.text(x, self.top - 9.0, "", line.name);
            let y = self.top - 13.0;
            let stroke = format!("stroke='{}' stroke-width='3'", line.colour);
            self.stroke((x - 22.0, y), (x - 5.0, y), &stroke);
            x -= 38.0;
        }
    }
}

fn points(samples: &[Sample], value: impl Fn(&Sample) -> f64) -> Vec<(f64, f64)> {
    samples.iter().map(|it| (it.at, value(it))).collect()
}

fn most<'a>(lines: impl IntoIterator<Item = &'a Line<'a>>) -> f64 {
    let values = lines.into_iter().flat_map(|line| line.points.iter().map(|(_, value)| *value));
    values.filter(|it| it.is_finite()).fold(0.0, f64::max)
}

pub fn svg(plan: &Plan, outcome: &Outcome) -> String {
    let samples = &outcome.samples;
    let until = samples.last().map_or(1.0, |it| it.at);
    let height = TOP + 3.0 * HEIGHT + 2.0 * GAP + 50.0;
    let mut svg = format!(
        "<svg xmlns='http://www.w3.org/2000/svg' width='{WIDTH}' height='{height}' \
         viewBox='0 0 {WIDTH} {height}' font-family='sans-serif' font-size='12'>\n\
         <rect width='{WIDTH}' height='{height}' fill='white'/>\n"
    );
    let held = if outcome.verdict.broken.is_empty() { "held" } else { "did not hold" };
    let _ = writeln!(
        svg,
        "<text x='{LEFT}' y='26' font-size='16' font-weight='bold'>{} terminals, {} sessions of staff at \
         once, hostile peers beside them: {held}</text>",
        plan.terminals, plan.staff
    );
    let growth = |what: &str| outcome.verdict.growth.iter().find(|it| it.what == what);
    let judged = outcome.verdict.growth.last().map(|it| it.over);

    let memory = Line {
        name: "measured",
        colour: BLUE,
        points: points(samples, |it| it.memory_kib / 1024.0),
    };
    let mut lines = vec![memory];
    if let Some(growth) = growth(MEMORY_IS) {
        let at = |seconds: f64| (growth.slope.base + growth.slope.slope * seconds) / 1024.0;
        let points = [growth.over.0, growth.over.1].map(|it| (it, at(it))).to_vec();
        lines.push(Line { name: "Theil-Sen slope", colour: ORANGE, points });
    }
    let scale = Scale::linear(most(&lines));
    let mut chart = Chart { svg: &mut svg, top: TOP, until, scale };
    let judged_memory = growth(MEMORY_IS).map(|it| it.over);
    chart.axes(
        "Private memory of the relay (shaded: where growth is judged)",
        "MiB",
        judged_memory,
    );
    for line in &lines {
        chart.line(line, "");
    }
    chart.legend(&lines);

    let lines = [
        Line { name: "descriptors", colour: BLUE, points: points(samples, |it| it.descriptors) },
        Line { name: "tasks", colour: ORANGE, points: points(samples, |it| it.tasks) },
        Line { name: "sessions", colour: GREEN, points: points(samples, |it| it.sessions) },
        Line { name: "windows", colour: PURPLE, points: points(samples, |it| it.windows) },
        Line { name: "threads", colour: GREY, points: points(samples, |it| it.threads) },
    ];
    let top = TOP + HEIGHT + GAP;
    let mut chart = Chart { svg: &mut svg, top, until, scale: Scale::linear(most(&lines)) };
    chart.axes("What the relay holds", "count", judged);
    for line in &lines {
        chart.line(line, "");
    }
    chart.legend(&lines);

    let cuts: Vec<_> = points(samples, |it| it.latest_cut);
    let worst = cuts.iter().map(|(_, late)| *late).filter(|it| it.is_finite()).fold(LATE, f64::max);
    let high = 10_f64.powf(worst.log10().ceil()).max(LATE * 10.0);
    let scale = Scale { low: 1.0, high, log: true };
    let mut chart = Chart { svg: &mut svg, top: top + HEIGHT + GAP, until, scale };
    chart.axes("The latest cut since the sample before", "ms after the deadline", None);
    for (seconds, late) in cuts.iter().filter(|(_, late)| late.is_finite()) {
        let (x, y) = (chart.x(*seconds), chart.y(*late));
        let _ = writeln!(chart.svg, "<circle cx='{x:.1}' cy='{y:.1}' r='2' fill='{BLUE}'/>");
    }
    let bound = vec![(0.0, LATE), (until, LATE)];
    let bound = Line { name: "promised: 1000 ms", colour: ORANGE, points: bound };
    chart.line(&bound, "stroke-dasharray='6 4'");
    chart.legend(&[bound]);
    svg.push_str("</svg>\n");
    svg
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_round_and_few() {
        assert_eq!(ticks(30.0), [0.0, 10.0, 20.0, 30.0]);
        assert_eq!(ticks(1300.0), [0.0, 500.0, 1000.0]);
        let scale = Scale { low: 1.0, high: 10_000.0, log: true };
        assert_eq!(scale.ticks().len(), 5);
        assert!((scale.place(100.0) - 0.5).abs() < 1e-9);
        assert!(Scale::linear(94.0).high >= 94.0);
    }
}
