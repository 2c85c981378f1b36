"""Which messages of a topic are asked for: the query of page, REST and command line, and what it means for a topic."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from core.errors import ConfigError
from core.message.decoding import Lookup, readable
from core.message.shown import MOST_DECODED, shown
from core.message.value_filter import ValueFilter, parse_value_filter
from core.message.value_formats import MAGIC
from core.model.publisher import LogSpan

__all__ = [
    "MOST_MESSAGES",
    "KeyMatch",
    "MessageChoice",
    "MessageQuery",
    "bare_key",
    "ranges_of",
    "require_partitions",
    "require_sense",
    "within",
]

MOST_MESSAGES = 500
"""On a page."""
KeyMatch = Literal["exact", "contains"]
_REST = re.compile(r"\d{1,9}:\d{1,18}-\d{1,18}(,\d{1,9}:\d{1,18}-\d{1,18})*")


@dataclass(frozen=True, slots=True)
class MessageQuery:
    """Which messages of a topic are read."""

    partitions: tuple[int, ...] = ()
    """Empty: all."""
    first_offset: int | None = None
    last_offset: int | None = None
    """Included, in each of the partitions."""
    since: datetime | None = None
    """Aware. By the timestamps of the records."""
    until: datetime | None = None
    """Aware; not included."""
    key: str = ""
    """Empty: any."""
    key_match: KeyMatch = "exact"
    value: str = ""
    """A part of the value, as UTF-8 text; empty: any."""
    where: str = ""
    """A condition on the JSON of the value, as `core.message.value_filter` reads it; empty: any."""
    newest_first: bool = True
    limit: int = 50
    """Messages on a page, 1 to 500."""
    rest: str = ""
    """`next` of the page before; empty: the first page."""


def require_sense(query: MessageQuery) -> None:
    """Refuses a query that contradicts itself.

    Raises:
        ConfigError: Says what.
    """
    first, last = query.first_offset, query.last_offset
    if first is not None and last is not None and first > last:
        raise ConfigError(f"offset {first} is after offset {last}", remedy="exchange them")
    if query.since and query.until and query.since >= query.until:
        raise ConfigError("the time range is empty", why="it ends before it begins", remedy="exchange its ends")
    if not 1 <= query.limit <= MOST_MESSAGES:
        raise ConfigError(f"a page has 1 to {MOST_MESSAGES} messages, not {query.limit:,}")
    if query.rest and not _REST.fullmatch(query.rest):
        raise ConfigError("the next page is not named as the page before named it", remedy="begin with the first page")


def require_partitions(asked: tuple[int, ...], spans: Mapping[int, LogSpan]) -> None:
    """Refuses partitions that the topic does not have.

    Raises:
        ConfigError: Names them.
    """
    unknown = sorted(set(asked) - spans.keys())
    if unknown:
        raise ConfigError(
            f"the topic has no partition {', '.join(map(str, unknown))}",
            remedy=f"it has 0 to {max(spans)}" if len(spans) > 1 else f"it has only {max(spans)}",
        )


def ranges_of(
    query: MessageQuery, spans: Mapping[int, LogSpan], at: Callable[[datetime], Mapping[int, int | None]]
) -> dict[int, range]:
    """Returns the offsets of each partition that the query asks for."""
    if query.rest:
        return _rest_of(query.rest, spans)
    require_partitions(query.partitions, spans)
    since = at(query.since) if query.since else {}
    until = at(query.until) if query.until else {}
    found = {}
    for number in query.partitions or sorted(spans):
        span = spans[number]
        begin = span.earliest if query.first_offset is None else query.first_offset
        stop = span.end if query.last_offset is None else query.last_offset + 1
        if query.since:
            begin = max(begin, _or_end(since.get(number), span))
        if query.until:
            stop = min(stop, _or_end(until.get(number), span))
        found[number] = within(begin, stop, span)
    return found


def _or_end(offset: int | None, span: LogSpan) -> int:
    return span.end if offset is None else offset


def within(begin: int, stop: int, span: LogSpan) -> range:
    """Returns the offsets of a range that a partition has."""
    return range(max(begin, span.earliest), min(stop, span.end))


def _rest_of(text: str, spans: Mapping[int, LogSpan]) -> dict[int, range]:
    found = {}
    for part in text.split(","):
        number, _, offsets = part.partition(":")
        begin, _, stop = offsets.partition("-")
        require_partitions((int(number),), spans)
        found[int(number)] = within(int(begin), int(stop), spans[int(number)])
    return found


class MessageChoice:
    """Chooses messages by key and value.

    Args:
        query: Which messages.
        lookup: Finds schemas; None: there is no registry.

    Raises:
        ConfigError: The filter on the value is not valid.
    """

    def __init__(self, query: MessageQuery, lookup: Lookup | None) -> None:
        self._key, self._raw_key = query.key, query.key.encode()
        self._contains = query.key_match == "contains"
        self._part = query.value.encode()
        self._filter: ValueFilter | None = parse_value_filter(query.where) if query.where.strip() else None
        self._lookup = lookup

    @property
    def takes_all(self) -> bool:
        """Whether every message is wanted."""
        return not self._key and not self._part and self._filter is None

    @property
    def missing(self) -> tuple[str, ...]:
        """The paths of the filter that no value had which it was asked about."""
        return self._filter.missing if self._filter else ()

    def __call__(self, key: bytes | None, value: bytes | None, headers: Callable[[], Any]) -> bool:
        """Returns whether a message is wanted."""
        if self._part and (value is None or self._part not in value):
            return False
        return self._has_key(key) and self._has_value(value)

    def _has_key(self, raw: bytes | None) -> bool:
        if not self._key:
            return True
        if raw is None:
            return False
        if self._raw_key in raw if self._contains else self._raw_key == raw:
            return True
        if raw.isascii() and raw[:1] != MAGIC:  # it is its own text: 20 times faster than to decode it
            return False
        text = shown(raw, self._lookup).text
        return self._key in text if self._contains else self._key == bare_key(text)

    def _has_value(self, raw: bytes | None) -> bool:
        if self._filter is None:
            return True
        if raw is None:
            return False
        if raw[:1] != MAGIC:
            return self._filter.of(raw)
        # 10 MB of Avro take seconds, so such a value is not found.
        return len(raw) <= MOST_DECODED and self._filter.of(readable(raw, self._lookup).text)


def bare_key(text: str) -> str:
    """Returns the text of a key; that of one column with a schema is a JSON text in quotes."""
    return text[1:-1] if len(text) > 1 and text[0] == text[-1] == '"' else text
