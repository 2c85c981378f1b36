-- The versions of connections.json, without its secrets.
-- Times are UTC, ISO 8601 text, so that they sort. The schema is split at semicolons: none in its comments.

-- name: insert
INSERT INTO connections_version VALUES (:sha256, :document, :seen_at, :saved_by)
ON CONFLICT (sha256) DO UPDATE SET seen_at = excluded.seen_at

-- name: newest_first
SELECT * FROM connections_version ORDER BY seen_at DESC, rowid DESC
