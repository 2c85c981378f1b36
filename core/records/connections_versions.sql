-- The versions of connections.json, without its secrets.
-- Times are UTC, ISO 8601 text, so that they sort. The schema is split at semicolons: none in its comments.

-- name: insert
-- `sha256` is of time and text: a text that came back is another version.
INSERT INTO connections_version SELECT :sha256, :document, :seen_at, :saved_by WHERE :document <> coalesce(
    (SELECT document FROM connections_version ORDER BY seen_at DESC, rowid DESC LIMIT 1), '')

-- name: newest_first
SELECT * FROM connections_version ORDER BY seen_at DESC, rowid DESC
