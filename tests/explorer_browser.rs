//! The explorer in Chromium, on a chain that grows and reorganises while its pages are open. Skipped where no Chromium
//! is installed.
//!
//! `explorer_browser/check.py` drives the browser with Playwright, and looks with axe-core for what keeps people out.
//! It says on stdout what must happen to the chain, one command a line, and gets a line on stdin once it has happened.
//! `EXPLORER_SCREENSHOTS=FOLDER` keeps a picture of every page, narrow and wide, light and dark.

use std::{
    io::{BufRead, BufReader, Write},
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::mpsc,
    thread,
};

use modal_gateway::chain::{Level, MinerBlock};
use support::{
    gateway::{Backend, TestGateway},
    hole::Hole,
    linked::linked,
    python::tools,
};
use world::{TIP, World, nominating, reorganise};

#[path = "explorer/world.rs"]
#[allow(dead_code, reason = "what the tests without a browser use of it")]
mod world;

mod support;

const HERE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/explorer_browser");

/// Where nobody listens: connections there are refused.
const NOWHERE: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 1);

/// Chromium, if it is installed; CI installs it.
fn browser() -> Option<PathBuf> {
    let paths = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&paths)
        .flat_map(|folder| ["chromium", "google-chrome"].map(|name| folder.join(name)))
        .find(|path| path.exists());
    if found.is_none() {
        assert!(std::env::var_os("CI").is_none(), "Chromium is missing: scripts/setup.sh browser");
        eprintln!("skipped: Chromium is not installed; scripts/setup.sh browser installs it");
    }
    found
}

/// A chain that is changed from outside.
struct Changing {
    gateway: TestGateway,
    chain: Vec<MinerBlock>,
    hole: Hole,
    server: SocketAddr,
    branches: u64,
}

impl Changing {
    /// Does what the browser's side asks for; returns what it must know.
    async fn change(&mut self, command: &str) -> String {
        let (name, count) = command.split_once(' ').unwrap_or((command, "0"));
        let count: u64 = count.parse().unwrap();
        match name {
            "extend" => {
                let blocks = self.next(count);
                self.gateway.store.append(blocks.clone(), Level::None).await;
                self.chain.extend(blocks);
            }
            "reorganise" => {
                let left = self.chain.split_off(self.chain.len() - count as usize);
                let branch = self.next(count + 1);
                let ancestor = self.chain.last().unwrap().index;
                reorganise(&self.gateway.store, ancestor, branch.clone()).await;
                self.chain.extend(branch);
                return left.iter().map(|block| block.hash.as_str()).collect::<Vec<_>>().join(" ");
            }
            "cut" => self.hole.lead_to(NOWHERE),
            "mend" => self.hole.lead_to(self.server),
            other => panic!("no command: {other}"),
        }
        self.chain.last().unwrap().index.to_string()
    }

    fn next(&mut self, count: u64) -> Vec<MinerBlock> {
        self.branches += 1;
        nominating(linked(self.chain.last(), count, &format!("branch {}", self.branches)), "Live")
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_follow_the_chain_and_everybody_can_use_them() {
    let Some(browser) = browser() else { return };
    let tools = tools("explorer_browser", &Path::new(HERE).join("requirements.txt"));
    let World { gateway, chain, .. } = World::start(Backend::Sqlite).await;
    let server: SocketAddr = gateway.base.strip_prefix("http://").unwrap().parse().unwrap();
    let hole = Hole::before(server).await;
    let base = format!("http://{}", hole.address);
    let mut changing = Changing { gateway, chain, hole, server, branches: 0 };
    assert_eq!(changing.chain.last().unwrap().index, TIP);

    let mut check = Command::new(tools.join("python"));
    check.arg(Path::new(HERE).join("check.py")).arg(&base).arg(browser);
    let mut check = check.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let (mut answers, commands) = (check.stdin.take().unwrap(), BufReader::new(check.stdout.take().unwrap()).lines());
    let (send, receive) = mpsc::channel();
    let reader = thread::spawn(move || commands.map_while(Result::ok).for_each(|line| send.send(line).unwrap()));
    while let Ok(command) = tokio::task::block_in_place(|| receive.recv()) {
        match command.strip_prefix("> ") {
            Some(command) => {
                let answer = changing.change(command).await;
                writeln!(answers, "{answer}").unwrap();
            }
            None => eprintln!("{command}"),
        }
    }
    reader.join().unwrap();
    assert!(check.wait().unwrap().success(), "what is wrong is above");
}
