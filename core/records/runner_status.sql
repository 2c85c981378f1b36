-- The runner's heartbeat, and the connection checks of each Kafka cluster.
-- Times are UTC, ISO 8601 text, so that they sort. The schema is split at semicolons: none in its comments.

-- name: schema
CREATE TABLE runner (
    id                INTEGER PRIMARY KEY CHECK (id = 1),
    host              TEXT NOT NULL,
    pid               INTEGER NOT NULL,
    pid_started_at    REAL NOT NULL,
    started_at        TEXT NOT NULL,
    beat_at           TEXT NOT NULL,
    version           TEXT NOT NULL,
    memory_bytes      INTEGER NOT NULL,
    memory_share      REAL NOT NULL,     -- of the machine's memory, 0 to 1
    state             TEXT NOT NULL,     -- working, stopping, stopped
    jobs_loaded       INTEGER NOT NULL,
    problems          TEXT NOT NULL      -- JSON list of {where, text, instead}
) STRICT;
CREATE TABLE broker_sample (
    cluster           TEXT NOT NULL,
    at                TEXT NOT NULL,
    connected         INTEGER NOT NULL,
    latency_ms        REAL,
    error             TEXT
) STRICT;
CREATE INDEX broker_sample_by_time ON broker_sample (at)

-- name: write_heartbeat
INSERT OR REPLACE INTO runner VALUES (1, :host, :pid, :pid_started_at, :started_at, :beat_at, :version, :memory_bytes,
    :memory_share, :state, :jobs_loaded, :problems)

-- name: heartbeat
SELECT * FROM runner WHERE id = 1

-- name: insert_broker_sample
INSERT INTO broker_sample VALUES (:cluster, :at, :connected, :latency_ms, :error)

-- name: prune_broker_samples
DELETE FROM broker_sample WHERE at < :before

-- name: broker_samples
SELECT * FROM broker_sample WHERE at >= :since AND (:cluster IS NULL OR cluster = :cluster) ORDER BY at

-- name: broker_states
-- The newest check of each cluster, and since when the result has been the same.
SELECT s.*, (SELECT min(at) FROM broker_sample f WHERE f.cluster = s.cluster AND f.connected = s.connected
    AND f.at > coalesce((SELECT max(at) FROM broker_sample o WHERE o.cluster = s.cluster AND o.connected <> s.connected), ''))
    AS since
FROM (SELECT cluster, connected, latency_ms, error, max(at) AS at FROM broker_sample GROUP BY cluster) s ORDER BY cluster
