//! Charts as SVG, of one value an epoch.

use askama::{Template, filters::HtmlSafe};

use super::text;

/// The area of the lines in the drawing, whose size is 360 by 160.
const LEFT: f64 = 58.0;
const RIGHT: f64 = 352.0;
const TOP: f64 = 12.0;
const BOTTOM: f64 = 132.0;

/// A line chart.
#[derive(Template)]
#[template(path = "explorer/chart.html")]
pub(super) struct Chart {
    id: &'static str,
    title: &'static str,
    description: String,
    /// Runs of points without a gap between them.
    runs: Vec<String>,
    points: Vec<Point>,
    most: String,
    half: String,
    first: String,
    last: String,
}

impl HtmlSafe for Chart {}

/// A value in the drawing.
struct Point {
    x: String,
    y: String,
    text: String,
}

impl Chart {
    /// A chart of values by epoch, in ascending order; `None` is a gap. `written` makes a text of a value.
    pub(super) fn new(
        id: &'static str,
        title: &'static str,
        values: &[(u64, Option<f64>)],
        written: impl Fn(f64) -> String,
    ) -> Self {
        let known =
            || values.iter().filter_map(|(epoch, value)| Some((*epoch, value.filter(|value| value.is_finite())?)));
        let most = known().map(|(_, value)| value).fold(0.0, f64::max);
        let top = if most > 0.0 { most } else { 1.0 };
        let (first, last) = (values.first().map_or(0, |v| v.0), values.last().map_or(0, |v| v.0));
        let span = (last - first).max(1) as f64;
        let place = |epoch: u64, value: f64| {
            let x = LEFT + (epoch - first) as f64 / span * (RIGHT - LEFT);
            let y = BOTTOM - value / top * (BOTTOM - TOP);
            (format!("{x:.1}"), format!("{y:.1}"))
        };
        let mut runs = vec![String::new()];
        for (epoch, value) in values {
            match value.filter(|value| value.is_finite()) {
                Some(value) => {
                    let (x, y) = place(*epoch, value);
                    if let Some(run) = runs.last_mut() {
                        run.push_str(&format!("{x},{y} "));
                    }
                }
                None => runs.push(String::new()),
            }
        }
        runs.retain(|run| !run.is_empty());
        let named = |(epoch, value): (u64, f64)| format!("{} in epoch {}", written(value), text::grouped(epoch));
        let lowest = known().min_by(|a, b| a.1.total_cmp(&b.1)).map(named);
        let highest = known().max_by(|a, b| a.1.total_cmp(&b.1)).map(named);
        let latest = known().next_back().map(named);
        let description = match (lowest, highest, latest) {
            (Some(lowest), Some(highest), Some(latest)) => format!(
                "Epochs {} to {}. Lowest: {lowest}. Highest: {highest}. Latest: {latest}.",
                text::grouped(first),
                text::grouped(last)
            ),
            _ => "No epoch has a value yet.".into(),
        };
        let points = known().map(|(epoch, value)| {
            let (x, y) = place(epoch, value);
            Point { x, y, text: format!("Epoch {}: {}", text::grouped(epoch), written(value)) }
        });
        Self {
            id,
            title,
            description,
            points: points.collect(),
            runs,
            most: written(top),
            half: written(top / 2.0),
            first: text::grouped(first),
            last: text::grouped(last),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chart_has_a_title_a_description_and_a_point_for_each_value() {
        let values = [(3, Some(60.0)), (4, None), (5, Some(30.0)), (6, Some(0.0))];
        let chart = Chart::new("time", "Block time", &values, text::duration).to_string();
        assert!(chart.contains("<title id=\"time-title\">Block time</title>"), "{chart}");
        assert!(
            chart.contains("Lowest: 0.0 s in epoch 6. Highest: 60.0 s in epoch 3. Latest: 0.0 s in epoch 6."),
            "{chart}"
        );
        assert_eq!((chart.matches("<circle").count(), chart.matches("<polyline").count()), (3, 2));
        assert!(chart.contains(r#"cx="58.0" cy="12.0""#), "the highest value is at the top: {chart}");
        assert!(chart.contains(r#"cx="352.0" cy="132.0""#), "nothing is at the bottom: {chart}");
    }

    #[test]
    fn a_chart_without_values_says_so() {
        for values in [&[][..], &[(0, None)], &[(7, Some(f64::NAN))]] {
            let chart = Chart::new("rate", "Hash rate", values, text::hash_rate).to_string();
            assert!(chart.contains("No epoch has a value yet.") && !chart.contains("NaN"), "{chart}");
        }
    }
}
