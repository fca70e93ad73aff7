-- The chain and what is known of it. Numbers of 64 bits without sign are kept as the BIGINT of the same bits; texts
-- compare by byte, as in SQLite.

CREATE TABLE block (
    hash                  TEXT COLLATE "C" PRIMARY KEY,
    idx                   BIGINT  NOT NULL,
    epoch                 BIGINT  NOT NULL,
    previous_hash         TEXT COLLATE "C" NOT NULL,
    canonical             BOOLEAN NOT NULL,
    orphan_reason         TEXT,
    -- Decimal; of an orphan NULL where its ancestors are not all known.
    cumulative_difficulty TEXT,
    level                 BIGINT  NOT NULL,
    -- The JSON text that is sent.
    document              TEXT    NOT NULL,
    CHECK (NOT canonical OR (idx >= 0 AND cumulative_difficulty IS NOT NULL))
);

CREATE UNIQUE INDEX block_canonical ON block (idx) WHERE canonical;
CREATE INDEX block_epoch ON block (epoch, idx) WHERE canonical;
CREATE INDEX block_orphan ON block (idx, hash) WHERE NOT canonical;

-- How many canonical blocks there are of each epoch, miner and verification level, so that the number of different
-- ones is known without a scan. A value that is no longer there counts 0.
CREATE TABLE tally (
    kind   TEXT COLLATE "C" NOT NULL,
    value  TEXT COLLATE "C" NOT NULL,
    blocks BIGINT NOT NULL,
    PRIMARY KEY (kind, value)
);

-- One row: its lock is the writers' lock.
CREATE TABLE chain (
    id                    BIGINT PRIMARY KEY CHECK (id = 1),
    version               BIGINT NOT NULL,
    tip_index             BIGINT,
    tip_hash              TEXT,
    tip_epoch             BIGINT,
    length                BIGINT NOT NULL,
    total_blocks          BIGINT NOT NULL,
    cumulative_difficulty TEXT   NOT NULL,
    bytes                 BIGINT NOT NULL,
    epochs                BIGINT NOT NULL,
    miners                BIGINT NOT NULL,
    level                 BIGINT
);

INSERT INTO chain (id, version, length, total_blocks, cumulative_difficulty, bytes, epochs, miners)
VALUES (1, 0, 0, 0, '0', 0, 0, 0);
