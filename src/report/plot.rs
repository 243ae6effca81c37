//! Learning curves as SVG. Text is set by whatever shows the file: no font is read here.

use super::curve::{log_ticks, short, smoothed, thinned, widened};
use crate::error::{Error, Result};
use crate::fsutil::write_atomic_bytes;
use plotters::coord::ranged1d::{AsRangedCoord, ValueFormatter};
use plotters::coord::Shift;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};
use std::path::Path;

/// The canvas in units of its own.
const WIDTH: u32 = 1800;
const HEIGHT: u32 = 1000;
/// plotters rounds places to whole units; two units a pixel keep curves smooth.
const UNITS_PER_PIXEL: u32 = 2;
/// Room on the right for the legend.
const LEGEND: i32 = 400;
/// Room above the curves: the title, and two rows of names of boundaries.
const TOP: i32 = 150;
/// Characters of a name that the legend has room for.
const LEGEND_CHARS: usize = 24;
/// Units that a character of a boundary's name takes; fonts differ, this is a wide one.
const CHAR_UNITS: f64 = 18.0;
/// Points drawn of a curve; there are fewer columns on the canvas.
const MOST_POINTS: usize = 4000;
/// Values past this are as good as infinite, and keep the axis finite.
const LARGEST: f64 = 1e30;

/// Colours that colour-blind readers tell apart (Okabe and Ito 2008), the yellow left out.
const COLORS: [RGBColor; 7] = [
    RGBColor(0, 114, 178),
    RGBColor(213, 94, 0),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(86, 180, 233),
    RGBColor(230, 159, 0),
    RGBColor(0, 0, 0),
];
const INK: RGBColor = RGBColor(40, 40, 40);
const PALE: RGBColor = RGBColor(140, 140, 140);

/// One curve. A value that is not finite breaks the line.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Series {
    pub name: String,
    /// (step, value), steps not descending.
    pub points: Vec<(f64, f64)>,
    /// From 0, drawn as it is, to below 1: the weight of the past in [`smoothed`], drawn over the faint points.
    pub smoothing: f64,
}

/// A vertical line, named to its right: here something begins.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Boundary {
    pub x: f64,
    pub label: String,
}

/// Curves over one axis of steps.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Chart {
    pub title: String,
    pub x_label: String,
    pub y_label: String,
    /// Values of zero and below have no place on a logarithmic axis and are left out.
    pub log_y: bool,
    pub series: Vec<Series>,
    pub boundaries: Vec<Boundary>,
}

impl Chart {
    /// Whether there is no point to draw.
    pub(crate) fn is_empty(&self) -> bool {
        !self
            .series
            .iter()
            .flat_map(|s| &s.points)
            .any(|p| self.drawable(*p))
    }

    fn drawable(&self, (x, y): (f64, f64)) -> bool {
        x.is_finite()
            && x.abs() <= LARGEST
            && y.is_finite()
            && y.abs() <= LARGEST
            && (!self.log_y || y > 1.0 / LARGEST)
    }

    fn has_place(&self, boundary: &Boundary) -> bool {
        boundary.x.is_finite() && boundary.x.abs() <= LARGEST
    }

    /// Writes [`Chart::svg`], whole or not at all.
    pub(crate) fn write(&self, path: &Path) -> Result<()> {
        let svg = self.svg().map_err(|e| match e {
            Error::Data {
                key, expected, found, ..
            } => Error::data(path, key, expected, found),
            other => other,
        })?;
        write_atomic_bytes(path, svg.as_bytes())
    }

    /// The whole file, 900 × 500 pixels.
    ///
    /// # Errors
    /// A chart without a point to draw.
    pub(crate) fn svg(&self) -> Result<String> {
        if self.is_empty() {
            return Err(Error::data(
                "chart",
                &self.title,
                "a finite value to draw",
                "none",
            ));
        }
        let mut text = String::new();
        {
            let root = SVGBackend::with_string(&mut text, (WIDTH, HEIGHT)).into_drawing_area();
            self.draw(&root)
                .map_err(|e| Error::data("chart", &self.title, "a chart that can be drawn", e.to_string()))?;
        }
        let size = |unit: u32| format!("<svg width=\"{}\" height=\"{}\"", WIDTH / unit, HEIGHT / unit);
        Ok(text.replacen(&size(1), &size(UNITS_PER_PIXEL), 1))
    }

