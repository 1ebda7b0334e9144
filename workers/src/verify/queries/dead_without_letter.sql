-- Dead commands that nobody is told of. Before migration 2 nothing was dead with a letter, nor with a
-- failed attempt on record.
SELECT o.partition, o.command_id, false AS may_be_old
  FROM adjutant.outcomes o
 WHERE o.status = 3
   AND NOT EXISTS (SELECT 1 FROM adjutant.dead_letters d
                    WHERE d.command_id = o.command_id AND d.partition = o.partition
                      AND d.kind = 1)
   AND (EXISTS (SELECT 1 FROM adjutant.attempts a
                 WHERE a.partition = o.partition AND a.command_id = o.command_id)
        OR o.completed_at >= COALESCE((SELECT m.installed_on FROM adjutant._sqlx_migrations m
                                        WHERE m.version = 2), '-infinity'))
