-- The parts of partitioned runs. run_history.sql reads them.

-- name: schema_7
CREATE TABLE run_part (
    run_id            TEXT NOT NULL REFERENCES run,
    part              INTEGER NOT NULL,  -- from 1
    state             TEXT NOT NULL,     -- waiting, reading, sending, committing, succeeded, failed, cancelled, lost
    attempt           INTEGER NOT NULL,  -- from 1
    worker            TEXT NOT NULL,     -- where it runs or ran
    rows_read         INTEGER NOT NULL,
    acknowledged      INTEGER NOT NULL,
    rejected          INTEGER NOT NULL,
    duration_s        REAL NOT NULL,
    error             TEXT NOT NULL,     -- empty: none
    PRIMARY KEY (run_id, part)
) STRICT

-- name: put
INSERT OR REPLACE INTO run_part VALUES (:run_id, :part, :state, :attempt, :worker, :rows_read, :acknowledged, :rejected,
    :duration_s, :error)
