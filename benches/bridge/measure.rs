//! Rounds, medians, and tables in Markdown.

use std::{
    error::Error,
    fmt,
    sync::Arc,
    time::{Duration, Instant},
};

use futures::future::BoxFuture;
use tokio::task::JoinSet;

/// Result of anything here: a benchmark that can't do its work says why and ends.
pub type Outcome<T> = Result<T, Box<dyn Error + Send + Sync>>;

/// How long a round takes, and how many there are. One more goes before them and is not counted.
#[derive(Clone, Copy)]
pub struct Pace {
    /// Of one contender.
    pub round: Duration,
    /// Of each contender.
    pub rounds: usize,
}

/// Asks one question and checks the answer.
pub type Ask = Arc<dyn Fn() -> BoxFuture<'static, Outcome<()>> + Send + Sync>;

/// One who is measured: asks for about so long; the requests per second.
pub type Contender = Box<dyn Fn(Duration) -> BoxFuture<'static, Outcome<f64>> + Send + Sync>;

/// Asks with so many requests in flight.
pub fn contender(in_flight: usize, ask: Ask) -> Contender {
    Box::new(move |round| {
        let ask = ask.clone();
        Box::pin(async move {
            let start = Instant::now();
            let mut clients = JoinSet::new();
            for _ in 0..in_flight {
                let ask = ask.clone();
                clients.spawn(async move {
                    let mut asked = 0u64;
                    while start.elapsed() < round {
                        ask().await?;
                        asked += 1;
                    }
                    Outcome::Ok(asked)
                });
            }
            let mut asked = 0;
            while let Some(client) = clients.join_next().await {
                asked += client??;
            }
            Ok(asked as f64 / start.elapsed().as_secs_f64())
        })
    })
}

/// The requests per second of several contenders, round by round.
pub struct Rates(Vec<Vec<f64>>);

impl Rates {
    /// Lets the contenders take turns.
    pub async fn measure(contenders: &[Contender], pace: Pace) -> Outcome<Self> {
        let mut rates = vec![Vec::with_capacity(pace.rounds); contenders.len()];
        for round in 0..=pace.rounds {
            for (contender, rates) in contenders.iter().zip(&mut rates) {
                let rate = contender(pace.round).await?;
                if round > 0 {
                    rates.push(rate);
                }
            }
        }
        Ok(Self(rates))
    }

    /// The median of a contender.
    pub fn of(&self, contender: usize) -> f64 {
        median(self.0[contender].clone())
    }

    /// How many times as fast `contender` is as `other`: the median over the rounds.
    pub fn ratio(&self, contender: usize, other: usize) -> f64 {
        median_ratio(&self.0[contender], &self.0[other])
    }
}

/// The value in the middle of the rounds' ratios.
pub fn median_ratio(own: &[f64], other: &[f64]) -> f64 {
    median(own.iter().zip(other).map(|(own, other)| own / other).collect())
}

/// The value in the middle.
pub fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    match values.len() {
        0 => f64::NAN,
        n if n % 2 == 1 => values[n / 2],
        n => (values[n / 2 - 1] + values[n / 2]) / 2.0,
    }
}

/// A limit that is promised, and what was found.
pub struct Target {
    at_least: bool,
    limit: f64,
    worst: f64,
}

impl Target {
    /// Every value must be `limit` or more.
    pub fn at_least(limit: f64) -> Self {
        Self { at_least: true, limit, worst: f64::INFINITY }
    }

    /// Every value must be `limit` or less.
    pub fn at_most(limit: f64) -> Self {
        Self { at_least: false, limit, worst: f64::NEG_INFINITY }
    }

    /// What a request may cost on the longest of these chains, against the same one on 1,000 blocks.
    pub fn of_growth(lengths: &[usize]) -> Self {
        Self::at_most(if lengths.iter().any(|length| *length > 1_000_000) { 1.5 } else { 1.3 })
    }

    /// Takes a value in; how it is shown.
    pub fn check(&mut self, value: f64) -> String {
        let (worst, missed) = match self.at_least {
            true => (self.worst.min(value), value < self.limit),
            false => (self.worst.max(value), value > self.limit),
        };
        self.worst = worst;
        if missed { format!("**{value:.2}**") } else { format!("{value:.2}") }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { at_least, limit, worst } = self;
        let (wanted, holds) = if *at_least { ("at least", worst >= limit) } else { ("at most", worst <= limit) };
        let verdict = if holds { "holds" } else { "missed" };
        write!(f, "Target: {wanted} {limit}; worst here {worst:.2}: {verdict}.")
    }
}

/// A table in Markdown: text on the left, numbers on the right.
pub struct Table {
    text_columns: usize,
    rows: Vec<Vec<String>>,
}

impl Table {
    /// With these columns, the first so many of which hold text.
    pub fn new(text_columns: usize, columns: &[&str]) -> Self {
        Self { text_columns, rows: vec![columns.iter().map(ToString::to_string).collect()] }
    }

    /// Adds a row.
    pub fn row(&mut self, cells: Vec<String>) {
        self.rows.push(cells);
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, row) in self.rows.iter().enumerate() {
            writeln!(f, "| {} |", row.join(" | "))?;
            if number == 0 {
                let line = (0..row.len()).map(|column| if column < self.text_columns { "---|" } else { "---:|" });
                writeln!(f, "|{}", line.collect::<String>())?;
            }
        }
        Ok(())
    }
}

/// A number with commas between its thousands.
pub fn thousands(number: f64) -> String {
    let digits = format!("{:.0}", number.round());
    let mut out = String::with_capacity(digits.len() + 4);
    for (position, digit) in digits.chars().enumerate() {
        if position > 0 && (digits.len() - position) % 3 == 0 {
            out.push(',');
        }
        out.push(digit);
    }
    out
}
