-- The main path: commands, the two logs, outcomes, outbox, schedule, checkpoints, views, members.
-- Everything lives in the schema `adjutant`, which the migrator creates before it runs this.

-- What is fixed when the database is initialised (one row).
CREATE TABLE adjutant.log_identity (
    only_row       boolean     PRIMARY KEY DEFAULT true CHECK (only_row),
    log_id         uuid        NOT NULL,
    partitions     smallint    NOT NULL CHECK (partitions BETWEEN 1 AND 1024),
    initialised_at timestamptz NOT NULL DEFAULT clock_timestamp()
);

-- For each migration, the oldest release that may still run once it is applied.
CREATE TABLE adjutant.releases (
    migration      bigint PRIMARY KEY,
    oldest_release text   NOT NULL
);

-- Commands as they were accepted. Insert-only. `bucket` is the partition hash of the id's 16
-- bytes: a command is found, and kept unique, by its id alone (docs/adr/0001).
CREATE TABLE adjutant.commands (
    bucket           smallint    NOT NULL,
    id               uuid        NOT NULL,
    partition        smallint    NOT NULL,
    stream           text        COLLATE "C" NOT NULL,
    type             text        COLLATE "C" NOT NULL,
    lane             smallint    NOT NULL, -- 1 queued, 2 immediate
    payload          jsonb       NOT NULL,
    metadata         jsonb,
    expected_version bigint,
    not_before       timestamptz,
    reply_to         jsonb,
    content_hash     bytea       NOT NULL,
    accepted_at      timestamptz NOT NULL,
    PRIMARY KEY (bucket, id)
);
CREATE INDEX commands_newest ON adjutant.commands (accepted_at, id);
CREATE INDEX commands_of_stream ON adjutant.commands (stream, accepted_at, id);

-- The command log: executions that the queued lane owes. Gapless per partition (law 4).
CREATE TABLE adjutant.command_log (
    partition   smallint    NOT NULL,
    "offset"    bigint      NOT NULL,
    command_id  uuid        NOT NULL,
    bucket      smallint    NOT NULL,
    recorded_at timestamptz NOT NULL,
    PRIMARY KEY (partition, "offset")
);

-- The event log. Gapless per partition (law 4); a stream's versions are gapless too.
CREATE TABLE adjutant.events (
    partition      smallint    NOT NULL,
    "offset"       bigint      NOT NULL,
    stream         text        COLLATE "C" NOT NULL,
    version        bigint      NOT NULL,
    type           text        COLLATE "C" NOT NULL,
    schema_version smallint    NOT NULL,
    data           jsonb       NOT NULL,
    metadata       jsonb,
    command_id     uuid        NOT NULL,
    recorded_at    timestamptz NOT NULL,
    PRIMARY KEY (partition, "offset"),
    UNIQUE (partition, stream, version)
);

-- How commands ended. One row a command, ever (law 3).
CREATE TABLE adjutant.outcomes (
    partition    smallint    NOT NULL,
    command_id   uuid        NOT NULL,
    status       smallint    NOT NULL, -- 1 succeeded, 2 rejected, 3 dead, 4 cancelled
    first_offset bigint,               -- of its events in the event log
    events       integer     NOT NULL,
    version      bigint      NOT NULL, -- of the stream, afterwards
    reply        jsonb,
    error        jsonb,                -- { code, message }
    attempts     integer     NOT NULL,
    completed_at timestamptz NOT NULL,
    PRIMARY KEY (partition, command_id)
);

-- Messages that wait for the broker. One row is one AMQP message (law 2).
CREATE TABLE adjutant.outbox (
    id             bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    xid            xid8        NOT NULL DEFAULT pg_current_xact_id(),
    partition      smallint    NOT NULL,
    route          smallint    NOT NULL, -- 1 commands, 2 events, 3 reply, 4 intake dead letter
    queue          text,                 -- of a reply
    first_offset   bigint,               -- of the log entries it carries, if any
    entries        integer     NOT NULL,
    correlation_id text,
    content_type   text        NOT NULL,
    headers        jsonb,
    body           bytea       NOT NULL,
    recorded_at    timestamptz NOT NULL
);
-- The relay reads from an exact lower bound on, so that dead rows are never scanned again.
CREATE INDEX outbox_by_transaction ON adjutant.outbox (xid, id);
-- Bodies are MessagePack of a few KB and live for milliseconds: neither compress nor move them out.
ALTER TABLE adjutant.outbox ALTER COLUMN body SET STORAGE EXTERNAL;
ALTER TABLE adjutant.outbox SET (
    toast_tuple_target = 8160,
    autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 5000,
    autovacuum_vacuum_cost_delay = 0
);

