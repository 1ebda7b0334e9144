-- Keys of groups that are parked: the tables of migrations/0003_parked_keys.sql, whose comments hold
-- here, too. The single writer is the fence.

CREATE TABLE parked_keys (
    group_name     TEXT    NOT NULL,
    generation     INTEGER NOT NULL DEFAULT 1,
    scope          INTEGER NOT NULL, -- 1 stream, 2 document, 3 saga instance
    key            TEXT    NOT NULL,
    partition      INTEGER NOT NULL,
    failed_offset  INTEGER NOT NULL,
    cursor         INTEGER NOT NULL,
    cursor_version INTEGER NOT NULL,
    state          INTEGER NOT NULL DEFAULT 1, -- 1 waits for a person, 2 is replayed, 3 is replayed without the event that failed
    dead_letter_id BLOB    NOT NULL,
    attempts       INTEGER NOT NULL,
    begun          INTEGER NOT NULL DEFAULT 0,
    begun_by       BLOB,
    parked_at      INTEGER NOT NULL,
    PRIMARY KEY (group_name, generation, scope, key)
) STRICT, WITHOUT ROWID;
CREATE INDEX parked_keys_of_partition
    ON parked_keys (group_name, generation, partition, scope, key);
CREATE INDEX parked_keys_of_dead_letter ON parked_keys (dead_letter_id);
CREATE INDEX parked_keys_to_replay ON parked_keys (group_name, partition) WHERE state > 1;

CREATE TABLE parked_references (
    group_name TEXT    NOT NULL,
    generation INTEGER NOT NULL DEFAULT 1,
    key        TEXT    NOT NULL,
    partition  INTEGER NOT NULL,
    "offset"   INTEGER NOT NULL,
    PRIMARY KEY (group_name, generation, key, partition, "offset")
) STRICT, WITHOUT ROWID;

ALTER TABLE views ADD COLUMN parked TEXT;
CREATE INDEX views_parked ON views (view, parked) WHERE parked IS NOT NULL;
