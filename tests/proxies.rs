//! The gateway behind nginx, HAProxy and Caddy, with the settings of docs/operations.md. A test is skipped where its
//! proxy is not installed.

mod support;

use std::{
    fs,
    net::IpAddr,
    path::Path,
    process::{Child, Command, Stdio},
};

use reqwest::{Client, StatusCode, redirect};
use support::{
    ports::free_port,
    process::{Process, SERVE, program},
    until::eventually,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

/// nginx with nothing but the address to pass requests to, as many set it up.
const PLAIN: &str = "location / {\n    proxy_pass http://127.0.0.1:8080;\n}\n";
/// What the log says of a proxy that names no client.
const UNNAMED: &str = "requests whose `forwarded` or `x-forwarded-for` is missing";

/// A reverse proxy that runs; killed when it is dropped.
struct Proxy {
    child: Child,
    url: String,
}

impl Drop for Proxy {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The blocks of docs/operations.md in one language.
fn documented(language: &str) -> Vec<String> {
    let page = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/operations.md")).unwrap();
    let fence = format!("```{language}\n");
    page.split(&fence).skip(1).map(|rest| rest.split("```").next().unwrap().to_owned()).collect()
}

/// Whether a program of Debian's is there; CI installs all.
fn installed(name: &str) -> Option<String> {
    let paths = ["sbin", "bin"].map(|folder| format!("/usr/{folder}/{name}"));
    if let Some(path) = paths.into_iter().find(|path| Path::new(path).exists()) {
        return Some(path);
    }
    assert!(std::env::var_os("CI").is_none(), "{name} is missing: scripts/setup.sh proxies");
    eprintln!("skipped: {name} is not installed; scripts/setup.sh proxies installs it");
    None
}

async fn started(mut command: Command, port: u16) -> Proxy {
    let child = command.stdin(Stdio::null()).stdout(Stdio::null()).spawn().unwrap();
    let proxy = Proxy { child, url: format!("http://127.0.0.1:{port}") };
    eventually(async || tokio::net::TcpStream::connect(("127.0.0.1", port)).await.ok()).await;
    proxy
}

/// nginx with `location` blocks before the gateway at `http`.
async fn nginx(path: &str, folder: &Path, locations: &str, http: &str) -> Proxy {
    let port = free_port();
    let locations = locations.replace("http://127.0.0.1:8080", http);
    let temporary = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .map(|kind| format!("{kind}_temp_path {};\n", folder.join(kind).display()));
    let settings = format!(
        "daemon off; master_process off; pid {pid}; error_log stderr warn; events {{}}\n\
         http {{ access_log off; {temporary} server {{ listen 127.0.0.1:{port};\n{locations} }} }}\n",
        pid = folder.join("nginx.pid").display(),
        temporary = temporary.concat(),
    );
    let file = folder.join("nginx.conf");
    fs::write(&file, settings).unwrap();
    let mut command = Command::new(path);
    command.arg("-p").arg(folder).arg("-c").arg(file).arg("-e").arg("stderr");
    started(command, port).await
}

async fn haproxy(path: &str, folder: &Path, http: &str) -> Proxy {
    let port = free_port();
    let settings = documented("haproxy")[0].replace("bind :80", &format!("bind 127.0.0.1:{port}"));
    let file = folder.join("haproxy.cfg");
    fs::write(&file, settings.replace("127.0.0.1:8080", http.strip_prefix("http://").unwrap())).unwrap();
    let mut command = Command::new(path);
    command.arg("-db").arg("-f").arg(file);
    started(command, port).await
}

async fn caddy(path: &str, folder: &Path, http: &str) -> Proxy {
    let port = free_port();
    let site = documented("caddyfile")[0].replace("modal.example.org", &format!("http://127.0.0.1:{port}"));
    let file = folder.join("Caddyfile");
    let settings = format!("{{\n    admin off\n}}\n{}", site.replace("127.0.0.1:8080", http));
    fs::write(&file, settings).unwrap();
    let mut command = Command::new(path);
    command.args(["run", "--adapter", "caddyfile", "--config"]).arg(file);
    command.env("HOME", folder).env_remove("XDG_DATA_HOME").env_remove("XDG_CONFIG_HOME");
    started(command, port).await
}

/// A gateway that gives a client a hundred units, and next to none after that.
fn gateway(folder: &Path) -> Process {
    let mut command = program(folder, SERVE);
    command.args(["--rate-limit", "1"]).env("MODAL_GATEWAY_RATE_BURST", "100");
    command.env_remove("MODAL_GATEWAY_UNLIMITED_CLIENT");
    Process::start(command)
}

/// A client at one of loopback's addresses.
fn client(address: &str) -> Client {
    let address: IpAddr = address.parse().unwrap();
    Client::builder().no_proxy().local_address(address).redirect(redirect::Policy::none()).build().unwrap()
}

async fn status(client: &Client, url: &str) -> StatusCode {
    client.get(format!("{url}/data/miner_block/epoch?epoch=9")).send().await.unwrap().status()
}

/// Asks until the client has no units left.
async fn use_up(client: &Client, url: &str) {
    for _ in 0..300 {
        if status(client, url).await == StatusCode::TOO_MANY_REQUESTS {
            return;
        }
    }
    panic!("the client has no limit");
}

fn unnamed_lines(gateway: &Process) -> usize {
    gateway.log.lock().unwrap().iter().filter(|line| line.contains(UNNAMED)).count()
}

/// Each client behind the proxy has a limit of its own, and sees events at once.
async fn serves_each_client(gateway: &Process, proxy: &Proxy) {
    let (first, second) = (client("127.0.0.2"), client("127.0.0.3"));
    let mut events = second.get(format!("{}/events", proxy.url)).send().await.unwrap();
    assert!(events.chunk().await.unwrap().is_some_and(|bytes| !bytes.is_empty()), "the proxy holds events back");
    use_up(&first, &proxy.url).await;
    // A unit may come back between two requests.
    let statuses = [status(&first, &proxy.url).await, status(&first, &proxy.url).await];
    assert!(statuses.contains(&StatusCode::TOO_MANY_REQUESTS), "{statuses:?}");
    assert_eq!(status(&second, &proxy.url).await, StatusCode::OK);
    assert_eq!(unnamed_lines(gateway), 0);
}

#[tokio::test]
async fn behind_nginx_each_client_has_its_own_limit() {
    let Some(path) = installed("nginx") else { return };
    let folder = tempfile::tempdir().unwrap();
    let gateway = gateway(folder.path());
    let proxy = nginx(&path, folder.path(), &documented("nginx")[0], &gateway.http).await;
    serves_each_client(&gateway, &proxy).await;
    // Monitors ask so: HTTP/1.0 needs no `Host`, but what nginx makes of it does.
    let mut wire = TcpStream::connect(proxy.url.trim_start_matches("http://")).await.unwrap();
    wire.write_all(b"GET /ping HTTP/1.0\r\n\r\n").await.unwrap();
    let mut answer = String::new();
    wire.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
}

#[tokio::test]
async fn behind_haproxy_each_client_has_its_own_limit() {
    let Some(path) = installed("haproxy") else { return };
    let folder = tempfile::tempdir().unwrap();
    let gateway = gateway(folder.path());
    let proxy = haproxy(&path, folder.path(), &gateway.http).await;
    serves_each_client(&gateway, &proxy).await;
}

#[tokio::test]
async fn behind_caddy_each_client_has_its_own_limit() {
    let Some(path) = installed("caddy") else { return };
    let folder = tempfile::tempdir().unwrap();
    let gateway = gateway(folder.path());
    let proxy = caddy(&path, folder.path(), &gateway.http).await;
    serves_each_client(&gateway, &proxy).await;
}

#[tokio::test]
async fn a_proxy_that_names_no_client_is_one_client_and_the_log_says_so_once() {
    let Some(path) = installed("nginx") else { return };
    let folder = tempfile::tempdir().unwrap();
    let gateway = gateway(folder.path());
    let proxy = nginx(&path, folder.path(), PLAIN, &gateway.http).await;
    let (first, second) = (client("127.0.0.2"), client("127.0.0.3"));
    use_up(&first, &proxy.url).await;
    use_up(&second, &proxy.url).await;
    eventually(async || (unnamed_lines(&gateway) > 0).then_some(())).await;
    use_up(&first, &proxy.url).await;
    assert_eq!(unnamed_lines(&gateway), 1);
}

#[tokio::test]
async fn under_a_path_the_documentation_and_its_requests_work() {
    let Some(path) = installed("nginx") else { return };
    let folder = tempfile::tempdir().unwrap();
    let gateway = gateway(folder.path());
    let proxy = nginx(&path, folder.path(), &documented("nginx")[1], &gateway.http).await;
    let client = Client::builder().no_proxy().build().unwrap();
    for address in ["/modal/docs", "/modal/docs/"] {
        let page = client.get(format!("{}{address}", proxy.url)).send().await.unwrap();
        assert_eq!((page.status(), page.url().path()), (StatusCode::OK, "/modal/docs/"), "{address}");
        let page_url = page.url().clone();
        let text = page.text().await.unwrap();
        // What the page loads is named relatively to it.
        let script = text.split("src=\"").nth(1).and_then(|rest| rest.split('"').next()).unwrap();
        let script = page_url.join(script).unwrap();
        assert!(script.path().starts_with("/modal/docs/"), "{script}");
        assert_eq!(client.get(script).send().await.unwrap().status(), StatusCode::OK);
        let initializer = client.get(page_url.join("swagger-initializer.js").unwrap()).send().await.unwrap();
        let initializer = initializer.text().await.unwrap();
        let document = initializer.split("\"url\": \"").nth(1).and_then(|rest| rest.split('"').next()).unwrap();
        let document = page_url.join(document).unwrap();
        assert_eq!(document.path(), "/modal/openapi.json");
        let parsed: serde_json::Value = client.get(document.clone()).send().await.unwrap().json().await.unwrap();
        // A server's address is relative to the document's.
        let server = document.join(parsed["servers"][0]["url"].as_str().unwrap()).unwrap();
        assert_eq!(server.path(), "/modal/");
        let status = client.get(server.join("status").unwrap()).send().await.unwrap();
        assert_eq!(status.status(), StatusCode::OK);
    }
}

#[tokio::test]
async fn under_a_path_the_explorer_works() {
    let Some(path) = installed("nginx") else { return };
    let folder = tempfile::tempdir().unwrap();
    let gateway = gateway(folder.path());
    let proxy = nginx(&path, folder.path(), &documented("nginx")[1], &gateway.http).await;
    let client = Client::builder().no_proxy().build().unwrap();
    // Each page leads to others by what it links; none of them may leave the path.
    let mut open = vec![format!("{}/modal", proxy.url), format!("{}/modal/epochs/", proxy.url)];
    let mut seen = std::collections::BTreeSet::new();
    while let Some(address) = open.pop() {
        let reply = client.get(&address).send().await.unwrap();
        let url = reply.url().clone();
        assert_eq!(reply.status(), StatusCode::OK, "{address}");
        assert!(url.path().starts_with("/modal/"), "{address} leads to {url}");
        if !reply.headers()["content-type"].to_str().unwrap().starts_with("text/html") || url.path().contains("/docs/")
        {
            continue;
        }
        let text = reply.text().await.unwrap();
        for mark in [" href=\"", " src=\"", " action=\""] {
            for link in text.split(mark).skip(1).map(|rest| rest.split('"').next().unwrap()) {
                let mut next = url.join(link).unwrap();
                next.set_fragment(None);
                if seen.insert(next.clone()) {
                    open.push(next.into());
                }
            }
        }
    }
    let has = |end: &str| seen.iter().any(|url| url.path().ends_with(end));
    assert!(has("/modal/forks") && has("/modal/search") && has(".css") && has("/modal/docs/"), "{seen:?}");
}
