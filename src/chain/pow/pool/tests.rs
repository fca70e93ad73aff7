use std::{
    sync::{
        Barrier,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use super::*;

/// A pool whose hashers are made by `make`.
fn pool(threads: usize, make: impl Fn() -> Hasher + Send + Sync + 'static) -> HashPool {
    HashPool { hashing: Hashing::Sha256, make: Some(Arc::new(make)), threads, jobs: Arc::default() }
}

/// A pool whose hash of a text is the text; `before` runs first and may fail or panic.
fn echo(threads: usize, before: impl Fn(&str) -> Result<(), PowError> + Send + Sync + 'static) -> HashPool {
    let before = Arc::new(before);
    pool(threads, move || {
        let before = before.clone();
        Box::new(move |text, _| before(text).map(|()| text.to_owned()))
    })
}

/// `count` texts that are their numbers; those in `wrong` come with another hash.
fn texts(count: usize, wrong: &[usize]) -> Vec<(String, String)> {
    (0..count).map(|n| (n.to_string(), if wrong.contains(&n) { "-".into() } else { n.to_string() })).collect()
}

fn first_unequal(pool: &HashPool, texts: &[(String, String)]) -> Result<Option<(usize, String)>, PowError> {
    pool.first_unequal(texts.iter().map(|(text, hash)| (text.clone(), hash.as_str())))
}

#[test]
fn the_lowest_wins_even_when_it_comes_last() {
    let (told, tell) = channel();
    let tell = Mutex::new(tell);
    // Text 3 is not done before text 4 is.
    let pool = echo(2, move |text| {
        match text {
            "3" => tell.lock().unwrap().recv().unwrap(),
            "4" => told.send(()).unwrap(),
            _ => {}
        }
        Ok(())
    });
    assert_eq!(first_unequal(&pool, &texts(100, &[3, 4])), Ok(Some((3, "3".into()))));
}

#[test]
fn what_comes_after_a_wrong_hash_is_dropped() {
    let hashed = Arc::new(AtomicUsize::new(0));
    let count = hashed.clone();
    let pool = echo(1, move |_| {
        count.fetch_add(1, Ordering::Relaxed);
        Ok(())
    });
    assert_eq!(first_unequal(&pool, &texts(10_000, &[10])), Ok(Some((10, "10".into()))));
    drop(pool);
    assert!(hashed.load(Ordering::Relaxed) <= 12);
}

#[test]
fn a_panic_is_an_error_and_the_pool_goes_on() {
    let pool = echo(1, |text| if text == "5" { panic!("broken by text {text}") } else { Ok(()) });
    assert_eq!(first_unequal(&pool, &texts(8, &[])), Err(PowError::Panicked("broken by text 5".into())));
    assert_eq!(first_unequal(&pool, &texts(8, &[2])), Ok(Some((2, "2".into()))));
    assert_eq!(first_unequal(&pool, &texts(5, &[])), Ok(None));
}

#[test]
fn a_failed_set_up_is_an_error_and_is_tried_again() {
    let tries = AtomicUsize::new(0);
    let pool = echo(1, move |_| match tries.fetch_add(1, Ordering::Relaxed) {
        0 => Err(PowError::Spawn("no memory".into())),
        _ => Ok(()),
    });
    assert_eq!(first_unequal(&pool, &texts(1, &[])), Err(PowError::Spawn("no memory".into())));
    assert_eq!(first_unequal(&pool, &texts(1, &[])), Ok(None));
}

#[test]
fn only_hashes_that_are_not_the_wanted_ones_are_doubted() {
    let doubted = Arc::new(Mutex::new(Vec::new()));
    let told = doubted.clone();
    let pool = pool(1, move || {
        let told = told.clone();
        Box::new(move |text, doubted| {
            if doubted(text) {
                told.lock().unwrap().push(text.to_owned());
            }
            Ok(text.to_owned())
        })
    });
    assert_eq!(first_unequal(&pool, &texts(8, &[5])), Ok(Some((5, "5".into()))));
    assert_eq!(*doubted.lock().unwrap(), ["5"]);
}

#[test]
fn several_callers_share_the_threads() {
    let pool = echo(2, |_| Ok(()));
    let start = Barrier::new(8);
    thread::scope(|scope| {
        for caller in 0..8 {
            let (pool, start) = (pool.clone(), &start);
            scope.spawn(move || {
                start.wait();
                let expected = Ok(Some((100 + caller, (100 + caller).to_string())));
                assert_eq!(first_unequal(&pool, &texts(1000, &[100 + caller])), expected);
            });
        }
    });
}

#[test]
fn threads_start_with_the_first_hash_and_end_with_the_pool() {
    let (alive, ended) = channel::<()>();
    let alive = Mutex::new(alive);
    let pool = pool(2, move || {
        let alive = alive.lock().unwrap().clone();
        Box::new(move |text, _| {
            let _ = &alive;
            Ok(text.to_owned())
        })
    });
    assert_eq!(first_unequal(&pool, &[]), Ok(None));
    assert!(pool.jobs.lock().unwrap().is_none(), "nothing to hash, no thread");
    assert_eq!(first_unequal(&pool, &texts(100, &[])), Ok(None));
    assert!(pool.jobs.lock().unwrap().is_some());
    drop(pool);
    let end = ended.recv_timeout(Duration::from_secs(10));
    assert_eq!(end, Err(std::sync::mpsc::RecvTimeoutError::Disconnected), "the threads and their hashers are gone");
}

#[test]
fn sha256_needs_no_thread() {
    let pool = HashPool::new(&PowAlgorithm::Sha256, PowOptions::default());
    let empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
    assert_eq!(pool.first_unequal([(String::new(), empty), ("x".into(), empty)].into_iter()).unwrap().unwrap().0, 1);
    assert!(pool.jobs.lock().unwrap().is_none());
}
