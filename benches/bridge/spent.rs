//! What a piece of work takes: by the clock, and of the processors, apart for client, peer and database.

use std::{fmt, time::Instant};

use sqlx::{Connection, PgConnection};

use crate::{
    chain::Kind,
    cpu::{Meter, server},
    measure::{Outcome, Table, Target, median},
};

/// The threads of SQLite's connections, as far as the system keeps the name.
const SQLITE_THREADS: &str = "sqlx-sqlite-wor";

/// Who works, and since when.
pub struct Work {
    start: Instant,
    parts: [Option<Meter>; 3],
    before: [f64; 3],
    embedded: bool,
}

/// What was spent.
pub struct Spent {
    /// Seconds by the clock.
    pub seconds: f64,
    /// CPU seconds of client, peer and database; none where a part has no process or threads of its own.
    parts: [Option<f64>; 3],
}

impl Work {
    /// Begins, with a store at `url`. The client is this process, or one that it starts and waits for: then SQLite is
    /// part of it.
    pub async fn begin(kind: Kind, url: &str, in_process: bool, peer: Option<&Meter>) -> Outcome<Self> {
        let database = match kind {
            Kind::Sqlite => in_process.then_some(Meter::Threads(SQLITE_THREADS)),
            Kind::Postgres => {
                let mut connection = PgConnection::connect(url).await?;
                let server = server(&mut connection).await?;
                connection.close().await?;
                Some(server)
            }
        };
        let client = if in_process { Meter::Process(std::process::id()) } else { Meter::Ended };
        let parts = [Some(client), peer.cloned(), database];
        let mut work =
            Self { start: Instant::now(), parts, before: [0.0; 3], embedded: in_process && kind == Kind::Sqlite };
        work.before = work.read()?;
        work.start = Instant::now();
        Ok(work)
    }

    /// Ends; what it took.
    pub fn end(self) -> Outcome<Spent> {
        let (seconds, after) = (self.start.elapsed().as_secs_f64(), self.read()?);
        let part = |at: usize| self.parts[at].as_ref().map(|_| after[at] - self.before[at]);
        Ok(Spent { seconds, parts: [0, 1, 2].map(part) })
    }

    fn read(&self) -> Outcome<[f64; 3]> {
        let mut seconds = [0.0; 3];
        for (seconds, part) in seconds.iter_mut().zip(&self.parts) {
            *seconds = part.as_ref().map_or(Ok(0.0), Meter::seconds)?;
        }
        if self.embedded {
            seconds[0] -= seconds[2];
        }
        Ok(seconds)
    }
}

/// The ways to fill a store, side by side.
pub struct Ways {
    table: Table,
    /// By kind of store: the share of the floor's rate that is promised.
    sqlite: Target,
    postgres: Target,
}

impl Default for Ways {
    fn default() -> Self {
        let columns = ["store", "way", "s", "client", "peer", "database", "CPU s together", "rate : floor"];
        Self { table: Table::new(2, &columns), sqlite: Target::at_least(0.8), postgres: Target::at_least(0.7) }
    }
}

impl Ways {
    /// Adds the rounds of each way into one kind of store: bare insertion, `COPY`, sync and import.
    pub fn add(&mut self, kind: Kind, name: &str, spent: &[Vec<Spent>; 4]) {
        let floor = if kind == Kind::Postgres { &spent[1] } else { &spent[0] };
        for (way, rounds) in ["bare insertion", "`COPY`", "sync", "import"].into_iter().zip(spent) {
            if rounds.is_empty() {
                continue;
            }
            let part = |at: usize| {
                let seconds: Vec<f64> = rounds.iter().filter_map(|spent| spent.parts[at]).collect();
                if seconds.is_empty() { String::new() } else { format!("{:.2}", median(seconds)) }
            };
            let together = rounds.iter().map(|spent| spent.parts.iter().flatten().sum());
            let share = median(rounds.iter().zip(floor).map(|(spent, floor)| floor.seconds / spent.seconds).collect());
            let share = match way {
                "sync" | "import" if kind == Kind::Postgres => self.postgres.check(share),
                "sync" | "import" => self.sqlite.check(share),
                _ => format!("{share:.2}"),
            };
            self.table.row(vec![
                name.to_owned(),
                way.to_owned(),
                format!("{:.2}", median(rounds.iter().map(|spent| spent.seconds).collect())),
                part(0),
                part(1),
                part(2),
                format!("{:.2}", median(together.collect())),
                share,
            ]);
        }
    }
}

impl fmt::Display for Ways {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { table, sqlite, postgres } = self;
        write!(
            f,
            "#### The same by the clock and on the processors: seconds\n\n{table}\n\
             The floor is bare insertion in SQLite, `COPY` in Postgres. The client is the process that writes, the peer a node in a \
             process of its own; the database is the threads of SQLite's connections, or all processes of the Postgres \
             server. `import` is a process of its own, its start included; SQLite is part of it. SQLite: {sqlite} Postgres: \
             {postgres}\n"
        )
    }
}
