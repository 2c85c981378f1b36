-- The columns of each job's result as its runs have had them.
-- The schema is split at semicolons: none in its comments.

-- name: schema
CREATE TABLE job_columns (
    job          TEXT PRIMARY KEY,
    columns      TEXT NOT NULL,      -- JSON list of [name, kind, database type]
    accepted_at  TEXT NOT NULL,
    accepted_by  TEXT NOT NULL,
    found        TEXT,               -- as columns: what a run was stopped for, until a user accepts it
    found_at     TEXT
) STRICT;

-- name: columns_of_job
SELECT * FROM job_columns WHERE job = :job

-- name: accept_columns
INSERT INTO job_columns VALUES (:job, :columns, :now, :who, NULL, NULL)
ON CONFLICT (job) DO UPDATE SET columns = excluded.columns, accepted_at = excluded.accepted_at,
    accepted_by = excluded.accepted_by, found = NULL, found_at = NULL

-- name: note_found_columns
UPDATE job_columns SET found = :found, found_at = :now WHERE job = :job

-- name: forget_found_columns
UPDATE job_columns SET found = NULL, found_at = NULL WHERE job = :job AND found IS NOT NULL
