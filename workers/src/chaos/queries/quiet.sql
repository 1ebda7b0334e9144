-- How far everything is: outcomes are counted before commands, both only grow. Sequential reads of
-- a few tables, at the end of a run.
WITH ended AS MATERIALIZED (SELECT count(*) AS n FROM adjutant.outcomes),
heads AS (SELECT partition, max("offset") AS head FROM adjutant.events GROUP BY partition),
behind AS (
    SELECT h.head - COALESCE((SELECT max(c.reached) FROM adjutant.checkpoints c
                               WHERE c.group_name = g.name AND c.partition = h.partition), 0) AS n
      FROM heads h
     CROSS JOIN (VALUES ('projection.balances'), ('projection.statements')) AS g(name))
SELECT ended.n AS outcomes,
       (SELECT count(*) FROM adjutant.commands) AS commands,
       (SELECT count(*) FROM adjutant.outbox) AS outbox,
       (SELECT COALESCE(sum(n), 0)::bigint FROM behind) AS behind
  FROM ended
