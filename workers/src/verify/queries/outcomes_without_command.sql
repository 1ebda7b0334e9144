-- Outcomes that belong to no command, or are kept in another partition than it.
SELECT o.command_id, o.partition, c.partition AS command_partition
  FROM adjutant.outcomes o LEFT JOIN adjutant.commands c ON c.id = o.command_id
 WHERE c.id IS NULL OR c.partition <> o.partition
