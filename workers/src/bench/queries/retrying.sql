-- Since $1: commands of accounts, how many of them have ended, and drills; from the first one accepted
-- until the last one of an account had ended, in seconds; and attempts that had failed by then. Index
-- commands_newest; each outcome by its key.
WITH sent AS (
    SELECT c.partition, c.id, c.type LIKE 'account.%' AS healthy, c.accepted_at
      FROM adjutant.commands c
     WHERE c.accepted_at >= $1),
ended AS (
    SELECT count(*) AS count, max(o.completed_at) AS at
      FROM sent s JOIN adjutant.outcomes o ON o.partition = s.partition AND o.command_id = s.id
     WHERE s.healthy)
SELECT count(*) FILTER (WHERE s.healthy),
       (SELECT e.count FROM ended e),
       count(*) FILTER (WHERE NOT s.healthy),
       COALESCE(extract(epoch FROM (SELECT e.at FROM ended e) - min(s.accepted_at)), 0)::float8,
       (SELECT count(*) FROM adjutant.attempts a
         WHERE a.failed_at BETWEEN $1 AND (SELECT e.at FROM ended e))
  FROM sent s
