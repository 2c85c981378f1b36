"""What callers give as key, value and headers, turned into the bytes that a client sends."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any

import msgspec

from core.errors import ConfigError
from core.model.publisher import Batch

__all__ = ["Headers", "Key", "Message", "header_bytes", "key_bytes", "make_batch", "require_topic_name", "value_bytes"]

Key = str | bytes | None
Message = str | bytes | bytearray | memoryview | Mapping[str, Any] | Sequence[Any]
Headers = Mapping[str, str | bytes]

_BYTES = (bytes, bytearray, memoryview)
_SENT_AS_GIVEN = (str, *_BYTES)
_encode = msgspec.json.Encoder(decimal_format="number").encode
_NOT_FINITE = (b"null", b"NaN", b"Infinity")
"""What msgspec writes for a float and for a Decimal that JSON does not have: the first would be lost in silence."""
ID_BYTES = 16


def make_batch(
    number: int,
    topic: str,
    keys: list[bytes | None],
    values: list[bytes],
    headers: tuple[tuple[str, bytes], ...] = (),
) -> Batch:
    """Returns a batch of these messages, each with a random `message_id` of 32 hex digits."""
    count = len(values)
    # One call for all of them: a uuid4 for each costs ten times as much.
    digits = os.urandom(ID_BYTES * count).hex().encode()
    message_ids = [digits[at : at + 2 * ID_BYTES] for at in range(0, len(digits), 2 * ID_BYTES)]
    return Batch(number, topic, keys, values, message_ids, range(1, count + 1), headers)


def require_topic_name(topic: str) -> None:
    """Raises ConfigError if the name is empty, or has letters that no topic can have: librdkafka would end the process."""
    if not topic:
        raise ConfigError("a message needs a topic", why="its name is empty", remedy="name one")
    if not (isinstance(topic, str) and topic.isascii()):
        raise ConfigError(
            f"{topic!r} cannot be the name of a topic",
            why="letters, digits, dot, hyphen and underscore are allowed, 249 at most",
            remedy="correct the name of the topic",
        )


def key_bytes(key: Key) -> bytes | None:
    """Returns text as UTF-8, bytes unchanged.

    Raises:
        ConfigError: It is neither, or no UTF-8 text.
    """
    return None if key is None else _as_bytes(key, "key")


def value_bytes(value: Message) -> bytes:
    """Returns text as UTF-8, bytes unchanged, anything else as JSON.

    Raises:
        ConfigError: It has no JSON form, or is no UTF-8 text.
    """
    if isinstance(value, _SENT_AS_GIVEN):
        return _as_bytes(value, "value")
    try:
        encoded = _encode(value)
        if any(word in encoded for word in _NOT_FINITE):
            _require_finite(value)
        return encoded
    except (TypeError, ValueError, RecursionError, msgspec.MsgspecError) as error:
        raise ConfigError("a value has no JSON form", why=str(error), remedy="give bytes, text or plain data") from None


def header_bytes(headers: Headers | None) -> tuple[tuple[str, bytes], ...]:
    """Returns text as UTF-8, bytes unchanged.

    Raises:
        ConfigError: They are no mapping, or a name or value is neither or no UTF-8 text, which would crash librdkafka.
    """
    if not headers:
        return ()
    if not isinstance(headers, Mapping):
        raise ConfigError(
            "headers are no mapping",
            why=f"they are of type {type(headers).__name__}",
            remedy="give a dict of names and values",
        )
    for name in headers:
        if not isinstance(name, str) or any("\ud800" <= letter <= "\udfff" for letter in name):
            raise ConfigError(f"{name!r} cannot be the name of a header", why="it is no UTF-8 text", remedy="use str")
    return tuple((name, _as_bytes(text, f'header "{name}"')) for name, text in headers.items())


def _require_finite(value: object) -> None:
    """Raises ValueError for a number that JSON does not have, however deep it is."""
    waiting: list[Any] = [msgspec.to_builtins(value, builtin_types=(Decimal,))]
    while waiting:
        found = waiting.pop()
        if isinstance(found, float | Decimal) and not math.isfinite(found):
            raise ValueError(f"JSON has no {found}")
        if isinstance(found, dict):
            waiting += found.values()
        elif isinstance(found, list | tuple | set | frozenset):
            waiting += found


def _as_bytes(text: object, what: str) -> bytes:
    """Returns text as UTF-8, bytes unchanged; the clients themselves fail on anything else in the middle of a batch."""
    if type(text) is bytes:
        return text
    if isinstance(text, str):
        try:
            return text.encode()
        except UnicodeEncodeError as error:
            raise ConfigError(f"a {what} is no UTF-8 text", why=error.reason, remedy="give it as bytes") from None
    if isinstance(text, _BYTES):
        return bytes(text)
    raise ConfigError(
        f"a {what} is neither text nor bytes", why=f"it is of type {type(text).__name__}", remedy="use str"
    )
