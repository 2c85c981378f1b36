-- Answers that a program may ask for again with the same Idempotency-Key. The schema is split at semicolons: none in its comments.

-- name: schema
CREATE TABLE idempotent_answer (
    who               TEXT NOT NULL,
    key               TEXT NOT NULL,
    request_sha256    TEXT NOT NULL,
    begun_at          TEXT NOT NULL,
    status            INTEGER,           -- NULL: running, or its process ended before the answer
    answer            TEXT,
    PRIMARY KEY (who, key)
) STRICT;
CREATE INDEX idempotent_answer_by_time ON idempotent_answer (begun_at);

-- name: prune
DELETE FROM idempotent_answer WHERE begun_at <= :before

-- name: insert
INSERT INTO idempotent_answer (who, key, request_sha256, begun_at) VALUES (:who, :key, :request_sha256, :now)
ON CONFLICT DO NOTHING

-- name: known
SELECT request_sha256, begun_at, status, answer FROM idempotent_answer WHERE who = :who AND key = :key

-- name: keep
UPDATE idempotent_answer SET status = :status, answer = :answer WHERE who = :who AND key = :key

-- name: forget
DELETE FROM idempotent_answer WHERE who = :who AND key = :key
