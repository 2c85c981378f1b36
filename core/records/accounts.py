"""Users of the page, tokens of programs, and sessions.

While there is no user, the page and REST listen on this machine only and every caller there is an admin. With the first
user, signing in is required. A change and its line in the audit trail are written in one transaction.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import re
import secrets
import sqlite3
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cache
from typing import TYPE_CHECKING, Any, ClassVar, Literal, get_args

from core.clock import iso_utc
from core.errors import ConfigError, SignInNeeded, StorageFailed, TooManyAttempts
from core.records.named_sql import load_named_sql
from core.records.rows import from_row
from core.records.store import Store

if TYPE_CHECKING:
    from argon2 import PasswordHasher
from core.records.rights import RIGHTS, RIGHTS_OF_SCOPE, Caller, Role, TokenScope, require

__all__ = ["AccessToken", "Accounts", "User"]

SHORTEST_PASSWORD = 10
LONGEST_PASSWORD = 1024
"""A longer one would only cost hashing time."""
SESSION_LASTS = timedelta(hours=12)
FREE_ATTEMPTS = 5
"""Wrong passwords of one name before it has to wait; an address, which a whole office may share, has four times as many."""
LONGEST_WAIT_S = 300.0
REMEMBERED = timedelta(hours=1)
USE_NOTED_EVERY = timedelta(minutes=1)
"""A program that asks 300 times a second does not write 300 times a second."""
_NAME = re.compile(r"[\w.@+-]{1,100}")
_EMAIL = re.compile(r"[^@\s]{1,100}@[^@\s]{1,150}")
_TOKEN = re.compile(r"pstt_([0-9a-f]{12})_([\w-]{43})")
_HASHING = threading.Semaphore(2)
"""Each hash takes 64 MB for a moment: many sign-ins at once wait for one another instead."""


@dataclass(frozen=True, slots=True)
class User:
    """A person who may sign in."""

    name: str
    role: Role
    email: str | None
    has_password: bool
    """False: the user signs in by OIDC only."""
    created_at: datetime
    created_by: str
    last_sign_in_at: datetime | None


@dataclass(frozen=True, slots=True)
class AccessToken:
    """What is stored of a program's token; the token itself is not."""

    token_id: str
    name: str
    scope: TokenScope
    created_at: datetime
    created_by: str
    expires_at: datetime
    revoked_at: datetime | None
    last_used_at: datetime | None
    """To the minute."""

    def state(self, now: datetime) -> Literal["valid", "expired", "revoked"]:
        """Returns whether it is still accepted."""
        if self.revoked_at is not None:
            return "revoked"
        return "valid" if now < self.expires_at else "expired"