-- Commands that become a log entry when due.
CREATE TABLE adjutant.schedule (
    partition  smallint    NOT NULL,
    due_at     timestamptz NOT NULL,
    id         bigint      GENERATED ALWAYS AS IDENTITY,
    command_id uuid        NOT NULL,
    bucket     smallint    NOT NULL,
    reason     text        NOT NULL, -- not_before, type_unknown_here
    PRIMARY KEY (partition, due_at, id)
);
CREATE INDEX schedule_of_command ON adjutant.schedule (bucket, command_id);

-- How far each group has finished each partition: a chain of moves, insert-only, so that a pinned
-- snapshot does not slow it (docs/adr/0002). The newest row is the checkpoint; two moves from one
-- place collide on the key. A purge keeps the newest row.
CREATE TABLE adjutant.checkpoints (
    group_name text        COLLATE "C" NOT NULL,
    partition  smallint    NOT NULL,
    previous   bigint      NOT NULL,
    reached    bigint      NOT NULL CHECK (reached > previous),
    moved_at   timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (group_name, partition, previous)
);
ALTER TABLE adjutant.checkpoints SET (
    autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 5000
);

-- Documents. `partition` is the only one that feeds it (scope Stream) or null (scope Shared).
CREATE TABLE adjutant.views (
    view       text        COLLATE "C" NOT NULL,
    key        text        COLLATE "C" NOT NULL,
    partition  smallint,
    version    bigint      NOT NULL, -- counts changes
    value      jsonb,                -- null: deleted, or not there yet
    as_of      jsonb       NOT NULL, -- { partition: last offset that touched it }
    updated_at timestamptz NOT NULL,
    PRIMARY KEY (view, key)
) WITH (fillfactor = 80, autovacuum_vacuum_scale_factor = 0.02);

-- The newest snapshot of a stream.
CREATE TABLE adjutant.snapshots (
    partition     smallint NOT NULL,
    stream        text     COLLATE "C" NOT NULL,
    version       bigint   NOT NULL,
    state_version smallint NOT NULL,
    state         bytea    NOT NULL,
    PRIMARY KEY (partition, stream)
) WITH (fillfactor = 80);

-- Processes that run, by their heartbeats.
CREATE TABLE adjutant.members (
    id           uuid        PRIMARY KEY,
    name         text        NOT NULL,
    release      text        NOT NULL,
    roles        text[]      NOT NULL,
    groups       text[]      NOT NULL,
    draining     boolean     NOT NULL,
    stats        jsonb       NOT NULL,
    started_at   timestamptz NOT NULL,
    heartbeat_at timestamptz NOT NULL
) WITH (fillfactor = 50);

-- Messages that were on our queues but are not of this log: never applied, counted by origin.
CREATE TABLE adjutant.foreign_messages (
    group_name text        NOT NULL,
    partition  smallint    NOT NULL,
    log_id     text        NOT NULL, -- as the message names it; '' if unreadable
    reason     text        NOT NULL,
    count      bigint      NOT NULL,
    first_seen timestamptz NOT NULL,
    last_seen  timestamptz NOT NULL,
    PRIMARY KEY (group_name, partition, log_id, reason)
);

-- Log locks: pg_advisory_xact_lock(1094929920 + class, partition); class 1 is the command log, 2
-- the event log. Taken in (class, partition) order. One statement takes them, in the order of the
-- array; the next one has a snapshot that is younger than the locks (law 4).

