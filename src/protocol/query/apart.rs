//! Long requests are parsed outside of the runtime's threads, which they would hold for milliseconds; and few at a time,
//! since the values of a text take many times its bytes while it is parsed.

use std::{io, sync::LazyLock, thread::available_parallelism};

use tokio::runtime::{Builder, Runtime};
use tokio_util::task::AbortOnDropHandle;

use crate::protocol::failure::{Code, Failure};

/// Most parses at a time: the values of one take up to 13 MiB.
const MAX_PARSES: usize = 2;

/// Threads of their own for half of the machine's cores, which leaves the others to short requests. Always the same
/// ones: the allocator keeps for each thread some of the memory that was freed there.
static PARSERS: LazyLock<io::Result<Runtime>> = LazyLock::new(|| {
    let threads = available_parallelism().map_or(1, |cores| cores.get().div_ceil(2)).min(MAX_PARSES);
    Builder::new_multi_thread().worker_threads(threads).thread_name("parser").build()
});

/// Parses a long request as soon as a thread is free.
///
/// # Errors
/// Those of `parse`; a system without threads left.
pub async fn parse_apart<T: Send + 'static>(
    parse: impl FnOnce() -> Result<T, Failure> + Send + 'static,
) -> Result<T, Failure> {
    let parsers = PARSERS.as_ref().map_err(|_| Failure::new(Code::Internal))?;
    let parse = AbortOnDropHandle::new(parsers.spawn(async { parse() }));
    parse.await.map_err(|_| Failure::new(Code::Internal))?
}

#[cfg(test)]
mod tests {
    use std::{pin::pin, sync::mpsc};

    use futures::poll;

    use super::*;

    /// A parse that sends the name of its thread, and ends after a message.
    fn held(begun: mpsc::Sender<String>) -> (mpsc::Sender<()>, impl FnOnce() -> Result<(), Failure> + Send) {
        let (end, ends) = mpsc::channel();
        let parse = move || {
            begun.send(std::thread::current().name().unwrap_or_default().to_owned()).unwrap();
            ends.recv().unwrap();
            Ok(())
        };
        (end, parse)
    }

    #[tokio::test]
    async fn a_dropped_request_holds_a_thread_until_its_parse_ends_and_no_longer() {
        let threads = PARSERS.as_ref().unwrap().metrics().num_workers();
        assert!((1..=MAX_PARSES).contains(&threads));
        let (begun, begins) = mpsc::channel();
        let mut ends = Vec::new();
        for _ in 0..threads {
            let (end, parse) = held(begun.clone());
            let mut request = pin!(parse_apart(parse));
            assert!(poll!(&mut request).is_pending());
            assert_eq!(begins.recv().unwrap(), "parser");
            ends.push(end);
        }
        // No thread is left for these two; the first one is dropped before it begins.
        {
            let (_, parse) = held(begun.clone());
            let mut request = pin!(parse_apart(parse));
            assert!(poll!(&mut request).is_pending());
        }
        let mut waiting = pin!(parse_apart(|| Ok(7)));
        assert!(poll!(&mut waiting).is_pending());
        for end in ends {
            end.send(()).unwrap();
        }
        assert_eq!(waiting.await.unwrap(), 7);
        assert!(begins.try_recv().is_err());
    }
}
