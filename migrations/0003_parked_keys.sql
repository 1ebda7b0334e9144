-- Keys of groups that are parked: a stream, a shared document or a saga instance that a group could
-- not go past. The group's checkpoint goes on; the key's own place is `cursor` (docs/adr/0004).

-- One row a parked key, from the transaction in which the checkpoint passed the event that failed,
-- to the one in which the key has caught up again. Who passes a parked stream holds its row FOR KEY
-- SHARE; who replays a key holds it FOR UPDATE.
CREATE TABLE adjutant.parked_keys (
    group_name     text        COLLATE "C" NOT NULL,
    generation     integer     NOT NULL DEFAULT 1, -- of what the group maintains
    scope          smallint    NOT NULL, -- 1 stream, 2 document, 3 saga instance
    key            text        COLLATE "C" NOT NULL,
    partition      smallint    NOT NULL, -- of the event that failed; its owner replays the key
    failed_offset  bigint      NOT NULL, -- of that event, in that partition
    cursor         bigint      NOT NULL, -- stream: the last offset applied to it; else: how many references have been replayed
    cursor_version bigint      NOT NULL, -- stream: the version at the cursor; else 0
    state          smallint    NOT NULL DEFAULT 1, -- 1 waits for a person, 2 is replayed, 3 is replayed without the event that failed
    dead_letter_id uuid        NOT NULL,
    attempts       integer     NOT NULL, -- of the event that failed, replays included
    begun          integer     NOT NULL DEFAULT 0, -- how many processes began the next step of the replay
    begun_by       uuid,                 -- the last of them, which counts once
    parked_at      timestamptz NOT NULL,
    PRIMARY KEY (group_name, generation, scope, key)
) WITH (fillfactor = 80);
CREATE INDEX parked_keys_of_partition
    ON adjutant.parked_keys (group_name, generation, partition, scope, key);
CREATE INDEX parked_keys_of_dead_letter ON adjutant.parked_keys (dead_letter_id);
CREATE INDEX parked_keys_to_replay ON adjutant.parked_keys (group_name, partition) WHERE state > 1;

-- Where the key is not the stream: the events that wait for it, the one that failed included. Never
-- a copy of an event. A row goes when its event has been replayed.
CREATE TABLE adjutant.parked_references (
    group_name text     COLLATE "C" NOT NULL,
    generation integer  NOT NULL DEFAULT 1,
    key        text     COLLATE "C" NOT NULL,
    partition  smallint NOT NULL,
    "offset"   bigint   NOT NULL,
    PRIMARY KEY (group_name, generation, key, partition, "offset")
);

-- The parked key with which a document waits (the stream, or the document itself); null: none. For a
-- shared document this is the fence: who folds it holds its row.
ALTER TABLE adjutant.views ADD COLUMN parked text COLLATE "C";
CREATE INDEX views_parked ON adjutant.views (view, parked) WHERE parked IS NOT NULL;

INSERT INTO adjutant.releases (migration, oldest_release) VALUES (3, '0.1.0');
