//! How long requests take at a fixed rate, half of what the server can do.
//!
//! The load generator is our own. Each request has a time at which it is due, whether or not those before it were
//! answered, and its latency counts from then on: a server that stops for a moment makes all requests late that are due
//! meanwhile, not only the one it is at (what is called coordinated omission). Each connection has a thread that sleeps
//! until a request is due, since timers of the runtime are only good to a millisecond. By how much the generator itself
//! was late, on a connection that was free, is in the table.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use crate::{
    chain::Kind,
    http::{LENGTH, REQUEST, gateway, requests_for_all, whole_length},
    measure::{Outcome, Table, Target, thousands},
    rivals::{Hosted, Servers},
    wire::{Cache, Nodes},
};

/// Connections that are kept open.
const CONNECTIONS: u32 = 16;

/// When requests are due.
#[derive(Clone, Copy)]
enum Due {
    /// As soon as the one before is answered: what the server can do.
    AtOnce,
    /// So many a second.
    Rate(f64),
}

/// Times of the requests of a run, in microseconds, ascending.
#[derive(Default)]
struct Times {
    /// From when they were due to the last byte of the response.
    latencies: Vec<f64>,
    /// From when they were due to when they were sent, of those that no other request kept waiting.
    lateness: Vec<f64>,
    /// How long the run took, until the last response.
    seconds: f64,
}

impl Times {
    /// Requests answered a second.
    fn rate(&self) -> f64 {
        self.latencies.len() as f64 / self.seconds
    }
}

/// Latencies of each server at half of its own capacity.
pub async fn run(nodes: &Nodes, duration: Duration) -> Outcome<String> {
    let servers = Servers::start(nodes).await?;
    let of = |kind| Outcome::Ok(nodes.get(kind, LENGTH, Cache::Off)?.source.clone());
    let sqlite = Hosted::start("sqlite", gateway(of(Kind::Sqlite)?)?).await?;
    let postgres = Hosted::start("postgres", gateway(of(Kind::Postgres)?)?).await?;
    let (one, all): (Arc<[String]>, _) = ([REQUEST.to_owned()].into(), requests_for_all());
    let contenders = [
        ("nginx, from a file", servers.nginx.address, &one),
        ("bare handler", servers.bare.server.address, &one),
        ("gateway, cached", servers.ours.server.address, &one),
        ("gateway, from SQLite", sqlite.server.address, &all),
        ("gateway, from Postgres", postgres.server.address, &all),
    ];
    let columns = [
        "server",
        "at most",
        "asked",
        "answered",
        "p50",
        "p99",
        "p99 : p50",
        "p99.9",
        "longest",
        "sent late p50",
        "p99",
    ];
    let (mut table, mut target) = (Table::new(1, &columns), Target::at_most(5.0));
    for (name, address, requests) in contenders {
        let warm_up = duration / 5;
        generate(address, requests, Due::AtOnce, warm_up).await?;
        let most = generate(address, requests, Due::AtOnce, duration / 2).await?.rate();
        let times = generate(address, requests, Due::Rate(most / 2.0), duration).await?;
        let mut row = vec![name.to_owned(), thousands(most), thousands(most / 2.0), thousands(times.rate())];
        let [p50, p99, longer @ ..] = [0.5, 0.99, 0.999, 1.0].map(|part| percentile(&times.latencies, part));
        row.extend([p50, p99].map(thousands));
        row.push(match name.starts_with("gateway") {
            true => target.check(p99 / p50),
            false => format!("{:.2}", p99 / p50),
        });
        row.extend(longer.map(thousands));
        row.extend([0.5, 0.99].map(|part| thousands(percentile(&times.lateness, part))));
        table.row(row);
    }
    Ok(format!(
        "#### Latency of an epoch over HTTP at half of each server's capacity: µs\n\n{table}\n\
         `at most`, `asked` and `answered` are requests a second over {CONNECTIONS} connections, for {:.0} s. A latency counts from when \
         the request was due, so that coordinated omission is accounted for; `sent late` is how late the generator itself was. \
         It has a thread for each connection, on the same cores as the server. Of the last two rows each answer is read from \
         the store, of an epoch at random. p99 : p50 of the gateway: {target}\n",
        duration.as_secs_f64(),
    ))
}

/// Asks over all connections for so long. Not on the runtime's threads.
async fn generate(address: SocketAddr, requests: &Arc<[String]>, due: Due, duration: Duration) -> Outcome<Times> {
    let requests = requests.clone();
    tokio::task::spawn_blocking(move || {
        let barrier = Arc::new(std::sync::Barrier::new(CONNECTIONS as usize));
        let threads: Vec<_> = (0..CONNECTIONS)
            .map(|number| {
                let (barrier, requests) = (barrier.clone(), requests.clone());
                let stream = TcpStream::connect(address);
                thread::spawn(move || {
                    // Connected or not, or the others would wait for ever.
                    barrier.wait();
                    connection(stream?, &requests, number, due, duration)
                })
            })
            .collect();
        let (mut all, start) = (Times::default(), Instant::now());
        for thread in threads {
            let times = thread.join().map_err(|_| "a thread of the load generator panicked")??;
            all.latencies.extend(times.latencies);
            all.lateness.extend(times.lateness);
        }
        all.seconds = start.elapsed().as_secs_f64();
        all.latencies.sort_by(f64::total_cmp);
        all.lateness.sort_by(f64::total_cmp);
        Ok(all)
    })
    .await?
}

/// The requests of one connection, the `number`-th.
fn connection(mut stream: TcpStream, requests: &[String], number: u32, due: Due, duration: Duration) -> Outcome<Times> {
    stream.set_nodelay(true)?;
    // Rather an error than a run without an end.
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    let (mut times, mut response, start) = (Times::default(), vec![0; 64 << 10], Instant::now());
    for count in 0u32.. {
        let mut now = Instant::now();
        let due = match due {
            Due::AtOnce => now,
            Due::Rate(rate) => {
                start + Duration::from_secs_f64((f64::from(count) * f64::from(CONNECTIONS) + f64::from(number)) / rate)
            }
        };
        if due.duration_since(start) >= duration {
            break;
        }
        let is_free = now < due;
        if is_free {
            thread::sleep(due - now);
            now = Instant::now();
        }
        stream.write_all(requests[fastrand::usize(..requests.len())].as_bytes())?;
        let (mut filled, mut whole) = (0, None);
        while whole.is_none_or(|whole| filled < whole) {
            match stream.read(&mut response[filled..])? {
                0 => return Err("the connection closed, or the response is too long".into()),
                read => filled += read,
            }
            if whole.is_none() {
                whole = whole_length(&response[..filled])?;
            }
        }
        if !response.starts_with(b"HTTP/1.1 200 ") {
            return Err("a request was declined".into());
        }
        times.latencies.push(1e6 * due.elapsed().as_secs_f64());
        if is_free {
            times.lateness.push(1e6 * (now - due).as_secs_f64());
        }
    }
    Ok(times)
}

/// The value that this part of the sorted values doesn't exceed.
fn percentile(sorted: &[f64], part: f64) -> f64 {
    let place = (part * sorted.len() as f64).ceil() as usize;
    sorted.get(place.saturating_sub(1)).copied().unwrap_or(f64::NAN)
}
