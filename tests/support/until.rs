//! Waiting for what must happen, by looking.

use std::time::Duration;

use super::gateway::PATIENCE;

/// Looks again and again until there is something to see.
pub async fn eventually<T>(look: impl AsyncFnMut() -> Option<T>) -> T {
    within(PATIENCE, look).await
}

/// The same, where it may take so long.
pub async fn within<T>(limit: Duration, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let seen = async {
        let mut ticks = tokio::time::interval(Duration::from_millis(20));
        loop {
            ticks.tick().await;
            if let Some(seen) = look().await {
                return seen;
            }
        }
    };
    tokio::time::timeout(limit, seen).await.expect("it never happened")
}
