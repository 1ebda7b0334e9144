-- For each projection, how many events its checkpoints are behind the heads of the logs. A hint
-- for people: views that are not finished differ from the fold.
SELECT g.group_name,
       CAST(sum(CASE WHEN h.head > g.reached THEN h.head - g.reached ELSE 0 END) AS bigint) AS behind
  FROM (SELECT group_name, partition, max(reached) AS reached
          FROM adjutant.checkpoints WHERE group_name <> 'commands'
         GROUP BY group_name, partition) AS g
  JOIN (SELECT partition, max("offset") AS head FROM adjutant.events GROUP BY partition) AS h
    ON h.partition = g.partition
 GROUP BY g.group_name
