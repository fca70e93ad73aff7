//! The examples: every command of a `console` block is run by a shell, with real curl, against a demo.

use std::{
    env, fs,
    io::{BufRead, BufReader},
    path::Path,
    process::{Command, Stdio},
};

use crate::{
    demo::Demo,
    pages::{self, Page},
    pattern::{matches, matches_grown},
};

/// What the pages have for the addresses of a demo.
const HTTP: &str = "http://127.0.0.1:8080";
const LIBP2P: &str = "/ip4/127.0.0.1/tcp/42055";

/// A command and what it shows.
struct Example {
    command: String,
    shown: String,
}

fn examples(page: &Page) -> Vec<Example> {
    let mut examples = Vec::new();
    for code in page.codes().into_iter().filter(|code| code.language == "console") {
        for part in format!("\n{}", code.text).split("\n$ ").skip(1) {
            let (command, shown) = part.split_once('\n').unwrap_or((part, ""));
            examples.push(Example { command: command.into(), shown: shown.into() });
        }
    }
    examples
}

/// The shell that runs a command in a folder, which is the user's home as well.
fn shell(folder: &Path, command: &str) -> Command {
    let program = Path::new(env!("CARGO_BIN_EXE_modal-gateway")).parent().unwrap().to_path_buf();
    let path = env::var_os("PATH").unwrap_or_default();
    let path = env::join_paths([program].into_iter().chain(env::split_paths(&path))).unwrap();
    let mut shell = Command::new("sh");
    shell.env_clear().env("PATH", path).env("HOME", folder).current_dir(folder).stdin(Stdio::null());
    shell.args(["-c", command]);
    shell
}

/// Runs a command that ends by itself. Of curl only what it was sent is shown, of the program all that it says.
fn run(folder: &Path, command: &str) -> String {
    let redirected = if command.starts_with("curl ") { command.to_owned() } else { format!("{command} 2>&1") };
    let output = shell(folder, &redirected).output().unwrap();
    let came = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{command}\n{came}{}", String::from_utf8_lossy(&output.stderr));
    came
}

/// Reads what a command without end prints, until it is what is shown or curl's patience is over.
fn watch(folder: &Path, command: &str, shown: &str) -> String {
    let mut child =
        shell(folder, &format!("exec {command}")).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let mut came = String::new();
    for line in BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok) {
        came += &format!("{line}\n");
        if matches(shown, &came) {
            break;
        }
    }
    child.kill().unwrap();
    child.wait().unwrap();
    came
}

fn check(page: &Page, demo: &Demo, folder: &Path) -> usize {
    let examples = examples(page);
    for Example { command, shown } in &examples {
        let at = format!("{}: $ {command}", page.path);
        let ours = command.starts_with("curl ") || command.starts_with("modal-gateway ");
        assert!(ours, "{at}\nconsole blocks are run; use sh for what is not");
        // Without the option it is devnet as well.
        assert!(!command.replace("--network devnet", "").contains("--network"), "{at}\ndials others");
        let real = command.replace(HTTP, &demo.http).replace(LIBP2P, &demo.libp2p);
        let came = match command.contains(" -N ") {
            true => watch(folder, &real, shown),
            false => run(folder, &real),
        };
        // Numbers for people: of the chain, which grows meanwhile.
        let grows = !shown.contains(['{', '…']);
        let good = if grows { matches_grown(shown, &came) } else { matches(shown, &came) };
        let tail = |text: &str| text.lines().last().unwrap_or_default().to_owned();
        let good = good || shown.starts_with("…\n") && matches_grown(&tail(shown), &tail(&came));
        assert!(good, "{at}\nshows\n{shown}\nbut this came\n{came}");
    }
    examples.len()
}

/// Runs the programs of a page, which assert what they say; their number.
fn run_programs(page: &Page, demo: &Demo) -> usize {
    let mut count = 0;
    for code in page.codes() {
        let (program, arguments) = match code.language.as_str() {
            "python" => ("python3", &["-c"][..]),
            "js" => ("node", &["--input-type=module", "-e"][..]),
            _ => continue,
        };
        count += 1;
        let at = format!("{}: a program in {}", page.path, code.language);
        let mut command = Command::new(program);
        match command.args(arguments).arg(code.text.replace(HTTP, &demo.http)).output() {
            Ok(output) => assert!(output.status.success(), "{at}\n{}", String::from_utf8_lossy(&output.stderr)),
            Err(error) if env::var_os("CI").is_none() => eprintln!("{at} is left out: {program}: {error}"),
            Err(error) => panic!("{at}: {program}: {error}"),
        }
    }
    count
}

#[test]
fn every_program_runs() {
    let demo = Demo::start();
    let counts: Vec<_> = pages::all().iter().map(|page| (page.path.clone(), run_programs(page, &demo))).collect();
    assert!(counts.contains(&("docs/api.md".into(), 2)), "{counts:?}");
}

#[test]
fn every_example_gives_what_it_shows() {
    let demo = Demo::start();
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join(".curlrc"), "max-time = 30\n").unwrap();
    assert!(run(folder.path(), "curl --version").starts_with("curl "), "scripts/setup.sh test installs curl");
    let run: Vec<_> = pages::all().iter().map(|page| (page.path.clone(), check(page, &demo, folder.path()))).collect();
    for (path, least) in [("README.md", 4), ("docs/api.md", 6), ("docs/cli.md", 3)] {
        let count = run.iter().find(|(name, _)| name == path).unwrap().1;
        assert!(count >= least, "{path} has {count} examples");
    }
}
