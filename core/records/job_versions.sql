-- The versions of each job file, and since when each was in force.
-- Times are UTC, ISO 8601 text, so that they sort. The schema is split at semicolons: none in its comments.

-- name: schema
CREATE TABLE job_version (
    job               TEXT NOT NULL,
    sha256            TEXT NOT NULL,
    document          TEXT NOT NULL,
    seen_at           TEXT NOT NULL,
    saved_by          TEXT NOT NULL,     -- empty: found on disk
    PRIMARY KEY (job, sha256)
) STRICT

-- name: schema_4
-- Which version of a job's file was in force since when. A version that comes back has another row, as `job_version` keeps one.
CREATE TABLE job_history (
    job               TEXT NOT NULL,
    since             TEXT NOT NULL,
    sha256            TEXT NOT NULL      -- of job_version, empty where the file was gone
) STRICT;
CREATE INDEX job_history_of ON job_history (job);
INSERT INTO job_history SELECT job, seen_at, sha256 FROM job_version ORDER BY seen_at, rowid

-- name: insert
INSERT INTO job_version VALUES (:job, :sha256, :document, :seen_at, :saved_by)
ON CONFLICT (job, sha256) DO UPDATE SET seen_at = excluded.seen_at

-- name: version
SELECT * FROM job_version WHERE job = :job AND sha256 = :sha256

-- name: newest
SELECT * FROM job_version WHERE job = :job ORDER BY seen_at DESC, rowid DESC LIMIT 1

-- name: of_job
SELECT * FROM job_version WHERE job = :job ORDER BY seen_at DESC, rowid DESC

-- name: add_to_history
INSERT INTO job_history SELECT :job, :since, :sha256
WHERE coalesce((SELECT sha256 FROM job_history WHERE job = :job ORDER BY rowid DESC LIMIT 1), '') <> :sha256

-- name: history
SELECT since, document FROM job_history LEFT JOIN job_version USING (job, sha256) WHERE job_history.job = :job
ORDER BY job_history.rowid

-- name: in_force
-- SQLite takes the other columns from the row with the maximum.
SELECT job, sha256, max(rowid) FROM job_history WHERE :job IS NULL OR job = :job GROUP BY job
