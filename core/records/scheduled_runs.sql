-- Scheduled runs, and up to when each calendar has been planned.
-- Times are UTC, ISO 8601 text, so that they sort. The schema is split at semicolons: none in its comments.

-- name: schema
CREATE TABLE fire (
    fire_id           INTEGER PRIMARY KEY AUTOINCREMENT,
    job               TEXT NOT NULL,
    kind              TEXT NOT NULL,     -- calendar, catch_up, backfill, request
    scheduled_at      TEXT NOT NULL,
    state             TEXT NOT NULL,     -- planned, running, done, skipped: the verdict is the run's
    reason            TEXT NOT NULL,     -- why it was skipped, or why it waits
    run_id            TEXT,              -- its newest run
    tries             INTEGER NOT NULL DEFAULT 0,
    not_before        TEXT,              -- when it is tried again
    args              TEXT NOT NULL,     -- JSON object: parameters, of_run, rejects_only, to, keys
    job_sha256        TEXT NOT NULL DEFAULT '',
    asked_by          TEXT NOT NULL,
    request_id        INTEGER,
    skipped_until     TEXT,              -- last of many skipped times in one row
    skipped_count     INTEGER NOT NULL DEFAULT 1,
    created_at        TEXT NOT NULL,
    finished_at       TEXT
) STRICT;
CREATE UNIQUE INDEX fire_once ON fire (job, scheduled_at) WHERE kind IN ('calendar', 'catch_up');
-- A partial index is used only where a statement repeats its condition word for word.
CREATE INDEX fire_open ON fire (state, job) WHERE state IN ('planned', 'running');
CREATE INDEX fire_by_time ON fire (scheduled_at);
CREATE INDEX fire_of_request ON fire (request_id) WHERE request_id IS NOT NULL;
CREATE TABLE watermark (
    job               TEXT PRIMARY KEY,
    considered_until  TEXT NOT NULL,     -- every scheduled time up to here has its row
    calendar          TEXT NOT NULL      -- of which calendar: cron or interval, and time zone
) STRICT

-- name: schema_5
-- From this version on a fire is called a scheduled run.
ALTER TABLE fire RENAME TO scheduled_run;
ALTER TABLE scheduled_run RENAME COLUMN fire_id TO scheduled_run_id;
ALTER TABLE run RENAME COLUMN fire_id TO scheduled_run_id;
DROP INDEX fire_once;
DROP INDEX fire_open;
DROP INDEX fire_by_time;
DROP INDEX fire_of_request;
DROP INDEX fire_by_end;
DROP INDEX run_of_fire;
DROP INDEX run_by_fire;
CREATE UNIQUE INDEX scheduled_run_once ON scheduled_run (job, scheduled_at) WHERE kind IN ('calendar', 'catch_up');
-- A partial index is used only where a statement repeats its condition word for word.
CREATE INDEX scheduled_run_open ON scheduled_run (state, job) WHERE state IN ('planned', 'running');
CREATE INDEX scheduled_run_by_time ON scheduled_run (scheduled_at);
CREATE INDEX scheduled_run_of_request ON scheduled_run (request_id) WHERE request_id IS NOT NULL;
CREATE INDEX scheduled_run_by_end ON scheduled_run (finished_at);
CREATE INDEX run_of_scheduled_run ON run (scheduled_run_id);
CREATE INDEX run_by_scheduled_time ON run (job, scheduled_at)

-- name: watermarks
SELECT * FROM watermark

-- name: set_watermark
INSERT INTO watermark VALUES (:job, :considered_until, :calendar)
ON CONFLICT (job) DO UPDATE SET considered_until = excluded.considered_until, calendar = excluded.calendar

-- name: rewind_watermark
UPDATE watermark SET considered_until = :now WHERE job = :job

-- name: rewind_history
UPDATE job_history SET since = :now WHERE since > :now

-- name: delete_watermark
DELETE FROM watermark WHERE job = :job

-- name: insert_calendar_run
INSERT INTO scheduled_run (job, kind, scheduled_at, state, reason, args, asked_by, skipped_until, skipped_count, created_at, finished_at)
SELECT :job, :kind, :scheduled_at, CASE WHEN busy THEN 'skipped' ELSE :state END,
       CASE WHEN busy THEN 'the one before it was still ' || busy_state || '; "overlap" is skip' ELSE :reason END,
       '{}', 'calendar', :skipped_until, :skipped_count, :now, CASE WHEN busy OR :state = 'skipped' THEN :now END
