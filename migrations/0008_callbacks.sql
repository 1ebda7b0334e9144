-- Callbacks: ends of commands that somebody is to be told of by a POST.

-- Written in the transaction of the outcome, by the commands that have a `callback_url` and no
-- others; gone when it was delivered. One that never is becomes a dead letter (kind 3) and waits for
-- a person.
CREATE TABLE adjutant.callbacks (
    partition      smallint    NOT NULL, -- the command's
    id             uuid        NOT NULL DEFAULT gen_random_uuid(), -- `webhook-id`
    command_id     uuid        NOT NULL,
    type           text        COLLATE "C" NOT NULL, -- the command's
    ended_after    integer     NOT NULL, -- which of its ends this is: the outcome's attempts
    url            text        NOT NULL,
    -- What limits and breakers go by. The URL is kept as parsers write it, so it has no user, and a
    -- host in lower case.
    host           text        COLLATE "C" NOT NULL GENERATED ALWAYS AS
                   (COALESCE(substring(url FROM '^[a-z]+://(\[[^]]*\]|[^/:?#]+)'), '-')) STORED,
    state          smallint    NOT NULL DEFAULT 1, -- 1 to be delivered, 2 dead
    owed_at        timestamptz NOT NULL, -- since when: the end, or a person's retry
    due_at         timestamptz NOT NULL, -- the next try; until then a process may have it in hand
    attempts       integer     NOT NULL DEFAULT 0,
    first_attempt  integer     NOT NULL DEFAULT 1, -- since it is owed: the limit counts from here
    error          text,                 -- of the last attempt
    dead_letter_id uuid,                 -- the newest
    PRIMARY KEY (partition, id)
) WITH (
    fillfactor = 70,
    autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 5000,
    autovacuum_vacuum_cost_delay = 0
);
CREATE INDEX callbacks_due ON adjutant.callbacks (partition, host, due_at) WHERE state = 1;
CREATE INDEX callbacks_oldest ON adjutant.callbacks (partition, owed_at) WHERE state = 1;
CREATE INDEX callbacks_of_dead_letter ON adjutant.callbacks (dead_letter_id)
 WHERE dead_letter_id IS NOT NULL;

COMMENT ON COLUMN adjutant.dead_letters.kind IS '1 command, 2 parked key, 3 callback';

INSERT INTO adjutant.releases (migration, oldest_release) VALUES (8, '0.1.0');
