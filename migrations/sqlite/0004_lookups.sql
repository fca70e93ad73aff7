-- Blocks by nominee, newest first. A nominee may be any text: its first 64 characters as JSON has them, up to a quote, are
-- what is indexed, which is the whole of a peer id.
CREATE INDEX block_nominee ON block (
    substr(
        substr(document, instr(document, '"nominated_peer_id":"') + 21), 1,
        min(64, instr(substr(document, instr(document, '"nominated_peer_id":"') + 21), '"') - 1)
    ),
    idx
) WHERE canonical;

-- The few events that are no growth.
CREATE INDEX event_reorganised ON event (id) WHERE kind = 'reorganised';
