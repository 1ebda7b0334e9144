-- Acting on dead letters: the tables of migrations/0004_dead_letter_jobs.sql, whose comments hold here,
-- too.

CREATE INDEX dead_letters_open ON dead_letters (id, kind) WHERE state = 1;
CREATE INDEX dead_letters_of_key ON dead_letters (key, id);

CREATE TABLE dead_letter_jobs (
    id               BLOB    NOT NULL PRIMARY KEY,
    action           INTEGER NOT NULL, -- 1 retry, 2 discard
    filter           TEXT    NOT NULL,
    rate             INTEGER NOT NULL,
    canary           INTEGER NOT NULL,
    max_failed_share REAL    NOT NULL,
    who              TEXT    NOT NULL,
    reason           TEXT,
    state            INTEGER NOT NULL, -- 1 running, 2 done, 3 stopped, 4 cancelled
    note             TEXT,
    newest           BLOB,
    total            INTEGER NOT NULL,
    done             INTEGER NOT NULL DEFAULT 0,
    failed           INTEGER NOT NULL DEFAULT 0,
    cursor           BLOB,
    canary_commands  TEXT,
    canary_since     INTEGER,
    canary_died      INTEGER,
    owner            BLOB,
    heartbeat_at     INTEGER,
    created_at       INTEGER NOT NULL,
    finished_at      INTEGER
) STRICT;
CREATE INDEX dead_letter_jobs_running ON dead_letter_jobs (id) WHERE state = 1;
