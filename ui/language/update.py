"""Brings `core/language/it.po` up to date with the sources: `python -m ui.language.update [TEXTS.json | OTHER.po]`.

New texts are added without a translation, texts that no source has any more are removed, and both are listed. A JSON file
of English → Italian fills in what has no translation yet. Texts of other programs (pydantic, the operating system) and
single words have no place in our sources: they are kept as they are, and new ones are written into the file by hand.

Another version of `it.po`, such as the other side of a merge, fills in what this one does not have, hand-written texts too.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

from babel.messages.catalog import Catalog, Message
from babel.messages.pofile import read_po, write_po

from core.language.catalogue import LABEL, PLURAL, WORD, po_file
from ui.language.core_texts import core_help, core_labels, core_texts, core_titles
from ui.language.page_texts import page_texts

__all__ = ["main", "read", "updated"]

LANGUAGE = "it"
FOREIGN = "written by another program"
"""Comment of a text that is in none of our sources."""
HEADER = """\
# Italian of PSTT Kafka. `python -m ui.language.update` adds new texts and removes old ones;
# docs/decisions/028-catalogue.md has the terms and the rules."""


Id = str | tuple[str, str]
"""English, or English for one and for any other number."""
Entry = tuple[Id, str | None, list[str], list[str]]
"""A text, its context, the files that have it, and comments."""


def read(language: str) -> Catalog:
    """Returns the gettext file of a language as Babel reads it."""
    with po_file(language).open("rb") as file:
        return read_po(file, locale=language, abort_invalid=True)


def updated(old: Catalog, given: Mapping[str, str]) -> Catalog:
    """Returns a catalogue with the texts of the sources, in alphabetical order.

    Args:
        old: Its translations are kept.
        given: English → translated, for what the old one does not have.
    """
    entries = _wanted()
    for message in old:
        if message.id and (message.context in (WORD, PLURAL) or FOREIGN in message.auto_comments):
            entries.append((_first(message.id), message.context, [], message.auto_comments))
    found = Catalog(
        locale=LANGUAGE,
        project="PSTT Kafka",
        version="1",
        msgid_bugs_address="none",
        header_comment=HEADER,
        fuzzy=False,
        creation_date=datetime(2026, 11, 27, tzinfo=UTC),
        revision_date=datetime(2026, 11, 27, tzinfo=UTC),
        last_translator="PSTT Kafka",
        language_team="it",
    )
    for id_, context, files, comments in sorted(entries, key=_order):
        before = old.get(_first(id_), context)
        places = [(file, None) for file in sorted(set(files))]
        found.add(id_, _translation(id_, before, given), places, auto_comments=comments, context=context)  # type: ignore[arg-type]
    return found


def _wanted() -> list[Entry]:
    files: dict[str, list[str]] = {}
    plurals: dict[str, str] = {}
    for text in page_texts():
        files.setdefault(text.english, []).append(text.file)
        if text.plural:
            plurals[text.english] = text.plural
    for english, place in (*core_texts().items(), *core_help().items(), *core_titles().items()):
        files.setdefault(english, []).append(place.partition(":")[0])
    labels: list[Entry] = [(english, LABEL, [place], []) for english, place in core_labels().items()]
    return labels + [
        ((english, plurals[english]) if english in plurals else english, None, places, [])
        for english, places in files.items()
    ]


def _first(id_: str | tuple[str, ...] | list[str]) -> str:
    return id_ if isinstance(id_, str) else id_[0]


def _order(entry: Entry) -> tuple[str, str, str]:
    return (entry[1] or "", _first(entry[0]).casefold(), _first(entry[0]))


def _translation(id_: Id, before: Message | None, given: Mapping[str, str]) -> str | tuple[str, ...]:
    if before is not None and all(_strings(before)) and isinstance(before.id, str) == isinstance(id_, str):
        return before.string  # type: ignore[return-value]
    if isinstance(id_, str):
        return given.get(id_, "")
    return tuple(given.get(one, "") for one in id_)


def _untranslated(catalog: Catalog) -> list[str]:
    return [_shown(message) for message in catalog if message.id and not all(_strings(message))]


def _shown(message: Message) -> str:
    return _first(message.id) + (f" ({message.context})" if message.context else "")


def _strings(message: Message) -> list[str]:
    return [message.string] if isinstance(message.string, str) else list(message.string or ())


def _of_other(old: Catalog, file: Path) -> dict[str, str]:
    """Returns the translations of another file, and adds what it has by hand and the old one does not have."""
    given: dict[str, str] = {}
    with file.open("rb") as stream:
        other = read_po(stream, locale=LANGUAGE, abort_invalid=True)
    for message in other:
        if not message.id:
            continue
        is_by_hand = message.context in (WORD, PLURAL) or FOREIGN in message.auto_comments
        if is_by_hand and old.get(_first(message.id), message.context) is None:
            old.add(message.id, message.string, auto_comments=message.auto_comments, context=message.context)
        ids = [message.id] if isinstance(message.id, str) else list(message.id)
        given |= dict(zip(ids, _strings(message), strict=True))
    return given


def main(arguments: list[str]) -> int:
    """Writes the file anew and prints what was added, removed and lacks its translation. Returns 1 if any does."""
    old = read(LANGUAGE) if po_file(LANGUAGE).exists() else Catalog(locale=LANGUAGE)
    given: dict[str, str] = {}
    if arguments and arguments[0].endswith(".po"):
        given = _of_other(old, Path(arguments[0]))
    elif arguments:
        given = json.loads(Path(arguments[0]).read_text(encoding="utf-8"))
    new = updated(old, given)
    before, after = ({_shown(message) for message in one if message.id} for one in (old, new))
    with po_file(LANGUAGE).open("wb") as file:
        write_po(file, new, width=0, include_lineno=False, omit_header=False)
    without = _untranslated(new)
    for sign, texts in (("+", after - before), ("-", before - after), ("?", without)):
        for text in sorted(texts):
            print(f"{sign} {text}")
    print(f"{len(after)} texts, {len(without)} without a translation: {po_file(LANGUAGE)}")
    return 1 if without else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
