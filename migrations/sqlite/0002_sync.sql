-- What a synchronisation keeps beside the chain: a branch that has not won yet, what became of the chain, its jobs.

-- The blocks of the branch, from the fork on. Readers of `block` don't see them.
CREATE TABLE staged_block (
    idx                   INTEGER NOT NULL PRIMARY KEY,
    hash                  TEXT    NOT NULL UNIQUE,
    -- Of the whole chain that ends with the block.
    cumulative_difficulty TEXT    NOT NULL,
    level                 INTEGER NOT NULL,
    document              TEXT    NOT NULL
) STRICT;

-- One row while there are such blocks: the canonical block that they follow (none: they start with genesis), the last
-- of them, the weakest verification level among them, and the job that brought it.
CREATE TABLE stage (
    id         INTEGER PRIMARY KEY CHECK (id = 1),
    fork_index INTEGER,
    fork_hash  TEXT,
    tip_index  INTEGER NOT NULL,
    level      INTEGER NOT NULL,
    job        INTEGER NOT NULL
) STRICT;

-- What became of the canonical chain. The id is the version of the chain that it led to.
CREATE TABLE event (
    id        INTEGER PRIMARY KEY,
    at        INTEGER NOT NULL,
    kind      TEXT    NOT NULL,
    tip_index INTEGER,
    tip_hash  TEXT,
    document  TEXT    NOT NULL
) STRICT;

CREATE TABLE job (
    id           INTEGER PRIMARY KEY,
    phase        TEXT    NOT NULL,
    spec         TEXT    NOT NULL,
    progress     TEXT    NOT NULL,
    cancelled_at INTEGER,
    created_at   INTEGER NOT NULL,
    updated_at   INTEGER NOT NULL
) STRICT;

-- What a gateway tells the others.
CREATE TABLE note (
    key   TEXT    NOT NULL PRIMARY KEY,
    value TEXT    NOT NULL,
    at    INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
