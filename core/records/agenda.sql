-- What should happen: fires, requests, the runner's heartbeat, broker samples, who changed what.
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
    args              TEXT NOT NULL,     -- JSON object: parameters, of_run, rejects_only, to
    job_sha256        TEXT NOT NULL DEFAULT '',
    asked_by          TEXT NOT NULL,
    request_id        INTEGER,
    skipped_until     TEXT,              -- a row for many skipped fires: the last of them
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
    considered_until  TEXT NOT NULL,     -- every fire up to here has its row
    calendar          TEXT NOT NULL      -- of which calendar: cron or interval, and time zone
) STRICT;
CREATE TABLE request (
    request_id        INTEGER PRIMARY KEY AUTOINCREMENT,
    kind              TEXT NOT NULL,     -- run, replay, backfill, enable, disable, cancel, stop
    job               TEXT NOT NULL,
    run_id            TEXT,
    args              TEXT NOT NULL,     -- JSON object
    asked_by          TEXT NOT NULL,
    asked_at          TEXT NOT NULL,
    state             TEXT NOT NULL,     -- waiting, taken, done, refused, skipped (nothing ran of what was planned for it)
    taken_at          TEXT,
    finished_at       TEXT,
    answer            TEXT NOT NULL DEFAULT ''
) STRICT;
CREATE INDEX request_open ON request (state) WHERE state IN ('waiting', 'taken');
CREATE TABLE runner (
    id                INTEGER PRIMARY KEY CHECK (id = 1),
    host              TEXT NOT NULL,
    pid               INTEGER NOT NULL,
    pid_started_at    REAL NOT NULL,
    started_at        TEXT NOT NULL,
    beat_at           TEXT NOT NULL,
    version           TEXT NOT NULL,
    memory_bytes      INTEGER NOT NULL,
    memory_share      REAL NOT NULL,     -- of the machine's memory, 0 to 1
    state             TEXT NOT NULL,     -- working, stopping, stopped
    jobs_loaded       INTEGER NOT NULL,
    problems          TEXT NOT NULL      -- JSON list of {where, text, instead}
) STRICT;
CREATE TABLE broker_sample (
    cluster           TEXT NOT NULL,
    at                TEXT NOT NULL,
    connected         INTEGER NOT NULL,
    latency_ms        REAL,
    error             TEXT
) STRICT;
CREATE INDEX broker_sample_by_time ON broker_sample (at);
CREATE TABLE audit (
    audit_id          INTEGER PRIMARY KEY AUTOINCREMENT,
    at                TEXT NOT NULL,
    who               TEXT NOT NULL,
    action            TEXT NOT NULL,
    object            TEXT NOT NULL,
    before            TEXT,              -- JSON
    after             TEXT               -- JSON
) STRICT;
CREATE INDEX audit_by_time ON audit (at);
CREATE TABLE job_version (
    job               TEXT NOT NULL,
    sha256            TEXT NOT NULL,
    document          TEXT NOT NULL,
    seen_at           TEXT NOT NULL,
    saved_by          TEXT NOT NULL,     -- empty: found on disk
    PRIMARY KEY (job, sha256)
) STRICT;

-- name: schema_4
-- Which version of a job's file was in force since when. A version that comes back has another row, as `job_version` keeps one.
CREATE TABLE job_history (
    job               TEXT NOT NULL,
    since             TEXT NOT NULL,
    sha256            TEXT NOT NULL      -- of job_version, empty where the file was gone
) STRICT;
CREATE INDEX job_history_of ON job_history (job);
INSERT INTO job_history SELECT job, seen_at, sha256 FROM job_version ORDER BY seen_at, rowid

-- name: schema_5
-- A fire is called a scheduled run from here on.
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

-- name: turn_back_watermark
UPDATE watermark SET considered_until = :now WHERE job = :job

-- name: turn_back_history
UPDATE job_history SET since = :now WHERE since > :now

-- name: forget_watermark
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

