//! One cached epoch over HTTP: nginx with the same bytes in a file, a bare axum handler, and the gateway, each with
//! processes or threads of its own.

use std::time::Instant;

use axum::{Router, http::header, routing};
use modal_gateway::{http::server::Routes, protocol::Query, source::Origin};
use tokio::runtime::{Builder, Runtime};

use crate::{
    THREADS,
    chain::Kind,
    cpu::Meter,
    http::{EPOCH, LENGTH, PATH, REQUEST, Server, gateway, load},
    measure::{Outcome, Pace, Table, Target, median, median_ratio, thousands},
    nginx::{self, Nginx},
    wire::{Cache, Nodes},
};

/// Connections that are kept open, with one request on each at a time.
const CONNECTIONS: [usize; 2] = [16, 64];
/// The contender that has a target.
const GATEWAY: &str = "gateway";

/// A server of ours on a runtime of its own, whose threads have its name.
pub struct Hosted {
    /// The server.
    pub server: Server,
    /// The CPU time of its threads.
    pub meter: Meter,
    runtime: Option<Runtime>,
}

impl Hosted {
    /// Serves these routes.
    pub async fn start(name: &'static str, routes: impl Routes) -> Outcome<Self> {
        let runtime = Builder::new_multi_thread().worker_threads(THREADS).thread_name(name).enable_all().build()?;
        let server = runtime.spawn(Server::start(routes)).await??;
        Ok(Self { server, meter: Meter::Threads(name), runtime: Some(runtime) })
    }
}

impl Drop for Hosted {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// nginx, a bare handler and the gateway, which answer [`REQUEST`] with the same bytes.
pub struct Servers {
    /// Of a file.
    pub nginx: Nginx,
    /// axum and nothing else.
    pub bare: Hosted,
    /// The gateway, whose answer is cached.
    pub ours: Hosted,
    /// Bytes of the answer.
    pub length: usize,
}

impl Servers {
    /// Starts all three.
    pub async fn start(nodes: &Nodes) -> Outcome<Self> {
        let source = nodes.get(Kind::Sqlite, LENGTH, Cache::Default)?.source.clone();
        let answer = source.answer(Query::Epoch { epoch: EPOCH }, &Origin::Local, 0).await;
        let body = answer.map_err(|declined| declined.failure.to_string())?.body.clone();
        let length = body.len();
        let nginx = Nginx::start(PATH, &body).await?;
        let handler = async move || ([(header::CONTENT_TYPE, "application/json")], body.clone());
        let bare = Hosted::start("bare", Router::new().route(PATH, routing::get(handler))).await?;
        let ours = Hosted::start(GATEWAY, gateway(source)?).await?;
        Ok(Self { nginx, bare, ours, length })
    }
}

/// Requests a second, and a CPU second of the server.
pub async fn run(nodes: &Nodes, pace: Pace) -> Outcome<String> {
    let servers = Servers::start(nodes).await?;
    let contenders = [
        ("nginx, from a file", servers.nginx.address, servers.nginx.meter()?),
        ("bare handler", servers.bare.server.address, servers.bare.meter.clone()),
        (GATEWAY, servers.ours.server.address, servers.ours.meter.clone()),
    ];
    let columns = [
        "server",
        "connections",
        "requests/s",
        "of nginx",
        "of bare",
        "requests per CPU second",
        "of nginx",
        "of bare",
    ];
    let (mut table, mut target) = (Table::new(1, &columns), Target::at_least(1.0));
    for connections in CONNECTIONS {
        // By contender: requests a second, and requests a CPU second, of each round.
        let mut rounds: [[Vec<f64>; 2]; 3] = Default::default();
        for round in 0..=pace.rounds {
            for ((_, address, meter), [rates, efforts]) in contenders.iter().zip(&mut rounds) {
                let (before, start) = (meter.seconds()?, Instant::now());
                let rate = load(*address, connections, [REQUEST.to_owned()].into())(pace.round).await?;
                let (elapsed, used) = (start.elapsed().as_secs_f64(), meter.seconds()? - before);
                if round > 0 {
                    rates.push(rate);
                    efforts.push(rate * elapsed / used);
                }
            }
        }
        let [nginx, bare, _] = &rounds;
        for ((name, ..), own) in contenders.iter().zip(&rounds) {
            let mut row = vec![(*name).to_owned(), connections.to_string()];
            for ((own, nginx), bare) in own.iter().zip(nginx).zip(bare) {
                row.push(thousands(median(own.clone())));
                row.extend([nginx, bare].map(|other| format!("{:.2}", median_ratio(own, other))));
            }
            if *name == GATEWAY {
                row[6] = target.check(median_ratio(&own[1], &nginx[1]));
            }
            table.row(row);
        }
    }
    Ok(format!(
        "#### One cached epoch over HTTP: nginx, a bare axum handler, the gateway\n\n{table}\n\
         {} bytes, again and again over connections that are kept open. {} has a worker for each core; the bare handler \
         and the gateway have {THREADS} threads each; the client has {THREADS} threads beside them on the same cores. A CPU \
         second is one of the server's alone. Requests per CPU second, of nginx: {target}\n",
        thousands(servers.length as f64),
        nginx::version()?,
    ))
}
