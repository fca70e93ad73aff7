//! The real binary as a process of its own, which says where it listens and ends with the test.

use std::{
    fs,
    io::{BufRead, BufReader, Read},
    path::Path,
    process::{Child, Command, Output, Stdio},
    sync::{Arc, Mutex},
    thread::JoinHandle,
};

/// Blocks 0 to 60 of a real chain.
pub const CHAIN: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/randomx-chain-61.ndjson");

/// What has the program listen on free ports of loopback.
pub const SERVE: [&str; 7] =
    ["serve", "--http", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--listen", "/ip4/127.0.0.1/tcp/0"];

/// The program in a folder, with nothing of our environment.
pub fn program<S: AsRef<std::ffi::OsStr>>(folder: &Path, args: impl IntoIterator<Item = S>) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_modal-gateway"));
    command.env_clear().current_dir(folder).stdin(Stdio::null()).args(args);
    // A test is one client, which asks for more than one client may.
    command.env("MODAL_GATEWAY_UNLIMITED_CLIENT", "127.0.0.0/8");
    command
}

/// What a line on stderr says, in either format of the log.
fn message(line: &str) -> String {
    let json = serde_json::from_str::<serde_json::Value>(line).ok();
    json.and_then(|json| Some(json["message"].as_str()?.to_owned())).unwrap_or_else(|| line.to_owned())
}

/// A `serve` or `node` that runs; killed when it is dropped.
pub struct Process {
    child: Child,
    /// `http://ADDRESS:PORT` of the public listener; empty for a node.
    pub http: String,
    /// The same of the admin listener.
    pub admin: String,
    /// Where its libp2p listens, with its id.
    pub libp2p: Vec<String>,
    /// The lines that it has written on stderr.
    pub log: Arc<Mutex<Vec<String>>>,
    reader: Option<JoinHandle<()>>,
}

impl Process {
    /// Starts the command and waits until it has told its addresses. Prints what it logs.
    pub fn start(command: Command) -> Self {
        Self::watched(command, |line| eprintln!("{line}"))
    }

    /// The same, of one that logs more than anybody wants to read.
    pub fn start_quietly(command: Command) -> Self {
        Self::watched(command, |_| {})
    }

    fn watched(mut command: Command, watch: fn(&str)) -> Self {
        let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines().map_while(Result::ok);
        let (mut http, mut admin, mut libp2p, mut before) = (String::new(), String::new(), Vec::new(), Vec::new());
        loop {
            let Some(line) = lines.next() else {
                panic!("it ended before it was ready: {:?}\n{}", child.wait(), before.join("\n"))
            };
            let message = message(&line);
            let told = message.split_once(' ');
            match told {
                Some(("http", url)) => http = url.into(),
                Some(("admin", url)) => admin = url.into(),
                Some(("libp2p", address)) => libp2p.push(address.into()),
                _ => {}
            }
            let ready = told.is_some_and(|(name, _)| name == "peer-id");
            before.push(line);
            if ready {
                break;
            }
        }
        let log = Arc::new(Mutex::new(before));
        let told = log.clone();
        let tell = move |line: String| {
            watch(&line);
            told.lock().unwrap().push(line);
        };
        let reader = std::thread::spawn(move || lines.for_each(tell));
        Self { child, http, admin, libp2p, log, reader: Some(reader) }
    }

    /// Number of the process.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Whether it still runs.
    pub fn runs(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// A figure of its memory, KiB: `VmRSS` is what it has, `VmHWM` the most it ever had.
    pub fn memory_kib(&self, figure: &str) -> u64 {
        memory_kib(self.id(), figure).expect("a process that runs")
    }

    /// Sends a signal by name.
    pub fn signal(&self, name: &str) {
        let sent = Command::new("kill").args([&format!("-{name}"), &self.id().to_string()]).status().unwrap();
        assert!(sent.success());
    }

    /// Ends it as a supervisor does; its exit code.
    pub fn stop(mut self) -> Option<i32> {
        self.signal("TERM");
        self.child.wait().unwrap().code()
    }

    /// Waits until it ends by itself, or by a signal that it was sent; its exit code.
    pub fn wait(mut self) -> Option<i32> {
        self.child.wait().unwrap().code()
    }

    /// Like [`stop`](Self::stop), of one whose stdout is a pipe; all that it has printed.
    pub fn stop_with_output(mut self) -> Output {
        self.signal("TERM");
        let mut stdout = Vec::new();
        self.child.stdout.take().unwrap().read_to_end(&mut stdout).unwrap();
        let status = self.child.wait().unwrap();
        self.kill();
        let stderr = self.log.lock().unwrap().join("\n").into();
        Output { status, stdout, stderr }
    }

    /// Ends it at once. The log is complete then.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        // The end of the process is the end of its stderr.
        let _ = self.reader.take().map(JoinHandle::join);
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

/// See [`Process::memory_kib`]; `None` once the process has ended.
pub fn memory_kib(id: u32, figure: &str) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{id}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix(figure)?.strip_prefix(':'))?;
    line.trim().strip_suffix(" kB")?.parse().ok()
}
