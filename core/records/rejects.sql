-- Rejected rows; ledger.sql makes the table.

-- name: insert
INSERT OR REPLACE INTO reject VALUES (:run_id, :row_number, :column_name, :database_type, :reason, :key, :row)

-- name: count
SELECT count(*) FROM reject WHERE run_id = :run_id

-- name: rows
SELECT run_id, row_number, column_name, database_type, reason, key
FROM reject WHERE run_id IN (SELECT value FROM json_each(:run_ids)) ORDER BY run_id, row_number

-- name: of_run
SELECT * FROM reject WHERE run_id = :run_id ORDER BY row_number
