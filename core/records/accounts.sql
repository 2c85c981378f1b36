-- Users, tokens of programs, sessions of the page. Times are UTC, ISO 8601 text, so that they sort.
-- No secret is stored: passwords as argon2, tokens and sessions as SHA-256 of 256 random bits. The schema is split at semicolons: none in its comments.

-- name: schema
CREATE TABLE user (
    name              TEXT PRIMARY KEY COLLATE NOCASE,
    role              TEXT NOT NULL,     -- viewer, operator, admin
    email             TEXT COLLATE NOCASE UNIQUE,  -- by which OIDC identifies the person
    password_hash     TEXT,              -- NULL: only by OIDC
    created_at        TEXT NOT NULL,
    created_by        TEXT NOT NULL,
    last_sign_in_at   TEXT
) STRICT;
CREATE TABLE token (
    token_id          TEXT PRIMARY KEY,
    name              TEXT NOT NULL,
    scope             TEXT NOT NULL,     -- read, send, admin
    secret_sha256     TEXT NOT NULL,
    created_at        TEXT NOT NULL,
    created_by        TEXT NOT NULL,
    expires_at        TEXT NOT NULL,
    revoked_at        TEXT,
    last_used_at      TEXT
) STRICT;
CREATE TABLE session (
    cookie_sha256     TEXT PRIMARY KEY,
    user              TEXT NOT NULL COLLATE NOCASE REFERENCES user (name) ON DELETE CASCADE,
    created_at        TEXT NOT NULL,
    expires_at        TEXT NOT NULL
) STRICT;
CREATE INDEX session_of_user ON session (user);
CREATE TABLE wrong_password (
    subject           TEXT NOT NULL COLLATE NOCASE,  -- a name that was tried, or an address that tried
    at                TEXT NOT NULL
) STRICT;
CREATE INDEX wrong_password_of ON wrong_password (subject, at);

-- name: has_users
SELECT EXISTS (SELECT 1 FROM user)

-- name: users
SELECT name, role, email, password_hash IS NOT NULL AS has_password, created_at, created_by, last_sign_in_at
FROM user ORDER BY name

-- name: user
SELECT * FROM user WHERE name = :name

-- name: user_by_email
SELECT * FROM user WHERE email = :email OR name = :email ORDER BY email = :email DESC LIMIT 1

-- name: admins
SELECT name FROM user WHERE role = 'admin'

-- name: insert_user
INSERT INTO user (name, role, email, password_hash, created_at, created_by)
VALUES (:name, :role, :email, :password_hash, :now, :by)

-- name: delete_user
DELETE FROM user WHERE name = :name

-- name: set_password
UPDATE user SET password_hash = :password_hash WHERE name = :name

-- name: set_role
UPDATE user SET role = :role WHERE name = :name

-- name: note_sign_in
UPDATE user SET last_sign_in_at = :now WHERE name = :name

-- name: insert_session
INSERT INTO session VALUES (:cookie_sha256, :user, :now, :expires_at)

-- name: session
SELECT user.name, user.role FROM session JOIN user ON user.name = session.user
WHERE cookie_sha256 = :cookie_sha256 AND expires_at > :now

-- name: delete_session
DELETE FROM session WHERE cookie_sha256 = :cookie_sha256

-- name: delete_sessions_of
DELETE FROM session WHERE user = :user

-- name: prune_sessions
DELETE FROM session WHERE expires_at <= :now

-- name: insert_token
INSERT INTO token (token_id, name, scope, secret_sha256, created_at, created_by, expires_at)
VALUES (:token_id, :name, :scope, :secret_sha256, :now, :by, :expires_at)

-- name: tokens
SELECT token_id, name, scope, created_at, created_by, expires_at, revoked_at, last_used_at FROM token
ORDER BY created_at, token_id

-- name: token
SELECT * FROM token WHERE token_id = :token_id

-- name: tokens_called
SELECT token_id FROM token WHERE (token_id = :text OR name = :text) AND revoked_at IS NULL

-- name: revoke_token
UPDATE token SET revoked_at = :now WHERE token_id = :token_id AND revoked_at IS NULL

-- name: note_token_use
UPDATE token SET last_used_at = :now WHERE token_id = :token_id

-- name: insert_wrong_password
INSERT INTO wrong_password VALUES (:subject, :at)

-- name: wrong_passwords
SELECT count(*) AS count, max(at) AS last FROM wrong_password WHERE subject = :subject AND at > :since

-- name: forget_wrong_passwords
DELETE FROM wrong_password WHERE subject = :subject

-- name: prune_wrong_passwords
DELETE FROM wrong_password WHERE at <= :since
