//! `modal-gateway demo` as a newcomer runs it, but on free ports.

use std::{
    fs::{self, File},
    io::{BufRead, BufReader},
    process::{Child, Stdio},
};

use crate::support::process::program;

/// A demo that runs; killed when it is dropped.
pub struct Demo {
    child: Child,
    /// `http://ADDRESS:PORT` of the public listener.
    pub http: String,
    /// The same of the admin listener.
    pub admin: String,
    /// The node's libp2p address.
    pub libp2p: String,
    /// Holds what it logs.
    _folder: tempfile::TempDir,
}

impl Demo {
    /// Starts it and waits until it has said where it listens.
    pub fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("log");
        let mut command = program(folder.path(), ["demo", "--http", "127.0.0.1:0", "--admin", "127.0.0.1:0"]);
        let mut child = command.stdout(Stdio::piped()).stderr(File::create(&log).unwrap()).spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
        let guide: Vec<String> = lines.take_while(|line| !line.starts_with("Ctrl-C")).collect();
        let log = fs::read_to_string(log).unwrap();
        let told = |mut lines: std::str::Lines, name: &str| {
            let line = lines.find_map(|line| Some(line.trim().strip_prefix(name)?.trim().to_owned()));
            line.unwrap_or_else(|| panic!("no {name} in\n{}\n{log}", guide.join("\n")))
        };
        let printed = guide.join("\n");
        let (http, admin) = (told(printed.lines(), "gateway "), told(printed.lines(), "admin "));
        let libp2p = told(log.lines(), "libp2p ");
        Self { child, http, admin, libp2p, _folder: folder }
    }
}

impl Drop for Demo {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
