//! Families of metrics that are read at each scrape.

use std::fmt;

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric, MetricEncoder},
    metrics::{MetricType, counter::ConstCounter, gauge::ConstGauge},
};

/// Labels of one value of a metric.
pub type Labels = Vec<(&'static str, String)>;

/// A metric with a value for each set of labels.
#[derive(Debug)]
struct Family {
    name: &'static str,
    help: &'static str,
    kind: MetricType,
    values: Vec<(Labels, u64)>,
}

/// What is read at each scrape.
#[derive(Debug, Default)]
pub struct Metrics(Vec<Family>);

impl Metrics {
    /// Adds a gauge of one value.
    pub fn gauge(&mut self, name: &'static str, help: &'static str, value: u64) {
        self.gauges(name, help, [(Vec::new(), value)]);
    }

    /// Adds a gauge with labels.
    pub fn gauges(&mut self, name: &'static str, help: &'static str, values: impl IntoIterator<Item = (Labels, u64)>) {
        self.0.push(Family { name, help, kind: MetricType::Gauge, values: values.into_iter().collect() });
    }

    /// Adds a counter of one value.
    pub fn counter(&mut self, name: &'static str, help: &'static str, value: u64) {
        self.counters(name, help, [(Vec::new(), value)]);
    }

    /// Adds a counter with labels.
    pub fn counters(
        &mut self,
        name: &'static str,
        help: &'static str,
        values: impl IntoIterator<Item = (Labels, u64)>,
    ) {
        self.0.push(Family { name, help, kind: MetricType::Counter, values: values.into_iter().collect() });
    }
}

impl Collector for Metrics {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        for Family { name, help, kind, values } in &self.0 {
            // The encoder adds the suffix of counters.
            let name = name.strip_suffix("_total").unwrap_or(name);
            let encode = |value: u64, metric: MetricEncoder<'_>| match kind {
                MetricType::Counter => ConstCounter::new(value).encode(metric),
                _ => ConstGauge::new(value).encode(metric),
            };
            let mut family = encoder.encode_descriptor(name, help, None, *kind)?;
            match &values[..] {
                [(labels, value)] if labels.is_empty() => encode(*value, family)?,
                values => {
                    for (labels, value) in values {
                        encode(*value, family.encode_family(labels)?)?;
                    }
                }
            }
        }
        Ok(())
    }
}

/// The label `name`.
pub fn label(name: &'static str, value: &str) -> Labels {
    vec![(name, value.to_owned())]
}
