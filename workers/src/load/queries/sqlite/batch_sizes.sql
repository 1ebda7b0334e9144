-- How many commands a transaction accepted, and how many it executed, on average, since a moment:
-- all rows of one transaction carry one time. And how many events a view's transaction took: its
-- checkpoints carry one time, too.
SELECT (SELECT CAST(count(*) AS real) / NULLIF(count(DISTINCT accepted_at), 0)
          FROM adjutant.commands WHERE accepted_at >= ?1) AS accepted,
       (SELECT CAST(count(*) AS real) / NULLIF(count(DISTINCT completed_at), 0)
          FROM adjutant.outcomes WHERE completed_at >= ?1) AS executed,
       (SELECT avg(events)
          FROM (SELECT sum(reached - previous) AS events FROM adjutant.checkpoints
                 WHERE group_name LIKE 'projection.%' AND moved_at >= ?1
                 GROUP BY group_name, moved_at) AS transactions) AS projected
