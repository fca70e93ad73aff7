//! Secrets: whatever the program prints, at the most talkative level and in both formats, holds none.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    os::unix::fs::PermissionsExt,
    path::Path,
    process::{Command, Output, Stdio},
};

use modal_gateway::{
    config::{Config, Sources},
    p2p::load_or_create,
};
use rstest::rstest;

use crate::process::{Process, SERVE, program};

const PASSWORD: &str = "Pa55wordOfTheStore7";
const TOKEN: &str = "Token0fTheAdminDoor99";

/// What gives a secret away: itself, or its bytes as hex, base64 or a list of numbers.
struct Secret {
    name: &'static str,
    forms: Vec<String>,
}

impl Secret {
    fn of(name: &'static str, bytes: &[u8]) -> Self {
        let mut forms: Vec<String> = std::str::from_utf8(bytes).into_iter().map(str::to_owned).collect();
        forms.push(hex::encode(bytes));
        forms.push(hex::encode_upper(bytes));
        // Within a longer text each byte may be the first, second or third of its group.
        forms.extend((0..3).map(|skipped| base64(&bytes[skipped..])));
        forms.push(format!("{bytes:?}").trim_matches(['[', ']']).to_owned());
        Self { name, forms }
    }

    fn is_in(&self, text: &str) -> bool {
        self.forms.iter().any(|form| text.contains(form))
    }
}

/// Whole groups of three bytes as base64.
fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let groups = bytes.chunks_exact(3).map(|group| u32::from_be_bytes([0, group[0], group[1], group[2]]));
    groups.flat_map(|group| [18, 12, 6, 0].map(|shift| DIGITS[(group >> shift & 63) as usize] as char)).collect()
}

#[test]
fn a_secret_is_found_in_any_form() {
    let secret = Secret::of("", b"0123456789abcdef");
    for leak in [
        "x0123456789abcdefx",
        "30313233343536373839616263646566",
        "MDEyMzQ1Njc4OWFiY2RlZg==",
        "IDAxMjM0NTY3ODlhYmNkZWY=",
    ] {
        assert!(secret.is_in(leak), "{leak}");
    }
    assert!(secret.is_in(&format!("{:?}", b"\x010123456789abcdef")));
    assert!(!secret.is_in("0123456789ABCDEF"));
}

/// A folder with an identity and settings that hold secrets.
struct WorkDir {
    folder: tempfile::TempDir,
    secrets: Vec<Secret>,
}

impl WorkDir {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let keypair = load_or_create(&folder.path().join("modal-gateway.key")).unwrap();
        let seed = keypair.try_into_ed25519().unwrap().secret();
        let secrets = vec![
            Secret::of("password", PASSWORD.as_bytes()),
            Secret::of("token", TOKEN.as_bytes()),
            Secret::of("key", seed.as_ref()),
        ];
        Self { folder, secrets }
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }

    fn command(&self, log: &str, args: &[&str]) -> Command {
        let mut command = program(self.path(), args);
        command.args(["--log", log]);
        command.env("RUST_LOG", "trace").env("MODAL_GATEWAY_NETWORK", "devnet").env("MODAL_GATEWAY_ADMIN_TOKEN", TOKEN);
        command.stdout(Stdio::piped());
        command
    }

    /// Checks what was printed, and gives it back.
    #[track_caller]
    fn check(&self, output: &Output) -> String {
        let text = String::from_utf8_lossy(&output.stderr) + String::from_utf8_lossy(&output.stdout);
        for secret in &self.secrets {
            let line = text.lines().find(|line| secret.is_in(line));
            assert_eq!(line, None, "the {} is told", secret.name);
        }
        text.into_owned()
    }
}

/// A server that takes connections and hangs up on what it is sent.
fn rude_server() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            let _ = stream.read(&mut [0; 1024]);
        }
    });
    address
}

