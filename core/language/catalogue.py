"""The translations of one language, read from its gettext file `it.po`.

The file is read as it is: no compiler of gettext is needed, on Windows neither, and no library, so that a command in
Italian starts fast. English is the key of each text.
`msgctxt "word"` marks single words that are translated only as a value inside a sentence of `core`, `msgctxt "label"`
those before a line of the command line and above its columns.
"""

from __future__ import annotations

import gettext
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from core.language.sentences import Sentences

__all__ = ["LABEL", "PLURAL", "WORD", "Texts", "Translations", "po_file", "translations"]

WORD = "word"
"""Context of a single word that `core` puts into its sentences, such as `acknowledged`."""
LABEL = "label"
"""Context of a word before a line of the command line, or above a column, such as `next`."""
PLURAL = "plural"
"""Context of a word whose form after a number other than one is another, such as `complete`."""
_OF_CORE = ("core/", "ui/api/", "ui/apart.py", "ui/http_security.py", "ui/workspaces.py")
"""The sources whose finished sentences are translated; REST has its errors in `ui`."""
_PLURAL = re.compile(r"plural=([^;\n]+)")
_ESCAPES = {"n": "\n", "t": "\t", "r": "\r"}
_ESCAPED = re.compile(r"\\(.)")


@dataclass(frozen=True, slots=True)
class Texts:
    """Whole texts, with their plural forms."""

    singular: Mapping[str, str]
    plural: Mapping[str, Mapping[int, str]]
    """English for one → the form of each number that `form_of` returns."""
    form_of: Callable[[int], int]

    def gettext(self, text: str) -> str:
        """Returns the translation; English if there is none."""
        return self.singular.get(text) or text

    def ngettext(self, one: str, many: str, count: int) -> str:
        """Returns the translation in the form that the number takes; English if there is none."""
        return self.plural.get(one, {}).get(self.form_of(count)) or (one if count == 1 else many)


@dataclass(frozen=True, slots=True)
class Translations:
    """Texts of the page, with plural forms, and the sentences of `core`."""

    texts: Texts
    sentences: Sentences


@dataclass(slots=True)
class _Entry:
    """One entry of a gettext file: keyword such as `msgid` or `msgstr[1]` → text."""

    parts: dict[str, str] = field(default_factory=dict)
    places: str = ""

    @property
    def is_of_core(self) -> bool:
        """Whether it can be a sentence, or a part of one, that is translated when it is finished; foreign ones have no place."""
        return not self.places or any(f" {place}" in self.places for place in _OF_CORE)


def po_file(language: str) -> Path:
    """Returns the path of a language's gettext file."""
    return Path(__file__).parent / f"{language}.po"


@cache
def translations(language: str) -> Translations:
    """Returns the translations of a language; they are read once for the process."""
    singular: dict[str, str] = {}
    plural: dict[str, Mapping[int, str]] = {}
    sentences: dict[str, str] = {}
    marked: dict[str, dict[str, str]] = {WORD: {}, LABEL: {}, PLURAL: {}}
    rule = "n != 1"
    for entry in _entries(po_file(language).read_text(encoding="utf-8")):
        english, translated = entry.parts["msgid"], entry.parts.get("msgstr", "")
        if not english:
            rule = found[1] if (found := _PLURAL.search(translated)) else rule
        elif "msgctxt" in entry.parts:
            marked[entry.parts["msgctxt"]][english] = translated
        elif "msgid_plural" in entry.parts:
            forms = {int(name[7:-1]): text for name, text in entry.parts.items() if name.startswith("msgstr[")}
            plural[english], singular[english] = forms, forms.get(0, "")
        elif translated:
            singular[english] = translated
            if entry.is_of_core:
                sentences[english] = translated
    return Translations(
        Texts(singular, plural, gettext.c2py(rule)),
        Sentences(sentences, marked[WORD], language, marked[LABEL], marked[PLURAL]),
    )


def _entries(text: str) -> Iterator[_Entry]:
    """Yields each entry of a gettext file; an empty line ends one."""
    entry, keyword = _Entry(), ""
    for line in (*text.splitlines(), ""):
        if line.startswith('"'):
            entry.parts[keyword] += _unescaped(line[1:-1])
        elif line.startswith("msg"):
            keyword, _, quoted = line.partition(" ")
            entry.parts[keyword] = _unescaped(quoted[1:-1])
        elif line.startswith("#:"):
            entry.places += line[2:]
        elif not line and entry.parts:
            yield entry
            entry, keyword = _Entry(), ""


def _unescaped(text: str) -> str:
    return _ESCAPED.sub(lambda found: _ESCAPES.get(found[1], found[1]), text) if "\\" in text else text
