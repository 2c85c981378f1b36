-- The versions of SQL files, and drafts of the page.
-- Times are UTC, ISO 8601 text, so that they sort. The schema is split at semicolons: none in its comments.

-- name: schema
CREATE TABLE query_text (
    sha256            TEXT PRIMARY KEY,
    size_bytes        INTEGER NOT NULL,
    content           BLOB NOT NULL      -- compressed by zlib
) STRICT;
CREATE TABLE query_version (
    version_id        INTEGER PRIMARY KEY AUTOINCREMENT,
    query             TEXT NOT NULL,     -- the file's name below queries/
    sha256            TEXT NOT NULL,     -- of query_text, empty where the file was deleted
    seen_at           TEXT NOT NULL,
    saved_by          TEXT NOT NULL      -- empty: found on disk
) STRICT;
CREATE INDEX query_version_of ON query_version (query);
CREATE TABLE draft (
    user              TEXT NOT NULL,
    kind              TEXT NOT NULL,     -- job, query, connection
    name              TEXT NOT NULL,
    base_sha256       TEXT NOT NULL,     -- of the file when the draft was begun, empty where there was none
    document          TEXT NOT NULL,
    saved_at          TEXT NOT NULL,
    PRIMARY KEY (user, kind, name)
) STRICT

-- name: insert_text
INSERT INTO query_text VALUES (:sha256, :size_bytes, :content) ON CONFLICT DO NOTHING

-- name: insert_version
INSERT INTO query_version (query, sha256, seen_at, saved_by) VALUES (:query, :sha256, :seen_at, :saved_by)

-- name: newest_sha256
SELECT sha256 FROM query_version WHERE query = :query ORDER BY version_id DESC LIMIT 1

-- name: versions
SELECT version_id, query, sha256, size_bytes, seen_at, saved_by FROM query_version JOIN query_text USING (sha256)
WHERE query = :query ORDER BY version_id DESC

-- name: newest_of_each
-- SQLite takes the other columns from the row with the maximum.
SELECT max(version_id) AS version_id, query, sha256, seen_at, saved_by FROM query_version GROUP BY query ORDER BY query

-- name: text
SELECT content FROM query_version JOIN query_text USING (sha256) WHERE query = :query AND version_id = :version_id

-- name: rename
UPDATE query_version SET query = :to WHERE query = :query

-- name: drop_old_versions
DELETE FROM query_version WHERE query = :query AND version_id NOT IN (
    SELECT version_id FROM query_version WHERE query = :query ORDER BY version_id DESC LIMIT :kept
)

-- name: drop_unused_texts
DELETE FROM query_text WHERE sha256 NOT IN (SELECT sha256 FROM query_version)

-- name: save_draft
INSERT INTO draft VALUES (:user, :kind, :name, :base_sha256, :document, :saved_at)
ON CONFLICT DO UPDATE SET base_sha256 = excluded.base_sha256, document = excluded.document, saved_at = excluded.saved_at
WHERE document <> excluded.document OR base_sha256 <> excluded.base_sha256

-- name: draft
SELECT * FROM draft WHERE user = :user AND kind = :kind AND name = :name AND saved_at >= :since

-- name: drafts
SELECT * FROM draft WHERE user = :user AND saved_at >= :since ORDER BY saved_at DESC

-- name: drop_draft
DELETE FROM draft WHERE user = :user AND kind = :kind AND name = :name

-- name: drop_old_drafts
DELETE FROM draft WHERE saved_at < :since OR (user = :user AND rowid NOT IN (
    SELECT rowid FROM draft WHERE user = :user ORDER BY saved_at DESC, rowid DESC LIMIT :kept
))
