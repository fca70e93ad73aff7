//! Long requests are parsed outside of the runtime's threads, which they would hold for milliseconds; and few at a time,
//! since the values of a text take many times its bytes while it is parsed.

use std::{
    sync::{Arc, LazyLock},
    thread::available_parallelism,
};

use tokio::{sync::Semaphore, task::spawn_blocking};

use crate::protocol::failure::{Code, Failure};

/// As many as half of the machine's cores, which leaves the others to short requests.
static PARSES: LazyLock<Arc<Semaphore>> =
    LazyLock::new(|| Arc::new(Semaphore::new(available_parallelism().map_or(1, |cores| cores.get().div_ceil(2)))));

/// Parses a long request as soon as a permit is free.
///
/// # Errors
/// Those of `parse`.
pub async fn parse_apart<T: Send + 'static>(
    parse: impl FnOnce() -> Result<T, Failure> + Send + 'static,
) -> Result<T, Failure> {
    parse_within(PARSES.clone(), parse).await
}

async fn parse_within<T: Send + 'static>(
    permits: Arc<Semaphore>,
    parse: impl FnOnce() -> Result<T, Failure> + Send + 'static,
) -> Result<T, Failure> {
    let permit = permits.acquire_owned().await;
    // The parse holds the permit: it runs to its end also after the request has been dropped.
    let parse = spawn_blocking(move || {
        let _permit = permit;
        parse()
    });
    parse.await.map_err(|_| Failure::new(Code::Internal))?
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    #[tokio::test]
    async fn a_parse_holds_its_permit_until_it_ends() {
        let permits = Arc::new(Semaphore::new(1));
        let (begun, begins) = mpsc::channel();
        let (end, ends) = mpsc::channel::<()>();
        let first = tokio::spawn(parse_within(permits.clone(), move || {
            begun.send(()).unwrap();
            ends.recv().unwrap();
            Ok(())
        }));
        spawn_blocking(move || begins.recv().unwrap()).await.unwrap();
        first.abort();
        assert!(first.await.unwrap_err().is_cancelled());
        assert_eq!(permits.available_permits(), 0);
        end.send(()).unwrap();
        assert_eq!(parse_within(permits.clone(), || Ok(7)).await.unwrap(), 7);
        assert_eq!(permits.available_permits(), 1);
    }
}
