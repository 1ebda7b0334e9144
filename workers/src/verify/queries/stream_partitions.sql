-- Which partitions the events of each stream are in.
SELECT DISTINCT partition, stream FROM adjutant.events
