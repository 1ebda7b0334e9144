-- How many commands a transaction accepted, and how many it executed, on average, since a moment:
-- all rows of one transaction carry one time. A checkpoint keeps no trace of its moves, so nobody
-- knows how many events a view's transaction took.
SELECT (SELECT CAST(count(*) AS real) / NULLIF(count(DISTINCT accepted_at), 0)
          FROM adjutant.commands WHERE accepted_at >= ?1) AS accepted,
       (SELECT CAST(count(*) AS real) / NULLIF(count(DISTINCT completed_at), 0)
          FROM adjutant.outcomes WHERE completed_at >= ?1) AS executed,
       NULL AS projected
