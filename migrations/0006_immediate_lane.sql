-- The immediate lane, deadlines, and callbacks.

ALTER TABLE adjutant.commands
    ADD COLUMN not_after    timestamptz, -- not started after it
    ADD COLUMN callback_url text;        -- where the command is sent when it has ended

-- Commands that were answered before they were executed, and the process (by its incarnation) that
-- holds them. Its row goes in the transaction in which the command ends or is set aside; a row that
-- is not there any more is the fence of a process that is late. When the process is gone, its
-- commands enter the command log in the order of `id`.
CREATE TABLE adjutant.immediate (
    partition   smallint    NOT NULL,
    command_id  uuid        NOT NULL,
    bucket      smallint    NOT NULL,
    owner       uuid        NOT NULL, -- members.id
    id          bigint      GENERATED ALWAYS AS IDENTITY,
    accepted_at timestamptz NOT NULL,
    PRIMARY KEY (partition, command_id)
) WITH (
    autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 5000,
    autovacuum_vacuum_cost_delay = 0
);
CREATE INDEX immediate_of_owner ON adjutant.immediate (owner, id);

-- Takes rows of adjutant.immediate away, all of them, or raises AJ008: some were taken over. Sorted
-- by the caller. Served by immediate_pkey.
CREATE FUNCTION adjutant.finish_immediate(p_partitions smallint[], p_commands uuid[])
RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    v_places tid[];
BEGIN
    -- Locked rows stay where they are: they are deleted by place, never by a join with the table.
    SELECT array_agg(i.place) INTO v_places
      FROM unnest(p_partitions, p_commands) AS f(p, id)
     CROSS JOIN LATERAL (SELECT x.ctid AS place FROM adjutant.immediate x
                          WHERE x.partition = f.p AND x.command_id = f.id FOR UPDATE) AS i;
    DELETE FROM adjutant.immediate i WHERE i.ctid = ANY(v_places);
    IF COALESCE(cardinality(v_places), 0) <> cardinality(p_commands) THEN
        RAISE EXCEPTION 'a command of the immediate lane was taken over' USING ERRCODE = 'AJ008';
    END IF;
END $$;

-- A strict command may be executed outside of its log only while nothing of that log is unfinished
-- and nothing of its stream is held; else raises AJ009. The caller's transaction holds the
-- command-log locks from here on. Sorted by the caller. Served by command_log_pkey and
-- checkpoints_pkey, read backwards, immediate_pkey and holds_pkey.
CREATE FUNCTION adjutant.expect_nothing_before(p_partitions smallint[], p_streams text[])
RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_advisory_xact_lock(1094929921, t.p)
       FROM (SELECT DISTINCT p::integer AS p FROM unnest(p_partitions) AS u(p) ORDER BY 1) AS t;
    IF EXISTS (
        SELECT 1 FROM (SELECT DISTINCT p FROM unnest(p_partitions) AS u(p)) AS t
         WHERE COALESCE((SELECT l."offset" FROM adjutant.command_log l WHERE l.partition = t.p
                          ORDER BY l."offset" DESC LIMIT 1), 0)
             > COALESCE((SELECT c.reached FROM adjutant.checkpoints c
                          WHERE c.group_name = 'commands' AND c.partition = t.p
                          ORDER BY c.previous DESC LIMIT 1), 0))
       OR EXISTS (
        SELECT 1 FROM unnest(p_partitions, p_streams) AS s(p, stream)
          JOIN adjutant.holds h ON h.partition = s.p AND h.stream = s.stream)
    THEN
        RAISE EXCEPTION 'strict commands that came before are not finished' USING ERRCODE = 'AJ009';
    END IF;
END $$;

-- What enters with a transaction of the executor: commands that it accepts (an id that is there
-- violates commands_pkey), rows of adjutant.immediate that it takes away, strict ones. Sorted by the
-- caller. Returns when the new ones were accepted.
CREATE FUNCTION adjutant.enter(
    c_buckets smallint[], c_ids uuid[], c_partitions smallint[], c_streams text[], c_types text[],
    c_lanes smallint[], c_payloads jsonb[], c_metadata jsonb[], c_expected_versions bigint[],
    c_not_before timestamptz[], c_reply_to jsonb[], c_content_hashes bytea[],
    c_not_after timestamptz[], c_callback_urls text[],
    h_partitions smallint[], h_commands uuid[],
    s_partitions smallint[], s_streams text[]
) RETURNS timestamptz LANGUAGE plpgsql AS $$
DECLARE
    v_now timestamptz := clock_timestamp();
BEGIN
    IF cardinality(c_ids) > 0 THEN
        INSERT INTO adjutant.commands (bucket, id, partition, stream, type, lane, payload, metadata,
                                       expected_version, not_before, reply_to, content_hash,
                                       not_after, callback_url, accepted_at)
        SELECT n.*, v_now
          FROM unnest(c_buckets, c_ids, c_partitions, c_streams, c_types, c_lanes, c_payloads,
                      c_metadata, c_expected_versions, c_not_before, c_reply_to, c_content_hashes,
                      c_not_after, c_callback_urls) AS n;
    END IF;
    IF cardinality(h_commands) > 0 THEN
        PERFORM adjutant.finish_immediate(h_partitions, h_commands);
    END IF;
    IF cardinality(s_streams) > 0 THEN
        PERFORM adjutant.expect_nothing_before(s_partitions, s_streams);
    END IF;
    RETURN v_now;
END $$;

INSERT INTO adjutant.releases (migration, oldest_release) VALUES (6, '0.1.0');
