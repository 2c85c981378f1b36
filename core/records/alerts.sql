-- Alerts: incidents, and the messages about them. Times are UTC, ISO 8601 text.
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
    told_at        TEXT,              -- when users were last notified
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

-- name: schema_6
-- An episode is called an incident from here on.
ALTER TABLE episode RENAME TO incident;
ALTER TABLE incident RENAME COLUMN episode_id TO incident_id;
ALTER TABLE incident RENAME COLUMN told_at TO notified_at;
ALTER TABLE outbox RENAME COLUMN episode_id TO incident_id;
DROP INDEX episode_once;
CREATE UNIQUE INDEX incident_once ON incident (rule, subject) WHERE state IN ('pending', 'open')

-- name: schema_10
-- What a user says about an alert, how severe it is, and for how long nobody is notified.
ALTER TABLE incident ADD COLUMN severity TEXT NOT NULL DEFAULT 'warning';   -- warning, critical
ALTER TABLE incident ADD COLUMN run_id TEXT NOT NULL DEFAULT '';            -- the run that it is about
ALTER TABLE incident ADD COLUMN acknowledged_at TEXT;
ALTER TABLE incident ADD COLUMN acknowledged_by TEXT NOT NULL DEFAULT '';
ALTER TABLE incident ADD COLUMN note TEXT NOT NULL DEFAULT '';
ALTER TABLE incident ADD COLUMN silenced_at TEXT;                           -- since when a silence keeps its messages back
UPDATE incident SET severity = 'critical' WHERE rule = 'producer_disconnected';
CREATE TABLE silence (
    silence_id     INTEGER PRIMARY KEY AUTOINCREMENT,
    rule           TEXT NOT NULL,     -- empty: every rule
    subject        TEXT NOT NULL,     -- empty: every subject
    until          TEXT NOT NULL,
    note           TEXT NOT NULL,
    made_by        TEXT NOT NULL,
    made_at        TEXT NOT NULL,
    ended_at       TEXT,              -- a user ended it before its time
    ended_by       TEXT NOT NULL DEFAULT ''
) STRICT;
CREATE INDEX silence_by_end ON silence (until)

-- name: incident
SELECT * FROM incident WHERE incident_id = :incident_id

-- name: acknowledge
UPDATE incident SET acknowledged_at = :now, acknowledged_by = :by, note = :note
WHERE incident_id = :incident_id AND state = 'open'

-- name: insert_silence
INSERT INTO silence (rule, subject, until, note, made_by, made_at) VALUES (:rule, :subject, :until, :note, :by, :now)
RETURNING silence_id

-- name: silence
SELECT * FROM silence WHERE silence_id = :silence_id

-- name: end_silence
UPDATE silence SET ended_at = :now, ended_by = :by WHERE silence_id = :silence_id AND ended_at IS NULL AND until > :now

-- name: active_silences
SELECT * FROM silence WHERE until > :now AND ended_at IS NULL ORDER BY until, silence_id

-- name: set_silenced
UPDATE incident SET silenced_at = :at WHERE rule = :rule AND subject = :subject AND state = 'open'

-- name: open_incidents
SELECT * FROM incident WHERE state IN ('pending', 'open') ORDER BY incident_id

-- name: incidents
SELECT * FROM incident WHERE state <> 'pending' ORDER BY incident_id DESC LIMIT :limit

-- name: begin_incident
INSERT INTO incident (rule, subject, state, first_true_at, last_true_at, value, text, severity, run_id)
VALUES (:rule, :subject, 'pending', :now, :now, :value, :text, :severity, :run_id)

-- name: update_incident
UPDATE incident SET last_true_at = :now, value = :value, text = :text, severity = :severity,
    run_id = CASE WHEN :run_id = '' THEN run_id ELSE :run_id END WHERE incident_id = :incident_id

-- name: record_failure
-- Of a job. Several runs of it may fail between two evaluations.
INSERT INTO incident (rule, subject, state, first_true_at, opened_at, last_true_at, value, text, severity, run_id)
VALUES ('job_failed', :subject, CASE WHEN :is_open THEN 'open' ELSE 'pending' END, :now, CASE WHEN :is_open THEN :now END,
    :now, :value, :text, :severity, :run_id)
ON CONFLICT (rule, subject) WHERE state IN ('pending', 'open') DO UPDATE SET
    state = CASE WHEN state = 'open' OR :is_open THEN 'open' ELSE 'pending' END,
    opened_at = coalesce(opened_at, CASE WHEN :is_open THEN :now END),
    last_true_at = :now, value = :value, text = :text, severity = :severity, run_id = :run_id

-- name: end_failures
UPDATE incident SET state = 'ended', ended_at = :now, text = text || '; then: ' || :text
WHERE rule = 'job_failed' AND subject = :subject AND state = 'open'