    fn draw(&self, root: &DrawingArea<SVGBackend, Shift>) -> Result<(), DrawError> {
        root.fill(&WHITE)?;
        let title = text_style(42, &INK, HPos::Left, VPos::Center);
        root.draw(&Text::new(self.title.clone(), (40, 40), title))?;
        let (left, right) = root.split_horizontally(WIDTH as i32 - LEGEND);
        self.legend(&right)?;
        let (x, y) = self.ranges();
        let mut builder = ChartBuilder::on(&left);
        builder
            .margin_top(TOP)
            .margin_right(30)
            .margin_bottom(20)
            .margin_left(30)
            .x_label_area_size(85)
            .y_label_area_size(130);
        if self.log_y {
            let ticks = log_ticks(y.start, y.end);
            let axis: LogCoord<f64> = y.clone().log_scale().into();
            self.draw_in(&mut builder, x, axis.with_key_points(ticks), y)?;
        } else {
            self.draw_in(&mut builder, x, y.clone(), y)?;
        }
        root.present()?;
        Ok(())
    }

    fn draw_in<Y>(
        &self,
        builder: &mut ChartBuilder<SVGBackend>,
        x: std::ops::Range<f64>,
        y_axis: Y,
        y: std::ops::Range<f64>,
    ) -> Result<(), DrawError>
    where
        Y: AsRangedCoord<Value = f64>,
        Y::CoordDescType: ValueFormatter<f64>,
    {
        let mut chart = builder.build_cartesian_2d(x, y_axis)?;
        chart
            .configure_mesh()
            .disable_x_mesh()
            .light_line_style(TRANSPARENT)
            .bold_line_style(RGBColor(225, 225, 225).stroke_width(2))
            .axis_style(PALE.stroke_width(2))
            .x_desc(&self.x_label)
            .y_desc(&self.y_label)
            .label_style(text_style(30, &INK, HPos::Center, VPos::Center))
            .axis_desc_style(text_style(32, &INK, HPos::Center, VPos::Center))
            .x_labels(8)
            .y_labels(8)
            .x_label_formatter(&|v| short(*v))
            .y_label_formatter(&|v| short(*v))
            .draw()?;
        // The end of the last name of each row, in units.
        let mut ends = [f64::NEG_INFINITY; 2];
        for boundary in self.boundaries.iter().filter(|b| self.has_place(b)) {
            let line = [(boundary.x, y.start), (boundary.x, y.end)];
            chart.draw_series(DashedLineSeries::new(line, 8, 8, PALE.stroke_width(2)))?;
            let start = f64::from(chart.backend_coord(&(boundary.x, y.end)).0);
            // Names that would run into one another take turns.
            let row = usize::from(ends[0] > start && ends[1] < ends[0]);
            ends[row] = start + CHAR_UNITS * boundary.label.chars().count() as f64;
            let style = text_style(28, &INK, HPos::Left, VPos::Bottom);
            let place = (2, -8 - 34 * row as i32);
            let name =
                EmptyElement::at((boundary.x, y.end)) + Text::new(boundary.label.clone(), place, style);
            chart.draw_series(std::iter::once(name))?;
        }
        for (i, series) in self.series.iter().enumerate() {
            let color = color(i);
            let smooth = series.smoothing > 0.0;
            for run in self.runs(&series.points) {
                let faint = if smooth { color.mix(0.35) } else { color.mix(1.0) };
                let width = if smooth { 2 } else { 4 };
                // A few points are measures of their own, and one alone would make no line.
                if run.len() <= 30 && !smooth {
                    chart.draw_series(run.iter().map(|p| Circle::new(*p, 7, color.filled())))?;
                }
                chart.draw_series(LineSeries::new(run, faint.stroke_width(width)))?;
            }
            if smooth {
                for run in self.runs(&smoothed(&series.points, series.smoothing)) {
                    chart.draw_series(LineSeries::new(run, color.stroke_width(5)))?;
                }
            }
        }
        Ok(())
    }

    fn legend(&self, area: &DrawingArea<SVGBackend, Shift>) -> Result<(), DrawError> {
        for (i, series) in self.series.iter().enumerate() {
            let y = TOP + 25 + 48 * i as i32;
            let line = vec![(10, y), (60, y)];
            area.draw(&PathElement::new(line, color(i).stroke_width(5)))?;
            let style = text_style(30, &INK, HPos::Left, VPos::Center);
            area.draw(&Text::new(cut(&series.name), (76, y), style))?;
        }
        Ok(())
    }

    /// The unbroken pieces of a curve, thinned to what the canvas can show.
    fn runs(&self, points: &[(f64, f64)]) -> Vec<Vec<(f64, f64)>> {
        let pieces = points
            .split(|p| !self.drawable(*p))
            .filter(|piece| !piece.is_empty());
        pieces.map(|piece| thinned(piece, MOST_POINTS)).collect()
    }

