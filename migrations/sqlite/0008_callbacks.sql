-- Callbacks, as migrations/0008_callbacks.sql has them.

CREATE TABLE callbacks (
    partition      INTEGER NOT NULL,
    id             BLOB    NOT NULL PRIMARY KEY, -- `webhook-id`
    command_id     BLOB    NOT NULL,
    type           TEXT    NOT NULL,
    ended_after    INTEGER NOT NULL, -- which of its ends this is: the outcome's attempts
    url            TEXT    NOT NULL,
    host           TEXT    NOT NULL,
    state          INTEGER NOT NULL DEFAULT 1, -- 1 to be delivered, 2 dead
    owed_at        INTEGER NOT NULL,
    due_at         INTEGER NOT NULL, -- the next try; until then a process may have it in hand
    attempts       INTEGER NOT NULL DEFAULT 0,
    first_attempt  INTEGER NOT NULL DEFAULT 1, -- since it is owed: the limit counts from here
    error          TEXT,
    dead_letter_id BLOB
) STRICT;
CREATE INDEX callbacks_due ON callbacks (partition, host, due_at) WHERE state = 1;
CREATE INDEX callbacks_oldest ON callbacks (partition, owed_at) WHERE state = 1;
CREATE INDEX callbacks_of_dead_letter ON callbacks (dead_letter_id) WHERE dead_letter_id IS NOT NULL;