-- name: delete_pending_failures
DELETE FROM incident WHERE rule = 'job_failed' AND subject = :subject AND state = 'pending'

-- name: restart_incident
UPDATE incident SET first_true_at = :now WHERE incident_id = :incident_id

-- name: open_incident
UPDATE incident SET state = 'open', opened_at = :now WHERE incident_id = :incident_id AND state = 'pending'

-- name: set_notified
UPDATE incident SET notified_at = :now WHERE incident_id = :incident_id

-- name: set_job_notified
UPDATE incident SET notified_at = :now WHERE rule = 'job_failed' AND subject = :subject AND state = 'open'

-- name: delete_pending_incident
DELETE FROM incident WHERE incident_id = :incident_id AND state = 'pending'

-- name: end_incident
UPDATE incident SET state = 'ended', ended_at = :now, text = :text WHERE incident_id = :incident_id AND state = 'open'

-- name: insert_message
INSERT OR IGNORE INTO outbox (kind, incident_id, dedupe_key, channel, recipients, subject, body, body_html, created_at, next_try_at, state)
VALUES (:kind, :incident_id, :dedupe_key, :channel, :recipients, :subject, :body, :body_html, :now, :now, 'waiting')

-- name: message_exists
SELECT 1 FROM outbox WHERE dedupe_key = :dedupe_key

-- name: due_messages
SELECT * FROM outbox WHERE state = 'waiting' AND (next_try_at <= :now OR created_at > :now) ORDER BY outbox_id LIMIT 200

-- name: waiting_messages
SELECT * FROM outbox WHERE state = 'waiting' ORDER BY outbox_id

-- name: newest_messages
SELECT * FROM outbox WHERE state <> 'waiting' ORDER BY outbox_id DESC LIMIT :limit

-- name: messages_given_up_since
SELECT * FROM outbox WHERE state = 'given_up' AND next_try_at >= :since ORDER BY outbox_id

-- name: record_attempt
UPDATE outbox SET state = :state, tries = tries + 1, delivered = :delivered, refused = :refused, last_error = :last_error,
    next_try_at = :next_try_at, sent_at = :sent_at WHERE outbox_id = :outbox_id AND state = 'waiting'

-- name: delete_old_messages
DELETE FROM outbox WHERE state <> 'waiting' AND created_at < :before

-- name: considered_until
SELECT until FROM considered WHERE what = :what

-- name: set_considered_until
INSERT INTO considered VALUES (:what, :until) ON CONFLICT (what) DO UPDATE SET until = excluded.until

-- name: ended_runs
-- Every attempt that sent messages, also one that the runner repeats: its rates describe the cluster.
SELECT run_id, job, job_name, topic, timezone, scheduled_at, finished_at, state, acknowledged, failed, latency_counts, error_text
FROM run WHERE finished_at > :after AND state IN ('succeeded', 'partial', 'failed') AND topic <> '' ORDER BY finished_at

-- name: final_runs
-- Final verdicts: of scheduled runs that are done, and of runs without a scheduled run, which nothing repeats.
SELECT run_id FROM run WHERE finished_at > :after AND scheduled_run_id IS NULL AND state IN ('succeeded', 'partial', 'failed', 'interrupted')
    AND NOT (is_ad_hoc AND state = 'succeeded')
UNION ALL
SELECT scheduled_run.run_id FROM scheduled_run JOIN run USING (run_id)
WHERE scheduled_run.finished_at > :after AND scheduled_run.state = 'done' AND run.state IN ('succeeded', 'partial', 'failed', 'interrupted')

-- name: verdicts_between
-- The final verdicts of all jobs with the time at which each became final. Other rows than the job's own end no failure.
SELECT run_id, job, state, error_text, finished_at AS at FROM run
WHERE finished_at > :after AND finished_at <= :until AND scheduled_run_id IS NULL AND state IN ('succeeded', 'partial', 'failed', 'interrupted')
UNION ALL
SELECT run.run_id, run.job, run.state, run.error_text, scheduled_run.finished_at AS at FROM scheduled_run JOIN run USING (run_id)
WHERE scheduled_run.finished_at > :after AND scheduled_run.finished_at <= :until AND scheduled_run.state = 'done'
    AND run.state IN ('succeeded', 'partial', 'failed', 'interrupted') AND NOT (run.is_ad_hoc AND run.state = 'succeeded')
ORDER BY at

-- name: newest_samples
SELECT cluster, max(at) AS at, connected, error FROM broker_sample WHERE at >= :since GROUP BY cluster

-- name: runs_scheduled_between
SELECT run_id FROM run WHERE scheduled_at >= :since AND scheduled_at < :until AND kind IN ('job', 'replay') ORDER BY scheduled_at, started_at

-- name: latency_counts_scheduled_between
SELECT run_id, topic, latency_counts FROM run WHERE scheduled_at >= :since AND scheduled_at < :until AND acknowledged > 0
