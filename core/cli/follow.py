"""What `messages --follow` prints: each new message of a topic, until Ctrl-C."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING

import msgspec

from core.cli.message_lines import message_document, message_line, message_lines
from core.cli.output import error_lines, print_lines, print_note
from core.errors import PsttError
from core.formatting import counted
from core.language import Data

if TYPE_CHECKING:
    from core.admin.topic_messages import ReadableMessage
    from core.admin.topic_tail import TailTurn, TopicTail

__all__ = ["print_tail"]

EVERY_S = 1.0
"""Between two turns in which nothing came."""


def print_tail(tail: TopicTail, timezone: str, *, most: int | None, whole: bool, as_json: bool, note: str = "") -> None:
    """Prints each new message as it comes, and at the end, on stderr, how many were looked through.

    A broker that does not answer is reported once; the topic is followed on as soon as it does.

    Args:
        tail: Of the topic, the oldest first.
        timezone: Of the times.
        most: Ends after so many messages; None: at Ctrl-C.
        whole: Prints headers and whole values.
        as_json: Prints one JSON document a line.
        note: What to know of the cluster; empty: nothing.
    """
    shown = examined = 0
    is_away = False
    print_note("following the topic from now on; Ctrl-C ends")
    if note:
        print_note(note)
    try:
        while most is None or shown < most:
            turn, is_away = _turn(tail, is_away=is_away)
            messages = turn.messages if turn else ()
            for message in messages[: None if most is None else most - shown]:
                _print(message, timezone, whole=whole, as_json=as_json)
                shown += 1
            sys.stdout.flush()
            examined += turn.examined if turn else 0
            if not messages:
                time.sleep(EVERY_S)
    except KeyboardInterrupt:
        pass  # the way to end it
    print_note(f"{counted(shown, 'message')} shown, {examined:,} looked through")
    if tail.missing and examined:
        print_note(f"none of them has {Data(', '.join(tail.missing))}")


def _turn(tail: TopicTail, *, is_away: bool) -> tuple[TailTurn | None, bool]:
    """Returns what came, and whether the broker does not answer."""
    try:
        return tail.turn(), False
    except PsttError as error:
        if not error.is_retriable:
            raise
        if not is_away:
            print_note("\n".join(error_lines(error)))
        return None, True


def _print(message: ReadableMessage, timezone: str, *, whole: bool, as_json: bool) -> None:
    if as_json:
        print(msgspec.json.encode(message_document(message)).decode())
    elif whole:
        print_lines(message_lines(message, timezone))
    else:
        print_lines([message_line(message, timezone)])
