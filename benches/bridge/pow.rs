//! Proof-of-work hashes a second, by mode, threads and size of the memory's pages.
//!
//! Which pages a program gets is settled when it starts, so this one runs itself as a [`child`] of each kind, and asks
//! both in turns.

use std::{
    process::Stdio,
    time::{Duration, Instant},
};

use modal_gateway::{
    app::BUNDLED_CHAIN,
    chain::{Level, MinerBlock, Network, PowMemory, PowOptions, Verifier},
};
use serde::{Deserialize, Serialize};
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines},
    process::{ChildStdin, ChildStdout, Command},
};

use crate::{
    cpu::Meter,
    machine::field,
    measure::{Outcome, Table, median, thousands},
};

/// The variable that makes this program a [`child`].
pub const CHILD: &str = "MODAL_BENCH_POW_CHILD";

/// What the packages set, so that RandomX's memory gets pages of 2 MiB.
const TUNABLES: (&str, &str) = ("GLIBC_TUNABLES", "glibc.malloc.hugetlb=1");

/// What a child says of a mode with so many threads.
#[derive(Clone, Copy, Serialize, Deserialize)]
struct Figures {
    /// Until the mode's first hash: seconds, and CPU seconds of all threads.
    setup: (f64, f64),
    /// Hashes a second, and a CPU second.
    rate: (f64, f64),
    /// Of the memory that is resident then, MiB in pages of 2 MiB.
    huge: f64,
}

impl Figures {
    fn median(all: &[Self]) -> Self {
        let of = |number: fn(&Self) -> f64| median(all.iter().map(number).collect());
        Self {
            setup: (of(|it| it.setup.0), of(|it| it.setup.1)),
            rate: (of(|it| it.rate.0), of(|it| it.rate.1)),
            huge: of(|it| it.huge),
        }
    }
}

/// Answers each line of stdin, a mode and a number of threads, with a line.
pub fn child() -> Outcome<()> {
    let blocks: Vec<MinerBlock> = BUNDLED_CHAIN.lines().map(serde_json::from_str).collect::<Result<_, _>>()?;
    // It keeps the mode's memory.
    let mut first: Option<(PowMemory, Verifier, (f64, f64))> = None;
    for line in std::io::stdin().lines() {
        let (mode, threads): (String, usize) = serde_json::from_str(&line?)?;
        let memory: PowMemory = mode.parse()?;
        let verifier = Verifier::new(&Network::devnet(), Level::Pow, PowOptions { threads, memory })?;
        let hash = |count: usize| Outcome::Ok(verifier.verify(None, blocks[..count].to_vec()).map(drop)?);
        let setup = match &first {
            Some((mode, _, setup)) if *mode == memory => *setup,
            _ => {
                let setup = timed(|| hash(1))?;
                first = Some((memory, verifier.clone(), setup));
                setup
            }
        };
        // Each thread makes itself ready.
        hash(blocks.len())?;
        let (mut hashes, start) = (0.0, Instant::now());
        let (seconds, cpu) = timed(|| {
            while start.elapsed() < Duration::from_secs(2) {
                hash(blocks.len())?;
                hashes += blocks.len() as f64;
            }
            Ok(())
        })?;
        let huge = field("/proc/self/smaps_rollup", "AnonHugePages")?.trim_end_matches(" kB").parse::<f64>()? / 1024.0;
        println!("{}", serde_json::to_string(&Figures { setup, rate: (hashes / seconds, hashes / cpu), huge })?);
    }
    Ok(())
}

/// Seconds, and CPU seconds of this process.
fn timed(work: impl FnOnce() -> Outcome<()>) -> Outcome<(f64, f64)> {
    let process = Meter::Process(std::process::id());
    let (start, before) = (Instant::now(), process.seconds()?);
    work()?;
    Ok((start.elapsed().as_secs_f64(), process.seconds()? - before))
}

/// A child at work; it ends with this.
struct Child {
    _process: tokio::process::Child,
    questions: ChildStdin,
    answers: Lines<BufReader<ChildStdout>>,
}

impl Child {
    fn start(huge_pages: bool) -> Outcome<Self> {
        let mut command = Command::new(std::env::current_exe()?);
        command.env(CHILD, "").env_remove(TUNABLES.0);
        if huge_pages {
            command.env(TUNABLES.0, TUNABLES.1);
        }
        let mut process = command.stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true).spawn()?;
        let questions = process.stdin.take().ok_or("no stdin")?;
        let answers = BufReader::new(process.stdout.take().ok_or("no stdout")?).lines();
        Ok(Self { _process: process, questions, answers })
    }

    async fn ask(&mut self, memory: PowMemory, threads: usize) -> Outcome<Figures> {
        let question = serde_json::to_string(&(memory.to_string(), threads))?;
        self.questions.write_all(format!("{question}\n").as_bytes()).await?;
        // Why it ended is on its stderr, which is ours.
        Ok(serde_json::from_str(&self.answers.next_line().await?.ok_or("the child has ended")?)?)
    }
}

