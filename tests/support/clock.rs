//! Bounds on time. On a busy machine a time says nothing of the program: ordinary runs print what was too slow, and
//! `make load`, for a machine that does nothing else, fails.

use std::fmt::Display;

/// Set by `make load`.
const JUDGE: &str = "JUDGE_TIMES";

/// Checks a bound on time.
///
/// # Panics
/// Where `in_time` is false and times are judged.
#[track_caller]
pub fn judge(in_time: bool, measured: impl Display) {
    if !in_time {
        assert!(std::env::var_os(JUDGE).is_none(), "too slow: {measured}");
        eprintln!("too slow, which only `make load` judges: {measured}");
    }
}
