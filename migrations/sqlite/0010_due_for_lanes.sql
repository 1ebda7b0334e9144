-- Commands of the schedule that a process with an immediate lane claims when they are due: `reason` is
-- 'immediate'. What nobody claims in time, a relay takes.
CREATE INDEX schedule_for_lanes ON schedule (partition, due_at, id) WHERE reason = 'immediate';
