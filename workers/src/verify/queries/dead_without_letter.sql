-- Dead commands that nobody is told of.
SELECT o.partition, o.command_id
  FROM adjutant.outcomes o
 WHERE o.status = 3
   AND NOT EXISTS (SELECT 1 FROM adjutant.dead_letters d
                    WHERE d.command_id = o.command_id AND d.partition = o.partition
                      AND d.kind = 1)
