-- Views for people who read the database with SQL: `miner_block` and `epoch`. docs/sql.md describes their columns.
--
-- A number is an INTEGER where it fits, and its decimal text beyond: where the INTEGER has another text, it doesn't fit.
-- Of a document, `->` gives JSON text and `->>` a value: of a large number that is a REAL, and a text ends at a NUL.
--
-- Filters on `idx` and `epoch` of canonical blocks use the indexes of `block`, so these are the table's own columns.
-- Only a block on an unverified chain, or beside the chain, can have larger ones than an INTEGER holds.

CREATE VIEW miner_block AS
SELECT
    hash,
    idx,
    epoch,
    timestamp,
    iif(timestamp BETWEEN 0 AND 253402300799, datetime(timestamp, 'unixepoch'), NULL) AS timestamp_utc,
    previous_hash,
    iif(instr(replace(document -> '$.data_hash', '\\', ''), '\u0000'), NULL, document ->> '$.data_hash') AS data_hash,
    iif(CAST(nonce AS INTEGER) || '' = nonce, CAST(nonce AS INTEGER), nonce) AS nonce,
    iif(CAST(target AS INTEGER) || '' = target, CAST(target AS INTEGER), target) AS target_difficulty,
    iif(CAST(actual AS INTEGER) || '' = actual, CAST(actual AS INTEGER), actual) AS actualized_difficulty,
    iif(CAST(work AS INTEGER) || '' = work, CAST(work AS INTEGER), work) AS cumulative_difficulty,
    iif(instr(replace(document -> '$.nominated_peer_id', '\\', ''), '\u0000'), NULL,
        document ->> '$.nominated_peer_id') AS nominated_peer_id,
    iif(CAST(miner AS INTEGER) || '' = miner, CAST(miner AS INTEGER), miner) AS miner_number,
    canonical AS is_canonical,
    NOT canonical AS is_orphaned,
    seen_at,
    iif(seen_at BETWEEN 0 AND 253402300799, datetime(seen_at, 'unixepoch'), NULL) AS seen_at_utc,
    orphaned_at,
    iif(orphaned_at BETWEEN 0 AND 253402300799, datetime(orphaned_at, 'unixepoch'), NULL) AS orphaned_at_utc,
    orphan_reason,
    iif(CAST(height AS INTEGER) || '' = height, CAST(height AS INTEGER), height) AS height_at_time,
    iif(instr(replace(document -> '$.competing_hash', '\\', ''), '\u0000'), NULL, document ->> '$.competing_hash')
        AS competing_hash,
    replace(trim(document -> '$.deviations', '[]"'), '","', ' ') AS deviations,
    CASE level WHEN 0 THEN 'none' WHEN 1 THEN 'linked' WHEN 2 THEN 'pow' END AS verification,
    document
FROM (
    SELECT
        hash, idx, epoch, previous_hash, canonical, orphan_reason, level, document,
        cumulative_difficulty AS work,
        CAST(document -> '$.timestamp' AS INTEGER) AS timestamp,
        document ->> '$.nonce' AS nonce,
        document ->> '$.target_difficulty' AS target,
        document ->> '$.actualized_difficulty' AS actual,
        document -> '$.miner_number' AS miner,
        CAST(NULLIF(document -> '$.seen_at', 'null') AS INTEGER) AS seen_at,
        CAST(NULLIF(document -> '$.orphaned_at', 'null') AS INTEGER) AS orphaned_at,
        NULLIF(document -> '$.height_at_time', 'null') AS height
    FROM (
        -- The table in its own order, unless the blocks of an epoch are asked for.
        SELECT hash, idx, epoch, previous_hash, canonical, orphan_reason, cumulative_difficulty, level, document
        FROM block WHERE canonical AND +epoch >= 0
        UNION ALL
        SELECT hash, idx, printf('%u', epoch), previous_hash, canonical, orphan_reason, cumulative_difficulty, level,
            document
        FROM block WHERE canonical AND epoch < 0
        UNION ALL
        SELECT hash, iif(idx >= 0, idx, printf('%u', idx)), iif(epoch >= 0, epoch, printf('%u', epoch)),
            previous_hash, canonical, orphan_reason, cumulative_difficulty, level, document
        FROM block WHERE NOT canonical
    )
);

CREATE VIEW epoch AS
SELECT
    counted.epoch,
    counted.first_index,
    counted.last_index,
    counted.blocks,
    -- Whichever way the epochs are numbered, a block that follows ends them.
    counted.last_index / 40 > counted.epoch OR counted.last_index < chain.tip_index AS complete,
    CAST(first.document -> '$.timestamp' AS INTEGER) AS first_timestamp,
    iif(CAST(first.document -> '$.timestamp' AS INTEGER) BETWEEN 0 AND 253402300799,
        datetime(CAST(first.document -> '$.timestamp' AS INTEGER), 'unixepoch'), NULL) AS first_timestamp_utc,
    CAST(last.document -> '$.timestamp' AS INTEGER) AS last_timestamp,
    iif(CAST(last.document -> '$.timestamp' AS INTEGER) BETWEEN 0 AND 253402300799,
        datetime(CAST(last.document -> '$.timestamp' AS INTEGER), 'unixepoch'), NULL) AS last_timestamp_utc,
    -- REAL, so that no difference overflows.
    (0.0 + CAST(last.document -> '$.timestamp' AS INTEGER) - CAST(first.document -> '$.timestamp' AS INTEGER))
        / NULLIF(counted.last_index - counted.first_mined, 0) AS mean_block_time,
    iif(counted.targets < 9007199254740992, CAST(counted.targets AS INTEGER), counted.targets)
        AS target_difficulty_sum,
    iif(counted.actuals < 9007199254740992, CAST(counted.actuals AS INTEGER), counted.actuals) AS work,
    counted.nominees
FROM (
    SELECT
        epoch,
        min(idx) AS first_index,
        -- Of the genesis, the time says nothing about mining.
        min(iif(idx > 0, idx, NULL)) AS first_mined,
        max(idx) AS last_index,
        count(*) AS blocks,
        total(document ->> '$.target_difficulty') AS targets,
        total(document ->> '$.actualized_difficulty') AS actuals,
        count(DISTINCT document -> '$.nominated_peer_id') AS nominees
    FROM block
    WHERE canonical AND epoch >= 0
    GROUP BY epoch
) AS counted
CROSS JOIN chain
LEFT JOIN block AS first ON first.canonical AND first.idx = counted.first_mined
LEFT JOIN block AS last ON last.canonical AND last.idx = counted.last_index AND counted.last_index > 0;
