//! The bounds in the repository, and how they are compared with what was counted.

use std::{collections::BTreeMap, fmt::Write as _, fs, path::PathBuf};

use serde::Deserialize;

/// What stands above the bounds.
const HEAD: &str = "\
# Instructions of one run of each operation, written by `make instructions WRITE=1`. `make instructions` fails for a count
# that is more than the tolerance above its bound. They are of x86-64; another compiler makes other code, so new bounds may
# be due with it.
";

/// How much more than the bound is still good, in percent: for hash maps with seeds of their own, and another compiler.
const TOLERANCE: u64 = 10;

/// How the code is built: Cargo's `dev`, whose build CI has anyway, or `release`.
const PROFILE: &str = if cfg!(debug_assertions) { "dev" } else { "release" };

/// The file of the bounds.
#[derive(Debug, Default, Deserialize)]
pub struct Bounds {
    tolerance_percent: u64,
    /// Instructions by operation, by profile.
    #[serde(flatten)]
    profiles: BTreeMap<String, BTreeMap<String, u64>>,
}

impl Bounds {
    fn path() -> PathBuf {
        [env!("CARGO_MANIFEST_DIR"), "tests/instructions/bounds.toml"].iter().collect()
    }

    /// Reads the file.
    pub fn read() -> Self {
        let text = fs::read_to_string(Self::path()).expect("the bounds");
        toml::from_str(&text).expect("tests/instructions/bounds.toml has bounds")
    }

    /// Replaces the bounds of this profile.
    pub fn write(counts: &[(&str, u64)]) {
        let mut bounds = if Self::path().exists() { Self::read() } else { Self::default() };
        bounds.profiles.insert(PROFILE.into(), counts.iter().map(|(name, count)| ((*name).into(), *count)).collect());
        let mut text = format!("{HEAD}tolerance_percent = {TOLERANCE}\n");
        for (profile, counts) in &bounds.profiles {
            let _ = writeln!(text, "\n[{profile}]");
            for (name, count) in counts {
                let _ = writeln!(text, "{name} = {}", grouped(*count, '_'));
            }
        }
        fs::write(Self::path(), text).expect("the bounds are written");
    }

    /// Bounds of this profile. None for a profile that the file has not, and for another processor.
    fn here(&self) -> Option<&BTreeMap<String, u64>> {
        self.profiles.get(PROFILE).filter(|_| cfg!(target_arch = "x86_64"))
    }

    /// Part of a bound that a count may differ by.
    fn tolerance(&self, bound: u64) -> u64 {
        bound * self.tolerance_percent / 100
    }

    /// Whether a count is more than the bound of the operation allows.
    pub fn is_above(&self, name: &str, count: u64) -> bool {
        let bound = self.here().and_then(|bounds| bounds.get(name));
        bound.is_some_and(|bound| count > bound + self.tolerance(*bound))
    }

    /// The table, and how many operations are above their bounds, or have none.
    pub fn compare(&self, counts: &[(&str, u64)]) -> (String, usize) {
        let mut table = format!("profile `{PROFILE}`\n\n| operation | instructions | bound | of it |  |\n");
        table += "|---|---:|---:|---:|---|\n";
        let mut failed = 0;
        for (name, count) in counts {
            let bound = self.here().and_then(|bounds| bounds.get(*name));
            let verdict = match bound {
                None if self.here().is_none() => "not compared",
                None => "no bound",
                Some(_) if self.is_above(name, *count) => "above",
                Some(bound) if *count < bound - self.tolerance(*bound) => "below: new bounds are due",
                Some(_) => "",
            };
            failed += usize::from(["no bound", "above"].contains(&verdict));
            let share = bound.map_or(String::new(), |bound| format!("{:.3}", *count as f64 / *bound as f64));
            let bound = bound.map_or(String::new(), |bound| grouped(*bound, ','));
            let _ = writeln!(table, "| `{name}` | {} | {bound} | {share} | {verdict} |", grouped(*count, ','));
        }
        if failed > 0 {
            let more = self.tolerance_percent;
            let _ = writeln!(
                table,
                "\n{failed} of them cost over {more} % more than the bound in tests/instructions/bounds.toml. If that is \
                 meant: make instructions WRITE=1"
            );
        }
        (table, failed)
    }
}

/// A number with a mark between its thousands.
fn grouped(number: u64, mark: char) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(mark);
        }
        text.push(digit);
    }
    text
}
