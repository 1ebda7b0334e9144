-- Strict commands that wait, although nothing of their stream stands before them.
SELECT h.partition, h.stream, h.first_offset, h.command_id
  FROM adjutant.holds h
 WHERE h.state = 2
   AND NOT EXISTS (SELECT 1 FROM adjutant.holds l
                    WHERE l.partition = h.partition AND l.stream = h.stream
                      AND l.first_offset < h.first_offset)
