"""The translations of one language, read from its gettext file `it.po`.

The file is read as it is: no compiler of gettext is needed, on Windows neither. English is the key of each text.
`msgctxt "word"` marks single words that are translated only as a value inside a sentence of `core`.
"""

from __future__ import annotations

import gettext
from dataclasses import dataclass
from functools import cache
from io import BytesIO
from pathlib import Path

from babel.messages.catalog import Catalog, Message
from babel.messages.mofile import write_mo
from babel.messages.pofile import read_po

from ui.language.sentences import Sentences

__all__ = ["WORD", "Translations", "po_file", "read", "translations"]

WORD = "word"
"""Context of a single word that `core` puts into its sentences, such as `acknowledged`."""


@dataclass(frozen=True, slots=True)
class Translations:
    """Texts of the page, with plural forms, and the sentences of `core`."""

    texts: gettext.GNUTranslations
    sentences: Sentences


def po_file(language: str) -> Path:
    """Returns the path of a language's gettext file."""
    return Path(__file__).parent / f"{language}.po"


def read(language: str) -> Catalog:
    """Returns the gettext file as Babel reads it."""
    with po_file(language).open("rb") as file:
        return read_po(file, locale=language, abort_invalid=True)


@cache
def translations(language: str) -> Translations:
    """Returns the translations of a language; they are read once for the process."""
    po = read(language)
    compiled = BytesIO()
    write_mo(compiled, po)
    compiled.seek(0)
    return Translations(
        gettext.GNUTranslations(compiled),
        Sentences(
            {str(message.id): str(message.string) for message in po if _is_of_core(message)},
            {str(message.id): str(message.string) for message in po if message.context == WORD},
            language,
        ),
    )


def _is_of_core(message: Message) -> bool:
    """Whether it can be a sentence, or a part of one, that is not made by the page: its place is in `core`, or nowhere."""
    if not isinstance(message.id, str) or not message.id or not message.string or message.context:
        return False
    return not message.locations or any(file.startswith("core/") for file, _ in message.locations)
