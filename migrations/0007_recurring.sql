-- Recurring commands.

-- What is sent again and again, and when. Read by whoever relays partition 0, once a second and when
-- something falls due; written by people, and twice for each time that it falls due: once with what is
-- owed, once when that is sent.
CREATE TABLE adjutant.recurring (
    name             text        COLLATE "C" PRIMARY KEY,
    revision         bigint      NOT NULL, -- counts changes by people
    turn             bigint      NOT NULL, -- counts every change: what compare-and-set compares
    state            smallint    NOT NULL, -- 1 active, 2 paused
    cron             text        NOT NULL,
    time_zone        text        NOT NULL,
    missed_runs      smallint    NOT NULL, -- 1 skip, 2 once, 3 all
    type             text        COLLATE "C" NOT NULL,
    stream           text        COLLATE "C" NOT NULL,
    lane             smallint    NOT NULL, -- 1 queued, 2 immediate
    payload          jsonb       NOT NULL,
    metadata         jsonb,
    expected_version bigint,
    next_due_at      timestamptz,          -- null: paused, or never again
    owed             timestamptz[] NOT NULL DEFAULT '{}', -- decided, and perhaps not sent yet
    wake_at          timestamptz GENERATED ALWAYS AS (COALESCE(owed[1], next_due_at)) STORED,
    runs             bigint      NOT NULL DEFAULT 0,
    missed           bigint      NOT NULL DEFAULT 0, -- due times without a run of their own
    last_due_at      timestamptz,
    last_command_id  uuid,
    created_at       timestamptz NOT NULL,
    created_by       text        NOT NULL,
    changed_at       timestamptz NOT NULL,
    changed_by       text        NOT NULL
) WITH (fillfactor = 50);
CREATE INDEX recurring_due ON adjutant.recurring (wake_at, name) WHERE state = 1;

INSERT INTO adjutant.releases (migration, oldest_release) VALUES (7, '0.1.0');
