-- Backfills: ranges of scheduled times that a user asked for. Their runs are rows of scheduled_run with the same request.
-- Times are UTC, ISO 8601 text, so that they sort. The schema is split at semicolons: none in its comments.

-- name: schema_8
CREATE TABLE backfill (
    backfill_id       INTEGER PRIMARY KEY,  -- the number of its request
    job               TEXT NOT NULL,
    timezone          TEXT NOT NULL,        -- of the job, then
    first_day         TEXT NOT NULL,        -- in that zone
    last_day          TEXT NOT NULL,
    again             INTEGER NOT NULL,     -- 1: also times that have a succeeded run
    parallel          INTEGER NOT NULL,     -- most runs at once
    run_order         TEXT NOT NULL,        -- oldest, newest: which scheduled time is first
    state             TEXT NOT NULL,        -- running, paused, cancelled, done
    asked_by          TEXT NOT NULL,
    created_at        TEXT NOT NULL,
    measured_since    TEXT NOT NULL,        -- its speed is measured from here: its begin, a resume, the start of a runner
    finished_at       TEXT,
    summary           TEXT NOT NULL DEFAULT ''
) STRICT;
CREATE INDEX backfill_open ON backfill (backfill_id) WHERE finished_at IS NULL;
-- A partial index is used only where a statement repeats its condition word for word.
CREATE INDEX scheduled_run_of_backfill ON scheduled_run (request_id, state, scheduled_at) WHERE kind = 'backfill';
-- Backfills of earlier versions had no row, and at first no request. What was planned then runs, as it did, also where it was sent before.
INSERT INTO request (kind, job, args, asked_by, asked_at, state, taken_at, answer)
SELECT 'backfill', job, json_object('from', substr(min(scheduled_at), 1, 10), 'to', substr(max(scheduled_at), 1, 10), 'again', json('true')),
    min(asked_by), min(created_at), 'taken', min(created_at), count(*) || ' runs planned'
FROM scheduled_run WHERE kind = 'backfill' AND request_id IS NULL AND state IN ('planned', 'running') GROUP BY job;
UPDATE scheduled_run SET request_id = (SELECT max(request_id) FROM request WHERE request.kind = 'backfill' AND request.state = 'taken'
    AND request.job = scheduled_run.job)
WHERE kind = 'backfill' AND request_id IS NULL AND state IN ('planned', 'running');
INSERT INTO backfill
SELECT request_id, job, coalesce((SELECT timezone FROM run WHERE run.job = request.job ORDER BY rowid DESC LIMIT 1), 'UTC'),
    coalesce(json_extract(args, '$.from'), ''), coalesce(json_extract(args, '$.to'), ''),
    coalesce(json_extract(args, '$.again'), 0), 1, 'oldest', CASE state WHEN 'taken' THEN 'running' ELSE 'done' END,
    asked_by, asked_at, asked_at, CASE state WHEN 'taken' THEN NULL ELSE coalesce(finished_at, asked_at) END, answer
FROM request WHERE kind = 'backfill' AND state IN ('taken', 'done', 'skipped')

-- name: insert
INSERT INTO backfill (backfill_id, job, timezone, first_day, last_day, again, parallel, run_order, state, asked_by, created_at, measured_since)
VALUES (:backfill_id, :job, :timezone, :first_day, :last_day, :again, :parallel, :run_order, 'running', :asked_by, :now, :now)

-- name: backfill
SELECT * FROM backfill WHERE backfill_id = :backfill_id

-- name: newest
SELECT * FROM backfill ORDER BY finished_at IS NULL DESC, backfill_id DESC LIMIT :limit OFFSET :offset

-- name: ended_after
SELECT * FROM backfill WHERE finished_at > :after AND state = 'done' ORDER BY finished_at, backfill_id

-- name: count
SELECT count(*) FROM backfill

-- name: unfinished
SELECT * FROM backfill WHERE finished_at IS NULL ORDER BY backfill_id

