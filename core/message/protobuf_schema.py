"""Protobuf schemas: made from columns, written as a .proto text, and read back from one.

Only proto3 messages of scalar fields, nested messages and `google.protobuf.Timestamp` are encoded; the reader skips the rest of a
file (options, services, enums) and keeps the types of its fields, so that a message of another producer can be shown.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from core.errors import ConfigError
from core.message.field_types import Field, FieldKind, field_names

__all__ = ["TIMESTAMP", "ProtoField", "ProtoMessage", "message_of", "parse_proto", "proto_text"]

TIMESTAMP = "google.protobuf.Timestamp"
_TYPES: dict[FieldKind, str] = {
    "long": "int64",
    "decimal": "string",
    "digits": "string",
    "double": "double",
    "boolean": "bool",
    "date": "string",
    "local": "string",
    "instant": TIMESTAMP,
    "text": "string",
    "bytes": "bytes",
    "json": "string",
    "any": "string",
}
_TOKEN = re.compile(r'\s*(?:(//[^\n]*|/\*.*?\*/)|("(?:[^"\\]|\\.)*"|\'(?:[^\'\\]|\\.)*\')|([\w.+-]+)|(.))', re.DOTALL)


@dataclass(frozen=True, slots=True)
class ProtoField:
    """One field of a message."""

    name: str
    number: int
    type: str
    label: str = ""
    """`optional`, `repeated` or empty."""


@dataclass(slots=True)
class ProtoMessage:
    """A message with the messages that are declared in it."""

    name: str
    fields: list[ProtoField] = field(default_factory=list)
    messages: list[ProtoMessage] = field(default_factory=list)
    reserved: set[int] = field(default_factory=set)
    """Numbers that were used before."""
    package: str = ""

    def nested(self, name: str) -> ProtoMessage | None:
        """Returns a message that is declared in this one."""
        return next((message for message in self.messages if message.name == name.rpartition(".")[2]), None)


def message_of(name: str, fields: Sequence[Field], earlier: ProtoMessage | None = None) -> ProtoMessage:
    """Returns the message of a row.

    Args:
        name: Its short name.
        fields: Its fields.
        earlier: The message as it is registered: a field keeps its number, and a removed one's number is not used again, so that
            readers with the old schema never take one column for another.
    """
    numbers = {known.name: known.number for known in earlier.fields} if earlier else {}
    taken = set(numbers.values()) | (earlier.reserved if earlier else set())
    free = (number for number in range(max(taken, default=0) + 1, 2**29) if not 19_000 <= number < 20_000)
    made = [
        ProtoField(
            allowed,
            numbers[allowed] if allowed in numbers else next(free),
            _TYPES[(given.element or "any") if given.kind == "array" else given.kind],
            "repeated" if given.kind == "array" else "optional",
        )
        for given, allowed in zip(fields, field_names(fields), strict=True)
    ]
    return ProtoMessage(name, made, reserved=taken - {known.number for known in made})


def proto_text(message: ProtoMessage, package: str) -> str:
    """Returns a message as the text of a .proto file."""
    lines = ['syntax = "proto3";']
    lines += [f"package {package};"] if package else []
    body = [*_lines(message, "")]
    if any(TIMESTAMP in line for line in body):
        lines.append('import "google/protobuf/timestamp.proto";')
    return "\n".join([*lines, *body]) + "\n"


def _lines(message: ProtoMessage, indent: str) -> Iterator[str]:
    yield f"{indent}message {message.name} {{"
    for nested in message.messages:
        yield from _lines(nested, indent + "  ")
    if message.reserved:
        yield f"{indent}  reserved {', '.join(map(str, sorted(message.reserved)))};"
    for given in message.fields:
        yield f"{indent}  {given.label + ' ' if given.label else ''}{given.type} {given.name} = {given.number};"
    yield f"{indent}}}"


def parse_proto(text: str) -> ProtoMessage:
    """Returns the first message of a .proto file.

    Raises:
        ConfigError: The text is no .proto file of version 3, or has no message.
    """
    reader = _Reader(text)
    try:
        found = reader.file()
    except (StopIteration, ValueError, IndexError):
        raise ConfigError("the schema is no .proto file", remedy='write syntax = "proto3"; and one message') from None
    if found is None:
        raise ConfigError("the .proto file has no message", remedy="declare the message of the row")
    return found


class _Reader:
    def __init__(self, text: str) -> None:
        found = (match.groups() for match in _TOKEN.finditer(text))
        self.tokens = [
            quoted or word or sign
            for comment, quoted, word, sign in found
            if not comment and (quoted or word or sign.strip())
        ]
        self.at = 0
        self.package = ""

    def next(self) -> str:
        self.at += 1
        return self.tokens[self.at - 1]

    def skip(self) -> None:
        """Skips a statement or a block."""
        depth = 0
        while True:
            word = self.next()
            depth += (word == "{") - (word == "}")
            if not depth and word in ";}":
                return

    def file(self) -> ProtoMessage | None:
        first = None
        while self.at < len(self.tokens):
            word = self.tokens[self.at]
            if word == "message":
                message = self.message()
                first = first or message
            elif word == "package":
                self.package = self.tokens[self.at + 1]
                self.skip()
            elif word == "syntax" and self.tokens[self.at + 2].strip("\"'") != "proto3":
                raise ConfigError("the .proto file is not of version 3", remedy='write syntax = "proto3";')
            else:
                self.skip()
        if first is not None:
            first.package = self.package
        return first

    def message(self) -> ProtoMessage:
        self.next()
        made = ProtoMessage(self.next())
        if self.next() != "{":
            raise ValueError
        while (word := self.tokens[self.at]) != "}":
            if word == "message":
                made.messages.append(self.message())
            elif word == "reserved":
                self.reserved(made)
            elif word == ";":
                self.next()
            elif word == "oneof":
                self.at += 3  # its fields are fields of the message
                while self.tokens[self.at] != "}":
                    made.fields.append(self.field())
                self.next()
            elif word in ("enum", "option", "extensions", "map"):
                self.skip()
            else:
                made.fields.append(self.field())
        self.next()
        return made

    def reserved(self, made: ProtoMessage) -> None:
        self.next()
        numbers: list[int] = []
        is_range = False
        while (word := self.next()) != ";":
            if word == "to":
                is_range = True
            elif word.isdigit() or word == "max":
                last = 2**29 - 1 if word == "max" else int(word)
                if is_range and last - numbers[-1] > 100_000:
                    raise ConfigError("the schema reserves too many numbers", remedy="name those that were used")
                numbers += range(numbers[-1] + 1, last + 1) if is_range else [last]
                is_range = False
        made.reserved |= set(numbers)

    def field(self) -> ProtoField:
        label = self.next() if self.tokens[self.at] in ("optional", "repeated", "required") else ""
        kind, name, sign, number = self.next(), self.next(), self.next(), int(self.next(), 0)
        if sign != "=":
            raise ValueError
        self.skip()
        return ProtoField(name, number, kind.lstrip("."), label)