-- name: insert_asked_run
INSERT INTO scheduled_run (job, kind, scheduled_at, state, reason, args, asked_by, request_id, created_at)
VALUES (:job, :kind, :scheduled_at, 'planned', '', :args, :asked_by, :request_id, :now)

-- name: forget_future_skips
DELETE FROM scheduled_run WHERE job = :job AND state = 'skipped' AND run_id IS NULL AND kind IN ('calendar', 'catch_up') AND scheduled_at > :now

-- name: cut_future_spans
UPDATE scheduled_run SET skipped_until = :now WHERE job = :job AND state = 'skipped' AND skipped_until > :now

-- name: startable
SELECT * FROM scheduled_run WHERE state IN ('planned', 'running') AND state = 'planned' AND (not_before IS NULL OR not_before <= :now)
    AND job NOT IN (SELECT job FROM scheduled_run WHERE state IN ('planned', 'running') AND state = 'running')
ORDER BY CASE kind WHEN 'request' THEN 0 WHEN 'backfill' THEN 2 ELSE 1 END, scheduled_at, scheduled_run_id

-- name: open_scheduled_runs
SELECT * FROM scheduled_run WHERE state IN ('planned', 'running') ORDER BY scheduled_run_id

-- name: running_scheduled_runs
SELECT * FROM scheduled_run WHERE state IN ('planned', 'running') AND state = 'running'

-- name: scheduled_run
SELECT * FROM scheduled_run WHERE scheduled_run_id = :scheduled_run_id

-- name: scheduled_runs
SELECT * FROM scheduled_run WHERE (:job IS NULL OR job = :job) AND scheduled_at > :after AND scheduled_at <= :until
ORDER BY scheduled_at, scheduled_run_id

-- name: first_scheduled_at
SELECT min(scheduled_at) FROM scheduled_run WHERE job = :job AND kind IN ('calendar', 'catch_up')

-- name: assign
UPDATE scheduled_run SET job_sha256 = :job_sha256 WHERE scheduled_run_id = :scheduled_run_id

-- name: finish_scheduled_run
UPDATE scheduled_run SET state = 'done', reason = '', finished_at = :now WHERE scheduled_run_id = :scheduled_run_id AND state = 'running'

-- name: repeat_scheduled_run
UPDATE scheduled_run SET state = 'planned', reason = :reason, not_before = :not_before
WHERE scheduled_run_id = :scheduled_run_id AND state IN ('planned', 'running')

-- name: skip_scheduled_run
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

-- name: insert_request
INSERT INTO request (kind, job, run_id, args, asked_by, asked_at, state)
VALUES (:kind, :job, :run_id, :args, :asked_by, :asked_at, 'waiting')

-- name: waiting_requests
SELECT * FROM request WHERE state IN ('waiting', 'taken') AND state = 'waiting' ORDER BY request_id

-- name: taken_requests
SELECT * FROM request WHERE state IN ('waiting', 'taken') AND state = 'taken' AND kind = :kind ORDER BY request_id

-- name: request
SELECT * FROM request WHERE request_id = :request_id

-- name: requests
SELECT * FROM request ORDER BY request_id DESC LIMIT :limit

-- name: take_request
UPDATE request SET state = :state, taken_at = coalesce(taken_at, :now), answer = :answer,
    finished_at = CASE WHEN :state = 'taken' THEN NULL ELSE :now END
WHERE request_id = :request_id AND state IN ('waiting', 'taken')

-- name: scheduled_runs_of_request
SELECT * FROM scheduled_run WHERE request_id = :request_id ORDER BY scheduled_at, scheduled_run_id

-- name: finish_request
UPDATE request SET state = CASE
    WHEN (SELECT min(state = 'skipped' AND run_id IS NULL) FROM scheduled_run WHERE scheduled_run.request_id = request.request_id) = 1
    THEN 'skipped' ELSE 'done' END, finished_at = :now, answer = :answer
WHERE request_id = :request_id AND state = 'taken'
    AND NOT EXISTS (SELECT 1 FROM scheduled_run WHERE scheduled_run.request_id = :request_id AND state IN ('planned', 'running'))

