//! Hashers of either algorithm. RandomX runs in both of its modes, with one memory for all that hash with the same key.

use std::sync::{
    Arc, Mutex, PoisonError, Weak,
    atomic::{AtomicBool, Ordering},
};

use rust_randomx::{Context, Hasher as Machine};

use super::{
    memory,
    options::{PowAlgorithm, PowError, PowMemory},
};
use crate::chain::encoding::sha256_hex;

/// Whether a hash would be acted upon: it is confirmed then.
type Doubt<'a> = &'a dyn Fn(&str) -> bool;

/// Computes one hash after another: lower-case hex of `H(text)`. A result that the second argument doubts is certain;
/// one that it doesn't may, in full-memory mode, be wrong.
pub(in crate::chain) type Hasher = Box<dyn FnMut(&str, Doubt) -> Result<String, PowError> + Send>;

/// Hashes that repay the set-up of full-memory mode, in CPU time: set-up / (light hash - full hash).
///
/// The set-up computes the 34,078,719 items of the data set. A light hash computes 8 × 2048 items, which a full one
/// reads, and is the same otherwise. So on any machine the set-up takes what 34,078,719 / 16,384 = 2080 hashes save, if
/// reading and writing the items cost nothing. They cost a quarter more: with pages of 4 KiB 80 / (1/27 - 1/160) = 2600
/// was measured, with pages of 2 MiB on another machine 51 / (1/40 - 1/225) = 2490, by one thread. `cargo bench -- pow`
/// prints the figures of a machine.
///
/// A machine that is twice as fast, or half as fast, needs as many. Where only full hashes differ, because of its
/// memory, twice their rate needs 2360 and half of it 3260. With fewer threads than cores the time is repaid sooner,
/// since the set-up always takes all cores.
const REPAY_FULL: u64 = 2080 + 2080 / 4;

/// The caches and the data sets that are in use anywhere in the process: verifiers and miners of one network share
/// them.
static LIGHT: Mutex<Vec<Weak<Context>>> = Mutex::new(Vec::new());
static FULL: Mutex<Vec<Weak<Context>>> = Mutex::new(Vec::new());

/// The memory for `key`, set up if it isn't yet; other callers of the mode wait for that.
fn context(key: &str, full: bool) -> Result<Arc<Context>, PowError> {
    let contexts = if full { &FULL } else { &LIGHT };
    let mut contexts = contexts.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(found) = contexts.iter().filter_map(Weak::upgrade).find(|context| context.key() == key.as_bytes()) {
        return Ok(found);
    }
    if full {
        memory::check_full()?;
    }
    memory::check_limit(full)?;
    let made = Arc::new(Context::new(key.as_bytes(), full));
    contexts.retain(|context| context.strong_count() > 0);
    contexts.push(Arc::downgrade(&made));
    Ok(made)
}

/// What the hashers of one verifier or miner share.
pub(in crate::chain) struct RandomX {
    key: String,
    memory: PowMemory,
    /// The mode that is wanted.
    full: AtomicBool,
    /// The memory used last: a miner's hashers come and go with each block.
    kept: Mutex<Option<Arc<Context>>>,
}

impl RandomX {
    fn new(key: &str, memory: PowMemory) -> Self {
        let full = AtomicBool::new(memory == PowMemory::Full);
        Self { key: key.into(), memory, full, kept: Mutex::default() }
    }

    fn expect(&self, hashes: u64) {
        if self.memory != PowMemory::Auto {
            return;
        }
        if hashes == 0 {
            self.full.store(false, Ordering::Relaxed);
        } else if hashes >= REPAY_FULL && !self.full.load(Ordering::Relaxed) && memory::check_full().is_ok() {
            self.full.store(true, Ordering::Relaxed);
        }
    }

    /// A machine and whether it is in full-memory mode.
    fn machine(&self) -> Result<(Machine, bool), PowError> {
        let mut full = self.full.load(Ordering::Relaxed);
        let mut context = context(&self.key, full);
        if full
            && self.memory == PowMemory::Auto
            && matches!(context, Err(PowError::Memory { .. } | PowError::Limit { .. }))
        {
            // Others have taken the memory since it was promised.
            self.full.store(false, Ordering::Relaxed);
            (full, context) = (false, self::context(&self.key, false));
        }
        let context = context?;
        *self.kept.lock().unwrap_or_else(PoisonError::into_inner) = Some(context.clone());
        Ok((Machine::new(context), full))
    }

