"""The commands `user …` and `token …`: who may use the page and the REST interface."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Literal

import typer

from core.app import App
from core.cli.account_lines import token_lines, user_lines
from core.cli.options import JsonOption, WorkspaceOption, now
from core.cli.output import print_answer, print_json, print_lines, print_note, said
from core.errors import ConfigError
from core.language import Data
from core.records.accounts import Accounts
from core.records.rights import Role, local_caller

__all__ = ["app"]

user_app = typer.Typer(
    name="user", no_args_is_help=True, add_completion=False, rich_markup_mode=None, help="Who may sign in to the page."
)
token_app = typer.Typer(
    name="token",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    help="Which programs may use the REST interface.",
)

app = typer.Typer(add_completion=False, rich_markup_mode=None)
app.add_typer(user_app)
app.add_typer(token_app)

NameArgument = Annotated[str, typer.Argument(metavar="NAME", help="The name to sign in with, or of the token.")]
PasswordStdinOption = Annotated[
    bool, typer.Option("--password-stdin", help="Read the password from standard input instead of asking for it.")
]


@user_app.command("add")
def user_add(
    name: NameArgument,
    role: Annotated[
        Role, typer.Option(help="viewer reads, operator sends and changes jobs, admin may do everything.")
    ] = "viewer",
    email: Annotated[str | None, typer.Option(help="The user's name in the company's sign-in (OIDC).")] = None,
    no_password: Annotated[bool, typer.Option("--no-password", help="Only by the company's sign-in (OIDC).")] = False,
    password_stdin: PasswordStdinOption = False,
    workspace: WorkspaceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Adds a user. From the first user on, the page asks for a sign-in."""
    with _accounts(workspace) as accounts:
        password = None if no_password else _asked_password(from_stdin=password_stdin)
        accounts.add_user(name, role, password, by=local_caller(), now=now(), email=email)
    print_answer({"user": name, "role": role, "answer": f"user {name} is {role}"}, as_json)


@user_app.command("list")
def user_list(workspace: WorkspaceOption = None, as_json: JsonOption = False) -> None:
    """Lists who may sign in."""
    with _accounts(workspace) as accounts:
        users = accounts.users()
    if as_json:
        print_json({"users": [asdict(user) for user in users]})
        return
    print_lines(user_lines(users))


@user_app.command("remove")
def user_remove(name: NameArgument, workspace: WorkspaceOption = None, as_json: JsonOption = False) -> None:
    """Removes a user and ends the user's sessions."""
    with _accounts(workspace) as accounts:
        accounts.remove_user(name, by=local_caller(), now=now())
    print_answer({"user": name, "answer": f"user {name} is removed"}, as_json)


@user_app.command("password")
def user_password(
    name: NameArgument,
    password_stdin: PasswordStdinOption = False,
    workspace: WorkspaceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Sets a user's password and ends the user's sessions."""
    with _accounts(workspace) as accounts:
        accounts.user(name)
        accounts.set_password(name, _asked_password(from_stdin=password_stdin), by=local_caller(), now=now())
    print_answer({"user": name, "answer": f"user {name} has a new password"}, as_json)


@user_app.command("role")
def user_role(
    name: NameArgument,
    role: Annotated[Role, typer.Argument(metavar="ROLE", help="viewer, operator or admin.")],
    workspace: WorkspaceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Sets a user's role: viewer, operator or admin."""
    with _accounts(workspace) as accounts:
        accounts.set_role(name, role, by=local_caller(), now=now())
    print_answer({"user": name, "role": role, "answer": f"user {name} is {role}"}, as_json)


@token_app.command("add")
def token_add(
    name: NameArgument,
    scope: Annotated[
        Literal["read", "send", "admin"],
        typer.Option(help="read: only read; send: also send, test and run; admin: also change jobs."),
    ] = "read",
    days: Annotated[int, typer.Option(min=1, max=3650, help="How long it is valid.")] = 365,
    workspace: WorkspaceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Creates a token for a program and shows it once."""
    with _accounts(workspace) as accounts:
        token, text = accounts.add_token(name, scope, lasts=timedelta(days=days), by=local_caller(), now=now())
    if as_json:
        print_json({"token_id": token.token_id, "scope": scope, "expires_at": token.expires_at, "token": text})
        return
    print_lines(
        [
            f"✔ token {token.token_id} ({name}) may {scope} until {token.expires_at:%Y-%m-%d}",
            f"\n  {Data(text)}",
            "\nIt is shown only now. The program sends it as: Authorization: Bearer TOKEN",
        ]
    )


@token_app.command("list")
def token_list(workspace: WorkspaceOption = None, as_json: JsonOption = False) -> None:
    """Lists the tokens, without the secrets, which are not stored."""
    with _accounts(workspace) as accounts:
        tokens = accounts.tokens()
    if as_json:
        print_json({"tokens": [asdict(token) | {"state": token.state(now())} for token in tokens]})
        return
    print_lines(token_lines(tokens, now()))


@token_app.command("revoke")
def token_revoke(
    token: Annotated[str, typer.Argument(metavar="TOKEN", help="Its id or its name, as `token list` shows them.")],
    workspace: WorkspaceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Ends a token at once."""
    with _accounts(workspace) as accounts:
        token_id = accounts.revoke_token(token, by=local_caller(), now=now())
    print_answer({"token_id": token_id, "answer": f"token {token_id} is revoked"}, as_json)


@contextmanager
def _accounts(workspace: Path | None) -> Iterator[Accounts]:
    with App.open(workspace) as opened, Accounts(opened.workspace.ledger_file) as accounts:
        yield accounts


def _asked_password(*, from_stdin: bool) -> str:
    if from_stdin:
        return sys.stdin.readline().rstrip("\r\n")
    if not sys.stdin.isatty():
        raise ConfigError("a password is needed, and there is no terminal to enter it", remedy="give --password-stdin")
    while True:  # Typer would ask for the repetition in English
        password, repeated = (
            str(typer.prompt(question, hide_input=True)) for question in (said("Password"), said("Repeat the password"))
        )
        if password == repeated:
            return password
        print_note("! the two passwords differ; enter both again")
