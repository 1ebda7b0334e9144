-- Entries of the command logs that belong to no command, or to one of another partition.
SELECT l.partition, l."offset", l.command_id
  FROM adjutant.command_log l
  LEFT JOIN adjutant.commands c ON c.id = l.command_id
 WHERE c.id IS NULL OR c.partition <> l.partition
