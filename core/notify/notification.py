"""A message to users outside of the terminal, as plain text and as simple HTML.

The subject gives the answer. The text has the four parts of each of our error messages (what failed, on what, why, what
to do next), then the commands to run.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from core.language import Language, label, translated

__all__ = ["Notification", "NotificationTable"]

_BODY = "font-family:Segoe UI,Helvetica,Arial,sans-serif;font-size:14px;color:#222;max-width:60em"
_CELL = "padding:2px 12px 2px 0;text-align:left;vertical-align:top"


@dataclass(frozen=True, slots=True)
class NotificationTable:
    """Rows of text under a heading; the first row names the columns."""

    title: str
    rows: Sequence[Sequence[str]]
    has_labels: bool = False
    """The first cell of each row is a word of ours, not a name."""
    data_columns: frozenset[int] = frozenset()
    """Columns of names, which are never translated: a topic may be called `failed`."""

    def in_language(self, language: Language) -> NotificationTable:
        """Returns the same table in a language."""
        head, *rows = self.rows

        def say(number: int, cell: str) -> str:
            if number in self.data_columns:
                return cell
            return label(cell, language) if self.has_labels and number == 0 else translated(cell, language)

        return NotificationTable(
            label(self.title, language),
            [
                [label(cell, language) for cell in head],
                *([say(number, cell) for number, cell in enumerate(row)] for row in rows),
            ],
            self.has_labels,
            self.data_columns,
        )


@dataclass(frozen=True, slots=True)
class Notification:
    """One message to users.

    Args:
        subject: The answer, in one line.
        answer: The same as a full sentence.
        details: Label and text: What, On, Why, Next.
        tables: Further figures.
        commands: A command to run next, and what it shows.
        footer: Why this message was sent, and how to change that.
        links: What an address of the page shows, and the address.
    """

    subject: str
    answer: str
    details: Sequence[tuple[str, str]] = ()
    tables: Sequence[NotificationTable] = ()
    commands: Sequence[tuple[str, str]] = ()
    footer: str = ""
    links: Sequence[tuple[str, str]] = ()
    language: Language = "en"
    """Of the words that the text adds itself."""

    def in_language(self, language: Language) -> Notification:
        """Returns the same message in a language; names, data and what a server answered stay as they are."""
        if language == self.language:
            return self

        def say(text: str) -> str:
            return translated(text, language)

        return Notification(
            say(self.subject),
            say(self.answer),
            [(label(name, language), say(text)) for name, text in self.details],
            [table.in_language(language) for table in self.tables],
            [(command, say(shows)) for command, shows in self.commands],
            say(self.footer),
            [(say(shows), address) for shows, address in self.links],
            language,
        )

    @property
    def subject_line(self) -> str:
        """The subject as a mail header can hold it: one line of at most 200 characters."""
        text = " ".join(self.subject.split())
        return text if len(text) <= 200 else text[:199] + "…"

    @property
    def text(self) -> str:
        """Plain text; each line ends in a newline."""
        blocks = [[self.answer]]
        if self.details:
            width = max(len(label) for label, _ in self.details)
            blocks.append([f"{label:<{width}}  {text}" for label, text in self.details])
        blocks += [[table.title, *_columns(table.rows)] for table in self.tables]
        if self.links:
            width = max(len(shows) for shows, _ in self.links)
            blocks.append(
                [
                    translated("On the page", self.language),
                    *(f"  {shows:<{width}}   {address}" for shows, address in self.links),
                ]
            )
        if self.commands:
            width = max(len(command) for command, _ in self.commands)
            blocks.append(
                [
                    label("Commands", self.language),
                    *(f"  {command:<{width}}   {shows}" for command, shows in self.commands),
                ]
            )
        if self.footer:
            blocks.append(["--", self.footer])
        return "\n\n".join("\n".join(line.rstrip() for line in block) for block in blocks) + "\n"

    @property
    def html(self) -> str:
        """HTML with inline styles only, which every mail program shows."""
        parts = [f"<p><b>{escape(self.answer)}</b></p>"]
        if self.details:
            parts.append(_html_table([(f"<b>{escape(label)}</b>", escape(text)) for label, text in self.details]))
        for table in self.tables:
            head, *rows = [[escape(cell) for cell in row] for row in table.rows]
            parts.append(f"<p><b>{escape(table.title)}</b></p>")
            parts.append(_html_table([[f"<b>{cell}</b>" for cell in head], *rows]))
        if self.links:
            anchors = [f'<a href="{escape(address)}">{escape(shows)}</a>' for shows, address in self.links]
            parts.append(f"<p>{' &nbsp; '.join(anchors)}</p>")
        if self.commands:
            lines = [f"<code>{escape(command)}</code> &nbsp; {escape(shows)}" for command, shows in self.commands]
            parts.append(f"<p>{'<br>'.join(lines)}</p>")
        if self.footer:
            parts.append(f'<p style="color:#777">{escape(self.footer)}</p>')
        return f'<!DOCTYPE html><html lang="{self.language}"><body style="{_BODY}">{"".join(parts)}</body></html>'


def _columns(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return ["  " + "   ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)) for row in rows]


def _html_table(rows: Sequence[Sequence[str]]) -> str:
    lines = ["<tr>" + "".join(f'<td style="{_CELL}">{cell}</td>' for cell in row) + "</tr>" for row in rows]
    return f"<table>{''.join(lines)}</table>"
