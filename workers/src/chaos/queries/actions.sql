-- What people did with dead letters. Reads a whole table.
SELECT dead_letter_id AS letter, action AS word, reason
  FROM adjutant.dead_letter_audit
 ORDER BY id
