-- Views for people who read the database with SQL: `miner_block` and `epoch`. docs/sql.md describes their columns.
--
-- Members come out of a document by the text around them, for two reasons. One NUL escape anywhere keeps Postgres from
-- reading any member of a document as JSON. And it takes a fraction of the time: a document is parsed anew for each
-- member. The text around a member is unambiguous: documents have no spaces and a fixed order of members, and a quote
-- within a text has a backslash before it.
--
-- Filters on `idx` and `epoch` of canonical blocks use the indexes of `block`, so these are the table's own columns.
-- Only a block on an unverified chain, or beside the chain, can have larger ones than a BIGINT holds.

CREATE VIEW miner_block AS
SELECT
    stored.hash,
    stored.idx,
    stored.epoch,
    member.timestamp,
    CASE WHEN member.timestamp BETWEEN 0 AND 253402300799 THEN to_timestamp(member.timestamp) END AS timestamp_utc,
    stored.previous_hash,
    CASE
        WHEN strpos(literal.data_hash, '\') = 0 THEN btrim(literal.data_hash, '"')
        WHEN strpos(replace(literal.data_hash, '\\', ''), '\u0000') = 0 THEN CAST(literal.data_hash AS json) #>> '{}'
    END AS data_hash,
    CAST(NULLIF(split_part(split_part(document, '"nonce":"', 2), '"', 1), '') AS numeric) AS nonce,
    CAST(NULLIF(split_part(split_part(document, '"target_difficulty":"', 2), '"', 1), '') AS numeric)
        AS target_difficulty,
    CAST(NULLIF(split_part(split_part(document, '"actualized_difficulty":"', 2), '"', 1), '') AS numeric)
        AS actualized_difficulty,
    CAST(stored.cumulative_difficulty AS numeric) AS cumulative_difficulty,
    CASE
        WHEN strpos(literal.nominee, '\') = 0 THEN btrim(literal.nominee, '"')
        WHEN strpos(replace(literal.nominee, '\\', ''), '\u0000') = 0 THEN CAST(literal.nominee AS json) #>> '{}'
    END AS nominated_peer_id,
    CAST(NULLIF(split_part(split_part(document, '"miner_number":', 2), ',', 1), '') AS numeric) AS miner_number,
    stored.canonical AS is_canonical,
    NOT stored.canonical AS is_orphaned,
    member.seen_at,
    CASE WHEN member.seen_at BETWEEN 0 AND 253402300799 THEN to_timestamp(member.seen_at) END AS seen_at_utc,
    member.orphaned_at,
    CASE WHEN member.orphaned_at BETWEEN 0 AND 253402300799 THEN to_timestamp(member.orphaned_at) END
        AS orphaned_at_utc,
    stored.orphan_reason,
    CAST(NULLIF(NULLIF(split_part(split_part(document, '"height_at_time":', 2), ',', 1), 'null'), '') AS numeric)
        AS height_at_time,
    CASE
        WHEN literal.competing_hash IN ('null', '') THEN NULL
        WHEN strpos(literal.competing_hash, '\') = 0 THEN btrim(literal.competing_hash, '"')
        WHEN strpos(replace(literal.competing_hash, '\\', ''), '\u0000') = 0
            THEN CAST(literal.competing_hash AS json) #>> '{}'
    END AS competing_hash,
    NULLIF(replace(replace(split_part(split_part(document, '"deviations":[', 2), ']', 1), '"', ''), ',', ' '), '')
        AS deviations,
    CASE stored.level WHEN 0 THEN 'none' WHEN 1 THEN 'linked' WHEN 2 THEN 'pow' END AS verification,
    stored.document
FROM (
    SELECT hash, idx, epoch, previous_hash, canonical, orphan_reason, cumulative_difficulty, level, document
    FROM block WHERE canonical AND epoch >= 0
    UNION ALL
    SELECT hash, idx, NULL, previous_hash, canonical, orphan_reason, cumulative_difficulty, level, document
    FROM block WHERE canonical AND epoch < 0
    UNION ALL
    SELECT hash, CASE WHEN idx >= 0 THEN idx END, CASE WHEN epoch >= 0 THEN epoch END, previous_hash, canonical,
        orphan_reason, cumulative_difficulty, level, document
    FROM block WHERE NOT canonical
) AS stored
CROSS JOIN LATERAL (
    SELECT
        CAST(NULLIF(split_part(split_part(document, '"timestamp":', 2), ',', 1), '') AS bigint) AS timestamp,
        CAST(NULLIF(NULLIF(split_part(split_part(document, '"seen_at":', 2), ',', 1), 'null'), '') AS bigint)
            AS seen_at,
        CAST(NULLIF(NULLIF(split_part(split_part(document, '"orphaned_at":', 2), ',', 1), 'null'), '') AS bigint)
            AS orphaned_at
) AS member
CROSS JOIN LATERAL (
    SELECT
        split_part(split_part(document, '"data_hash":', 2), ',"nonce":', 1) AS data_hash,
        split_part(split_part(document, '"nominated_peer_id":', 2), ',"miner_number":', 1) AS nominee,
        -- The last member, unless there are deviations.
        rtrim(split_part(split_part(document, '"competing_hash":', 2), ',"deviations":', 1), '}') AS competing_hash
) AS literal;

CREATE VIEW epoch AS
SELECT
    counted.epoch,
    counted.first_index,
    counted.last_index,
    counted.blocks,
    -- Whichever way the epochs are numbered, a block that follows ends them.
    counted.last_index / 40 > counted.epoch OR counted.last_index < chain.tip_index AS complete,
    ends.first_timestamp,
    CASE WHEN ends.first_timestamp BETWEEN 0 AND 253402300799 THEN to_timestamp(ends.first_timestamp) END
        AS first_timestamp_utc,
    ends.last_timestamp,
    CASE WHEN ends.last_timestamp BETWEEN 0 AND 253402300799 THEN to_timestamp(ends.last_timestamp) END
        AS last_timestamp_utc,
    CAST(
        (CAST(ends.last_timestamp AS numeric) - ends.first_timestamp)
        / NULLIF(counted.last_index - counted.first_mined, 0) AS double precision
    ) AS mean_block_time,
    counted.target_difficulty_sum,
    counted.work,
    counted.nominees
FROM (
    SELECT
        epoch,
        min(idx) AS first_index,
        -- Of the genesis, the time says nothing about mining.
        min(idx) FILTER (WHERE idx > 0) AS first_mined,
        max(idx) AS last_index,
        count(*) AS blocks,
        sum(CAST(NULLIF(split_part(split_part(document, '"target_difficulty":"', 2), '"', 1), '') AS numeric))
            AS target_difficulty_sum,
        sum(CAST(NULLIF(split_part(split_part(document, '"actualized_difficulty":"', 2), '"', 1), '') AS numeric))
            AS work,
        count(DISTINCT split_part(split_part(document, '"nominated_peer_id":', 2), ',"miner_number":', 1)) AS nominees
    FROM block
    WHERE canonical AND epoch >= 0
    GROUP BY epoch
) AS counted
CROSS JOIN chain
CROSS JOIN LATERAL (
    -- Not as joins, for which the planner might read the whole table; and each once.
    SELECT
        CAST(NULLIF(split_part(split_part((
            SELECT document FROM block WHERE canonical AND idx = counted.first_mined
        ), '"timestamp":', 2), ',', 1), '') AS bigint) AS first_timestamp,
        CAST(NULLIF(split_part(split_part((
            SELECT document FROM block WHERE canonical AND idx = counted.last_index AND idx > 0
        ), '"timestamp":', 2), ',', 1), '') AS bigint) AS last_timestamp
    OFFSET 0
) AS ends;
