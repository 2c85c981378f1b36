-- What users write about a day of a job, such as why it is missing.
-- Times are UTC, ISO 8601 text, so that they sort. The schema is split at semicolons: none in its comments.

-- name: schema_11
CREATE TABLE day_note (
    job               TEXT NOT NULL,
    day               TEXT NOT NULL,     -- in the time zone of the job
    text              TEXT NOT NULL,
    written_by        TEXT NOT NULL,
    written_at        TEXT NOT NULL,
    PRIMARY KEY (job, day)
) STRICT;
CREATE INDEX day_note_by_day ON day_note (day)

-- name: put
INSERT INTO day_note VALUES (:job, :day, :text, :written_by, :written_at)
ON CONFLICT (job, day) DO UPDATE SET text = excluded.text, written_by = excluded.written_by, written_at = excluded.written_at

-- name: remove
DELETE FROM day_note WHERE job = :job AND day = :day

-- name: between
SELECT * FROM day_note WHERE day BETWEEN :first AND :last AND (:job IS NULL OR job = :job) ORDER BY day DESC, job