class Accounts(Store):
    """Users, tokens and sessions of one workspace; opened like every `Store`."""

    sql_file: ClassVar[str] = "accounts.sql"

    def has_users(self) -> bool:
        """Returns whether people have to sign in."""
        return bool(self._rows("has_users")[0][0])

    def users(self) -> list[User]:
        """Returns all users, by name."""
        return [from_row(User, row) for row in self._rows("users")]

    def user(self, name: str) -> User:
        """Returns the user with that name; upper and lower case are the same.

        Raises:
            ConfigError: There is none.
        """
        found = next((user for user in self.users() if user.name.lower() == name.lower()), None)
        if found is None:
            raise ConfigError(f'there is no user "{name}"', remedy="python -m core user list shows them")
        return found

    def add_user(
        self, name: str, role: Role, password: str | None, *, by: Caller, now: datetime, email: str | None = None
    ) -> None:
        """Adds a user.

        Args:
            name: Letters, digits and `. _ @ + -`.
            role: What the user may do.
            password: None: the user can sign in by OIDC only.
            by: Who adds it.
            now: The clock.
            email: By which OIDC identifies the person; a name that is an e-mail address needs none.

        Raises:
            AccessRefused: `by` is no admin.
            ConfigError: There is such a user or address already, or a value is not valid.
        """
        require(by, "accounts")
        _require_name(name, "user")
        if email is not None and not _EMAIL.fullmatch(email):
            raise ConfigError(f"{email!r} is no e-mail address")
        _require_known(role, Role, "role")
        row = {
            "name": name,
            "role": role,
            "email": email,
            "password_hash": _hashed(password) if password is not None else None,
            "now": iso_utc(now),
            "by": by.name,
        }
        with self._changing(by, "add", f"user {name}", now, after={"role": role, "email": email}):
            try:
                self._db.execute(self._sql["insert_user"], row)
            except sqlite3.IntegrityError:
                raise ConfigError(
                    f'there is a user "{name}" already, or one with that e-mail address',
                    remedy="python -m core user list shows them",
                ) from None

    def remove_user(self, name: str, *, by: Caller, now: datetime) -> None:
        """Removes a user and ends the user's sessions.

        Raises:
            AccessRefused: `by` is no admin.
            ConfigError: There is none, or it is the last admin while there are others.
        """
        require(by, "accounts")
        user = self.user(name)
        with self._changing(by, "remove", f"user {user.name}", now, before={"role": user.role, "email": user.email}):
            self._keep_an_admin(user)
            self._db.execute(self._sql["delete_user"], {"name": user.name})

    def set_password(self, name: str, password: str, *, by: Caller, now: datetime) -> None:
        """Sets another password and ends the user's sessions.

        Raises:
            AccessRefused: `by` is no admin.
            ConfigError: There is no such user, or the password is too short.
        """
        require(by, "accounts")
        user, hashed = self.user(name), _hashed(password)
        with self._changing(by, "password", f"user {user.name}", now):
            self._db.execute(self._sql["set_password"], {"name": user.name, "password_hash": hashed})
            self._db.execute(self._sql["delete_sessions_of"], {"user": user.name})
            self._db.execute(self._sql["forget_wrong_passwords"], {"subject": _of_name(user.name)})

    def set_role(self, name: str, role: Role, *, by: Caller, now: datetime) -> None:
        """Sets another role. It applies at once, in open sessions too.

        Raises:
            AccessRefused: `by` is no admin.
            ConfigError: There is no such user, or it is the last admin while there are others.
        """
        require(by, "accounts")
        _require_known(role, Role, "role")
        user = self.user(name)
        with self._changing(by, "role", f"user {user.name}", now, before={"role": user.role}, after={"role": role}):
            if role != "admin":
                self._keep_an_admin(user)
            self._db.execute(self._sql["set_role"], {"name": user.name, "role": role})

    def _keep_an_admin(self, user: User) -> None:
        admins = [row["name"] for row in self._db.execute(self._sql["admins"])]
        if admins == [user.name] and len(self.users()) > 1:
            raise ConfigError(
                f"{user.name} is the only admin",
                why="then no user could add or remove users on the page",
                remedy="make another user an admin first: python -m core user role NAME admin",
            )

    def sign_in(self, name: str, password: str, *, address: str, now: datetime) -> str:
        """Starts a session. Returns the value of its cookie, of which only a hash is stored.

        Raises:
            SignInNeeded: The name or the password is wrong; the text does not say which.
            TooManyAttempts: There were too many wrong ones lately.
        """
        subjects = {_of_name(name[:200]): FREE_ATTEMPTS, f"address {address}": 4 * FREE_ATTEMPTS}
        self._refuse_too_many(subjects, now)
        row = next(iter(self._rows("user", {"name": name})), None)
        known_hash = row["password_hash"] if row else None
        if not _matches(known_hash or _dummy_hash(), password) or row is None or known_hash is None:
            with self._translated(), self._transaction():
                self._db.execute(self._sql["prune_wrong_passwords"], {"since": iso_utc(now - REMEMBERED)})
                for subject in subjects:
                    self._db.execute(self._sql["insert_wrong_password"], {"subject": subject, "at": iso_utc(now)})
            raise SignInNeeded("name or password is wrong", remedy="try again; an admin can give you a new password")
        cookie = secrets.token_urlsafe(32)
        values = {"cookie_sha256": _sha256(cookie), "user": row["name"], "name": row["name"], "now": iso_utc(now)}
        with self._changing(
            _caller(row["name"], row["role"]), "sign-in", f"user {row['name']}", now, after={"address": address}
        ):
            self._db.execute(self._sql["prune_sessions"], {"now": iso_utc(now)})
            self._db.execute(self._sql["insert_session"], values | {"expires_at": iso_utc(now + SESSION_LASTS)})
            self._db.execute(self._sql["note_sign_in"], values)
            self._db.execute(self._sql["forget_wrong_passwords"], {"subject": _of_name(row["name"])})
        return cookie

    def whoami(self, cookie: str, now: datetime) -> Caller | None:
        """Returns the user of this cookie's session; None if there is none or it has ended."""
        rows = self._rows("session", {"cookie_sha256": _sha256(cookie), "now": iso_utc(now)})
        return _caller(rows[0]["name"], rows[0]["role"]) if rows else None

    def sign_out(self, cookie: str) -> None:
        """Ends the session of this cookie."""
        self._write("delete_session", {"cookie_sha256": _sha256(cookie)})

    def by_email(self, email: str) -> Caller | None:
        """Returns the user with that e-mail address; None if no user has it."""
        rows = self._rows("user_by_email", {"email": email})
        return _caller(rows[0]["name"], rows[0]["role"]) if rows else None

    def _refuse_too_many(self, subjects: Mapping[str, int], now: datetime) -> None:
        """Requires a pause of 1, 2, 4, … seconds after the free attempts, five minutes at most."""
        since = iso_utc(now - REMEMBERED)
        for subject, free in subjects.items():
            (row,) = self._rows("wrong_passwords", {"subject": subject, "since": since})
            if row["count"] < free:
                continue
            must_wait_s = min(2.0 ** min(row["count"] - free, 20), LONGEST_WAIT_S)
            left_s = must_wait_s - (now - datetime.fromisoformat(row["last"])).total_seconds()
            if left_s > 0:
                raise TooManyAttempts("too many wrong passwords", wait_s=max(left_s, 1.0))

    def add_token(
        self, name: str, scope: TokenScope, *, lasts: timedelta, by: Caller, now: datetime
    ) -> tuple[AccessToken, str]:
        """Creates a token. The second value is the token itself, which is not stored and cannot be shown again.

        Raises:
            AccessRefused: `by` is no admin.
            ConfigError: The name is empty or too long, or it would never be valid.
        """
        require(by, "accounts")
        _require_name(name, "token")
        _require_known(scope, TokenScope, "scope")
        if lasts <= timedelta():
            raise ConfigError("a token has to be valid for some time", remedy="give at least one day")
        token = AccessToken(secrets.token_hex(6), name, scope, now, by.name, now + lasts, None, None)
        secret = secrets.token_urlsafe(32)
        row = {
            "token_id": token.token_id,
            "name": name,
            "scope": scope,
            "secret_sha256": _sha256(secret),
            "now": iso_utc(now),
            "by": by.name,
            "expires_at": iso_utc(token.expires_at),
        }
        after = {"name": name, "scope": scope, "expires_at": row["expires_at"]}
        with self._changing(by, "add", f"token {token.token_id}", now, after=after):
            self._db.execute(self._sql["insert_token"], row)
        return token, f"pstt_{token.token_id}_{secret}"

    def tokens(self) -> list[AccessToken]:
        """Returns all tokens, the oldest first."""
        return [from_row(AccessToken, row) for row in self._rows("tokens")]

    def revoke_token(self, text: str, *, by: Caller, now: datetime) -> str:
        """Ends a token at once, by its id or its name. Returns its id.

        Raises:
            AccessRefused: `by` is no admin.
            ConfigError: There is no such token, or more than one is called so.
        """
        require(by, "accounts")
        found = [row["token_id"] for row in self._rows("tokens_called", {"text": text})]
        if len(found) != 1:
            what = f'more than one token is called "{text}"' if found else f'there is no valid token "{text}"'
            raise ConfigError(what, remedy="python -m core token list shows their ids")
        with self._changing(by, "revoke", f"token {found[0]}", now):
            self._db.execute(self._sql["revoke_token"], {"token_id": found[0], "now": iso_utc(now)})
        return str(found[0])

    def token_caller(self, text: str, now: datetime) -> Caller:
        """Returns the program that a token belongs to, and stores when it was used, to the minute.

        Raises:
            SignInNeeded: It is not known, has expired or was revoked.
        """
        matched = _TOKEN.fullmatch(text)
        row = next(iter(self._rows("token", {"token_id": matched[1]})), None) if matched else None
        if matched is None or row is None or not hmac.compare_digest(row["secret_sha256"], _sha256(matched[2])):
            raise SignInNeeded("the token is not known", remedy="python -m core token add makes one")
        token = from_row(AccessToken, row)
        if (state := token.state(now)) != "valid":
            raise SignInNeeded(
                f'the token "{token.name}" {"has expired" if state == "expired" else "was revoked"}',
                remedy="python -m core token add makes another",
            )
        if token.last_used_at is None or now - token.last_used_at >= USE_NOTED_EVERY:
            with suppress(StorageFailed):  # on a full disk the token still reads
                self._write("note_token_use", {"token_id": token.token_id, "now": iso_utc(now)})
        return Caller(f"token {token.name}", RIGHTS_OF_SCOPE[token.scope])

    @contextmanager
    def _changing(
        self, by: Caller, action: str, object_: str, now: datetime, *, before: Any = None, after: Any = None
    ) -> Iterator[None]:
        """Runs a transaction that ends with its line in the audit trail."""
        with self._translated(), self._transaction():
            yield
            row = {
                "at": iso_utc(now),
                "who": by.name,
                "action": action,
                "object": object_,
                "before": None if before is None else json.dumps(before, ensure_ascii=False),
                "after": None if after is None else json.dumps(after, ensure_ascii=False),
            }
            self._db.execute(_audit_statement(), row)


