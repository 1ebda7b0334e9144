-- Commands that ended other than dead, and still hold their stream.
SELECT h.stream, h.first_offset, h.command_id
  FROM adjutant.holds h
  JOIN adjutant.outcomes o ON o.partition = h.partition AND o.command_id = h.command_id
 WHERE o.status <> 3
