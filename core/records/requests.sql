-- Requests to the runner, from the page, REST and the command line.
-- Times are UTC, ISO 8601 text, so that they sort. The schema is split at semicolons: none in its comments.

-- name: schema
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
CREATE INDEX request_open ON request (state) WHERE state IN ('waiting', 'taken')

-- name: insert
INSERT INTO request (kind, job, run_id, args, asked_by, asked_at, state)
VALUES (:kind, :job, :run_id, :args, :asked_by, :asked_at, 'waiting')

-- name: waiting
SELECT * FROM request WHERE state IN ('waiting', 'taken') AND state = 'waiting' ORDER BY request_id

-- name: taken
SELECT * FROM request WHERE state IN ('waiting', 'taken') AND state = 'taken' AND kind = :kind ORDER BY request_id

-- name: request
SELECT * FROM request WHERE request_id = :request_id

-- name: newest
SELECT * FROM request ORDER BY request_id DESC LIMIT :limit

-- name: answer
UPDATE request SET state = :state, taken_at = coalesce(taken_at, :now), answer = :answer,
    finished_at = CASE WHEN :state = 'taken' THEN NULL ELSE :now END
WHERE request_id = :request_id AND state IN ('waiting', 'taken')

-- name: finish
UPDATE request SET state = CASE
    WHEN (SELECT min(state = 'skipped' AND run_id IS NULL) FROM scheduled_run WHERE scheduled_run.request_id = request.request_id) = 1
    THEN 'skipped' ELSE 'done' END, finished_at = :now, answer = :answer
WHERE request_id = :request_id AND state = 'taken'
    AND NOT EXISTS (SELECT 1 FROM scheduled_run WHERE scheduled_run.request_id = :request_id AND state IN ('planned', 'running'))

-- name: close_ended
WITH ended AS (
    SELECT request_id, (SELECT min(state = 'skipped' AND run_id IS NULL) FROM scheduled_run WHERE scheduled_run.request_id = r.request_id) = 1 AS skipped,
        (SELECT reason FROM scheduled_run WHERE scheduled_run.request_id = r.request_id ORDER BY scheduled_run_id DESC LIMIT 1) AS reason
    FROM request r WHERE state IN ('waiting', 'taken') AND state = 'taken' AND kind <> 'dry_run'
        AND NOT EXISTS (SELECT 1 FROM scheduled_run WHERE scheduled_run.request_id = r.request_id AND scheduled_run.state IN ('planned', 'running')))
UPDATE request SET state = CASE WHEN skipped THEN 'skipped' ELSE 'done' END, finished_at = :now,
    answer = CASE WHEN skipped THEN 'skipped: ' || reason ELSE answer END
FROM ended WHERE request.request_id = ended.request_id
