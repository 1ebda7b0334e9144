-- How far everything is. Sequential reads of a few tables, at the end of a run.
WITH heads AS (SELECT partition, max("offset") AS head FROM adjutant.events GROUP BY partition),
behind AS (
    SELECT h.head - COALESCE((SELECT max(c.reached) FROM adjutant.checkpoints c
                               WHERE c.group_name = g.name AND c.partition = h.partition), 0) AS n
      FROM heads h
     CROSS JOIN (VALUES ('projection.balances'), ('projection.statements'), ('projection.drills'))
           AS g(name))
SELECT (SELECT count(*) FROM adjutant.outcomes) AS outcomes,
       (SELECT count(*) FROM adjutant.commands) AS commands,
       (SELECT count(*) FROM adjutant.outbox) AS outbox,
       (SELECT COALESCE(sum(n), 0)::bigint FROM behind) AS behind,
       (SELECT count(*) FROM adjutant.schedule) AS scheduled,
       (SELECT count(*) FROM adjutant.holds) AS holds,
       -- Open, or being retried.
       (SELECT count(*) FROM adjutant.dead_letters WHERE state IN (1, 2)) AS letters,
       (SELECT count(*) FROM adjutant.parked_keys) AS parked,
       (SELECT count(*) FROM adjutant.suspects) AS suspects,
       -- With a process of the immediate lane.
       (SELECT count(*) FROM adjutant.immediate) AS held,
       -- Running.
       (SELECT count(*) FROM adjutant.dead_letter_jobs WHERE state = 1) AS jobs,
       (SELECT count(*) FROM adjutant.attempts)
       + (SELECT count(*) FROM adjutant.dead_letter_audit)
       + (SELECT COALESCE(sum(crashes), 0)::bigint FROM adjutant.suspects) AS happened

