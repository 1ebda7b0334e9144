-- The immediate lane, deadlines, and callbacks, as migrations/0006_immediate_lane.sql has them.

ALTER TABLE commands ADD COLUMN not_after INTEGER;
ALTER TABLE commands ADD COLUMN callback_url TEXT;

-- Commands that were answered before they were executed, and the process that holds them.
CREATE TABLE immediate (
    id          INTEGER NOT NULL PRIMARY KEY,
    partition   INTEGER NOT NULL,
    command_id  BLOB    NOT NULL UNIQUE,
    owner       BLOB    NOT NULL, -- members.id
    accepted_at INTEGER NOT NULL
) STRICT;
