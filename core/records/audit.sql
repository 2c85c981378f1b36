-- The audit trail: who changed what.
-- Times are UTC, ISO 8601 text, so that they sort. The schema is split at semicolons: none in its comments.

-- name: schema
CREATE TABLE audit (
    audit_id          INTEGER PRIMARY KEY AUTOINCREMENT,
    at                TEXT NOT NULL,
    who               TEXT NOT NULL,
    action            TEXT NOT NULL,
    object            TEXT NOT NULL,
    before            TEXT,              -- JSON
    after             TEXT               -- JSON
) STRICT;
CREATE INDEX audit_by_time ON audit (at)

-- name: insert
INSERT INTO audit (at, who, action, object, before, after) VALUES (:at, :who, :action, :object, :before, :after)

-- name: entries
SELECT * FROM audit WHERE (:object IS NULL OR object = :object) ORDER BY audit_id DESC LIMIT :limit
