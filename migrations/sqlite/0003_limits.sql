-- Limits of size are the network's: how long the longest canonical document is that was ever stored bounds how many blocks
-- are read for one answer. And how many canonical blocks deviate from rules that the network doesn't enforce.

ALTER TABLE chain ADD COLUMN largest INTEGER NOT NULL DEFAULT 0;
ALTER TABLE chain ADD COLUMN off_schedule INTEGER NOT NULL DEFAULT 0;
ALTER TABLE chain ADD COLUMN off_timestamp INTEGER NOT NULL DEFAULT 0;

-- What is stored already was taken in with a limit of 8192 bytes.
UPDATE chain SET largest = 8192 WHERE total_blocks > 0;
