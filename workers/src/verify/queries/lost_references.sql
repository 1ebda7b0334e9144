-- Events that wait for a document which is not parked, or that are not there.
SELECT r.group_name, r.key, r.partition, r."offset"
  FROM adjutant.parked_references r
 WHERE NOT EXISTS (SELECT 1 FROM adjutant.events e
                    WHERE e.partition = r.partition AND e."offset" = r."offset")
    OR NOT EXISTS (SELECT 1 FROM adjutant.parked_keys k
                    WHERE k.group_name = r.group_name AND k.generation = r.generation
                      AND k.scope = 2 AND k.key = r.key)
 ORDER BY r.group_name, r.key, r.partition, r."offset"
