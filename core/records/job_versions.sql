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
INSERT INTO job_version VALUES (:job, :sha256, :document, :seen_at, :saved_by) ON CONFLICT (job, sha256) DO NOTHING

-- name: version
SELECT * FROM job_version WHERE job = :job AND sha256 = :sha256

-- name: newest
SELECT job_version.* FROM job_history JOIN job_version USING (job, sha256) WHERE job_history.job = :job
ORDER BY job_history.rowid DESC LIMIT 1

-- name: of_job
-- A text that came back is in the list twice, each time with its own time. `job_version` has the user of the first time,
-- and the audit trail that of the others.
SELECT job_version.job, sha256, document, since AS seen_at, coalesce(
    (SELECT who FROM audit WHERE at = since AND object = 'job ' || job_version.job ORDER BY audit_id LIMIT 1),
    CASE WHEN job_history.rowid = (
        SELECT min(rowid) FROM job_history AS first WHERE first.job = job_version.job AND first.sha256 = job_version.sha256
    ) THEN saved_by ELSE '' END
) AS saved_by
FROM job_history JOIN job_version USING (job, sha256) WHERE job_history.job = :job ORDER BY job_history.rowid DESC

-- name: deleted
-- The jobs whose newest entry is a deletion. SQLite takes the other columns from the row with the maximum.
SELECT job, since, max(rowid) FROM job_history GROUP BY job HAVING sha256 = ''

-- name: add_to_history
INSERT INTO job_history SELECT :job, :since, :sha256
WHERE coalesce((SELECT sha256 FROM job_history WHERE job = :job ORDER BY rowid DESC LIMIT 1), '') <> :sha256

-- name: history
SELECT since, document FROM job_history LEFT JOIN job_version USING (job, sha256) WHERE job_history.job = :job
ORDER BY job_history.rowid

-- name: in_force
-- SQLite takes the other columns from the row with the maximum.
SELECT job, sha256, max(rowid) FROM job_history WHERE :job IS NULL OR job = :job GROUP BY job