@cache
def _audit_statement() -> str:
    return load_named_sql("audit.sql")["insert"]


def _caller(name: str, role: Role) -> Caller:
    return Caller(name, RIGHTS[role], role)


def _require_name(name: str, what: str) -> None:
    if not _NAME.fullmatch(name):
        raise ConfigError(f"{name!r} is no name for a {what}", remedy="use letters, digits and . _ @ + -, at most 100")


def _require_known(word: str, kind: Any, what: str) -> None:
    if word not in get_args(kind):
        raise ConfigError(f'there is no {what} "{word}"', remedy=f"use one of {', '.join(get_args(kind))}")


def _of_name(name: str) -> str:
    return f"name {name}"


def _sha256(text: str) -> str:
    """Hashes a token or a cookie. That is enough for 256 random bits; a password, which can be guessed, needs argon2."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


@cache
def _hasher() -> PasswordHasher:
    from argon2 import PasswordHasher

    return PasswordHasher()


@cache
def _dummy_hash() -> str:
    """Returns a hash to compare with when the name is not known, so that both cases take the same time."""
    return _hasher().hash(secrets.token_urlsafe(16))


def _hashed(password: str) -> str:
    if not SHORTEST_PASSWORD <= len(password) <= LONGEST_PASSWORD:
        raise ConfigError(
            f"a password has at least {SHORTEST_PASSWORD} characters", remedy="four words are easy to remember"
        )
    with _HASHING:
        return _hasher().hash(password)


def _matches(known_hash: str, password: str) -> bool:
    from argon2.exceptions import VerifyMismatchError

    if len(password) > LONGEST_PASSWORD:
        return False
    try:
        with _HASHING:
            return _hasher().verify(known_hash, password)
    except (VerifyMismatchError, UnicodeEncodeError):
        return False
