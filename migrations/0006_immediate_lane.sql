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
    v_finished bigint;
BEGIN
    PERFORM 1 FROM unnest(p_partitions, p_commands) AS f(p, id)
     CROSS JOIN LATERAL (SELECT 1 FROM adjutant.immediate i
                          WHERE i.partition = f.p AND i.command_id = f.id FOR UPDATE) AS locked;
    DELETE FROM adjutant.immediate i
     USING unnest(p_partitions, p_commands) AS f(p, id)
     WHERE i.partition = f.p AND i.command_id = f.id;
    GET DIAGNOSTICS v_finished = ROW_COUNT;
    IF v_finished <> cardinality(p_commands) THEN
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

INSERT INTO adjutant.releases (migration, oldest_release) VALUES (6, '0.1.0');
