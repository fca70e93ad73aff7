//! The machine that the numbers are of.

use std::fs;

use sqlx::{Connection, PgConnection, SqliteConnection};

use crate::{THREADS, measure::Outcome, postgres::Database};

/// One paragraph: processor, memory, system, databases, and how busy the machine was before.
pub async fn describe() -> Outcome<String> {
    let cpu = field("/proc/cpuinfo", "model name")?;
    let cores = std::thread::available_parallelism()?;
    let memory: f64 = field("/proc/meminfo", "MemTotal")?.trim_end_matches(" kB").parse()?;
    let system = fs::read_to_string("/proc/sys/kernel/osrelease")?;
    let database = Database::create().await;
    let load = fs::read_to_string("/proc/loadavg")?;
    let mut connection = PgConnection::connect(&database.url).await?;
    let (postgres,): (String,) = sqlx::query_as("SHOW server_version").fetch_one(&mut connection).await?;
    connection.close().await?;
    let mut connection = SqliteConnection::connect("sqlite::memory:").await?;
    let (sqlite,): (String,) = sqlx::query_as("SELECT sqlite_version()").fetch_one(&mut connection).await?;
    connection.close().await?;
    Ok(format!(
        "Machine: {cpu}, {cores} cores, {:.0} GiB of memory, Linux {}; Postgres {} over a Unix socket, SQLite {sqlite} \
         in a file; files in the system's cache. Client and server share one process and {THREADS} threads, over \
         loopback. Load average when it began: {}.\n",
        memory / f64::from(1 << 20),
        system.trim(),
        postgres.split(' ').next().unwrap_or_default(),
        load.split(' ').next().unwrap_or_default(),
    ))
}

/// The value behind `name:` in a file of `/proc`.
pub fn field(file: &str, name: &str) -> Outcome<String> {
    let text = fs::read_to_string(file)?;
    let value = text.lines().find_map(|line| line.strip_prefix(name)?.trim_start().strip_prefix(':'));
    Ok(value.ok_or_else(|| format!("{file} has no {name}"))?.trim().to_owned())
}