-- name: close_ended_requests
WITH ended AS (
    SELECT request_id, (SELECT min(state = 'skipped' AND run_id IS NULL) FROM scheduled_run WHERE scheduled_run.request_id = r.request_id) = 1 AS skipped,
        (SELECT reason FROM scheduled_run WHERE scheduled_run.request_id = r.request_id ORDER BY scheduled_run_id DESC LIMIT 1) AS reason
    FROM request r WHERE state IN ('waiting', 'taken') AND state = 'taken' AND kind <> 'dry_run'
        AND NOT EXISTS (SELECT 1 FROM scheduled_run WHERE scheduled_run.request_id = r.request_id AND scheduled_run.state IN ('planned', 'running')))
UPDATE request SET state = CASE WHEN skipped THEN 'skipped' ELSE 'done' END, finished_at = :now,
    answer = CASE WHEN skipped THEN 'skipped: ' || reason ELSE answer END
FROM ended WHERE request.request_id = ended.request_id

-- name: beat
INSERT OR REPLACE INTO runner VALUES (1, :host, :pid, :pid_started_at, :started_at, :beat_at, :version, :memory_bytes,
    :memory_share, :state, :jobs_loaded, :problems)

-- name: runner
SELECT * FROM runner WHERE id = 1

-- name: insert_broker_sample
INSERT INTO broker_sample VALUES (:cluster, :at, :connected, :latency_ms, :error)

-- name: prune_broker_samples
DELETE FROM broker_sample WHERE at < :before

-- name: broker_samples
SELECT * FROM broker_sample WHERE at >= :since AND (:cluster IS NULL OR cluster = :cluster) ORDER BY at

-- name: broker_states
-- The newest look at each cluster, and since when it has been so.
SELECT s.*, (SELECT min(at) FROM broker_sample f WHERE f.cluster = s.cluster AND f.connected = s.connected
    AND f.at > coalesce((SELECT max(at) FROM broker_sample o WHERE o.cluster = s.cluster AND o.connected <> s.connected), ''))
    AS since
FROM (SELECT cluster, connected, latency_ms, error, max(at) AS at FROM broker_sample GROUP BY cluster) s ORDER BY cluster

-- name: insert_audit
INSERT INTO audit (at, who, action, object, before, after) VALUES (:at, :who, :action, :object, :before, :after)

-- name: audit_trail
SELECT * FROM audit WHERE (:object IS NULL OR object = :object) ORDER BY audit_id DESC LIMIT :limit

-- name: insert_job_version
INSERT INTO job_version VALUES (:job, :sha256, :document, :seen_at, :saved_by)
ON CONFLICT (job, sha256) DO UPDATE SET seen_at = excluded.seen_at

-- name: job_version
SELECT * FROM job_version WHERE job = :job AND sha256 = :sha256

-- name: newest_job_version
SELECT * FROM job_version WHERE job = :job ORDER BY seen_at DESC, rowid DESC LIMIT 1

-- name: job_versions
SELECT * FROM job_version WHERE job = :job ORDER BY seen_at DESC, rowid DESC

-- name: add_to_history
INSERT INTO job_history SELECT :job, :since, :sha256
WHERE coalesce((SELECT sha256 FROM job_history WHERE job = :job ORDER BY rowid DESC LIMIT 1), '') <> :sha256

-- name: job_history
SELECT since, document FROM job_history LEFT JOIN job_version USING (job, sha256) WHERE job_history.job = :job
ORDER BY job_history.rowid

-- name: in_force
-- SQLite takes the other columns from the row with the maximum.
SELECT job, sha256, max(rowid) FROM job_history WHERE :job IS NULL OR job = :job GROUP BY job

-- name: insert_connections_version
INSERT INTO connections_version VALUES (:sha256, :document, :seen_at, :saved_by)
ON CONFLICT (sha256) DO UPDATE SET seen_at = excluded.seen_at

-- name: connections_versions
SELECT * FROM connections_version ORDER BY seen_at DESC, rowid DESC
