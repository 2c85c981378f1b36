-- metrics.duckdb: a projection of the spool and the ledger. Append only, no keys, no indexes. Times are UTC.

-- name: schema
CREATE TABLE IF NOT EXISTS send (
    run_id VARCHAR, job VARCHAR, topic VARCHAR, "partition" INTEGER, "offset" BIGINT, key VARCHAR, message_id VARCHAR,
    size_bytes INTEGER, handed_over_at TIMESTAMP, latency_ms FLOAT, attempt SMALLINT, status VARCHAR, error VARCHAR);
CREATE TABLE IF NOT EXISTS segment (name VARCHAR, row_count BIGINT, copied_at TIMESTAMP);
CREATE TABLE IF NOT EXISTS run (
    run_id VARCHAR, kind VARCHAR, job VARCHAR, job_name VARCHAR, connection VARCHAR, cluster VARCHAR, topic VARCHAR,
    query VARCHAR, scheduled_at TIMESTAMP, timezone VARCHAR, attempt INTEGER, of_run VARCHAR, asked_by VARCHAR,
    state VARCHAR, started_at TIMESTAMP, finished_at TIMESTAMP, rows_read BIGINT, rows_counted BIGINT, sent BIGINT,
    acknowledged BIGINT, rejected BIGINT, failed BIGINT, retried BIGINT, bytes BIGINT, duration_s DOUBLE,
    latency_avg_ms DOUBLE, latency_p50_ms DOUBLE, latency_p90_ms DOUBLE, latency_p99_ms DOUBLE,
    error_class VARCHAR, error_text VARCHAR);

-- name: copy_segments
INSERT INTO send SELECT run_id, job, topic, "partition", "offset", key, message_id, size_bytes, handed_over_at,
    latency_ms, attempt, status, error FROM read_parquet(?)

-- name: remember_segment
INSERT INTO segment SELECT ?, count(*), ? FROM read_parquet(?)

-- name: last_run
SELECT max(coalesce(finished_at, started_at)) FROM run

-- name: find
SELECT s.*, r.job_name, r.timezone, r.scheduled_at FROM sends s LEFT JOIN runs r USING (run_id)
WHERE s.key = ? ORDER BY s.handed_over_at, s.attempt

-- name: acknowledged_ids
SELECT DISTINCT message_id FROM sends WHERE run_id IN (SELECT unnest(?)) AND status = 'acknowledged'

-- name: totals
SELECT count(*) AS total, count(*) FILTER (WHERE status = 'acknowledged') AS sent,
    count(*) FILTER (WHERE status <> 'acknowledged') AS failed,
    count(*) FILTER (WHERE attempt > 1) AS retried,
    coalesce(sum(size_bytes) FILTER (WHERE status = 'acknowledged'), 0)::BIGINT AS bytes,
    avg(latency_ms) AS latency_avg_ms, quantile_disc(latency_ms, 0.5) AS latency_p50_ms,
    quantile_disc(latency_ms, 0.9) AS latency_p90_ms, quantile_disc(latency_ms, 0.99) AS latency_p99_ms
FROM sends WHERE handed_over_at >= ? AND handed_over_at < ?

-- name: topics
SELECT topic, count(*) FILTER (WHERE status = 'acknowledged') AS messages,
    coalesce(sum(size_bytes) FILTER (WHERE status = 'acknowledged'), 0)::BIGINT AS bytes, max(handed_over_at) AS last_send
FROM sends WHERE handed_over_at >= ? AND handed_over_at < ? GROUP BY topic ORDER BY topic

-- name: errors
SELECT error, count(*) AS count, max(handed_over_at) AS last_seen
FROM sends WHERE status <> 'acknowledged' AND handed_over_at >= ? AND handed_over_at < ?
GROUP BY error ORDER BY count DESC, error LIMIT 20
