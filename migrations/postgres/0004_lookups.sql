-- Blocks by nominee, newest first. A nominee may be any text: its first 64 characters as JSON has them, up to a quote, are
-- what is indexed, which is the whole of a peer id.
CREATE INDEX block_nominee ON block (
    (left(split_part(split_part(document, '"nominated_peer_id":"', 2), '"', 1), 64) COLLATE "C"),
    idx
) WHERE canonical;

-- The few events that are no growth.
CREATE INDEX event_reorganised ON event (id) WHERE kind = 'reorganised';
