//! An epoch out of Postgres: by `pgbench` with the gateway's own statement, as JSON that Postgres makes by itself, and
//! by the gateway without a cache.

use std::{fs, path::Path, sync::Arc};

use modal_gateway::{
    protocol::Query,
    source::{Origin, Source},
};
use serde_json::Value;
use sqlx::{AssertSqlSafe, Connection, PgConnection};
use tokio::process::Command;

use crate::{
    chain::{Kind, Stores},
    http::{EPOCH, EPOCHS, LENGTH, Server, gateway, load, requests_for_all},
    measure::{Ask, Contender, Outcome, Pace, Rates, Table, Target, contender, thousands},
    postgres,
    wire::{Cache, Nodes},
};

/// Clients that ask, each for one epoch at a time.
const CLIENTS: [usize; 2] = [1, 16];

/// The statement that gives the answer's JSON, as PostgREST makes such statements, over the view `miner_block` or a
/// table with its columns.
fn json_agg(table: &str, epoch: &str) -> String {
    format!(
        "SELECT json_build_object('ok', true, 'data', json_build_object('epoch', CAST({epoch} AS bigint), 'blocks', \
         coalesce(json_agg(block), '[]'), 'count', count(block)), 'errors', NULL) FROM (SELECT hash, idx AS index, epoch, \
         timestamp, previous_hash, data_hash, CAST(nonce AS text) AS nonce, CAST(target_difficulty AS text) AS difficulty, \
         CAST(target_difficulty AS text) AS target_difficulty, CAST(actualized_difficulty AS text) AS \
         actualized_difficulty, nominated_peer_id, miner_number, is_canonical, is_orphaned, seen_at, orphaned_at, \
         orphan_reason, height_at_time, competing_hash FROM {table} WHERE is_canonical AND epoch = {epoch} ORDER BY idx) AS \
         block"
    )
}

/// Epochs a second.
pub async fn run(stores: &Stores, nodes: &Nodes, pace: Pace) -> Outcome<String> {
    let (url, source) =
        (stores.url(Kind::Postgres, LENGTH)?, nodes.get(Kind::Postgres, LENGTH, Cache::Off)?.source.clone());
    let folder = tempfile::tempdir()?;
    let mut connection = PgConnection::connect(&url).await?;
    let ours = epoch(&source).await?;
    let statement = statement_of_the_store(&source, &mut connection).await?;
    for sql in [
        "CREATE TABLE typed AS SELECT * FROM miner_block ORDER BY idx",
        "CREATE INDEX ON typed (epoch, idx)",
        "VACUUM (ANALYZE) typed",
    ] {
        sqlx::query(sql).execute(&mut connection).await?;
    }
    for table in ["miner_block", "typed"] {
        let sql = format!("SELECT CAST(made AS text) FROM ({}) AS it (made)", json_agg(table, &EPOCH.to_string()));
        let (made,): (String,) = sqlx::query_as(AssertSqlSafe(sql)).fetch_one(&mut connection).await?;
        let made: Value = serde_json::from_str(&made)?;
        if made != ours {
            let first = |answer: &Value| answer["data"]["blocks"][0].to_string();
            return Err(format!("json_agg over {table} begins with {}, not with {}", first(&made), first(&ours)).into());
        }
    }
    let statements = [
        ("statement", statement.replace("$1", ":epoch").replace("$2", "1000")),
        ("view", json_agg("miner_block", ":epoch")),
        ("typed", json_agg("typed", ":epoch")),
        // What each gateway asks again and again, to know of changes.
        ("state", "SELECT * FROM chain".into()),
    ];
    for (name, statement) in &statements {
        fs::write(folder.path().join(name), format!("\\set epoch random(0, {})\n{statement};\n", EPOCHS - 1))?;
    }
    let server = Server::start(gateway(source.clone())?).await?;

    let columns = [
        "clients",
        "pgbench, the gateway's statement",
        "json_agg, view",
        "json_agg, typed table",
        "pgbench, the chain's state",
        "gateway, no network",
        "of pgbench",
        "gateway, HTTP",
        "of pgbench",
        "of json_agg, typed table",
    ];
    let (mut table, mut target) = (Table::new(0, &columns), Target::at_least(0.7));
    for clients in CLIENTS {
        let mut contenders: Vec<Contender> =
            statements.iter().map(|(name, _)| pgbench(&folder.path().join(name), &url, clients)).collect();
        let source = source.clone();
        let ask: Ask = Arc::new(move || {
            let source = source.clone();
            Box::pin(async move {
                let query = Query::Epoch { epoch: fastrand::u64(..EPOCHS) };
                let answer = source.answer(query, &Origin::Local, 0).await;
                answer.map(drop).map_err(|declined| declined.failure.to_string().into())
            })
        });
        contenders.push(contender(clients, ask));
        contenders.push(load(server.address, clients, requests_for_all()));
        let rates = Rates::measure(&contenders, pace).await?;
        let mut row = vec![clients.to_string()];
        row.extend((0..5).map(|place| thousands(rates.of(place))));
        row.push(format!("{:.2}", rates.ratio(4, 0)));
        row.push(thousands(rates.of(5)));
        row.push(target.check(rates.ratio(5, 0)));
        row.push(format!("{:.2}", rates.ratio(5, 2)));
        table.row(row);
    }
    sqlx::query("DROP TABLE typed").execute(&mut connection).await?;
    connection.close().await?;
    Ok(format!(
        "#### An epoch out of Postgres, uncached: epochs a second\n\n{table}\n\
         An epoch at random, of {} blocks in some {} bytes each, of 10,000 blocks. `pgbench` sends the statement of the gateway's \
         store, prepared, and drops the result. `json_agg` is one statement that makes the whole answer, the same JSON, from \
         the view `miner_block` and from a table with the same columns. The chain's state is one row, which each \
         gateway reads to detect changes. HTTP, of `pgbench`: {target}\n",
        ours["data"]["count"],
        thousands(ours.to_string().len() as f64),
    ))
}

