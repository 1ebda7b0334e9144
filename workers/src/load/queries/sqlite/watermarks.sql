-- How far everything is: the ends of the logs, and how far each group has finished them. Index
-- lookups only, so that asking often costs little.
WITH RECURSIVE partition(p) AS (
    SELECT 0
    UNION ALL
    SELECT p + 1 FROM partition, adjutant.log_identity i WHERE p + 1 < i.partitions)
SELECT COALESCE(sum((SELECT max("offset") FROM adjutant.command_log l WHERE l.partition = p)), 0)
           AS commands,
       COALESCE(sum((SELECT reached FROM adjutant.checkpoints c
                      WHERE c.group_name = 'commands' AND c.partition = p)), 0) AS executed,
       COALESCE(sum((SELECT max("offset") FROM adjutant.events e WHERE e.partition = p)), 0)
           AS events,
       COALESCE(sum((SELECT reached FROM adjutant.checkpoints c
                      WHERE c.group_name = 'projection.balances' AND c.partition = p)), 0)
           AS balances,
       COALESCE(sum((SELECT reached FROM adjutant.checkpoints c
                      WHERE c.group_name = 'projection.statements' AND c.partition = p)), 0)
           AS statements
  FROM partition