    /// Both axes with a little room around the points, and never of no width.
    fn ranges(&self) -> (std::ops::Range<f64>, std::ops::Range<f64>) {
        let points = || {
            self.series
                .iter()
                .flat_map(|s| &s.points)
                .filter(|p| self.drawable(**p))
        };
        let ends = |values: &mut dyn Iterator<Item = f64>| {
            values.fold((f64::INFINITY, f64::NEG_INFINITY), |(a, b), v| {
                (a.min(v), b.max(v))
            })
        };
        let boundaries = self.boundaries.iter().filter(|b| self.has_place(b)).map(|b| b.x);
        let (x0, x1) = widened(ends(&mut points().map(|p| p.0).chain(boundaries)));
        // Steps count from zero; a curve that begins much later does not.
        let x0 = if x0 > 0.0 && x0 < 0.2 * x1 { 0.0 } else { x0 };
        let (y0, y1) = ends(&mut points().map(|p| p.1));
        let y = if self.log_y {
            let (low, high) = widened((y0.log10(), y1.log10()));
            let room = 0.05 * (high - low);
            10f64.powf(low - room)..10f64.powf(high + room)
        } else {
            let (low, high) = widened((y0, y1));
            let room = 0.05 * (high - low);
            // Measures that are never negative keep their zero.
            let floor = if low >= 0.0 && low <= 2.0 * room {
                0.0
            } else {
                low - room
            };
            floor..high + room
        };
        (x0..x1, y)
    }
}

type DrawError = DrawingAreaErrorKind<std::io::Error>;

fn color(i: usize) -> RGBColor {
    COLORS[i % COLORS.len()]
}

fn text_style(size: u32, color: &RGBColor, h: HPos, v: VPos) -> TextStyle<'static> {
    ("Helvetica, Arial, sans-serif", size)
        .into_text_style(&(WIDTH, HEIGHT))
        .with_color(color)
        .with_anchor::<RGBColor>(Pos::new(h, v))
        .into_text_style(&(WIDTH, HEIGHT))
}

/// A name for the legend.
fn cut(name: &str) -> String {
    match name.chars().count() > LEGEND_CHARS {
        true => name.chars().take(LEGEND_CHARS - 1).chain(['…']).collect(),
        false => name.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chart(points: Vec<(f64, f64)>) -> Chart {
        Chart {
            title: "Loss <of> a & b".into(),
            x_label: "step".into(),
            y_label: "loss".into(),
            log_y: false,
            series: vec![Series {
                name: "train".into(),
                points,
                smoothing: 0.0,
            }],
            boundaries: vec![Boundary {
                x: 2.0,
                label: "stage 2".into(),
            }],
        }
    }

    fn count(text: &str, what: &str) -> usize {
        text.matches(what).count()
    }

    #[test]
    fn the_file_holds_curves_names_and_boundaries() {
        let svg = chart(vec![(1.0, 3.0), (2.0, 2.0), (3.0, 1.0)]).svg().unwrap();
        assert!(
            svg.starts_with("<svg width=\"900\" height=\"500\" viewBox=\"0 0 1800 1000\""),
            "{svg}"
        );
        assert!(svg.trim_end().ends_with("</svg>"));
        for text in ["Loss &lt;of&gt; a &amp; b", "train", "stage 2", "step"] {
            assert!(svg.contains(text), "{text}");
        }
    }

    #[test]
    fn what_is_not_finite_breaks_the_line_and_nothing_else() {
        let whole = chart(vec![(1.0, 3.0), (2.0, 2.0), (3.0, 2.0), (4.0, 1.0)])
            .svg()
            .unwrap();
        let mut broken = chart(vec![
            (1.0, 3.0),
            (2.0, 2.0),
            (2.5, f64::NAN),
            (3.0, 2.0),
            (4.0, 1.0),
        ]);
        let svg = broken.svg().unwrap();
        assert_eq!(
            count(&svg, "stroke-width=\"4\""),
            count(&whole, "stroke-width=\"4\"") + 1
        );
        assert!(!svg.contains("NaN"));
        broken.series[0].points = vec![(1.0, f64::NAN), (2.0, f64::INFINITY), (3.0, 1e300)];
        assert!(broken.is_empty());
        assert!(broken
            .svg()
            .unwrap_err()
            .to_string()
            .contains("a finite value to draw"));
    }

    #[test]
    fn odd_ranges_draw() {
        for points in [
            vec![(1.0, 1.0)],
            vec![(0.0, 0.0), (0.0, 0.0)],
            vec![(1.0, 5.0), (2.0, 5.0)],
            vec![(1.0, 1e-30), (2.0, 1e30)],
            vec![(1.0, -1e30), (1e30, 1e30)],
            vec![(5.0, 1.0), (5.0, 1.0 + 1e-15)],
        ] {
            for log_y in [false, true] {
                let mut odd = chart(points.clone());
                odd.log_y = log_y;
                if !odd.is_empty() {
                    odd.svg().unwrap();
                }
            }
        }
    }
}
