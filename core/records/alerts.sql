-- Alerts: since when something is wrong, and what people have been or are to be told. Times are UTC, ISO 8601 text.
-- The schema is split at semicolons: none in its comments.

-- name: schema
CREATE TABLE episode (
    episode_id     INTEGER PRIMARY KEY AUTOINCREMENT,
    rule           TEXT NOT NULL,     -- a rule of alerts.json, or job_failed, late
    subject        TEXT NOT NULL,     -- a job's slug, a cluster's name, runner
    state          TEXT NOT NULL,     -- pending, open, ended
    first_true_at  TEXT NOT NULL,
    opened_at      TEXT,              -- it held for as long as the rule says
    last_true_at   TEXT NOT NULL,
    told_at        TEXT,              -- when people were told last
    ended_at       TEXT,
    value          REAL,
    text           TEXT NOT NULL
) STRICT;
CREATE UNIQUE INDEX episode_once ON episode (rule, subject) WHERE state IN ('pending', 'open');
CREATE TABLE outbox (
    outbox_id      INTEGER PRIMARY KEY AUTOINCREMENT,
    kind           TEXT NOT NULL,     -- alert, recovered, job, receipt
    episode_id     INTEGER,
    dedupe_key     TEXT NOT NULL UNIQUE,
    channel        TEXT NOT NULL,     -- mail, or a channel of alerts.json
    recipients     TEXT NOT NULL,     -- JSON list of addresses
    delivered      TEXT NOT NULL DEFAULT '[]',   -- JSON list: these have it
    refused        TEXT NOT NULL DEFAULT '{}',   -- JSON object: address → why the server will never take it
    subject        TEXT NOT NULL,
    body           TEXT NOT NULL,
    body_html      TEXT NOT NULL,
    created_at     TEXT NOT NULL,
    next_try_at    TEXT NOT NULL,
    tries          INTEGER NOT NULL DEFAULT 0,
    state          TEXT NOT NULL,     -- waiting, sent, given_up
    last_error     TEXT NOT NULL DEFAULT '',
    sent_at        TEXT
) STRICT;
CREATE INDEX outbox_waiting ON outbox (state) WHERE state = 'waiting';
CREATE TABLE considered (
    what           TEXT PRIMARY KEY,
    until          TEXT NOT NULL      -- what ended up to here has been looked at
) STRICT;
CREATE INDEX run_by_end ON run (finished_at);
CREATE INDEX fire_by_end ON fire (finished_at);

-- name: open_episodes
SELECT * FROM episode WHERE state IN ('pending', 'open') ORDER BY episode_id

-- name: episodes
SELECT * FROM episode WHERE state <> 'pending' ORDER BY episode_id DESC LIMIT :limit

-- name: begin_episode
INSERT INTO episode (rule, subject, state, first_true_at, opened_at, last_true_at, value, text)
VALUES (:rule, :subject, CASE WHEN :is_open THEN 'open' ELSE 'pending' END, :now, CASE WHEN :is_open THEN :now END, :now, :value, :text)

-- name: keep_episode
UPDATE episode SET last_true_at = :now, value = :value, text = :text WHERE episode_id = :episode_id

-- name: restart_episode
UPDATE episode SET first_true_at = :now WHERE episode_id = :episode_id

-- name: open_episode
UPDATE episode SET state = 'open', opened_at = :now WHERE episode_id = :episode_id AND state = 'pending'

-- name: told_episode
UPDATE episode SET told_at = :now WHERE episode_id = :episode_id

-- name: told_job
UPDATE episode SET told_at = :now WHERE rule = 'job_failed' AND subject = :subject AND state = 'open'

-- name: forget_episode
DELETE FROM episode WHERE episode_id = :episode_id AND state = 'pending'

-- name: end_episode
UPDATE episode SET state = 'ended', ended_at = :now, text = :text WHERE episode_id = :episode_id AND state = 'open'

-- name: put
INSERT OR IGNORE INTO outbox (kind, episode_id, dedupe_key, channel, recipients, subject, body, body_html, created_at, next_try_at, state)
VALUES (:kind, :episode_id, :dedupe_key, :channel, :recipients, :subject, :body, :body_html, :now, :now, 'waiting')

-- name: was_put
SELECT 1 FROM outbox WHERE dedupe_key = :dedupe_key

-- name: due
SELECT * FROM outbox WHERE state = 'waiting' AND (next_try_at <= :now OR created_at > :now) ORDER BY outbox_id LIMIT 200

-- name: waiting
SELECT * FROM outbox WHERE state = 'waiting' ORDER BY outbox_id

-- name: newest
SELECT * FROM outbox WHERE state <> 'waiting' ORDER BY outbox_id DESC LIMIT :limit

-- name: given_up_since
SELECT * FROM outbox WHERE state = 'given_up' AND next_try_at >= :since ORDER BY outbox_id

-- name: settle
UPDATE outbox SET state = :state, tries = tries + 1, delivered = :delivered, refused = :refused, last_error = :last_error,
    next_try_at = :next_try_at, sent_at = :sent_at WHERE outbox_id = :outbox_id AND state = 'waiting'

-- name: prune
DELETE FROM outbox WHERE state <> 'waiting' AND created_at < :before

-- name: considered
SELECT until FROM considered WHERE what = :what

-- name: set_considered
INSERT INTO considered VALUES (:what, :until) ON CONFLICT (what) DO UPDATE SET until = excluded.until

-- name: ended_runs
-- Every attempt that sends: what it says about the cluster.
SELECT run_id, job, job_name, topic, timezone, scheduled_at, finished_at, state, acknowledged, failed, latency_counts, error_text
FROM run WHERE finished_at > :after AND state IN ('succeeded', 'partial', 'failed') AND topic <> '' ORDER BY finished_at

-- name: final_runs
-- Verdicts that stand: of fires that are done, and of runs that no scheduled_run repeats.
SELECT run_id FROM run WHERE finished_at > :after AND scheduled_run_id IS NULL AND state IN ('succeeded', 'partial', 'failed', 'interrupted')
UNION ALL
SELECT scheduled_run.run_id FROM scheduled_run JOIN run USING (run_id)
WHERE scheduled_run.finished_at > :after AND scheduled_run.state = 'done' AND run.state IN ('succeeded', 'partial', 'failed', 'interrupted')

-- name: newest_samples
SELECT cluster, max(at) AS at, connected, error FROM broker_sample WHERE at >= :since GROUP BY cluster

-- name: runs_scheduled
SELECT run_id FROM run WHERE scheduled_at >= :since AND scheduled_at < :until AND kind IN ('job', 'replay') ORDER BY scheduled_at, started_at

-- name: latency_counts
SELECT run_id, topic, latency_counts FROM run WHERE scheduled_at >= :since AND scheduled_at < :until AND acknowledged > 0