-- The second flight of accepting (and of promoting the schedule): log entries and outbox rows.
-- Entries: partition, place within the partition's new entries (1, 2, …), command.
-- Messages: partition, place of its first entry, number of entries, body.
CREATE FUNCTION adjutant.append_commands(
    p_partitions smallint[],
    p_places integer[], p_entry_partitions smallint[], p_ids uuid[], p_buckets smallint[],
    p_message_partitions smallint[], p_message_places integer[], p_message_entries integer[],
    p_bodies bytea[]
) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    v_heads bigint[];
    v_now timestamptz;
BEGIN
    -- Sorted by the caller.
    PERFORM pg_advisory_xact_lock(1094929921, t.p) FROM unnest(p_partitions) AS t(p);
    -- Served by command_log_pkey, read backwards.
    SELECT array_agg(COALESCE((SELECT l."offset" FROM adjutant.command_log l
                               WHERE l.partition = t.p ORDER BY l."offset" DESC LIMIT 1), 0)
                     ORDER BY t.i)
      INTO v_heads FROM unnest(p_partitions) WITH ORDINALITY AS t(p, i);
    v_now := clock_timestamp();
    INSERT INTO adjutant.command_log (partition, "offset", command_id, bucket, recorded_at)
    SELECT e.p, v_heads[array_position(p_partitions, e.p)] + e.place, e.id, e.bucket, v_now
      FROM unnest(p_entry_partitions, p_places, p_ids, p_buckets) AS e(p, place, id, bucket);
    INSERT INTO adjutant.outbox (partition, route, first_offset, entries, content_type, body,
                                 recorded_at)
    SELECT m.p, 1, v_heads[array_position(p_partitions, m.p)] + m.place, m.entries,
           'application/msgpack', m.body, v_now
      FROM unnest(p_message_partitions, p_message_places, p_message_entries, p_bodies)
           WITH ORDINALITY AS m(p, place, entries, body, i)
     ORDER BY m.i;
END $$;

-- Moves checkpoints by compare-and-set, or raises AJ001; a checkpoint never passes the head of its
-- log (AJ004), so that messages of entries that were lost with an old primary are not applied. A
-- move that is made at the same time violates checkpoints_pkey: the same fence.
CREATE FUNCTION adjutant.move_checkpoints(
    p_class integer, p_group text, p_partitions smallint[], p_from bigint[], p_to bigint[]
) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    v_moved bigint;
BEGIN
    IF cardinality(p_partitions) = 0 THEN
        RETURN;
    END IF;
    INSERT INTO adjutant.checkpoints (group_name, partition, previous, reached)
    SELECT p_group, u.p, u.f, u.t
      FROM unnest(p_partitions, p_from, p_to) AS u(p, f, t)
     WHERE u.f = COALESCE((SELECT c.reached FROM adjutant.checkpoints c
                            WHERE c.group_name = p_group AND c.partition = u.p
                            ORDER BY c.previous DESC LIMIT 1), 0)
       AND CASE p_class
           WHEN 1 THEN EXISTS (SELECT 1 FROM adjutant.command_log l
                                WHERE l.partition = u.p AND l."offset" = u.t)
           ELSE EXISTS (SELECT 1 FROM adjutant.events l
                         WHERE l.partition = u.p AND l."offset" = u.t) END;
    GET DIAGNOSTICS v_moved = ROW_COUNT;
    IF v_moved = cardinality(p_partitions) THEN
        RETURN;
    END IF;
    IF EXISTS (SELECT 1 FROM unnest(p_partitions, p_to) AS u(p, t)
                WHERE NOT CASE p_class
                WHEN 1 THEN EXISTS (SELECT 1 FROM adjutant.command_log l
                                     WHERE l.partition = u.p AND l."offset" = u.t)
                ELSE EXISTS (SELECT 1 FROM adjutant.events l
                              WHERE l.partition = u.p AND l."offset" = u.t) END) THEN
        RAISE EXCEPTION 'checkpoint of % would pass the head of the log', p_group
              USING ERRCODE = 'AJ004';
    END IF;
    RAISE EXCEPTION 'checkpoint of % is elsewhere', p_group USING ERRCODE = 'AJ001';
END $$;

