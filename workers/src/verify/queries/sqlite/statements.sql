-- The documents of the view `statements`, account by account and entry by entry.
SELECT substr(key, 1, instr(key || '/', '/') - 1) AS account, key, partition, version, value, as_of
  FROM adjutant.views
 WHERE view = 'statements' AND value IS NOT NULL
 ORDER BY account, length(key), key