    fn hasher(self: Arc<Self>) -> Hasher {
        let mut current: Option<(Machine, bool)> = None;
        Box::new(move |text, doubted| {
            let wanted = self.full.load(Ordering::Relaxed);
            let (machine, full) = match current.take() {
                Some((machine, full)) if full == wanted => current.insert((machine, full)),
                _ => current.insert(self.machine()?),
            };
            let hash = hex::encode(machine.hash(text.as_bytes()));
            if !*full || !doubted(&hash) {
                return Ok(hash);
            }
            Ok(hex::encode(Machine::new(context(&self.key, false)?).hash(text.as_bytes())))
        })
    }
}

/// Makes the [`Hasher`]s of an algorithm, which share what they can.
#[derive(Clone)]
pub(in crate::chain) enum Hashing {
    Sha256,
    RandomX(Arc<RandomX>),
}

impl Hashing {
    pub(in crate::chain) fn new(algorithm: &PowAlgorithm, memory: PowMemory) -> Self {
        match algorithm {
            PowAlgorithm::Sha256 => Self::Sha256,
            PowAlgorithm::RandomX { key } => Self::RandomX(Arc::new(RandomX::new(key, memory))),
        }
    }

    /// What [`Verifier::expect`](super::Verifier::expect) says.
    pub(in crate::chain) fn expect(&self, hashes: u64) {
        if let Self::RandomX(randomx) = self {
            randomx.expect(hashes);
        }
    }

    /// A hasher, which sets up what it needs with its first hash.
    pub(in crate::chain) fn hasher(&self) -> Hasher {
        match self {
            Self::Sha256 => Box::new(|text, _| Ok(sha256_hex(text.as_bytes()))),
            Self::RandomX(randomx) => randomx.clone().hasher(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = super::super::NETWORK_RANDOMX_KEY;

    #[test]
    fn full_memory_mode_is_chosen_when_it_pays() {
        let chosen = |memory, expected: &[u64]| {
            let randomx = RandomX::new(KEY, memory);
            expected.iter().for_each(|hashes| randomx.expect(*hashes));
            randomx.full.load(Ordering::Relaxed)
        };
        let allowed = memory::check_full().is_ok();
        assert!(!chosen(PowMemory::Auto, &[]));
        assert!(!chosen(PowMemory::Auto, &[REPAY_FULL - 1]));
        assert_eq!(chosen(PowMemory::Auto, &[REPAY_FULL]), allowed);
        assert_eq!(chosen(PowMemory::Auto, &[REPAY_FULL, 1]), allowed, "what is set up serves to the end");
        assert!(!chosen(PowMemory::Auto, &[REPAY_FULL, 0]));
        assert!(!chosen(PowMemory::Light, &[u64::MAX]));
        assert!(chosen(PowMemory::Full, &[0]));
    }

    #[test]
    fn hashers_of_a_key_share_its_memory() {
        let one = context(KEY, false).unwrap();
        assert!(Arc::ptr_eq(&one, &context(KEY, false).unwrap()));
        assert!(!Arc::ptr_eq(&one, &context("another", false).unwrap()));
    }

    #[test]
    #[ignore = "takes 2080 MiB and a minute"]
    fn both_modes_give_the_same_hashes() {
        let mut light = Arc::new(RandomX::new(KEY, PowMemory::Light)).hasher();
        let auto = Arc::new(RandomX::new(KEY, PowMemory::Auto));
        let mut full = auto.clone().hasher();
        assert_eq!(full("0", &|_| false), light("0", &|_| true));
        auto.expect(REPAY_FULL);
        for text in 0..100 {
            let text = text.to_string();
            assert_eq!(full(&text, &|_| true), light(&text, &|_| true));
        }
        auto.expect(0);
        assert_eq!(full("0", &|_| false), light("0", &|_| true));
    }
}
