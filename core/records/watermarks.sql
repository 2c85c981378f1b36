-- Incremental jobs: up to which position of its cursor each has sent its rows, and which rows each run has read.
-- Positions are text with every digit of the database. The schema is split at semicolons: none in its comments.

-- name: schema_9
CREATE TABLE job_watermark (
    job               TEXT PRIMARY KEY,
    column_name       TEXT NOT NULL,
    kind              TEXT NOT NULL,     -- integer, timestamp
    tie_column        TEXT NOT NULL,     -- empty: none
    value             TEXT NOT NULL,
    tie               TEXT NOT NULL,     -- empty: after all rows with that value
    version           INTEGER NOT NULL,  -- from 1, the next one with each move and each change by a user
    run_id            TEXT NOT NULL,     -- the run that moved it, empty: a user or the control topic
    changed_by        TEXT NOT NULL,
    why               TEXT NOT NULL,
    changed_at        TEXT NOT NULL,
    floor             TEXT NOT NULL,     -- where a user, or the job file, has it begin, empty: at the first row
    floor_version     INTEGER NOT NULL   -- its version then
) STRICT;
CREATE TABLE run_window (
    run_id            TEXT PRIMARY KEY REFERENCES run,
    job               TEXT NOT NULL,
    column_name       TEXT NOT NULL,
    kind              TEXT NOT NULL,
    tie_column        TEXT NOT NULL,
    version           INTEGER NOT NULL,  -- of the watermark from which the run started
    low               TEXT NOT NULL,     -- it reads the rows after it, empty: from the first one
    low_tie           TEXT NOT NULL,
    since             TEXT NOT NULL,     -- look-back: and late rows after it, empty: none
    high              TEXT NOT NULL,     -- to here, empty: there was no new row
    high_tie          TEXT NOT NULL,
    nulls             INTEGER,           -- rows without a cursor, NULL: not counted
    moved             INTEGER NOT NULL DEFAULT 0   -- 1: the watermark is at its end since
) STRICT;
CREATE INDEX run_window_of_job ON run_window (job, version)

-- name: get
SELECT * FROM job_watermark WHERE job = :job

-- name: all
SELECT * FROM job_watermark ORDER BY job

-- name: set
INSERT INTO job_watermark VALUES (:job, :column_name, :kind, :tie_column, :value, :tie, :version, '', :changed_by, :why, :changed_at,
    :value, :version)
ON CONFLICT (job) DO UPDATE SET column_name = excluded.column_name, kind = excluded.kind, tie_column = excluded.tie_column,
    value = excluded.value, tie = excluded.tie, version = excluded.version, run_id = '', changed_by = excluded.changed_by,
    why = excluded.why, changed_at = excluded.changed_at, floor = excluded.floor, floor_version = excluded.floor_version

-- name: put_window
INSERT OR REPLACE INTO run_window VALUES (:run_id, :job, :column_name, :kind, :tie_column, :version, :low, :low_tie, :since,
    :high, :high_tie, :nulls, 0)

-- name: window
SELECT * FROM run_window WHERE run_id = :run_id

-- name: move
-- Only from the version that the run has read: a change by a user meanwhile stays.
INSERT INTO job_watermark
SELECT job, column_name, kind, tie_column, :value, :tie, version + 1, run_id, 'run ' || run_id, '', :changed_at, low, version
FROM run_window WHERE run_id = :run_id AND moved = 0
    AND version = coalesce((SELECT version FROM job_watermark WHERE job_watermark.job = run_window.job), 0)
ON CONFLICT (job) DO UPDATE SET value = excluded.value, tie = excluded.tie, version = excluded.version, run_id = excluded.run_id,
    changed_by = excluded.changed_by, why = '', changed_at = excluded.changed_at

-- name: moved
UPDATE run_window SET moved = 1, high = :value, high_tie = :tie WHERE run_id = :run_id

-- name: windows_since
-- Runs whose rows have all arrived, the newest first.
SELECT run_window.* FROM run_window JOIN run USING (run_id)
WHERE run_window.job = :job AND version >= :version AND (moved OR run.state = 'succeeded')
ORDER BY version DESC, run.started_at DESC

-- name: attempts_in_parts
SELECT run_id FROM run_window JOIN run USING (run_id)
WHERE run_window.job = :job AND version >= :version AND NOT moved AND run.state <> 'succeeded'
    AND EXISTS (SELECT 1 FROM run_window AS later
                WHERE later.job = run_window.job AND later.version = run_window.version AND later.moved)
    AND EXISTS (SELECT 1 FROM run_part WHERE run_part.run_id = run_window.run_id)
ORDER BY run_id