FROM (SELECT count(*) > 0 AS busy, coalesce(max(CASE state WHEN 'running' THEN 'running' ELSE 'waiting' END), '') AS busy_state
      FROM scheduled_run WHERE :overlap = 'skip' AND :kind = 'calendar' AND :state = 'planned' AND job = :job
          AND state IN ('planned', 'running') AND kind IN ('calendar', 'request') AND (not_before IS NULL OR not_before <= :now))
WHERE true
ON CONFLICT DO NOTHING

-- name: insert_requested_run
INSERT INTO scheduled_run (job, kind, scheduled_at, state, reason, args, asked_by, request_id, created_at)
VALUES (:job, :kind, :scheduled_at, 'planned', '', :args, :asked_by, :request_id, :now)

-- name: delete_future_skips
DELETE FROM scheduled_run WHERE job = :job AND state = 'skipped' AND run_id IS NULL AND kind IN ('calendar', 'catch_up') AND scheduled_at > :now

-- name: cut_future_spans
UPDATE scheduled_run SET skipped_until = :now WHERE job = :job AND state = 'skipped' AND skipped_until > :now

-- name: startable
SELECT * FROM scheduled_run WHERE state IN ('planned', 'running') AND state = 'planned' AND (not_before IS NULL OR not_before <= :now)
    AND kind <> 'backfill'
    AND job NOT IN (SELECT job FROM scheduled_run WHERE state IN ('planned', 'running') AND state = 'running' AND kind <> 'backfill')
ORDER BY CASE kind WHEN 'request' THEN 0 ELSE 1 END, scheduled_at, scheduled_run_id

-- name: unfinished
SELECT * FROM scheduled_run WHERE state IN ('planned', 'running') ORDER BY scheduled_run_id

-- name: running
SELECT * FROM scheduled_run WHERE state IN ('planned', 'running') AND state = 'running'

-- name: scheduled_run
SELECT * FROM scheduled_run WHERE scheduled_run_id = :scheduled_run_id

-- name: between
SELECT * FROM scheduled_run WHERE (:job IS NULL OR job = :job) AND scheduled_at > :after AND scheduled_at <= :until
ORDER BY scheduled_at, scheduled_run_id

-- name: of_request
SELECT * FROM scheduled_run WHERE request_id = :request_id ORDER BY scheduled_at, scheduled_run_id

-- name: first_scheduled_at
SELECT min(scheduled_at) FROM scheduled_run WHERE job = :job AND kind IN ('calendar', 'catch_up')

-- name: assign
UPDATE scheduled_run SET job_sha256 = :job_sha256 WHERE scheduled_run_id = :scheduled_run_id

-- name: finish
UPDATE scheduled_run SET state = 'done', reason = '', finished_at = :now WHERE scheduled_run_id = :scheduled_run_id AND state = 'running'

-- name: requeue
UPDATE scheduled_run SET state = 'planned', reason = :reason, not_before = :not_before
WHERE scheduled_run_id = :scheduled_run_id AND state IN ('planned', 'running')

-- name: wait
UPDATE scheduled_run SET reason = :reason, not_before = :not_before WHERE scheduled_run_id = :scheduled_run_id AND state = 'planned'

-- name: skip
UPDATE scheduled_run SET state = 'skipped', reason = :reason, finished_at = :now WHERE scheduled_run_id = :scheduled_run_id AND state = 'planned'

-- name: skip_planned_of_job
UPDATE scheduled_run SET state = 'skipped', reason = :reason, finished_at = :now WHERE state IN ('planned', 'running') AND job = :job AND state = 'planned'

-- name: skip_calendar_of_job
UPDATE scheduled_run SET state = 'skipped', reason = :reason, finished_at = :now
WHERE state IN ('planned', 'running') AND job = :job AND state = 'planned' AND kind IN ('calendar', 'catch_up')

-- name: succeeded_times
SELECT DISTINCT scheduled_at FROM run WHERE job = :job AND state = 'succeeded' AND kind = 'job'
    AND scheduled_at > :after AND scheduled_at <= :until

-- name: planned_times
SELECT DISTINCT scheduled_at FROM scheduled_run WHERE job = :job AND state IN ('planned', 'running')
    AND scheduled_at > :after AND scheduled_at <= :until
