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
    "Data",
    "Language",
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


_BEGIN, _END = "\ufdd0", "\ufdd1"
"""Around data in a line until it is printed: two characters that Unicode keeps for the inside of programs."""
_MARKED = re.compile(f"{_BEGIN}(.*?){_END}", re.DOTALL)
_FIRST_PLACE = 0xF0000
"""Stands for the first piece of data while a line is translated; of the private use, and no part of any text of ours."""


class Data(str):
    """Data of users: a name, a key, a value, SQL, what a server answered. A job may be called `running`.

    In an f-string, `f"{Data(job.name):<20}  {state}"`, it is marked, so that it is never translated; blanks that fill a
    column are not part of it. Only `translated_line` takes the marks away, also for English.
    """

    __slots__ = ()

    def __format__(self, spec: str) -> str:
        """Returns the text, marked, in a column of that width."""
        if not self:
            return super().__format__(spec)
        plain = "".join(char for char in self if char not in (_BEGIN, _END))
        return format(plain, spec).replace(plain, f"{_BEGIN}{plain}{_END}", 1) if plain else format(plain, spec)

    @property
    def marked(self) -> str:
        """The text as it is in an f-string."""
        return f"{self}"


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

    Columns stay where they are: the gap behind a translated part becomes wider or smaller. Data stays as it is.
    """
    data: list[str] = []
    if _BEGIN in line:
        if language == "en":
            return _MARKED.sub(r"\1", line)

        def put_aside(found: re.Match[str]) -> str:
            data.append(found[1])
            return chr(_FIRST_PLACE + len(data) - 1)

        line = _MARKED.sub(put_aside, line)
    if language == "en":
        return line
    shown = "\n".join(_line(one, _sentences(language)) for one in line.split("\n"))
    return shown.translate({_FIRST_PLACE + number: text for number, text in enumerate(data)}) if data else shown


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
