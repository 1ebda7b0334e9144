-- Dead commands that nobody is told of. When migration 2 was applied, a file does not tell: what has
-- no failed attempt on record, either, may have died before.
SELECT o.partition, o.command_id,
       NOT EXISTS (SELECT 1 FROM adjutant.attempts a
                    WHERE a.partition = o.partition AND a.command_id = o.command_id) AS may_be_old
  FROM adjutant.outcomes o
 WHERE o.status = 3
   AND NOT EXISTS (SELECT 1 FROM adjutant.dead_letters d
                    WHERE d.command_id = o.command_id AND d.partition = o.partition
                      AND d.kind = 1)
