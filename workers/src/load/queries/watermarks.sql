-- How far everything is: the ends of the logs, and how far each group has finished them. Index
-- lookups only, so that asking often costs little.
SELECT COALESCE(sum((SELECT "offset" FROM adjutant.command_log l WHERE l.partition = p
                      ORDER BY "offset" DESC LIMIT 1)), 0)::bigint AS commands,
       COALESCE(sum((SELECT reached FROM adjutant.checkpoints c
                      WHERE c.group_name = 'commands' AND c.partition = p
                      ORDER BY previous DESC LIMIT 1)), 0)::bigint AS executed,
       COALESCE(sum((SELECT "offset" FROM adjutant.events e WHERE e.partition = p
                      ORDER BY "offset" DESC LIMIT 1)), 0)::bigint AS events,
       COALESCE(sum((SELECT reached FROM adjutant.checkpoints c
                      WHERE c.group_name = 'projection.balances' AND c.partition = p
                      ORDER BY previous DESC LIMIT 1)), 0)::bigint AS balances,
       COALESCE(sum((SELECT reached FROM adjutant.checkpoints c
                      WHERE c.group_name = 'projection.statements' AND c.partition = p
                      ORDER BY previous DESC LIMIT 1)), 0)::bigint AS statements
  FROM adjutant.log_identity i, generate_series(0, i.partitions - 1) AS series(n),
       LATERAL (SELECT n::smallint AS p) AS partition