/// Both modes; full-memory mode not in a short run.
pub async fn run(quick: bool) -> Outcome<String> {
    let cores = std::thread::available_parallelism()?.get();
    let doubled = std::iter::successors(Some(1), |threads| Some(2 * threads));
    let threads: Vec<usize> = doubled.take_while(|threads| *threads < cores).chain([cores]).collect();
    let mut rates = Table::new(
        1,
        &["mode", "threads", "hashes/s", "huge pages", "ratio", "hashes a CPU second", "huge pages", "ratio"],
    );
    let mut setups = Table::new(2, &["mode", "pages", "set-up, s", "CPU s", "MiB in huge pages"]);
    let (mut children, mut notes) = ([Child::start(false)?, Child::start(true)?], String::new());
    // With a thread a core, by mode.
    let mut last = Vec::new();
    for mode in [PowMemory::Light, PowMemory::Full] {
        if let (PowMemory::Full, Some(reason)) = (mode, no_full(quick)?) {
            notes += &format!("Full-memory mode is left out: {reason}. ");
            break;
        }
        let mut figures = [const { Vec::new() }; 2];
        for &threads in &threads {
            figures = [const { Vec::new() }; 2];
            for _ in 0..if quick { 1 } else { 5 } {
                for (child, figures) in children.iter_mut().zip(&mut figures) {
                    figures.push(child.ask(mode, threads).await?);
                }
            }
            let ratio = |rate: fn(&Figures) -> f64| {
                let ratios = figures[0].iter().zip(&figures[1]).map(|(default, huge)| rate(huge) / rate(default));
                format!("{:.2}", median(ratios.collect()))
            };
            let [default, huge] = [0, 1].map(|pages| Figures::median(&figures[pages]).rate);
            let [one, two, three, four] = [default.0, huge.0, default.1, huge.1].map(|rate| format!("{rate:.1}"));
            let (ratio, ratio_cpu) = (ratio(|it| it.rate.0), ratio(|it| it.rate.1));
            rates.row(vec![format!("`{mode}`"), threads.to_string(), one, two, ratio, three, four, ratio_cpu]);
        }
        let medians = figures.map(|figures| Figures::median(&figures));
        for (Figures { setup, huge, .. }, pages) in medians.iter().zip(["as by default", "2 MiB"]) {
            let numbers = [format!("{:.1}", setup.0), format!("{:.1}", setup.1), format!("{huge:.0}")];
            setups.row([vec![format!("`{mode}`"), pages.into()], numbers.into()].concat());
        }
        last.push(medians);
    }
    if let [light, full] = &last[..] {
        // CPU seconds that a hash takes less in full-memory mode, of those that its set-up takes.
        let [default, huge] =
            [0, 1].map(|pages| full[pages].setup.1 / (1.0 / light[pages].rate.1 - 1.0 / full[pages].rate.1));
        notes += &format!(
            "{} hashes, with huge pages {}, repay the set-up of full-memory mode: its CPU seconds, divided by what a hash \
             takes less.",
            thousands(default),
            thousands(huge)
        );
    }
    let system = std::fs::read_to_string("/sys/kernel/mm/transparent_hugepage/enabled").unwrap_or("none\n".into());
    Ok(format!(
        "#### Proof of work: hashes a second\n\n{rates}\n{setups}\n{}, {cores} cores; `transparent_hugepage/enabled`: {}. \
         Verified blocks of the bundled chain. `huge pages`, of 2 MiB: `{}={}`. {notes}\n",
        field("/proc/cpuinfo", "model name")?,
        system.trim(),
        TUNABLES.0,
        TUNABLES.1,
    ))
}

/// Why full-memory mode is not measured.
fn no_full(quick: bool) -> Outcome<Option<String>> {
    // In two children at once; each of them leaves some to others, as the program does.
    let (needed, available) =
        (2 * 3616, field("/proc/meminfo", "MemAvailable")?.trim_end_matches(" kB").parse::<u64>()? >> 10);
    Ok(match quick {
        true => Some("it takes too long for a short run".into()),
        false if available < needed => Some(format!("it needs {needed} MiB here, available are {available}")),
        false => None,
    })
}
