-- Reads the table run and its details; ledger.sql makes and writes them.

-- name: schema_11
-- How often something was written that the outcomes of a job are made of, so that a reader knows which jobs to read again.
CREATE TABLE job_change (
    job               TEXT PRIMARY KEY,
    changes           INTEGER NOT NULL
) STRICT;
CREATE TRIGGER run_added AFTER INSERT ON run BEGIN
    INSERT INTO job_change VALUES (NEW.job, 1) ON CONFLICT (job) DO UPDATE SET changes = changes + 1; END;
CREATE TRIGGER run_changed AFTER UPDATE ON run BEGIN
    INSERT INTO job_change VALUES (NEW.job, 1) ON CONFLICT (job) DO UPDATE SET changes = changes + 1; END;
CREATE TRIGGER run_verified AFTER INSERT ON verification BEGIN
    INSERT INTO job_change SELECT job, 1 FROM run WHERE run_id = NEW.run_id
        ON CONFLICT (job) DO UPDATE SET changes = changes + 1; END;
CREATE TRIGGER scheduled_run_added AFTER INSERT ON scheduled_run BEGIN
    INSERT INTO job_change VALUES (NEW.job, 1) ON CONFLICT (job) DO UPDATE SET changes = changes + 1; END;
CREATE TRIGGER scheduled_run_changed AFTER UPDATE ON scheduled_run BEGIN
    INSERT INTO job_change VALUES (NEW.job, 1) ON CONFLICT (job) DO UPDATE SET changes = changes + 1; END;
CREATE TRIGGER scheduled_run_deleted AFTER DELETE ON scheduled_run BEGIN
    INSERT INTO job_change VALUES (OLD.job, 1) ON CONFLICT (job) DO UPDATE SET changes = changes + 1; END;
CREATE TRIGGER job_file_changed AFTER INSERT ON job_history BEGIN
    INSERT INTO job_change VALUES (NEW.job, 1) ON CONFLICT (job) DO UPDATE SET changes = changes + 1; END

-- name: changes
SELECT job, changes FROM job_change

-- name: newest
SELECT * FROM run WHERE (:job IS NULL OR job = :job) ORDER BY started_at DESC, rowid DESC LIMIT :limit

-- name: where
(:job IS NULL OR job = :job) AND (:topic IS NULL OR topic = :topic) AND (:cluster IS NULL OR cluster = :cluster)
    AND (:since IS NULL OR scheduled_at >= :since) AND (:until IS NULL OR scheduled_at < :until)
    AND (:first IS NULL OR local_day(scheduled_at, timezone) BETWEEN :first AND :last)
    AND (:run_ids IS NULL OR run_id IN (SELECT value FROM json_each(:run_ids)))
    AND (:states = '[]' OR state IN (SELECT value FROM json_each(:states))
        OR state = 'succeeded' AND iif(rejected > max_rejects, 'complete_with_rejects', 'complete') IN (SELECT value FROM json_each(:states)))

-- name: page
SELECT * FROM run WHERE {where} ORDER BY started_at DESC, rowid DESC LIMIT :limit OFFSET :offset

-- name: page_count
SELECT count(*) FROM run WHERE {where}

-- name: of_job
SELECT * FROM run WHERE job = :job AND scheduled_at >= :since AND scheduled_at < :until ORDER BY rowid

-- name: sent_before
SELECT * FROM run WHERE job = :job AND scheduled_at = :scheduled_at AND state = 'succeeded' AND topic <> '' AND acknowledged > 0
    AND is_ad_hoc <= :with_ad_hoc
ORDER BY rowid DESC LIMIT 1

-- name: last_row_count
SELECT rows_read FROM (SELECT rowid, started_at, state, kind, is_ad_hoc, rows_read FROM run WHERE job = :job ORDER BY started_at DESC, rowid DESC LIMIT 20)
WHERE state = 'succeeded' AND kind = 'job' AND NOT is_ad_hoc ORDER BY started_at DESC, rowid DESC LIMIT 1

-- name: running
SELECT * FROM run WHERE state = 'running' AND (:job IS NULL OR job = :job) ORDER BY rowid DESC

-- name: running_backfill_times
SELECT scheduled_at FROM run WHERE state = 'running' AND job = :job
    AND scheduled_run_id IN (SELECT scheduled_run_id FROM scheduled_run WHERE kind = 'backfill' AND state IN ('planned', 'running'))

-- name: jobs
-- The newest row of each job by the index alone; the name is read from that row only.
SELECT newest.job, run.job_name FROM (SELECT job, max(rowid) AS number FROM run GROUP BY job) newest
    JOIN run ON run.rowid = newest.number ORDER BY newest.job

-- name: topics
SELECT DISTINCT topic FROM run ORDER BY topic

-- name: cluster_ids
-- SQLite takes the other columns from the row with the maximum.
SELECT bootstrap_servers, cluster_id, max(rowid) FROM run WHERE cluster_id <> '' GROUP BY bootstrap_servers

-- name: first_started
SELECT started_at FROM run WHERE rowid = (SELECT min(rowid) FROM run WHERE job = :job)

-- name: last_succeeded
SELECT max(scheduled_at) AS scheduled_at FROM run WHERE job = :job AND state = 'succeeded' AND kind IN ('job', 'replay') AND NOT is_ad_hoc

-- name: state
SELECT coalesce(max(rowid), 0), (SELECT count(*) FROM run WHERE state IN ('planned', 'running')),
    (SELECT count(*) FROM run WHERE state = 'interrupted') FROM run

-- name: row_counts
-- Whole runs: what was read is all there was. The newest run of each scheduled time counts.
SELECT scheduled_at, rows_read, max(rowid) FROM run
WHERE job = :job AND kind = 'job' AND NOT is_ad_hoc AND scheduled_at >= :since AND scheduled_at < :until
    AND (state = 'succeeded' OR error_class = 'ExpectationFailed')
GROUP BY scheduled_at

-- name: run_number
SELECT rowid AS number FROM run WHERE run_id = :run_id

-- name: rows
SELECT rowid AS number, run_id, kind, job, job_name, connection, cluster, topic, query, scheduled_at, timezone, attempt,
    of_run, asked_by, state, started_at, finished_at, rows_read, rows_counted, sent, acknowledged, rejected, failed,
    retried, bytes, duration_s, latency_avg_ms, latency_p50_ms, latency_p90_ms, latency_p99_ms, error_class, error_text
FROM run WHERE rowid > :after OR run_id IN (SELECT value FROM json_each(:again)) ORDER BY rowid

-- name: partitions
SELECT topic, partition, first_offset, last_offset, count FROM run_partition WHERE run_id = :run_id
ORDER BY topic, partition

-- name: files
SELECT path, rows, size_bytes, sha256 FROM run_file WHERE run_id = :run_id ORDER BY path

-- name: newest_verification
SELECT * FROM verification WHERE run_id = :run_id ORDER BY checked_at DESC LIMIT 1

-- name: increment
SELECT * FROM run_window WHERE run_id = :run_id

-- name: parts
SELECT * FROM run_part WHERE run_id = :run_id ORDER BY part
