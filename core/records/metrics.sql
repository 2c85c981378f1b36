-- metrics.duckdb: a projection of the spool and the ledger. Append only, no keys, no indexes. Times are UTC.
-- A name in braces is replaced by that statement of this file when it is loaded.

-- name: macros
-- Numbers are scanned several times faster than text: a key is found by 24 bits of its hash (without the blanks with which
-- a CHAR column pads it, so that one number finds each form), the beginning of a key by
-- 4 bits of each of its first 8 bytes, which tell digits apart. DuckDB may change its hash one day: see `format`.
CREATE OR REPLACE TEMP MACRO key_hash(key) AS (hash(rtrim(key, ' ')) & 16777215)::UINTEGER;
CREATE OR REPLACE TEMP MACRO eight_bytes(key) AS
    (CASE WHEN strlen(key) = length(key) THEN encode(left(key || '        ', 8)) ELSE encode(key || '        ')[1:8] END)::BIT::UBIGINT;
-- Packs eight times 4 bits, halving the gaps in each step: 0x0F0F…, 0x00FF00FF…, 0x0000FFFF0000FFFF, 0xFFFFFFFF.
CREATE OR REPLACE TEMP MACRO four_pairs(x) AS ((x & 1085102592571150095) | ((x & 1085102592571150095) >> 4)) & 71777214294589695;
CREATE OR REPLACE TEMP MACRO two_fours(x) AS (x | (x >> 8)) & 281470681808895;
CREATE OR REPLACE TEMP MACRO one_eight(x) AS (x | (x >> 16)) & 4294967295;
CREATE OR REPLACE TEMP MACRO key_head(key) AS one_eight(two_fours(four_pairs(eight_bytes(key))))::UINTEGER;
-- Latencies are counted in buckets, each 3 % wider than the one before: the middle of one is at most 1.5 % wrong.
CREATE OR REPLACE TEMP MACRO latency_bucket(ms) AS
    CASE WHEN ms > 0.1 THEN ceil(ln(ms::DOUBLE / 0.1) / ln(1.03)) ELSE 0 END::SMALLINT;