async fn epoch(source: &Source) -> Outcome<Value> {
    let answer = source.answer(Query::Epoch { epoch: EPOCH }, &Origin::Local, 0).await;
    let answer = answer.map_err(|declined| declined.failure.to_string())?;
    Ok(serde_json::from_slice(&answer.body)?)
}

/// The statement by which the store reads an epoch: the last that one of its connections ran.
async fn statement_of_the_store(source: &Source, connection: &mut PgConnection) -> Outcome<String> {
    let sql = "SELECT query FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid() AND \
               query LIKE '%epoch = $1%'";
    // The node may run another one on the same connection before we look.
    for _ in 0..100 {
        epoch(source).await?;
        let row: Option<(String,)> = sqlx::query_as(sql).fetch_optional(&mut *connection).await?;
        if let Some((statement,)) = row {
            return Ok(statement);
        }
    }
    Err("no connection of the store ran the statement of an epoch".into())
}

/// `pgbench` with so many clients, each with a prepared statement. A round takes whole seconds.
fn pgbench(script: &Path, url: &str, clients: usize) -> Contender {
    let program = postgres::programs().join("pgbench");
    let (script, url) = (script.to_owned(), url.to_owned());
    Box::new(move |round| {
        let mut command = Command::new(&program);
        command
            .args(["--no-vacuum", "--protocol=prepared"])
            .arg(format!("--client={clients}"))
            .arg(format!("--jobs={}", clients.min(crate::THREADS)))
            .arg(format!("--time={}", round.as_secs().max(1)))
            .arg("--file")
            .arg(&script)
            .arg(&url)
            .kill_on_drop(true);
        Box::pin(async move {
            let output = command.output().await?;
            let said = String::from_utf8_lossy(&output.stdout);
            let rate = said.lines().find_map(|line| line.strip_prefix("tps = ")?.split(' ').next()?.parse().ok());
            match rate {
                Some(rate) if output.status.success() => Ok(rate),
                _ => Err(format!("pgbench: {said}{}", String::from_utf8_lossy(&output.stderr)).into()),
            }
        })
    })
}
