-- When work fails: the tables of migrations/0002_failures.sql, whose comments hold here, too.

ALTER TABLE command_log ADD COLUMN attempt INTEGER NOT NULL DEFAULT 1;
ALTER TABLE command_log ADD COLUMN first_offset INTEGER;
ALTER TABLE command_log ADD COLUMN edit INTEGER NOT NULL DEFAULT 0;
ALTER TABLE schedule ADD COLUMN attempt INTEGER NOT NULL DEFAULT 1;
ALTER TABLE schedule ADD COLUMN first_offset INTEGER;
ALTER TABLE schedule ADD COLUMN edit INTEGER NOT NULL DEFAULT 0;

CREATE TABLE attempts (
    partition   INTEGER NOT NULL,
    command_id  BLOB    NOT NULL,
    attempt     INTEGER NOT NULL,
    error       TEXT    NOT NULL, -- { code, message, sources }
    failed_at   INTEGER NOT NULL,
    next_due_at INTEGER,
    PRIMARY KEY (partition, command_id, attempt)
) STRICT, WITHOUT ROWID;

CREATE TABLE past_outcomes (
    partition     INTEGER NOT NULL,
    command_id    BLOB    NOT NULL,
    attempts      INTEGER NOT NULL,
    version       INTEGER NOT NULL,
    error         TEXT,
    completed_at  INTEGER NOT NULL,
    taken_back_at INTEGER NOT NULL,
    PRIMARY KEY (partition, command_id, attempts)
) STRICT, WITHOUT ROWID;

CREATE TABLE command_edits (
    command_id BLOB    NOT NULL,
    edit       INTEGER NOT NULL,
    payload    TEXT    NOT NULL,
    edited_at  INTEGER NOT NULL,
    edited_by  TEXT    NOT NULL,
    PRIMARY KEY (command_id, edit)
) STRICT, WITHOUT ROWID;

CREATE TABLE holds (
    partition    INTEGER NOT NULL,
    stream       TEXT    NOT NULL,
    first_offset INTEGER NOT NULL,
    command_id   BLOB    NOT NULL,
    state        INTEGER NOT NULL, -- 1 holds (set aside, retrying or dead), 2 waits, 3 released
    attempt      INTEGER NOT NULL,
    edit         INTEGER NOT NULL DEFAULT 0,
    since        INTEGER NOT NULL,
    PRIMARY KEY (partition, stream, first_offset)
) STRICT, WITHOUT ROWID;
CREATE UNIQUE INDEX holds_of_command ON holds (partition, command_id);

CREATE TABLE dead_letters (
    partition   INTEGER NOT NULL,
    id          BLOB    NOT NULL PRIMARY KEY,
    kind        INTEGER NOT NULL, -- 1 command, 2 parked key
    group_name  TEXT    NOT NULL,
    generation  INTEGER NOT NULL DEFAULT 1,
    key         TEXT    NOT NULL,
    type        TEXT    NOT NULL,
    command_id  BLOB    NOT NULL,
    "offset"    INTEGER,
    error       TEXT    NOT NULL, -- { code, message, sources }
    fingerprint TEXT    NOT NULL,
    attempts    INTEGER NOT NULL,
    died_at     INTEGER NOT NULL,
    state       INTEGER NOT NULL DEFAULT 1, -- 1 open, 2 retrying, 3 resolved, 4 discarded
    state_at    INTEGER NOT NULL
) STRICT;
CREATE INDEX dead_letters_of_fingerprint ON dead_letters (fingerprint, id);
CREATE INDEX dead_letters_of_command ON dead_letters (command_id);

CREATE TABLE dead_letter_audit (
    id             INTEGER PRIMARY KEY AUTOINCREMENT,
    at             INTEGER NOT NULL,
    dead_letter_id BLOB    NOT NULL,
    action         TEXT    NOT NULL, -- retry, retry_edited, discard
    who            TEXT    NOT NULL,
    reason         TEXT,
    job_id         BLOB
) STRICT;
CREATE INDEX dead_letter_audit_of ON dead_letter_audit (dead_letter_id, id);
CREATE INDEX dead_letter_audit_by_time ON dead_letter_audit (at);
CREATE TRIGGER dead_letter_audit_is_append_only BEFORE UPDATE ON dead_letter_audit
BEGIN
    SELECT RAISE(ABORT, 'dead_letter_audit is append-only');
END;

CREATE TABLE partition_owners (
    group_name TEXT    NOT NULL,
    partition  INTEGER NOT NULL,
    member     BLOB    NOT NULL,
    released   INTEGER NOT NULL, -- 0 or 1
    since      INTEGER NOT NULL,
    PRIMARY KEY (group_name, partition)
) STRICT, WITHOUT ROWID;

CREATE TABLE suspects (
    group_name TEXT    NOT NULL,
    partition  INTEGER NOT NULL,
    "offset"   INTEGER NOT NULL,
    crashes    INTEGER NOT NULL,
    PRIMARY KEY (group_name, partition, "offset")
) STRICT, WITHOUT ROWID;