CREATE OR REPLACE TEMP MACRO bucket_ms(bucket) AS CASE WHEN bucket = 0 THEN 0.05 ELSE 0.1 * pow(1.03, bucket - 0.5) END;
-- Every zone's offset is a multiple of a quarter of an hour, so local hours and days are whole quarters.
CREATE OR REPLACE TEMP MACRO quarter_of(moment) AS make_timestamp(epoch_us(moment) // 900000000 * 900000000);
-- The latency that a share (0 to 1) of counted messages did not exceed; counts of any jobs and hours can be summed first.
CREATE OR REPLACE TEMP MACRO percentile(latency_ms, messages, share) AS
    list_reduce(list({'ms': latency_ms, 'seen': messages} ORDER BY latency_ms), lambda below, next:
        CASE WHEN below.seen >= share * sum(messages) THEN below ELSE {'ms': next.ms, 'seen': below.seen + next.seen} END).ms

-- name: schema
{macros};
{tables}

-- name: tables
CREATE TABLE IF NOT EXISTS format AS SELECT 7 AS version, key_hash('572680001120') AS hash, key_head('572680001120') AS head;
-- What is the same for many sends is stored once for a copy; an id of 32 hexadecimal digits is stored as 16 bytes.
CREATE TABLE IF NOT EXISTS sender (
    sender INTEGER, run_id VARCHAR, job VARCHAR, topic VARCHAR, cluster VARCHAR, cluster_id VARCHAR, bootstrap_servers VARCHAR);
CREATE TABLE IF NOT EXISTS send (
    sender INTEGER, "partition" INTEGER, "offset" BIGINT, key VARCHAR, message_uuid UUID, message_text VARCHAR,
    size_bytes INTEGER, sent_at TIMESTAMP, latency_us BIGINT, attempt SMALLINT, status VARCHAR, error VARCHAR,
    error_class VARCHAR, key_hash UINTEGER, key_head UINTEGER);
CREATE TABLE IF NOT EXISTS traffic (
    quarter TIMESTAMP, run_id VARCHAR, job VARCHAR, topic VARCHAR, bucket SMALLINT, messages BIGINT, retried BIGINT,
    timed_out BIGINT, bytes BIGINT, latency_us BIGINT, last_sent_at TIMESTAMP, last_acknowledged_at TIMESTAMP,
    cluster VARCHAR, runs BIGINT);
-- A day that is rolled up is one quarter of `traffic`, the one at noon, without run_id: `runs` counts its runs.
CREATE TABLE IF NOT EXISTS rolled_up (version VARCHAR);
CREATE TABLE IF NOT EXISTS known_since (job VARCHAR, since DATE);
CREATE TABLE IF NOT EXISTS segment (name VARCHAR, row_count BIGINT, copied_at TIMESTAMP);
-- Which segments a merged one has replaced; `segment` has only the merged one.
CREATE TABLE IF NOT EXISTS merged (name VARCHAR, segment VARCHAR, run_id VARCHAR);
CREATE TABLE IF NOT EXISTS run (
    number BIGINT, run_id VARCHAR, kind VARCHAR, job VARCHAR, job_name VARCHAR, connection VARCHAR, cluster VARCHAR,
    topic VARCHAR, query VARCHAR, scheduled_at TIMESTAMP, timezone VARCHAR, attempt INTEGER, of_run VARCHAR,
    asked_by VARCHAR, state VARCHAR, started_at TIMESTAMP, finished_at TIMESTAMP, rows_read BIGINT, rows_counted BIGINT,
    sent BIGINT, acknowledged BIGINT, rejected BIGINT, failed BIGINT, retried BIGINT, bytes BIGINT, duration_s DOUBLE,
    latency_avg_ms DOUBLE, latency_p50_ms DOUBLE, latency_p90_ms DOUBLE, latency_p99_ms DOUBLE,
    error_class VARCHAR, error_text VARCHAR);
CREATE TABLE IF NOT EXISTS reject (
    run_id VARCHAR, row_number BIGINT, column_name VARCHAR, database_type VARCHAR, reason VARCHAR, key VARCHAR)

-- name: is_our_format
SELECT version = {version} AND hash = key_hash('572680001120') AND head = key_head('572680001120') FROM {place}.format

-- name: send_columns
run_id, job, topic, "partition", "offset", key, message_id, size_bytes, sent_at, latency_ms, attempt, status,
    error, error_class, cluster, cluster_id, bootstrap_servers

-- name: stored_columns
run_id, job, topic, "partition", "offset", key,
    coalesce(message_text, replace(message_uuid::VARCHAR, '-', '')) AS message_id, size_bytes, sent_at,
    (latency_us / 1000)::FLOAT AS latency_ms, attempt, status, error, error_class, cluster, cluster_id, bootstrap_servers

-- name: read_columns
-- The columns of a segment, which has no rows here: it gives the types of columns that a segment of an earlier version lacks.
SELECT ''::VARCHAR AS run_id, ''::VARCHAR AS job, ''::VARCHAR AS topic, 0::INTEGER AS "partition", 0::BIGINT AS "offset",
    ''::VARCHAR AS key, ''::VARCHAR AS message_id, 0::INTEGER AS size_bytes, NULL::TIMESTAMP AS sent_at,
    0::FLOAT AS latency_ms, 0::SMALLINT AS attempt, ''::VARCHAR AS status, ''::VARCHAR AS error, ''::VARCHAR AS error_class,
    ''::VARCHAR AS cluster, ''::VARCHAR AS cluster_id, ''::VARCHAR AS bootstrap_servers, NULL::TIMESTAMP AS handed_over_at

-- name: segments_read
-- A segment of an earlier version has fewer columns, and until 1.0 `sent_at` was called `handed_over_at`.
-- Latencies are stored in whole microseconds.
(SELECT * EXCLUDE (handed_over_at) REPLACE (coalesce(sent_at, handed_over_at) AS sent_at,
    (round(latency_ms::DOUBLE * 1000) / 1000)::FLOAT AS latency_ms)
 FROM (SELECT * FROM ({read_columns}) WHERE false
       UNION ALL BY NAME SELECT * FROM read_parquet({paths}, union_by_name = true)))

-- name: as_traffic
quarter_of(sent_at) AS quarter, run_id, job, topic,
    CASE WHEN status = 'acknowledged' THEN latency_bucket(coalesce(latency_ms, 0)) END AS bucket,
    count(*) AS messages, count(*) FILTER (WHERE attempt > 1) AS retried,
    count(*) FILTER (WHERE error_class = 'DeliveryTimeout') AS timed_out,
    coalesce(sum(size_bytes + strlen(coalesce(key, ''))) FILTER (WHERE status = 'acknowledged'), 0)::BIGINT AS bytes,
    coalesce(sum(round(latency_ms::DOUBLE * 1000)::BIGINT), 0)::BIGINT AS latency_us, max(sent_at) AS last_sent_at,
    max(sent_at + to_microseconds(round(latency_ms::DOUBLE * 1000)::BIGINT)) AS last_acknowledged_at,
    NULL::VARCHAR AS cluster, 0::BIGINT AS runs

-- name: senders_of_copy
CREATE OR REPLACE TEMP TABLE copied AS
SELECT ((SELECT coalesce(max(sender), 0) FROM sender) + row_number() OVER ())::INTEGER AS sender, *
FROM (SELECT run_id, any_value(job) AS job, topic, any_value(cluster) AS cluster, any_value(cluster_id) AS cluster_id,
          any_value(bootstrap_servers) AS bootstrap_servers FROM {segments_read} GROUP BY run_id, topic ORDER BY ALL)

-- name: copy_senders
INSERT INTO sender SELECT * FROM copied

-- name: packed
sender, "partition", "offset", key, message_uuid, CASE WHEN message_uuid IS NULL THEN message_id END, size_bytes, sent_at,
    round(latency_ms::DOUBLE * 1000)::BIGINT, attempt, status, error, error_class, key_hash(key), key_head(key)

-- name: copy_sends
INSERT INTO send SELECT {packed}
FROM (SELECT s.*, c.sender,
          CASE WHEN strlen(message_id) = 32 AND lower(message_id) = message_id THEN TRY_CAST(message_id AS UUID) END AS message_uuid
      FROM {segments_read} s JOIN copied c ON s.run_id = c.run_id AND s.topic = c.topic)

-- name: copy_traffic
INSERT INTO traffic SELECT {as_traffic} FROM {segments_read} GROUP BY ALL

-- name: read_small
CREATE OR REPLACE TEMP TABLE small AS SELECT * FROM {segments_read}

-- name: remember_segments
INSERT INTO segment SELECT parse_filename(file_name), num_rows, ? FROM parquet_file_metadata({paths})

-- name: run_of_segment
regexp_extract(name, '^(.*?)(?:-p[0-9]+x[0-9]+)?-[0-9]+\.parquet$', 1)

-- name: run_segments
(SELECT name, {run_of_segment} AS run_id FROM segment WHERE NOT starts_with(name, 'merged-')
 UNION ALL SELECT name, run_id FROM merged UNION ALL SELECT segment, run_id FROM merged)

-- name: segments_here
SELECT count(*), sum(row_count) FROM segment WHERE name IN (SELECT unnest(?::VARCHAR[]))

-- name: remember_merged
INSERT INTO merged SELECT ?, unnest(?::VARCHAR[]), unnest(?::VARCHAR[])

-- name: forget_merged_ones
DELETE FROM segment WHERE name IN (SELECT segment FROM merged WHERE name = ?)

-- name: already_merged
SELECT segment FROM {place}.merged WHERE segment IN (SELECT unnest(?::VARCHAR[]))

-- name: runs_to_forget
CREATE OR REPLACE TEMP TABLE gone AS
SELECT name AS segment, run_id FROM {run_segments} WHERE run_id IN (SELECT unnest(?::VARCHAR[]))

-- name: forget_traffic_of_runs
DELETE FROM traffic WHERE run_id IN (SELECT run_id FROM gone)

-- name: small_runs
-- Whole runs of days that are over, with one segment of few sends; a run of which more may become known is left alone.
-- The day is that of its end: its sends are of that day or the one before.
WITH of_run AS (
    SELECT {run_of_segment} AS run_id, min(name) AS name, sum(row_count)::BIGINT AS sends, max(copied_at) AS copied_at
    FROM segment WHERE NOT starts_with(name, 'merged-') GROUP BY run_id
    HAVING count(*) = 1 AND NOT regexp_matches(min(name), '-p[0-9]+x[0-9]+-') AND sum(row_count) <= $most_sends),
ended AS (
    SELECT o.name, o.sends, o.run_id, coalesce(r.finished_at, o.copied_at) AS moment
    FROM of_run o LEFT JOIN run r USING (run_id)
    WHERE o.run_id NOT IN (SELECT run_id FROM merged) AND o.run_id NOT IN ({open_runs})
        AND (r.run_id IS NULL OR r.finished_at IS NOT NULL)),
of_day AS (
    SELECT s.job, (moment + utc_offset)::DATE AS day, moment, name, sends
    FROM ended JOIN (SELECT run_id, any_value(job) AS job FROM sender GROUP BY run_id) s USING (run_id)
        ASOF JOIN zone ON moment >= begins)
SELECT job, day, name, sends FROM of_day WHERE day < $today
QUALIFY count(*) OVER (PARTITION BY job, day) >= $fewest
ORDER BY day, job, moment, name LIMIT $most_runs

-- name: newest_run
SELECT number, run_id FROM run ORDER BY number DESC NULLS LAST LIMIT 1

-- name: open_runs
-- A run that was interrupted, or whose commit was not acknowledged, may turn out to be complete: see `core.run.settling`.
SELECT run_id FROM run WHERE state IN ('planned', 'running', 'interrupted') OR (state IN ('failed', 'cancelled')
    AND acknowledged = 0 AND (sent > 0 OR error_class IN ('RunTimedOut', 'RunCancelled')))

-- name: forget_runs
DELETE FROM run WHERE run_id IN (SELECT unnest(?::VARCHAR[]))

-- name: forget_rejects
DELETE FROM reject WHERE run_id IN (SELECT unnest(?::VARCHAR[]))

-- They are stored in metrics.duckdb too: a change of one needs a higher FORMAT, so that the file is rebuilt.

-- name: view_sends_copied
CREATE VIEW sends AS SELECT {stored_columns} FROM send JOIN sender USING (sender)

-- name: view_sends
CREATE VIEW sends AS SELECT {stored_columns} FROM send JOIN sender USING (sender) UNION ALL SELECT * FROM waiting

-- name: view_runs
CREATE VIEW runs AS SELECT * EXCLUDE (number) FROM run

-- name: view_rejects
CREATE VIEW rejects AS
SELECT r.run_id, r.job, r.job_name, r.scheduled_at, r.finished_at, x.row_number, x.column_name, x.database_type,
    x.reason, x.key
FROM reject x JOIN run r USING (run_id)

-- name: view_daily
CREATE VIEW daily AS
SELECT (quarter + utc_offset)::DATE AS day, job, topic,
    coalesce(sum(messages) FILTER (WHERE NOT failed), 0)::BIGINT AS messages,
    coalesce(sum(messages) FILTER (WHERE failed), 0)::BIGINT AS failed,
    sum(retried)::BIGINT AS retried, sum(bytes)::BIGINT AS bytes,
    (count(DISTINCT run_id) + sum(runs))::BIGINT AS runs
FROM (SELECT quarter, run_id, job, topic, bucket IS NULL AS failed, sum(messages) AS messages, sum(retried) AS retried,
          sum(bytes) AS bytes, sum(runs) AS runs FROM traffic GROUP BY ALL)
    ASOF JOIN zone ON quarter >= begins GROUP BY ALL

-- name: view_hourly_latency
CREATE VIEW hourly_latency AS
WITH counted AS (
    SELECT date_trunc('hour', quarter + utc_offset) - utc_offset AS hour_utc,
        date_trunc('hour', quarter + utc_offset) AS hour, job, topic, bucket,
        sum(messages) AS messages, sum(latency_us) AS latency_us
    FROM traffic ASOF JOIN zone ON quarter >= begins WHERE bucket IS NOT NULL AND run_id IS NOT NULL GROUP BY ALL),
ranked AS (
    SELECT *, sum(messages) OVER (PARTITION BY hour_utc, job, topic ORDER BY bucket) AS seen,
        sum(messages) OVER (PARTITION BY hour_utc, job, topic) AS total FROM counted)
SELECT hour_utc, hour, job, topic, sum(messages)::BIGINT AS messages, sum(latency_us) / sum(messages) / 1000 AS avg_ms,
    bucket_ms(min(bucket) FILTER (WHERE seen >= 0.5 * total)) AS p50_ms,
    bucket_ms(min(bucket) FILTER (WHERE seen >= 0.9 * total)) AS p90_ms,
    bucket_ms(min(bucket) FILTER (WHERE seen >= 0.99 * total)) AS p99_ms
FROM ranked GROUP BY ALL

-- name: view_latency
CREATE VIEW latency AS
SELECT date_trunc('hour', quarter + utc_offset) - utc_offset AS hour_utc,
    date_trunc('hour', quarter + utc_offset) AS hour, job, topic, bucket_ms(bucket) AS latency_ms,
    sum(messages)::BIGINT AS messages
FROM traffic ASOF JOIN zone ON quarter >= begins WHERE bucket IS NOT NULL AND run_id IS NOT NULL GROUP BY ALL

-- name: view_errors
CREATE VIEW errors AS
SELECT 'message' AS kind, run_id, job, topic, error, error_class, count(*) AS count, min(sent_at) AS first_seen,
    max(sent_at) AS last_seen
FROM sends WHERE status = 'failed' GROUP BY ALL
UNION ALL
SELECT 'run', run_id, job, topic, error_text, error_class, 1, coalesce(finished_at, started_at),
    coalesce(finished_at, started_at)
FROM runs WHERE error_text IS NOT NULL
UNION ALL
SELECT 'reject', x.run_id, r.job, r.topic, CASE WHEN x.column_name = '' THEN x.reason ELSE x.column_name || ': ' || x.reason END,
    'RowRejected', count(*), coalesce(r.finished_at, r.started_at), coalesce(r.finished_at, r.started_at)
FROM reject x JOIN runs r USING (run_id) GROUP BY ALL

-- name: scope
($job IS NULL OR job = $job) AND ($topic IS NULL OR topic = $topic)
    AND ($cluster IS NULL OR run_id IN (SELECT run_id FROM runs WHERE cluster = $cluster))

-- name: scope_of_traffic
-- What is rolled up has the cluster of its runs.
($job IS NULL OR job = $job) AND ($topic IS NULL OR topic = $topic) AND ($cluster IS NULL OR cluster = $cluster
    OR run_id IN (SELECT run_id FROM runs WHERE cluster = $cluster))

-- name: period
-- Complete quarter-hours are counted already; the rest is counted from the sends, so that any period is exact.
period AS (
    SELECT * FROM traffic WHERE quarter >= $first AND quarter < $last AND {scope_of_traffic}
    UNION ALL
    SELECT {as_traffic} FROM sends WHERE sent_at >= $since AND sent_at < $first AND {scope} GROUP BY ALL
    UNION ALL
    SELECT {as_traffic} FROM sends WHERE sent_at >= $last AND sent_at < $until AND {scope} GROUP BY ALL)

-- name: sums
coalesce(sum(messages), 0)::BIGINT AS total,
    coalesce(sum(messages) FILTER (WHERE bucket IS NOT NULL), 0)::BIGINT AS sent,
    coalesce(sum(messages) FILTER (WHERE bucket IS NULL), 0)::BIGINT AS failed,
    coalesce(sum(retried), 0)::BIGINT AS retried, coalesce(sum(timed_out), 0)::BIGINT AS timed_out,
    coalesce(sum(bytes), 0)::BIGINT AS bytes,
    sum(latency_us) / nullif(sum(messages) FILTER (WHERE bucket IS NOT NULL), 0) / 1000 AS latency_avg_ms,
    max(last_sent_at) AS last_send, max(last_acknowledged_at) AS last_acknowledged_at

-- name: percentiles
bucket_ms(min(bucket) FILTER (WHERE seen >= 0.5 * total)) AS latency_p50_ms,
    bucket_ms(min(bucket) FILTER (WHERE seen >= 0.9 * total)) AS latency_p90_ms,
    bucket_ms(min(bucket) FILTER (WHERE seen >= 0.99 * total)) AS latency_p99_ms

-- name: counted
counted AS (
    SELECT topic, bucket, sum(messages) AS messages, sum(retried) AS retried, sum(timed_out) AS timed_out,
        sum(bytes) AS bytes, sum(latency_us) AS latency_us, max(last_sent_at) AS last_sent_at,
        max(last_acknowledged_at) AS last_acknowledged_at
    FROM period GROUP BY topic, bucket),
ranked AS (
    SELECT bucket, sum(sum(messages)) OVER (ORDER BY bucket) AS seen, sum(sum(messages)) OVER () AS total
    FROM counted WHERE bucket IS NOT NULL GROUP BY bucket)

-- name: totals
WITH {period}, {counted}
SELECT * FROM (SELECT {sums} FROM counted), (SELECT {percentiles} FROM ranked)

-- name: totals_and_topics
-- The row without a topic is the total of all; each row has the percentiles of all.
WITH {period}, {counted}
SELECT * FROM (SELECT topic, grouping(topic) = 1 AS is_all, {sums} FROM counted GROUP BY GROUPING SETS ((topic), ())),
    (SELECT {percentiles} FROM ranked)
ORDER BY is_all DESC, topic

-- name: by_topic
WITH {period}
SELECT topic, {sums} FROM period GROUP BY topic ORDER BY topic

-- name: by_job
WITH {period},
ranked AS (
    SELECT job, bucket, sum(sum(messages)) OVER (PARTITION BY job ORDER BY bucket) AS seen,
        sum(sum(messages)) OVER (PARTITION BY job) AS total
    FROM period WHERE bucket IS NOT NULL GROUP BY job, bucket)
SELECT * FROM (SELECT job, {sums} FROM period GROUP BY job)
    LEFT JOIN (SELECT job, {percentiles} FROM ranked GROUP BY job) USING (job) ORDER BY job

-- name: by_job_and_topic
WITH {period}
SELECT job, topic, {sums} FROM period GROUP BY job, topic ORDER BY job, topic

-- name: latency_counts
WITH {period}
SELECT topic, bucket_ms(bucket) AS latency_ms, sum(messages)::BIGINT AS messages, sum(latency_us)::BIGINT AS latency_us
FROM period WHERE bucket IS NOT NULL GROUP BY topic, bucket ORDER BY topic, bucket

-- name: run_states
SELECT job, state, count(*) AS runs FROM runs WHERE started_at >= $since AND started_at < $until
    AND ($job IS NULL OR job = $job) AND ($topic IS NULL OR topic = $topic) AND ($cluster IS NULL OR cluster = $cluster)
GROUP BY job, state ORDER BY job, state

-- name: newest_runs
WITH newest AS (
    SELECT * FROM runs WHERE finished_at IS NOT NULL QUALIFY row_number() OVER (PARTITION BY job ORDER BY started_at DESC) = 1),
ended AS (
    SELECT run_id, max(last_acknowledged_at) AS last_acknowledged_at FROM traffic
    WHERE run_id IN (SELECT run_id FROM newest) AND bucket IS NOT NULL GROUP BY run_id),
good AS ( -- the first success of the newest time: days sent again later do not make a job look up to date
    SELECT job, finished_at AS succeeded_at FROM runs WHERE state = 'succeeded'
    QUALIFY row_number() OVER (PARTITION BY job ORDER BY scheduled_at DESC, finished_at) = 1)
SELECT job, duration_s, succeeded_at,
    epoch_us(last_acknowledged_at - CASE WHEN asked_by = 'calendar' THEN scheduled_at ELSE started_at END) / 1e6 AS end_to_end_s
FROM newest LEFT JOIN ended USING (run_id) LEFT JOIN good USING (job) ORDER BY job

-- name: days
WITH counted AS (
    SELECT quarter, topic, CASE WHEN bucket IS NOT NULL THEN 0 END AS bucket, sum(messages) AS messages,
        sum(retried) AS retried, sum(timed_out) AS timed_out, sum(bytes) AS bytes, sum(latency_us) AS latency_us,
        max(last_sent_at) AS last_sent_at, max(last_acknowledged_at) AS last_acknowledged_at
    FROM traffic WHERE quarter >= $first AND quarter < $last AND {scope_of_traffic} GROUP BY ALL)
SELECT (quarter + utc_offset)::DATE AS day, topic, {sums}
FROM counted ASOF JOIN zone ON quarter >= begins GROUP BY ALL ORDER BY day, topic

-- name: senders
SELECT run_id, job, sum(messages)::BIGINT AS messages FROM traffic
WHERE quarter >= $first AND quarter < $last AND run_id IS NOT NULL AND {scope_of_traffic}
GROUP BY run_id, job ORDER BY run_id

-- name: counted_by_day
SELECT coalesce(sum(messages), 0)::BIGINT AS messages FROM traffic
WHERE quarter >= $first AND quarter < $last AND run_id IS NULL AND {scope_of_traffic}

-- name: hours
WITH counted AS (
    SELECT date_trunc('hour', quarter + utc_offset) - utc_offset AS hour, bucket, sum(messages) AS messages,
        sum(retried) AS retried, sum(timed_out) AS timed_out, sum(bytes) AS bytes, sum(latency_us) AS latency_us,
        max(last_sent_at) AS last_sent_at, max(last_acknowledged_at) AS last_acknowledged_at
    FROM traffic ASOF JOIN zone ON quarter >= begins
    WHERE quarter >= $first AND quarter < $last AND run_id IS NOT NULL AND {scope_of_traffic} GROUP BY ALL),
ranked AS (
    SELECT hour, bucket, sum(messages) OVER (PARTITION BY hour ORDER BY bucket) AS seen,
        sum(messages) OVER (PARTITION BY hour) AS total FROM counted WHERE bucket IS NOT NULL)
SELECT * FROM (SELECT hour, {sums} FROM counted GROUP BY hour)
    LEFT JOIN (SELECT hour, {percentiles} FROM ranked GROUP BY hour) USING (hour) ORDER BY hour

-- name: usual
-- Messages of earlier days of the same weekday: the whole day, and up to the same time of day, which is not known of a
-- day that is rolled up.
SELECT begins AS day_begins,
    coalesce(sum(messages) FILTER (WHERE bucket IS NOT NULL), 0)::BIGINT AS whole_day,
    CASE WHEN coalesce(bool_and(is_timed), true)
        THEN coalesce(sum(messages) FILTER (WHERE bucket IS NOT NULL AND quarter < so_far), 0)::BIGINT END AS so_far
FROM (SELECT unnest($begins::TIMESTAMP[]) AS begins, unnest($so_far::TIMESTAMP[]) AS so_far, unnest($ends::TIMESTAMP[]) AS ends) days
    LEFT JOIN (SELECT quarter, run_id IS NOT NULL OR messages = 0 AS is_timed, bucket, messages FROM traffic
               WHERE quarter >= $first AND quarter < $last AND {scope_of_traffic}) ON quarter >= begins AND quarter < ends
GROUP BY begins ORDER BY begins

-- name: errors
-- A failed message counts as sent later when another run of the same job and scheduled time, which makes the same ids of
-- the same rows, has its id acknowledged.
WITH lost AS MATERIALIZED (
    SELECT error, message_id, run_id, job, sent_at FROM sends
    WHERE status = 'failed' AND sent_at >= $since AND sent_at < $until AND {scope}),
again AS (
    SELECT DISTINCT other.run_id FROM (SELECT DISTINCT run_id FROM lost) JOIN runs first USING (run_id)
        JOIN runs other ON other.job = first.job AND other.scheduled_at = first.scheduled_at AND other.run_id <> first.run_id),
arrived AS (
    SELECT DISTINCT message_id FROM sends
    WHERE status = 'acknowledged' AND run_id IN (SELECT run_id FROM again) AND message_id IN (SELECT message_id FROM lost))
SELECT error, count(*) AS count, max(sent_at) AS last_seen, count(arrived.message_id) AS retried_ok,
    (max({'at': sent_at, 'run': run_id}) FILTER (WHERE job <> '')).run AS last_run
FROM lost LEFT JOIN arrived USING (message_id) GROUP BY error ORDER BY count DESC, error LIMIT $limit

-- name: run_errors
-- A run counts as repeated when a later one of the same job and scheduled time succeeded.
SELECT e.error_text AS error, e.error_class, count(*) AS count, max(e.ended_at) AS last_seen,
    count(*) FILTER (WHERE EXISTS (SELECT 1 FROM runs g WHERE g.job = e.job AND g.scheduled_at = e.scheduled_at
        AND g.state = 'succeeded' AND g.started_at > e.started_at)) AS retried_ok,
    max({'at': e.ended_at, 'run': e.run_id}).run AS last_run
FROM (SELECT *, coalesce(finished_at, started_at) AS ended_at FROM runs
      WHERE error_text IS NOT NULL AND ($job IS NULL OR job = $job) AND ($topic IS NULL OR topic = $topic)
          AND ($cluster IS NULL OR cluster = $cluster)) e
WHERE ended_at >= $since AND ended_at < $until
GROUP BY ALL ORDER BY count DESC, error LIMIT $limit

-- name: reject_reasons
SELECT x.column_name AS "column", x.database_type, x.reason, count(*) AS count, count(DISTINCT x.run_id) AS runs,
    max(coalesce(r.finished_at, r.started_at)) AS last_seen,
    max({'at': coalesce(r.finished_at, r.started_at), 'run': r.run_id}).run AS last_run
FROM reject x JOIN runs r USING (run_id)
WHERE coalesce(r.finished_at, r.started_at) >= $since AND coalesce(r.finished_at, r.started_at) < $until
    AND ($job IS NULL OR r.job = $job) AND ($topic IS NULL OR r.topic = $topic)
    AND ($cluster IS NULL OR r.cluster = $cluster)
GROUP BY ALL ORDER BY count DESC, "column", reason LIMIT $limit

-- name: rejected_days
WITH counted AS (
    SELECT coalesce(finished_at, started_at) AS ended_at, rejected FROM runs
    WHERE rejected > 0 AND ($job IS NULL OR job = $job) AND ($topic IS NULL OR topic = $topic)
        AND ($cluster IS NULL OR cluster = $cluster))
SELECT (ended_at + utc_offset)::DATE AS day, sum(rejected)::BIGINT AS rejected
FROM counted ASOF JOIN zone ON ended_at >= begins
WHERE ended_at >= $since AND ended_at < $until GROUP BY ALL ORDER BY day

-- name: run_figures
-- The trigger is the scheduled time for a run of the calendar, else the moment at which the run began.
WITH chosen AS (
    SELECT * FROM runs WHERE started_at >= $since AND started_at < $until AND ($job IS NULL OR job = $job)
        AND ($topic IS NULL OR topic = $topic) AND ($cluster IS NULL OR cluster = $cluster)),
ended AS (
    SELECT run_id, max(last_acknowledged_at) AS last_acknowledged_at FROM traffic
    WHERE run_id IN (SELECT run_id FROM chosen) AND quarter >= quarter_of($since) AND bucket IS NOT NULL GROUP BY run_id)
SELECT chosen.*, last_acknowledged_at,
    CASE WHEN asked_by = 'calendar' THEN scheduled_at ELSE started_at END AS triggered_at,
    epoch_us(last_acknowledged_at - triggered_at) / 1e6 AS end_to_end_s,
    rows_read / nullif(duration_s, 0) AS rows_per_s
FROM chosen LEFT JOIN ended USING (run_id) ORDER BY started_at DESC, run_id LIMIT $limit

-- name: run_span
SELECT min(sent_at) AS first_sent_at, min(acknowledged_at) AS first_acknowledged_at,
    max(acknowledged_at) AS last_acknowledged_at
FROM (SELECT sent_at, CASE WHEN status = 'acknowledged'
        THEN sent_at + to_microseconds(round(latency_ms::DOUBLE * 1000)::BIGINT) END AS acknowledged_at
      FROM sends WHERE run_id = $run_id AND sent_at >= $since AND sent_at < $until)

-- name: job_runs
WITH chosen AS (
    SELECT * FROM runs WHERE started_at >= $since AND started_at < $until AND ($job IS NULL OR job = $job)
        AND ($topic IS NULL OR topic = $topic) AND ($cluster IS NULL OR cluster = $cluster)),
ended AS (
    SELECT run_id, max(last_acknowledged_at) AS last_acknowledged_at FROM traffic
    WHERE run_id IN (SELECT run_id FROM chosen) AND quarter >= quarter_of($since) AND bucket IS NOT NULL GROUP BY run_id)
SELECT job, count(*) AS runs, count(*) FILTER (WHERE state = 'succeeded') AS succeeded,
    count(*) FILTER (WHERE state IN ('partial', 'failed', 'interrupted')) AS not_succeeded,
    sum(rows_read)::BIGINT AS rows_read, sum(acknowledged)::BIGINT AS acknowledged, sum(rejected)::BIGINT AS rejected,
    avg(duration_s) FILTER (WHERE finished_at IS NOT NULL) AS duration_avg_s,
    max(duration_s) FILTER (WHERE finished_at IS NOT NULL) AS duration_max_s,
    sum(rows_read) / nullif(sum(duration_s), 0) AS rows_per_s,
    avg(epoch_us(last_acknowledged_at - CASE WHEN asked_by = 'calendar' THEN scheduled_at ELSE started_at END) / 1e6) AS end_to_end_avg_s,
    max(epoch_us(last_acknowledged_at - CASE WHEN asked_by = 'calendar' THEN scheduled_at ELSE started_at END) / 1e6) AS end_to_end_max_s
FROM chosen LEFT JOIN ended USING (run_id) GROUP BY job ORDER BY job

-- name: latency_histogram
SELECT CASE WHEN bucket = 0 THEN 0 ELSE 0.1 * pow(1.03, bucket - 1) END AS from_ms, 0.1 * pow(1.03, bucket) AS to_ms,
    sum(messages)::BIGINT AS messages
FROM traffic WHERE run_id = $run_id AND bucket IS NOT NULL GROUP BY bucket ORDER BY bucket

-- name: head_of_key
SELECT key_head($key) AS head

-- name: found
-- Sends of earlier versions have no cluster, but their run has.
-- The key, and the key as a CHAR column pads it with blanks. `same` is false where another key has this hash;
-- it is not in a WHERE, which would compute it for every send. The hits are found before the join, which would join all.
WITH hit AS MATERIALIZED (SELECT * FROM send WHERE key_hash = key_hash($key))
SELECT s.* REPLACE (coalesce(s.cluster, r.cluster) AS cluster), r.job_name, r.timezone, r.scheduled_at, rtrim(key, ' ') = $key AS same
FROM (SELECT {stored_columns} FROM hit JOIN sender USING (sender)
      UNION ALL SELECT * FROM waiting WHERE rtrim(key, ' ') = $key) s LEFT JOIN runs r USING (run_id)
ORDER BY same DESC, sent_at, attempt LIMIT $limit

-- name: found_beginning
-- The newest rows are adjacent. Only the rows shown are read completely. `begins` is false where other characters have the same 4 bits.
SELECT s.* REPLACE (coalesce(s.cluster, r.cluster) AS cluster), r.job_name, r.timezone, r.scheduled_at
FROM (SELECT {stored_columns}, starts_with(key, $key) AS begins FROM send JOIN sender USING (sender) WHERE number IN (
          SELECT number FROM send WHERE key_head BETWEEN $low AND $high AND {match} ORDER BY number DESC LIMIT $limit)
      UNION ALL
      (SELECT *, true FROM waiting WHERE starts_with(key, $key) ORDER BY sent_at DESC LIMIT $limit)) s
    LEFT JOIN runs r USING (run_id)
ORDER BY sent_at DESC, attempt DESC

-- name: acknowledged_ids
SELECT DISTINCT message_id FROM sends WHERE run_id IN (SELECT unnest(?)) AND status = 'acknowledged'

-- name: rolled_up_version
SELECT decode(value) AS version FROM parquet_kv_metadata(?) WHERE decode(key) = 'version'

-- name: rolled_up_segments
SELECT DISTINCT segment FROM read_parquet(?) WHERE segment IS NOT NULL

-- name: rolled_up_runs
SELECT DISTINCT run_id FROM read_parquet(?) WHERE run_id IN (SELECT unnest(?::VARCHAR[]))

-- name: known_days
SELECT job, since FROM known_since ORDER BY since, job NULLS FIRST

-- name: known_since
SELECT job, since FROM read_parquet(?) WHERE since IS NOT NULL ORDER BY since, job NULLS FIRST

-- name: expired_runs
-- Whole runs that ended, of which every send is older than the first day that is kept for their job, and is copied.
CREATE OR REPLACE TEMP TABLE expired AS
SELECT sent.run_id, sent.job, run.cluster
FROM (SELECT run_id, job, max(last_sent_at) AS last_sent_at FROM traffic WHERE run_id IS NOT NULL GROUP BY ALL) sent
    LEFT JOIN run USING (run_id) LEFT JOIN kept ON kept.job = sent.job
WHERE sent.last_sent_at < coalesce(kept.since, (SELECT since FROM kept WHERE job IS NULL))
    AND (run.run_id IS NULL OR run.finished_at IS NOT NULL)
    AND sent.run_id NOT IN (SELECT unnest(?::VARCHAR[]))
    AND sent.run_id IN (SELECT run_id FROM {run_segments})

-- name: keep_half_merged
-- The runs of a merged segment go together, so that its file can be deleted.
DELETE FROM expired WHERE run_id IN (SELECT run_id FROM merged WHERE name IN (
    SELECT name FROM merged WHERE run_id NOT IN (SELECT run_id FROM expired)))

-- name: expired_segments
CREATE OR REPLACE TEMP TABLE expired_segment AS
SELECT name AS segment, run_id FROM {run_segments} JOIN expired USING (run_id)

-- name: write_rolled_up
-- One file: the counts of each day, the segments that they replace, and from when on single sends are known.
COPY (
    WITH counted AS (
        SELECT (quarter + utc_offset)::DATE + INTERVAL 12 HOUR - utc_offset AS quarter, job, topic, e.cluster, bucket, run_id,
            messages, retried, timed_out, bytes, latency_us, last_sent_at, last_acknowledged_at, 0 AS runs
        FROM traffic t JOIN expired e USING (run_id, job) ASOF JOIN zone ON quarter >= begins),
    every AS (
        SELECT * EXCLUDE (run_id) FROM counted
        UNION ALL BY NAME
        SELECT quarter, job, topic, cluster, 0 AS messages, 0 AS retried, 0 AS timed_out, 0 AS bytes, 0 AS latency_us,
            count(DISTINCT run_id) AS runs FROM counted GROUP BY ALL
        UNION ALL BY NAME
        SELECT * EXCLUDE (run_id) FROM traffic WHERE run_id IS NULL),
    summed AS (
        SELECT quarter, job, topic, cluster, bucket, sum(messages)::BIGINT AS messages, sum(retried)::BIGINT AS retried,
            sum(timed_out)::BIGINT AS timed_out, sum(bytes)::BIGINT AS bytes, sum(latency_us)::BIGINT AS latency_us,
            max(last_sent_at) AS last_sent_at, max(last_acknowledged_at) AS last_acknowledged_at, sum(runs)::BIGINT AS runs
        FROM every GROUP BY ALL)
    SELECT *, NULL::VARCHAR AS segment, NULL::VARCHAR AS run_id, NULL::DATE AS since FROM summed
    UNION ALL BY NAME SELECT segment, run_id FROM expired_segment
    UNION ALL BY NAME SELECT segment, run_id FROM {before} WHERE segment IS NOT NULL
    UNION ALL BY NAME SELECT job, since FROM since_now
    ORDER BY quarter NULLS LAST, job, topic, bucket, segment
) TO '{file}' (FORMAT parquet, COMPRESSION zstd, KV_METADATA {version: '{version}'})

-- name: since_now
-- What is rolled up stays so, also after more days are to be kept. The year 1: a job of which every send is known.
CREATE OR REPLACE TEMP TABLE since_now AS
WITH expired_now AS (
    SELECT k.job, k.day AS since FROM kept k WHERE EXISTS (SELECT 1 FROM expired e
        WHERE e.job = k.job OR (k.job IS NULL AND e.job NOT IN (SELECT job FROM kept WHERE job IS NOT NULL)))),
common AS (
    SELECT max(since) AS since FROM (SELECT * FROM expired_now UNION ALL SELECT * FROM known_since) WHERE job IS NULL),
own AS (
    SELECT job, max(since) AS since FROM (
        SELECT * FROM expired_now UNION ALL SELECT * FROM known_since
        UNION ALL SELECT job, DATE '0001-01-01' FROM kept
        UNION ALL SELECT job, (SELECT since FROM known_since WHERE job IS NULL) FROM kept
            WHERE job NOT IN (SELECT job FROM known_since WHERE job IS NOT NULL)) WHERE job IS NOT NULL GROUP BY job)
SELECT NULL::VARCHAR AS job, since FROM common WHERE since IS NOT NULL
UNION ALL
SELECT job, since FROM own WHERE job IN (SELECT job FROM kept) OR since > (SELECT coalesce(since, DATE '0001-01-01') FROM common)

-- name: nothing_expired
CREATE OR REPLACE TEMP TABLE expired (run_id VARCHAR, job VARCHAR, cluster VARCHAR);
CREATE OR REPLACE TEMP TABLE expired_segment (segment VARCHAR, run_id VARCHAR);
CREATE OR REPLACE TEMP TABLE since_now AS FROM known_since

-- name: gone_runs
CREATE OR REPLACE TEMP TABLE gone AS
SELECT DISTINCT r.run_id, r.segment FROM read_parquet('{file}') r JOIN segment s ON s.name = r.segment

-- name: forget_sends
DELETE FROM send WHERE sender IN (SELECT sender FROM sender WHERE run_id IN (SELECT run_id FROM gone))

-- name: forget_senders
DELETE FROM sender WHERE run_id IN (SELECT run_id FROM gone)

-- name: forget_traffic
DELETE FROM traffic WHERE run_id IS NULL OR run_id IN (SELECT run_id FROM gone)

-- name: forget_segments
DELETE FROM segment WHERE name IN (SELECT segment FROM gone)

-- name: forget_merged
DELETE FROM merged WHERE run_id IN (SELECT run_id FROM gone)

-- name: insert_rolled_up
INSERT INTO traffic SELECT quarter, NULL, job, topic, bucket, messages, retried, timed_out, bytes, latency_us, last_sent_at,
    last_acknowledged_at, cluster, runs FROM read_parquet('{file}') WHERE quarter IS NOT NULL

-- name: insert_known_since
INSERT INTO known_since SELECT job, since FROM read_parquet('{file}') WHERE since IS NOT NULL