-- name: ended
SELECT * FROM backfill WHERE finished_at IS NULL AND NOT EXISTS (SELECT 1 FROM scheduled_run
    WHERE kind = 'backfill' AND request_id = backfill_id AND scheduled_run.state IN ('planned', 'running')) ORDER BY backfill_id

-- name: next_oldest
SELECT * FROM scheduled_run WHERE kind = 'backfill' AND request_id = :backfill_id AND state = 'planned'
    AND (not_before IS NULL OR not_before <= :now) ORDER BY scheduled_at LIMIT :limit

-- name: next_newest
SELECT * FROM scheduled_run WHERE kind = 'backfill' AND request_id = :backfill_id AND state = 'planned'
    AND (not_before IS NULL OR not_before <= :now) ORDER BY scheduled_at DESC LIMIT :limit

-- name: set_state
-- The summary of a backfill that has not ended is why it paused by itself, if it did.
UPDATE backfill SET state = :state, measured_since = :now, summary = :why WHERE backfill_id = :backfill_id AND finished_at IS NULL AND state = :before

-- name: newest_ends
SELECT state = 'failed' AND error_retriable FROM run WHERE finished_at IS NOT NULL AND state NOT IN ('interrupted', 'cancelled')
    AND scheduled_run_id IN (SELECT scheduled_run_id FROM scheduled_run WHERE kind = 'backfill' AND request_id = :backfill_id)
ORDER BY finished_at DESC, rowid DESC LIMIT :limit

-- name: measure_from
UPDATE backfill SET measured_since = :now WHERE finished_at IS NULL

-- name: skip_planned
UPDATE scheduled_run SET state = 'skipped', reason = :reason, finished_at = :now
WHERE kind = 'backfill' AND request_id = :backfill_id AND state = 'planned'

-- name: was_sent
-- Another run has sent it since the backfill was asked for.
s.reason LIKE 'run % has sent it before'

-- name: counts
SELECT count(*) AS total,
    count(*) FILTER (WHERE s.state = 'planned') AS waiting,
    count(*) FILTER (WHERE s.state = 'running') AS running,
    count(*) FILTER (WHERE s.state = 'done' AND r.state = 'succeeded') AS complete,
    count(*) FILTER (WHERE s.state = 'done' AND r.state = 'succeeded' AND r.rejected > 0) AS with_rejects,
    count(*) FILTER (WHERE s.state = 'done' AND r.state <> 'succeeded') AS failed,
    count(*) FILTER (WHERE s.state = 'skipped') AS skipped,
    count(*) FILTER (WHERE s.state = 'skipped' AND {was_sent}) AS sent_before,
    coalesce(sum(r.acknowledged), 0) AS acknowledged,
    count(*) FILTER (WHERE s.state = 'done' AND s.finished_at > :since) AS measured,
    max(s.finished_at) FILTER (WHERE s.state = 'done' AND s.finished_at > :since) AS measured_until
FROM scheduled_run s LEFT JOIN run r ON r.run_id = s.run_id
WHERE s.kind = 'backfill' AND s.request_id = :backfill_id

-- name: incomplete
SELECT s.scheduled_at, coalesce(r.state, s.state) AS state, s.run_id, coalesce(r.error_text, s.reason) AS why
FROM scheduled_run s LEFT JOIN run r ON r.run_id = s.run_id
WHERE s.kind = 'backfill' AND s.request_id = :backfill_id
    AND (s.state = 'skipped' AND NOT {was_sent} OR s.state = 'done' AND r.state <> 'succeeded')
ORDER BY s.scheduled_at LIMIT :limit

-- name: run_ids
SELECT run_id FROM scheduled_run WHERE kind = 'backfill' AND request_id = :backfill_id AND state = 'running' AND run_id IS NOT NULL

-- name: close
UPDATE backfill SET state = CASE state WHEN 'cancelled' THEN 'cancelled' ELSE 'done' END, finished_at = :now, summary = :summary
WHERE backfill_id = :backfill_id AND finished_at IS NULL
    AND NOT EXISTS (SELECT 1 FROM scheduled_run WHERE kind = 'backfill' AND request_id = :backfill_id AND state IN ('planned', 'running'))
