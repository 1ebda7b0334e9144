-- Keys that are parked, with the state of their dead letters.
SELECT k.group_name, k.scope, k.key, k.cursor, k.state, l.state AS letter_state
  FROM adjutant.parked_keys k
  LEFT JOIN adjutant.dead_letters l ON l.id = k.dead_letter_id AND l.kind = 2
 ORDER BY k.group_name, k.scope, k.key
