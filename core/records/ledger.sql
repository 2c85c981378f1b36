-- The runs: SQLite, one file a workspace. Times are UTC, ISO 8601 text, so that they sort.
-- The schema is split at semicolons: none in its comments.

-- name: schema
CREATE TABLE run (
    run_id            TEXT PRIMARY KEY,
    kind              TEXT NOT NULL,     -- job, replay, send
    job               TEXT NOT NULL,
    job_name          TEXT NOT NULL,
    connection        TEXT NOT NULL,
    cluster           TEXT NOT NULL,
    topic             TEXT NOT NULL,
    query             TEXT NOT NULL,
    scheduled_at      TEXT NOT NULL,
    window_start      TEXT,              -- the scheduled time before this one, NULL where the job has no calendar
    timezone          TEXT NOT NULL,
    attempt           INTEGER NOT NULL,
    of_run            TEXT,              -- the run that a replay repeats
    asked_by          TEXT NOT NULL,
    parameters        TEXT NOT NULL,     -- JSON object, resolved values
    sql_sha256        TEXT NOT NULL,
    sql_text          TEXT NOT NULL,     -- the statements as they reached the driver
    state             TEXT NOT NULL,
    pid               INTEGER NOT NULL,
    pid_started_at    REAL NOT NULL,     -- Unix time, since a pid alone is used again by the system
    host              TEXT NOT NULL,
    started_at        TEXT NOT NULL,
    finished_at       TEXT,
    rows_read         INTEGER NOT NULL DEFAULT 0,
    rows_counted      INTEGER,           -- COUNT(*) in the same snapshot, where asked for
    sent              INTEGER NOT NULL DEFAULT 0,
    acknowledged      INTEGER NOT NULL DEFAULT 0,
    rejected          INTEGER NOT NULL DEFAULT 0,
    failed            INTEGER NOT NULL DEFAULT 0,
    retried           INTEGER NOT NULL DEFAULT 0,
    bytes             INTEGER NOT NULL DEFAULT 0,
    duration_s        REAL NOT NULL DEFAULT 0,
    latency_avg_ms    REAL,
    latency_p50_ms    REAL,
    latency_p90_ms    REAL,
    latency_p99_ms    REAL,
    latency_counts    TEXT NOT NULL DEFAULT '{}',  -- JSON object: latency in ms to two digits → messages
    error_class       TEXT,
    error_text        TEXT,
    error_remedy      TEXT,
    error_retriable   INTEGER,
    fire_id           INTEGER,           -- NULL where it was started by hand
    job_sha256        TEXT NOT NULL DEFAULT '',
    cancel_asked_at   TEXT,              -- polled every half second by the process of the run
    cancel_asked_by   TEXT
) STRICT;
CREATE INDEX run_by_state ON run (state);
CREATE INDEX run_of_fire ON run (fire_id);
CREATE INDEX run_by_time ON run (started_at);
CREATE INDEX run_by_fire ON run (job, scheduled_at);
CREATE TABLE run_partition (
    run_id            TEXT NOT NULL REFERENCES run,
    topic             TEXT NOT NULL,
    partition         INTEGER NOT NULL,
    first_offset      INTEGER NOT NULL,
    last_offset       INTEGER NOT NULL,
    count             INTEGER NOT NULL,
    PRIMARY KEY (run_id, topic, partition)
) STRICT;
CREATE TABLE run_file (
    run_id            TEXT NOT NULL REFERENCES run,
    path              TEXT NOT NULL,     -- below the workspace
    rows              INTEGER NOT NULL,
    size_bytes        INTEGER NOT NULL,
    sha256            TEXT NOT NULL,
    PRIMARY KEY (run_id, path)
) STRICT;
CREATE TABLE reject (
    run_id            TEXT NOT NULL REFERENCES run,
    row_number        INTEGER NOT NULL,
    column_name       TEXT NOT NULL,
    database_type     TEXT NOT NULL,
    reason            TEXT NOT NULL,
    key               TEXT,
    row               TEXT,              -- JSON object: column → text
    PRIMARY KEY (run_id, row_number)
) STRICT;

-- name: schema_3
-- The ids of the cluster and topic of a run, which no renaming changes, and how many rejects its job accepts.
ALTER TABLE run ADD COLUMN cluster_id TEXT NOT NULL DEFAULT '';
ALTER TABLE run ADD COLUMN bootstrap_servers TEXT NOT NULL DEFAULT '';
ALTER TABLE run ADD COLUMN topic_id TEXT NOT NULL DEFAULT '';
ALTER TABLE run ADD COLUMN max_rejects INTEGER NOT NULL DEFAULT 0;
ALTER TABLE run ADD COLUMN warnings TEXT NOT NULL DEFAULT '[]';
CREATE TABLE verification (
    run_id            TEXT NOT NULL REFERENCES run,
    checked_at        TEXT NOT NULL,
    mode              TEXT NOT NULL,     -- count, full
    answer            TEXT NOT NULL,     -- complete, missing, other_content, duplicates, not_verifiable
    acknowledged      INTEGER NOT NULL,
    found             INTEGER NOT NULL,
    missing           INTEGER NOT NULL,
    other_content     INTEGER NOT NULL,
    duplicates        INTEGER NOT NULL,
    not_verifiable    INTEGER NOT NULL,
    reason            TEXT NOT NULL,     -- why it is, or may be, not verifiable
    listed            TEXT NOT NULL,     -- JSON list: the first messages that are not as they should be
    duration_s        REAL NOT NULL,
    PRIMARY KEY (run_id, checked_at)
) STRICT;
CREATE TABLE connections_version (
    sha256            TEXT PRIMARY KEY,  -- of the document
    document          TEXT NOT NULL,     -- connections.json without its passwords
    seen_at           TEXT NOT NULL,
    saved_by          TEXT NOT NULL      -- empty: found on disk
) STRICT;
-- Earlier versions called a run of which nothing arrived a success.
UPDATE run SET state = 'failed', error_class = 'NothingArrived', error_retriable = 0,
    error_text = 'none of the rows read was acknowledged: all were rejected',
    error_remedy = 'python -m core rejects ' || run_id || ' lists the reasons'
