-- What a synchronisation keeps beside the chain: a branch that has not won yet, what became of the chain, its jobs.

-- The blocks of the branch, from the fork on. Readers of `block` don't see them.
CREATE TABLE staged_block (
    idx                   BIGINT PRIMARY KEY,
    hash                  TEXT COLLATE "C" NOT NULL UNIQUE,
    -- Of the whole chain that ends with the block.
    cumulative_difficulty TEXT   NOT NULL,
    level                 BIGINT NOT NULL,
    document              TEXT   NOT NULL
);

-- One row while there are such blocks: the canonical block that they follow (none: they start with genesis), the last
-- of them, the weakest verification level among them, and the job that brought it.
CREATE TABLE stage (
    id         BIGINT PRIMARY KEY CHECK (id = 1),
    fork_index BIGINT,
    fork_hash  TEXT,
    tip_index  BIGINT NOT NULL,
    level      BIGINT NOT NULL,
    job        BIGINT NOT NULL
);

-- What became of the canonical chain. The id is the version of the chain that it led to.
CREATE TABLE event (
    id        BIGINT PRIMARY KEY,
    at        BIGINT NOT NULL,
    kind      TEXT   NOT NULL,
    tip_index BIGINT,
    tip_hash  TEXT,
    document  TEXT   NOT NULL
);

CREATE TABLE job (
    id           BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    phase        TEXT   NOT NULL,
    spec         TEXT   NOT NULL,
    progress     TEXT   NOT NULL,
    cancelled_at BIGINT,
    created_at   BIGINT NOT NULL,
    updated_at   BIGINT NOT NULL
);

-- What a gateway tells the others.
CREATE TABLE note (
    key   TEXT COLLATE "C" PRIMARY KEY,
    value TEXT   NOT NULL,
    at    BIGINT NOT NULL
);