-- Everything that the executor writes besides snapshots, under the event-log locks. `p_partitions`
-- are all partitions of events and outcomes, sorted. Places count the partition's new events
-- 1, 2, … Raises AJ002 if a command is not in the command log where the road said it was, and AJ005
-- if a stream on which a decision without events was made is not at that version any more.
-- Returns the heads of the partitions' event logs before this transaction, and its time.
CREATE FUNCTION adjutant.commit_commands(
    p_partitions smallint[],
    e_partitions smallint[], e_places integer[], e_streams text[], e_versions bigint[],
    e_types text[], e_schema_versions smallint[], e_data jsonb[], e_metadata jsonb[],
    e_commands uuid[],
    o_partitions smallint[], o_commands uuid[], o_log_offsets bigint[], o_statuses smallint[],
    o_places integer[], o_events integer[], o_versions bigint[], o_replies jsonb[],
    o_errors jsonb[], o_attempts integer[], o_reply_queues text[], o_reply_correlations text[],
    m_partitions smallint[], m_places integer[], m_entries integer[], m_bodies bytea[],
    s_partitions smallint[], s_commands uuid[], s_buckets smallint[], s_delays_ms bigint[],
    s_reasons text[],
    v_partitions smallint[], v_streams text[], v_versions bigint[],
    c_group text, c_partitions smallint[], c_from bigint[], c_to bigint[],
    OUT v_heads bigint[], OUT v_now timestamptz
) LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_advisory_xact_lock(1094929922, t.p) FROM unnest(p_partitions) AS t(p);
    PERFORM adjutant.move_checkpoints(1, c_group, c_partitions, c_from, c_to);
    IF EXISTS (SELECT 1
                 FROM unnest(o_partitions, o_log_offsets, o_commands) AS o(p, place, id)
                WHERE o.place IS NOT NULL AND NOT EXISTS (
                      SELECT 1 FROM adjutant.command_log l
                       WHERE l.partition = o.p AND l."offset" = o.place AND l.command_id = o.id
                      OFFSET 0)) -- a lookup per command, never a join with the whole log
    THEN
        RAISE EXCEPTION 'a command is not in the command log' USING ERRCODE = 'AJ002';
    END IF;
    SELECT array_agg(COALESCE((SELECT x."offset" FROM adjutant.events x
                               WHERE x.partition = t.p ORDER BY x."offset" DESC LIMIT 1), 0)
                     ORDER BY t.i)
      INTO v_heads FROM unnest(p_partitions) WITH ORDINALITY AS t(p, i);
    v_now := clock_timestamp();
    INSERT INTO adjutant.events (partition, "offset", stream, version, type, schema_version, data,
                                 metadata, command_id, recorded_at)
    SELECT e.p, v_heads[array_position(p_partitions, e.p)] + e.place, e.stream, e.version, e.type,
           e.schema_version, e.data, e.metadata, e.command, v_now
      FROM unnest(e_partitions, e_places, e_streams, e_versions, e_types, e_schema_versions,
                  e_data, e_metadata, e_commands)
           AS e(p, place, stream, version, type, schema_version, data, metadata, command);
    -- A decision without events has no version to collide on: its stream must still be where it was
    -- when the decision was made. Served by events_partition_stream_version_key.
    IF cardinality(v_streams) > 0 AND EXISTS (
        SELECT 1 FROM unnest(v_partitions, v_streams, v_versions) AS v(p, stream, version)
         WHERE v.version <> COALESCE((SELECT x.version FROM adjutant.events x
                                       WHERE x.partition = v.p AND x.stream = v.stream
                                       ORDER BY x.version DESC LIMIT 1), 0))
    THEN
        RAISE EXCEPTION 'a stream has grown since it was read' USING ERRCODE = 'AJ005';
    END IF;
    INSERT INTO adjutant.outcomes (partition, command_id, status, first_offset, events, version,
                                   reply, error, attempts, completed_at)
    SELECT o.p, o.command, o.status, v_heads[array_position(p_partitions, o.p)] + o.place,
           o.events, o.version, o.reply, o.error, o.attempts, v_now
      FROM unnest(o_partitions, o_commands, o_statuses, o_places, o_events, o_versions, o_replies,
                  o_errors, o_attempts)
           AS o(p, command, status, place, events, version, reply, error, attempts);
    INSERT INTO adjutant.outbox (partition, route, first_offset, entries, content_type, body,
                                 recorded_at)
    SELECT m.p, 2, v_heads[array_position(p_partitions, m.p)] + m.place, m.entries,
           'application/msgpack', m.body, v_now
      FROM unnest(m_partitions, m_places, m_entries, m_bodies)
           WITH ORDINALITY AS m(p, place, entries, body, i)
     ORDER BY m.i;
    -- Replies over AMQP: only the database knows the positions, so it writes the body.
    IF cardinality(array_remove(o_reply_queues, NULL)) > 0 THEN
        INSERT INTO adjutant.outbox (partition, route, queue, entries, correlation_id,
                                     content_type, body, recorded_at)
        SELECT o.p, 3, o.queue, 0, o.correlation, 'application/json',
               convert_to(jsonb_build_object(
                   'id', o.command,
                   'status', (ARRAY['succeeded','rejected','dead','cancelled'])[o.status],
                   'attempts', o.attempts,
                   'completed_at', to_char(v_now AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'),
                   'outcome', jsonb_build_object(
                       'positions', COALESCE((SELECT jsonb_agg(format('%s:%s', o.p,
                            v_heads[array_position(p_partitions, o.p)] + o.place + g - 1) ORDER BY g)
                            FROM generate_series(1, o.events) AS g), '[]'::jsonb),
                       'version', o.version, 'reply', o.reply, 'error', o.error))::text, 'UTF8'),
               v_now
          FROM unnest(o_partitions, o_commands, o_statuses, o_places, o_events, o_versions,
                      o_replies, o_errors, o_attempts, o_reply_queues, o_reply_correlations)
               AS o(p, command, status, place, events, version, reply, error, attempts, queue,
                    correlation)
         WHERE o.queue IS NOT NULL;
    END IF;
    IF cardinality(s_partitions) > 0 THEN
        INSERT INTO adjutant.schedule (partition, due_at, command_id, bucket, reason)
        SELECT s.p, v_now + s.delay * interval '1 millisecond', s.command, s.bucket, s.reason
          FROM unnest(s_partitions, s_commands, s_buckets, s_delays_ms, s_reasons)
               AS s(p, command, bucket, delay, reason);
    END IF;
END $$;

-- Documents and checkpoints of one view. A document that is fed by another partition than its
-- projection says raises AJ003.
CREATE FUNCTION adjutant.commit_view(
    p_view text, p_group text,
    d_keys text[], d_partitions smallint[], d_versions bigint[], d_values jsonb[], d_as_of jsonb[],
    c_partitions smallint[], c_from bigint[], c_to bigint[]
) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    v_written bigint;
BEGIN
    IF cardinality(d_keys) > 0 THEN
        INSERT INTO adjutant.views AS v (view, key, partition, version, value, as_of, updated_at)
        SELECT p_view, d.key, d.p, d.version, d.value, d.as_of, clock_timestamp()
          FROM unnest(d_keys, d_partitions, d_versions, d_values, d_as_of)
               AS d(key, p, version, value, as_of) -- sorted by the caller
        ON CONFLICT (view, key) DO UPDATE
           SET version = EXCLUDED.version, value = EXCLUDED.value, as_of = EXCLUDED.as_of,
               updated_at = EXCLUDED.updated_at, partition = EXCLUDED.partition
         WHERE EXCLUDED.partition IS NULL OR v.partition IS NOT DISTINCT FROM EXCLUDED.partition;
        GET DIAGNOSTICS v_written = ROW_COUNT;
        IF v_written <> cardinality(d_keys) THEN
            RAISE EXCEPTION 'a document of view % is fed by two partitions, but its projection declares scope Stream', p_view
                  USING ERRCODE = 'AJ003';
        END IF;
    END IF;
    PERFORM adjutant.move_checkpoints(2, p_group, c_partitions, c_from, c_to);
END $$;

INSERT INTO adjutant.releases (migration, oldest_release) VALUES (1, '0.1.0');
