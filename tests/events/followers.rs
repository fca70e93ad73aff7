//! The followers in `examples/`: through restarts of the gateway, reorganisations, and a log that is too short.

use std::{
    io::{BufRead, BufReader},
    path::Path,
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex},
    thread::JoinHandle,
};

use modal_gateway::{chain::Level, store::BlockStore};
use rstest::rstest;

use crate::{
    stream::{append, blocks, reorganise},
    support::{
        gateway::{Backend, TestStore, synthetic},
        ports::free_port,
        process::{Process, program},
        until::eventually,
    },
};

/// Something that follows a gateway.
pub trait Follower {
    /// The hashes of the chain, by index, as it knows them.
    async fn hashes(&self) -> Vec<String>;
}

/// A gateway on a port of its own, that comes and goes.
pub struct Restarted {
    pub base: String,
    port: u16,
    pub test_store: TestStore,
    pub store: Arc<dyn BlockStore>,
    process: Option<Process>,
}

impl Restarted {
    /// Over a new store with a chain.
    pub async fn start() -> Self {
        let test_store = TestStore::create(Backend::Sqlite).await;
        test_store.append(synthetic(45), Level::None).await;
        let (store, port) = (test_store.open().await, free_port());
        let mut gateway = Self { base: format!("http://127.0.0.1:{port}"), port, test_store, store, process: None };
        gateway.up();
        gateway
    }

    fn up(&mut self) {
        let address = format!("127.0.0.1:{}", self.port);
        let serve = ["serve", "--http", &address, "--admin", "127.0.0.1:0", "--listen", "/ip4/127.0.0.1/tcp/0"];
        let mut command = program(self.test_store.folder.path(), serve);
        command.env("MODAL_GATEWAY_SYNC", "false").env("MODAL_GATEWAY_DATABASE_URL", &self.test_store.url);
        self.process = Some(Process::start(command));
    }

    fn down(&mut self) {
        self.process.take().unwrap().kill();
    }

    /// Waits until the follower knows the chain of the store.
    async fn level(&self, follower: &impl Follower) {
        let tip = self.store.state().await.unwrap().tip;
        let indexes: Vec<u64> = tip.map_or(Vec::new(), |tip| (0..=tip.index).collect());
        let mut found = self.store.canonical_hashes(&indexes).await.unwrap();
        let chain: Vec<String> = indexes.iter().map(|index| found.remove(index).unwrap()).collect();
        eventually(async || (follower.hashes().await == chain).then_some(())).await;
    }
}

/// Changes the chain in every way while the follower follows.
pub async fn change(gateway: &mut Restarted, follower: &impl Follower) {
    let store = gateway.store.clone();
    gateway.level(follower).await;
    append(&*store, (44, "main-44"), blocks("main", "main", 45, 47)).await;
    reorganise(&*store, (45, "main"), blocks("side", "main", 46, 48)).await;
    gateway.level(follower).await;
    // Only a reorganisation brings these blocks.
    reorganise(&*store, (40, "main"), blocks("deep", "main", 41, 49)).await;
    gateway.level(follower).await;
    append(&*store, (49, "deep-49"), blocks("deep", "deep", 50, 50)).await;

    gateway.down();
    append(&*store, (50, "deep-50"), blocks("deep", "deep", 51, 52)).await;
    reorganise(&*store, (48, "deep"), blocks("away", "deep", 49, 53)).await;
    gateway.up();
    gateway.level(follower).await;
    append(&*store, (53, "away-53"), blocks("away", "away", 54, 54)).await;
    gateway.level(follower).await;

    // More than an event lists, and back.
    append(&*store, (54, "away-54"), blocks("away", "away", 55, 1155)).await;
    gateway.level(follower).await;
    reorganise(&*store, (50, "away"), blocks("last", "away", 51, 52)).await;
    gateway.level(follower).await;
    reorganise(&*store, (51, "last"), vec![]).await;
    gateway.level(follower).await;

    // What happened meanwhile is no longer known.
    gateway.down();
    reorganise(&*store, (30, "main"), blocks("late", "main", 31, 60)).await;
    append(&*store, (60, "late-60"), blocks("late", "late", 61, 61)).await;
    gateway.test_store.execute("DELETE FROM event").await;
    gateway.up();
    gateway.level(follower).await;
    append(&*store, (61, "late-61"), blocks("late", "late", 62, 63)).await;
    gateway.level(follower).await;
}

/// A program that prints each change of the chain; killed when it is dropped.
struct Printing {
    child: Child,
    hashes: Arc<Mutex<Vec<String>>>,
    reader: Option<JoinHandle<()>>,
}

impl Printing {
    fn start(mut command: Command) -> Self {
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().expect("the program");
        let lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
        let hashes = Arc::new(Mutex::new(Vec::new()));
        let known = hashes.clone();
        let reader = std::thread::spawn(move || {
            for line in lines {
                let mut known = known.lock().unwrap();
                let [sign, index, hash] = line.split(' ').collect::<Vec<_>>()[..] else { panic!("{line}") };
                match sign {
                    "+" => known.push(hash.to_owned()),
                    "-" => assert_eq!(known.pop().as_deref(), Some(hash), "{line}"),
                    _ => panic!("{line}"),
                }
                let index: usize = index.parse().unwrap();
                assert_eq!(index, known.len() - usize::from(sign == "+"), "{line}");
            }
        });
        Self { child, hashes, reader: Some(reader) }
    }
}

impl Follower for Printing {
    async fn hashes(&self) -> Vec<String> {
        self.hashes.lock().unwrap().clone()
    }
}

impl Drop for Printing {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let read = self.reader.take().unwrap().join();
        assert!(std::thread::panicking() || read.is_ok(), "a line that does not follow");
    }
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn python() -> Command {
    let mut command = Command::new("python3");
    command.arg(root().join("examples/follow_chain.py"));
    command
}

fn rust() -> Command {
    // This program is target/PROFILE/deps/events-HASH; `cargo build --examples` makes the other one.
    let this = std::env::current_exe().unwrap();
    let program = this.parent().and_then(Path::parent).unwrap().join("examples/follow_chain");
    assert!(program.exists(), "`cargo build --examples` makes {}", program.display());
    Command::new(program)
}

#[rstest]
#[case::python(python())]
#[case::rust(rust())]
#[tokio::test]
async fn a_follower_survives_restarts_and_reorganisations(#[case] mut command: Command) {
    let mut gateway = Restarted::start().await;
    command.arg(&gateway.base);
    let follower = Printing::start(command);
    change(&mut gateway, &follower).await;
}

#[rstest]
#[case::python(python())]
#[case::rust(rust())]
fn other_arguments_are_refused(#[case] mut command: Command) {
    let output = command.output().unwrap();
    assert!(!output.status.success());
    assert!(String::from_utf8_lossy(&output.stderr).contains("usage: follow_chain"), "{output:?}");
}
