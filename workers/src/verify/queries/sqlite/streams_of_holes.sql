-- The streams whose events were at these places, by the outcomes that name them.
WITH hole AS MATERIALIZED (
    SELECT value ->> 'partition' AS partition, value ->> 'first' AS first, value ->> 'last' AS last
      FROM json_each(?1))
SELECT DISTINCT c.stream
  FROM hole
  JOIN adjutant.outcomes o
    ON o.partition = hole.partition AND o.status = 1
   AND o.first_offset <= hole.last AND o.first_offset + o.events > hole.first
  JOIN adjutant.commands c ON c.id = o.command_id
