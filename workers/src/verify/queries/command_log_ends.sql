-- For each partition, the last entry of the command log, and the last that the executor has seen.
SELECT partition, COALESCE(max(present), 0) AS present, COALESCE(max(seen), 0) AS seen
  FROM (SELECT partition, max("offset") AS present, CAST(NULL AS bigint) AS seen
          FROM adjutant.command_log GROUP BY partition
        UNION ALL
        SELECT partition, NULL, max(reached)
          FROM adjutant.checkpoints WHERE group_name = 'commands' GROUP BY partition) AS ends
 GROUP BY partition
 ORDER BY partition
