//! SVG plots over virtual time or over a share, without scripts: stacked areas, lines, marks with tooltips.

use std::fmt::Write as _;

use super::seconds;

/// Size of a plot in SVG units, and the margins around it.
const WIDTH: f64 = 1000.0;
const HEIGHT: f64 = 260.0;
const LEFT: f64 = 64.0;
const RIGHT: f64 = 12.0;
const TOP: f64 = 12.0;
const BOTTOM: f64 = 34.0;
/// Maximum points of a curve; a screen shows no more.
const MAX_POINTS: usize = 600;
/// Maximum marks of a plot; further marks are not drawn.
const MAX_MARKS: usize = 400;

/// A curve: name, colour class, values.
pub struct Curve {
    /// Name in the legend.
    pub name: String,
    /// CSS class of its colour.
    pub class: String,
    /// One value for each of the plot's times.
    pub values: Vec<f64>,
}

/// A time that is marked with a line.
pub struct Mark {
    /// Virtual seconds.
    pub at: f64,
    /// CSS class: `fault`, `action` or `rollout`.
    pub class: &'static str,
    /// Tooltip.
    pub title: String,
}

/// What the horizontal axis shows.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Axis {
    /// Virtual seconds, from zero on.
    Seconds,
    /// Percent, from the first value on.
    Percent,
}

/// A plot.
pub struct Plot {
    /// Heading.
    pub title: String,
    /// What the values are over.
    pub axis: Axis,
    /// Times of the values, in virtual seconds, or shares in percent.
    pub times: Vec<f64>,
    /// The curves.
    pub curves: Vec<Curve>,
    /// Whether the curves are stacked.
    pub stacked: bool,
    /// Whether values are shares, shown as percentages.
    pub percent: bool,
    /// Vertical lines.
    pub marks: Vec<Mark>,
}

impl Plot {
    /// Renders the plot as an SVG figure with its legend.
    pub fn render(&self) -> String {
        let mut out = String::new();
        let _ = write!(out, "<figure><figcaption>{}</figcaption>", escape(&self.title));
        let end = self.times.last().copied().unwrap_or(0.0).max(1e-9) - self.start();
        let top = self.top();
        let _ =
            write!(out, "<svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-label=\"{}\">", escape(&self.title));
        self.axes(&mut out, end, top);
        self.draw_curves(&mut out, end, top);
        self.draw_marks(&mut out, end);
        out += "</svg><p class=\"legend\">";
        for c in &self.curves {
            let _ = write!(out, "<span><i class=\"{}\"></i>{}</span>", c.class, escape(&c.name));
        }
        for (class, name) in [("fault", "fault"), ("action", "action"), ("rollout", "rollout")] {
            if self.marks.iter().any(|m| m.class == class) {
                let _ = write!(out, "<span><i class=\"mark {class}\"></i>{name}</span>");
            }
        }
        out += "</p></figure>\n";
        out
    }

    /// Where the horizontal axis begins.
    fn start(&self) -> f64 {
        match self.axis {
            Axis::Seconds => 0.0,
            Axis::Percent => self.times.first().copied().unwrap_or(0.0),
        }
    }

    fn label(&self, t: f64) -> String {
        match self.axis {
            Axis::Seconds => seconds(t),
            Axis::Percent => format!("{:.0}%", t + self.start()),
        }
    }

    fn top(&self) -> f64 {
        let at = |i: usize| {
            let values = self.curves.iter().map(|c| c.values[i]);
            if self.stacked { values.sum() } else { values.fold(0.0, f64::max) }
        };
        let highest = (0..self.times.len()).map(at).fold(0.0, f64::max);
        if self.percent { highest.clamp(0.1, 10.0) } else { nice_ceiling(highest) }
    }

    fn axes(&self, out: &mut String, end: f64, top: f64) {
        for i in 0..=4 {
            let share = f64::from(i) / 4.0;
            let y = TOP + (HEIGHT - TOP - BOTTOM) * (1.0 - share);
            let label = if self.percent { format!("{:.0}%", top * share * 100.0) } else { short(top * share) };
            let _ = write!(
                out,
                "<line class=\"grid\" x1=\"{LEFT}\" x2=\"{:.1}\" y1=\"{y:.1}\" y2=\"{y:.1}\"/><text x=\"{:.1}\" \
                 y=\"{:.1}\" text-anchor=\"end\">{label}</text>",
                WIDTH - RIGHT,
                LEFT - 6.0,
                y + 4.0
            );
        }
        for i in 0..=6 {
            let t = end * f64::from(i) / 6.0;
            let anchor = match i {
                0 => "start",
                6 => "end",
                _ => "middle",
            };
            let _ = write!(
                out,
                "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"{anchor}\">{}</text>",
                x(t, end),
                HEIGHT - 12.0,
                self.label(t)
            );
        }
    }

