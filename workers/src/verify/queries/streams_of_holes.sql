-- The streams whose events were at these places, by the outcomes that name them.
SELECT DISTINCT c.stream
  FROM jsonb_to_recordset($1) AS hole(partition smallint, first bigint, last bigint)
  JOIN adjutant.outcomes o
    ON o.partition = hole.partition AND o.status = 1
   AND o.first_offset <= hole.last AND o.first_offset + o.events > hole.first
  JOIN adjutant.commands c ON c.id = o.command_id
