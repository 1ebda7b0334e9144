-- Every command of these accounts that has not ended is dead, with a dead letter of one of 50 causes.
WITH died AS (
    INSERT INTO adjutant.outcomes (partition, command_id, status, events, version, error, attempts,
                                   completed_at)
    SELECT c.partition, c.id, 3, 0, 0,
           jsonb_build_object('code', 'error_' || abs(hashtext(c.id::text)) % 50,
                              'message', 'no answer from the clearing house within 2,000 ms',
                              'sources', jsonb_build_array('connection reset by peer (os error 104)')),
           4, c.accepted_at
      FROM adjutant.commands c
     WHERE c.stream LIKE 'account/dead-%'
       AND NOT EXISTS (SELECT 1 FROM adjutant.outcomes o
                        WHERE o.partition = c.partition AND o.command_id = c.id)
    RETURNING *),
finished AS (
    INSERT INTO adjutant.checkpoints (group_name, partition, previous, reached)
    SELECT 'commands', h.partition, h.reached, h.head
      FROM (SELECT l.partition, max(l."offset") AS head,
                   COALESCE((SELECT max(k.reached) FROM adjutant.checkpoints k
                              WHERE k.group_name = 'commands' AND k.partition = l.partition), 0)
                       AS reached
              FROM adjutant.command_log l GROUP BY l.partition) AS h
     WHERE h.head > h.reached)
INSERT INTO adjutant.dead_letters (partition, id, kind, group_name, key, type, command_id, "offset",
                                   error, fingerprint, attempts, died_at, state_at)
SELECT d.partition, gen_random_uuid(), 1, 'commands', c.stream, c.type, c.id, l."offset", d.error,
       left(md5(d.error ->> 'code'), 16), d.attempts, d.completed_at, d.completed_at
  FROM died d
  JOIN adjutant.commands c ON c.id = d.command_id
  JOIN adjutant.command_log l ON l.partition = d.partition AND l.command_id = d.command_id
