"""The languages in which this program speaks: English is in the source, `it.po` has the Italian.

The engine makes English sentences, stores them and answers programs with them. What people read is translated where it
leaves the program: lines of the command line and of the log, mails, problems of REST, the page.
Nothing is loaded while the language is English.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Literal, get_args

if TYPE_CHECKING:
    from core.language.sentences import Sentences

__all__ = [
    "LANGUAGES",
    "VARIABLE",
    "Language",
    "WithData",
    "chosen_language",
    "label",
    "translated",
    "translated_line",
]

Language = Literal["it", "en"]
LANGUAGES: tuple[Language, ...] = get_args(Language)
VARIABLE = "PSTT_LANGUAGE"
"""The setting; `core.workspace.settings` has it among the others."""
_FLOW = "   "
"""Between two parts of a line that are no columns."""


class WithData(str):
    """A line that ends in data: a message, a statement, a row. Only what is before the data is translated.

    Args:
        before: Text of ours.
        data: It stays as it is.
    """

    __slots__ = ("before", "data")

    before: str
    data: str

    def __new__(cls, before: str, data: str) -> WithData:
        """Makes the line."""
        made = super().__new__(cls, before + data)
        made.before, made.data = before, data
        return made


def translated(text: str, language: Language) -> str:
    """Returns a finished sentence of `core` in a language: an error, a reason, a log line.

    What is not known of it, such as the answer of a server, stays as it is.
    """
    return text if language == "en" else _sentences(language).translate(text)


def label(text: str, language: Language) -> str:
    """Returns a word before a line or above a column in a language."""
    return text if language == "en" else _sentences(language).label(text)


def translated_line(line: str, language: Language) -> str:
    """Returns a line of output in a language. Parts that are apart by two spaces or more are translated one by one.

    Columns stay where they are: the gap behind a translated part becomes wider or smaller.
    """
    if language == "en":
        return line
    if isinstance(line, WithData):
        return translated_line(line.before, language) + line.data
    return "\n".join(_line(one, _sentences(language)) for one in line.split("\n"))


def chosen_language(environ: Mapping[str, str], env_file: Path) -> Language:
    """Returns the language of the environment, else of `.env`, without reading any other setting.

    Help, and an error about another setting, are shown before the settings are read. A language that there is not is
    English here; whoever reads the settings reports it.
    """
    wanted = environ.get(VARIABLE, "")
    if not wanted:
        try:
            text = env_file.read_text(encoding="utf-8-sig", errors="replace")
        except OSError:
            return "en"
        found = re.findall(rf"^\s*(?:export\s+)?{VARIABLE}\s*=\s*['\"]?(\w+)", text, re.MULTILINE)
        wanted = found[-1] if found else ""
    return "it" if wanted == "it" else "en"


def _line(line: str, sentences: Sentences) -> str:
    parts = re.split(r"( {2,})", line)
    text = ""
    owed = 0
    for number, part in enumerate(parts):
        if number % 2:  # a gap
            is_column = part != _FLOW or (number == 3 and not parts[0])
            room = len(part) - owed
            text += " " * (room if room > 0 else 2) if is_column and number > 1 else part
            owed = 0
            continue
        is_label = number == 2 and not parts[0] and len(parts) > 3
        shown = sentences.label(part) if is_label else sentences.translate(part)
        owed = len(shown) - len(part)
        text += shown
    return text


@cache
def _sentences(language: Language) -> Sentences:
    # Imported when a sentence has to be translated: 20 ms, and 0.1 s for the texts.
    found: Sentences = import_module("core.language.catalogue").translations(language).sentences
    return found
