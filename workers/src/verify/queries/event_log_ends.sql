-- For each partition, the last entry of the event log, and the last that somebody has seen: an
-- outcome that names it (in its command's partition), or a group that has applied it.
SELECT partition, COALESCE(max(present), 0) AS present, COALESCE(max(seen), 0) AS seen
  FROM (SELECT partition, max("offset") AS present, CAST(NULL AS bigint) AS seen
          FROM adjutant.events GROUP BY partition
        UNION ALL
        SELECT o.partition, NULL, max(o.first_offset + o.events - 1)
          FROM adjutant.outcomes o LEFT JOIN adjutant.commands c ON c.id = o.command_id
         WHERE o.status = 1 AND o.events > 0 AND (c.id IS NULL OR c.partition = o.partition)
         GROUP BY o.partition
        UNION ALL
        SELECT partition, NULL, max(reached)
          FROM adjutant.checkpoints WHERE group_name <> 'commands' GROUP BY partition) AS ends
 GROUP BY partition
 ORDER BY partition
