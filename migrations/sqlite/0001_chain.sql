-- The chain and what is known of it. Numbers of 64 bits without sign are kept as the INTEGER of the same bits.

CREATE TABLE block (
    hash                  TEXT    NOT NULL PRIMARY KEY,
    idx                   INTEGER NOT NULL,
    epoch                 INTEGER NOT NULL,
    previous_hash         TEXT    NOT NULL,
    canonical             INTEGER NOT NULL CHECK (canonical IN (0, 1)),
    orphan_reason         TEXT,
    -- Decimal; of an orphan NULL where its ancestors are not all known.
    cumulative_difficulty TEXT,
    level                 INTEGER NOT NULL,
    -- The JSON text that is sent.
    document              TEXT    NOT NULL,
    CHECK (NOT canonical OR (idx >= 0 AND cumulative_difficulty IS NOT NULL))
) STRICT;

CREATE UNIQUE INDEX block_canonical ON block (idx) WHERE canonical;
CREATE INDEX block_epoch ON block (epoch, idx) WHERE canonical;
CREATE INDEX block_orphan ON block (idx, hash) WHERE NOT canonical;

-- How many canonical blocks there are of each epoch, miner and verification level, so that the number of different
-- ones is known without a scan. A value that is no longer there counts 0.
CREATE TABLE tally (
    kind   TEXT    NOT NULL,
    value  TEXT    NOT NULL,
    blocks INTEGER NOT NULL,
    PRIMARY KEY (kind, value)
) STRICT, WITHOUT ROWID;

-- One row.
CREATE TABLE chain (
    id                    INTEGER PRIMARY KEY CHECK (id = 1),
    version               INTEGER NOT NULL,
    tip_index             INTEGER,
    tip_hash              TEXT,
    tip_epoch             INTEGER,
    length                INTEGER NOT NULL,
    total_blocks          INTEGER NOT NULL,
    cumulative_difficulty TEXT    NOT NULL,
    bytes                 INTEGER NOT NULL,
    epochs                INTEGER NOT NULL,
    miners                INTEGER NOT NULL,
    level                 INTEGER
) STRICT;

INSERT INTO chain (id, version, length, total_blocks, cumulative_difficulty, bytes, epochs, miners)
VALUES (1, 0, 0, 0, '0', 0, 0, 0);