    fn draw_curves(&self, out: &mut String, end: f64, top: f64) {
        if self.times.is_empty() {
            return;
        }
        let step = self.times.len().div_ceil(MAX_POINTS);
        let last = self.times.len() - 1;
        let picked: Vec<usize> = (0..=last).filter(|i| i % step == 0 || *i == last).collect();
        let x = |i: usize| x(self.times[i] - self.start(), end);
        let mut floor = vec![0.0; self.times.len()];
        for c in &self.curves {
            let value = |i: usize| if self.stacked { floor[i] + c.values[i] } else { c.values[i] };
            let mut path = String::new();
            for (n, i) in picked.iter().enumerate() {
                let letter = if n == 0 { 'M' } else { 'L' };
                let _ = write!(path, "{letter}{:.1} {:.1}", x(*i), y(value(*i), top));
            }
            if self.stacked {
                for i in picked.iter().rev() {
                    let _ = write!(path, "L{:.1} {:.1}", x(*i), y(floor[*i], top));
                }
                path.push('Z');
            }
            let shape = if self.stacked { "area" } else { "curve" };
            let (low, high) = c.values.iter().fold((f64::MAX, f64::MIN), |(l, h), v| (l.min(*v), h.max(*v)));
            let show = |v: f64| if self.percent { format!("{:.1}%", v * 100.0) } else { short(v) };
            let title = format!("{}: {} to {}, {} at the end", c.name, show(low), show(high), show(c.values[last]));
            let _ = write!(
                out,
                "<path class=\"{shape} {}\" d=\"{path}\"><title>{}</title></path>",
                c.class,
                escape(&title)
            );
            if self.stacked {
                floor.iter_mut().zip(&c.values).for_each(|(f, v)| *f += v);
            }
        }
    }

    fn draw_marks(&self, out: &mut String, end: f64) {
        for m in self.marks.iter().take(MAX_MARKS) {
            let at = x(m.at.min(end), end);
            let foot = HEIGHT - BOTTOM;
            let _ = write!(
                out,
                "<g class=\"mark {}\"><line x1=\"{at:.1}\" x2=\"{at:.1}\" y1=\"{TOP}\" y2=\"{foot}\"/><circle \
                 cx=\"{at:.1}\" cy=\"{foot}\" r=\"5\"/><title>{}: {}</title></g>",
                m.class,
                seconds(m.at),
                escape(&m.title)
            );
        }
    }
}

fn x(t: f64, end: f64) -> f64 {
    LEFT + (WIDTH - LEFT - RIGHT) * (t / end).clamp(0.0, 1.0)
}

fn y(value: f64, top: f64) -> f64 {
    TOP + (HEIGHT - TOP - BOTTOM) * (1.0 - (value / top).clamp(0.0, 1.0))
}

/// The next of 1, 2, 4, 5, 8, 10 times a power of ten, so that its quarters are short numbers.
fn nice_ceiling(v: f64) -> f64 {
    let mut power = 1.0;
    loop {
        for m in [1.0, 2.0, 4.0, 5.0, 8.0] {
            if m * power >= v && m * power >= 4.0 {
                return m * power;
            }
        }
        power *= 10.0;
    }
}

fn short(v: f64) -> String {
    if v >= 10_000.0 { format!("{}k", trim(v / 1000.0)) } else { trim(v) }
}

fn trim(v: f64) -> String {
    let s = format!("{v:.1}");
    s.strip_suffix(".0").map(str::to_owned).unwrap_or(s)
}

/// Escapes text for HTML and SVG, in elements and in quoted attributes.
pub fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out += "&amp;",
            '<' => out += "&lt;",
            '>' => out += "&gt;",
            '"' => out += "&quot;",
            '\'' => out += "&#39;",
            // XML does not allow control characters.
            c if c.is_control() && c != '\n' => out.push(' '),
            c => out.push(c),
        }
    }
    out
}