/// Whether stderr holds the error that ended a command, in the format of the log.
fn names_an_error(log: &str, stderr: &str) -> bool {
    stderr.contains(if log == "json" { r#""level":"ERROR""# } else { "error: " })
}

#[rstest]
#[case("text")]
#[case("json")]
fn an_unreachable_store_is_named_without_its_password(#[case] log: &str) {
    let dir = WorkDir::new();
    let rude = rude_server();
    for host in ["127.0.0.1:1", rude.as_str()] {
        for url in [
            format!("postgres://user:{PASSWORD}@{host}/db"),
            format!("postgres://user@{host}/db?password={PASSWORD}&sslmode=require"),
        ] {
            for args in [&["migrate"][..], &["export", "-"]] {
                let output = dir.command(log, args).env("DATABASE_URL", &url).output().unwrap();
                let text = dir.check(&output);
                assert!(!output.status.success() && names_an_error(log, &text), "{text}");
            }
        }
    }
    let url = format!("postgres://user:{PASSWORD}@127.0.0.1:1/db");
    for command in ["serve", "node"] {
        let args = [&[command], &SERVE[1..]].concat();
        let mut child = dir.command(log, &args).env("DATABASE_URL", &url).stderr(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines().map(Result::unwrap);
        let mut stderr = Vec::new();
        // It waits for the database then.
        while !stderr.last().is_some_and(|line: &String| line.contains("not up yet")) {
            stderr.push(lines.next().expect("it waits"));
        }
        Command::new("kill").arg(child.id().to_string()).status().unwrap();
        stderr.extend(lines);
        let status = child.wait().unwrap();
        dir.check(&Output { status, stdout: Vec::new(), stderr: stderr.join("\n").into() });
    }
    for command in ["verify", "import"] {
        let mut args = vec![command];
        args.extend((command == "import").then_some("-"));
        args.extend(&SERVE[1..]);
        let output = dir.command(log, &args).env("MODAL_GATEWAY_DATABASE_URL", &url).output().unwrap();
        let text = dir.check(&output);
        assert!(!output.status.success() && names_an_error(log, &text), "{command}: {text}");
    }
}

#[test]
fn a_parameter_of_the_url_that_is_unknown_is_not_quoted() {
    let dir = WorkDir::new();
    for parameters in [
        format!("sslpassword={PASSWORD}"),
        format!("password=half&{PASSWORD}"),
        format!("password=half&{PASSWORD}=x&sslmode=require"),
        format!("options[{PASSWORD}=x"),
    ] {
        let url = format!("postgres://user@127.0.0.1:1/db?{parameters}");
        let output = dir.command("text", &["migrate"]).env("DATABASE_URL", &url).output().unwrap();
        let text = dir.check(&output);
        assert!(!output.status.success() && text.contains("a parameter is unknown"), "{text}");
    }
}

#[test]
fn a_line_of_a_password_file_that_makes_no_sense_is_not_quoted() {
    let dir = WorkDir::new();
    let file = dir.path().join("passwords");
    // The user is missing.
    std::fs::write(&file, format!("*:*:*:{PASSWORD}\n")).unwrap();
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();
    let mut command = dir.command("text", &["migrate"]);
    let output = command.env("PGPASSFILE", &file).env("DATABASE_URL", "postgres://user@127.0.0.1:1/db").output();
    let output = output.unwrap();
    let text = dir.check(&output);
    assert!(!output.status.success() && text.contains("error: "), "{text}");
}

/// Sends a request to a listener; the answer.
fn ask(base: &str, head: &str) -> String {
    let mut stream = TcpStream::connect(base.strip_prefix("http://").unwrap()).unwrap();
    write!(stream, "{head}\r\nhost: x\r\nconnection: close\r\ncontent-length: 0\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

#[rstest]
#[case("text")]
#[case("json")]
fn a_running_gateway_prints_no_secret(#[case] log: &str) {
    let dir = WorkDir::new();
    let serving = Process::start_quietly(dir.command(log, &[&SERVE[..], &["--sync", "false"]].concat()));
    let bearer = format!("authorization: Bearer {TOKEN}");
    let health = ask(&serving.http, "GET /health/live HTTP/1.1");
    assert!(health.starts_with("HTTP/1.1 200"), "{health}");
    for request in [
        format!("GET /metrics HTTP/1.1\r\n{bearer}"),
        format!("DELETE /sync/1 HTTP/1.1\r\n{bearer}"),
        format!("GET /metrics HTTP/1.1\r\n{bearer}x"),
        format!("GET /nowhere HTTP/1.1\r\n{bearer}"),
    ] {
        assert!(ask(&serving.admin, &request).starts_with("HTTP/1.1 "));
    }
    for path in ["/ping", "/nowhere"] {
        let output = dir.command(log, &["request", &serving.libp2p[0], path]).output().unwrap();
        assert!(dir.check(&output).contains("\"ok\":"));
    }
    let output = serving.stop_with_output();
    let text = dir.check(&output);
    assert_eq!(output.status.code(), Some(0));
    assert!(text.contains("TRACE"), "nothing was logged: {text}");
}

#[test]
fn a_malformed_secret_is_not_quoted() {
    let dir = WorkDir::new();
    let url = format!("postgres://user:{PASSWORD}@host");
    let word = format!("{PASSWORD} and more");
    for (name, value) in [
        ("MODAL_GATEWAY_ADMIN_TOKEN", word.as_str()),
        ("MODAL_GATEWAY_ADMIN_TOKEN_FILE", "settings"),
        ("MODAL_GATEWAY_IDENTITY", "settings"),
        ("DATABASE_URL", &format!("{url}:notaport/db")),
        ("MODAL_GATEWAY_DATABASE_URL", &format!("mysql{url}")),
        ("MODAL_GATEWAY_CONFIG", "settings"),
        ("MODAL_GATEWAY_NETWORK", "settings"),
    ] {
        for text in [
            format!("admin_token = '{word}'"),
            format!("admin_token = ['{PASSWORD}']"),
            format!("admin_token = \"{PASSWORD}"),
            format!("database_url = '{url}:notaport'"),
            format!("database_url = {url}"),
            PASSWORD.to_owned(),
        ] {
            std::fs::write(dir.path().join("settings"), text).unwrap();
            // With a socket address that nobody has, so that it ends where the setting itself is fine.
            let args = ["serve", "--http", "192.0.2.1:1", "--listen", "/ip4/127.0.0.1/tcp/0", "--sync", "false"];
            let output = dir.command("text", &args).env(name, value).output().unwrap();
            let text = dir.check(&output);
            assert!(!output.status.success() && text.contains("error: "), "{name}: {text}");
        }
    }
    let output = dir.command("text", &["migrate", "--database-url", &format!("{url}:x")]).output().unwrap();
    assert!(dir.check(&output).contains("error: "));
}

#[test]
fn the_settings_hide_their_secrets() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("settings.toml");
    let text =
        format!("admin_token = '{TOKEN}'\ndatabase_url = 'postgres://user:{PASSWORD}@host/db?password={PASSWORD}'");
    std::fs::write(&file, text).unwrap();
    let config = Config::load(Sources { file: Some(file), ..Sources::default() }).unwrap();
    assert_eq!(config.admin_token.as_ref().unwrap().expose(), TOKEN);
    assert!(config.database_url.as_str().contains(PASSWORD));
    let shown = format!("{config:?}{config:#?}{}{:?}", config.database_url, config.admin_token);
    assert!(shown.contains("user:***@host"), "{shown}");
    for secret in [Secret::of("password", PASSWORD.as_bytes()), Secret::of("token", TOKEN.as_bytes())] {
        assert!(!secret.is_in(&shown), "the {}: {shown}", secret.name);
    }
}