WHERE state = 'succeeded' AND rows_read > 0 AND acknowledged = 0 AND rejected > 0

-- name: schema_12
-- How many rows a replay of what is missing has left out, because earlier runs had sent them.
ALTER TABLE run ADD COLUMN arrived_before INTEGER NOT NULL DEFAULT 0;
-- Whether its parameters had other values than the job's own.
ALTER TABLE run ADD COLUMN is_ad_hoc INTEGER NOT NULL DEFAULT 0

-- name: insert_run
INSERT INTO run (run_id, kind, job, job_name, connection, cluster, topic, query, scheduled_at, window_start, timezone,
                 attempt, of_run, asked_by, parameters, sql_sha256, sql_text, state, pid, pid_started_at, host, started_at, scheduled_run_id, job_sha256,
                 max_rejects, is_ad_hoc)
VALUES (:run_id, :kind, :job, :job_name, :connection, :cluster, :topic, :query, :scheduled_at, :window_start, :timezone,
        1 + (SELECT count(*) FROM run WHERE job = :job AND scheduled_at = :scheduled_at),
        :of_run, :asked_by, :parameters, :sql_sha256, :sql_text, 'running', :pid, :pid_started_at, :host, :started_at, :scheduled_run_id, :job_sha256,
        :max_rejects, :is_ad_hoc)

-- name: runs_of_time
SELECT run_id, host, pid, pid_started_at FROM run WHERE job = :job AND scheduled_at = :scheduled_at AND state = 'running'
    AND (:of_backfill OR scheduled_run_id IN (SELECT scheduled_run_id FROM scheduled_run WHERE kind = 'backfill'
        AND job = :job AND scheduled_at = :scheduled_at))

-- name: place_run
UPDATE run SET cluster_id = :cluster_id, bootstrap_servers = :bootstrap_servers, topic_id = :topic_id
WHERE run_id = :run_id

-- name: claim_scheduled_run
UPDATE scheduled_run SET state = 'running', run_id = :run_id, tries = tries + 1, reason = '', not_before = NULL
WHERE scheduled_run_id = :scheduled_run_id AND state = 'planned'

-- name: finish_run
UPDATE run SET state = :state, finished_at = :finished_at, rows_read = :rows_read, rows_counted = :rows_counted,
    sent = :sent, acknowledged = :acknowledged, rejected = :rejected, failed = :failed, retried = :retried,
    bytes = :bytes, duration_s = :duration_s, latency_avg_ms = :latency_avg_ms, latency_p50_ms = :latency_p50_ms,
    latency_p90_ms = :latency_p90_ms, latency_p99_ms = :latency_p99_ms, latency_counts = :latency_counts, error_class = :error_class,
    error_text = :error_text, error_remedy = :error_remedy, error_retriable = :error_retriable, warnings = :warnings, arrived_before = :arrived_before
WHERE run_id = :run_id

-- name: insert_partition
INSERT OR REPLACE INTO run_partition VALUES (:run_id, :topic, :partition, :first_offset, :last_offset, :count)

-- name: insert_file
INSERT INTO run_file VALUES (:run_id, :path, :rows, :size_bytes, :sha256)

-- name: insert_verification
INSERT INTO verification VALUES (:run_id, :checked_at, :mode, :answer, :acknowledged, :found, :missing, :other_content,
    :duplicates, :not_verifiable, :reason, :listed, :duration_s)

-- name: runs_like
SELECT * FROM run WHERE run_id >= :prefix AND run_id < :prefix || 'g' ORDER BY run_id LIMIT 2

-- name: run_of_id
SELECT * FROM run WHERE run_id = :run_id

-- name: recognise
UPDATE run SET of_run = coalesce(of_run, :earlier) WHERE run_id = :run_id

-- name: runs_open
SELECT * FROM run WHERE state IN ('planned', 'running')

-- name: ask_to_end
UPDATE run SET cancel_asked_at = :asked_at, cancel_asked_by = :asked_by
WHERE run_id = :run_id AND state = 'running' AND cancel_asked_at IS NULL

-- name: asked_to_end
SELECT cancel_asked_by FROM run WHERE state = 'running' AND pid = :pid AND host = :host AND job = :job
    AND cancel_asked_at IS NOT NULL

-- name: process_of
SELECT host, pid, pid_started_at FROM run WHERE run_id = :run_id

-- name: close_run
UPDATE run SET state = :state, finished_at = :finished_at, error_class = :error_class, error_text = :error_text,
    error_remedy = :error_remedy, error_retriable = :error_retriable WHERE run_id = :run_id AND state = 'running'

-- name: interrupt
UPDATE run SET state = 'interrupted', finished_at = :finished_at, error_class = 'Interrupted', error_text = :error_text,
    error_remedy = :error_remedy, error_retriable = 1 WHERE run_id = :run_id AND state = 'running'
