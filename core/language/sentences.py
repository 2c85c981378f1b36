"""Translates finished English sentences of `core`: finds the text that each was made from, and its values.

`core` writes English, into files as well: a reject of last month has its reason in the ledger. So the page does not
translate while a sentence is made, but when it is shown. A text with fields, `topic "{0}" has no partition {1}`, is a
pattern; a sentence is the text whose literal words cover most of it, alone or joined to others by `: `, `. `, `; `.
A value is translated if it is a text of `core` itself; names and data in quotes never are. A value that is one word can
be a name, so it is translated only where the translation says `{1:word}`. A decimal can be a version, so it gets the sign
of the language only before a unit, with thousands, or where the translation says `{1:number}`.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Set
from dataclasses import dataclass
from functools import cache, lru_cache
from types import MappingProxyType

__all__ = ["FIELD", "Sentences"]

FIELD = re.compile(r"\{\{|\}\}|\{(\w*)(?:[:!]([^{}\"]*))?\}")
"""A field of a text, `{0}`, `{host}`, `{:,}`, or a doubled brace, which is one brace of the sentence."""
_PIECES = re.compile(r"(: |\. |; |, | · | – | × |\] | \(|\)|\n|\.$|✔ |✘ )")
"""What joins texts of `core` to one sentence: where, what, why, what to do next."""
_OPENS = frozenset({"(", "✔", "✘"})
"""Of these, what a text itself can begin with."""
_TIME = (
    r"(?:(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun) )?\d{1,2} (?:Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec) \d{4}"
    r"(?: \d\d:\d\d(?::\d\d)?)?"
)
_PLAIN = re.compile(
    rf"{_TIME}(?: to {_TIME})?(?: [+-]\d{{4}}| [A-Z]\w+(?:/\w+)*)?|\d{{4}}-\d\d-\d\d to \d{{4}}-\d\d-\d\d"
    r"|\d{1,3}(?:,\d{3})+|[\d,]+(?:\.\d+)? (?:ms|s|min|h|B|kB|MB|GB|TB|%)"
)
"""A time, a number with thousands, a number with a unit: they are written as the language does."""
_RANGE = re.compile(r"(\d{4}-\d\d-\d\d|\d{4}(?: \d\d:\d\d(?::\d\d)?)?) to (?=\d{1,4}[- ])")
"""Two days or times: `2026-01-10 to 2026-01-16`."""
_SIGNED = re.compile(r"([✔✘◐…–!]) (\S.*)", re.DOTALL)
_COUNTED = re.compile(r"(\d[\d,]*) ([a-z][a-z_-]+)")
"""A number and a word: `3 messages`."""
_WORDS = re.compile(r"[^\W\d_]{2,}")
_UNIT = r" (?:ms|s|min|h|B|kB|MB|GB|TB|%)(?!\w)"
_NUMBER = re.compile(rf"(?<![\w.,])(?:\d{{1,3}}(?:,\d{{3}})+(?:\.\d+)?(?![\w,]|\.\d)|\d+\.\d+(?={_UNIT}))")
"""A number with thousands, or with decimals before a unit."""
_ALONE = re.compile(r"\d{1,3}(?:,\d{3})*\.\d+")
"""A number with decimals, and nothing else."""
_CELL = re.compile(r"[\d,]+(?:\.\d+)?(?: · [\d,]+(?:\.\d+)?)*")
"""Numbers and nothing else: a cell of a table."""
_BEGINS_WITH_UNIT = re.compile(_UNIT)
_ENDS_WITH_DECIMAL = re.compile(r"(?<![\w.,])(\d+)\.(\d+)$")
_DAY = re.compile(r"\b(\d{1,2}) (Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec)\b")
_WEEKDAY = re.compile(r"\b(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun)\b(?= \d{1,2} [A-Z][a-z]{2}\b)")
_WEEKDAYS = "Mon Tue Wed Thu Fri Sat Sun".split()
_MONTHS = "Jan Feb Mar Apr May Jun Jul Aug Sep Oct Nov Dec".split()
_LOCALES = {
    "it": (
        ".",
        ",",
        "gen feb mar apr mag giu lug ago set ott nov dic".split(),
        "lun mar mer gio ven sab dom".split(),
    )
}
"""Language → signs between thousands and before decimals, months, weekdays; as in CLDR, without the 50 ms to import Babel."""
_MOST_CHARACTERS = 2_000
"""A longer text is data, such as what a server answered."""
_MOST_PIECES = 24
_QUOTES = "\"'`“”«»"


@dataclass(frozen=True, slots=True)
class _Pattern:
    literals: tuple[str, ...]
    fields: tuple[str, ...]
    quoted: frozenset[int]
    words: frozenset[str]
    numbers: frozenset[str]
    translated: str
    length: int
    is_short: bool
    """It has one word besides one or two values."""

    def match(self, text: str) -> re.Match[str] | None:
        if not all(literal in text for literal in self.literals):
            return None
        return _regex(self.literals).fullmatch(text)


@dataclass(frozen=True, slots=True)
class _Found:
    """A translation, and how many characters of the English it knew."""

    text: str
    known: int


class Sentences:
    """The texts of `core` in one language.

    Args:
        texts: English → translated; fields are `{0}`, `{name}`.
        words: Single English words, for the fields that are marked as a word: `acknowledged`.
        language: Of numbers and months in values, one of `_LOCALES`.
        labels: English words before the lines of the command line and above its columns: `next`, `scheduled`.
        plurals: English words whose form after a number other than one is another: `complete`.
    """

    def __init__(
        self,
        texts: Mapping[str, str],
        words: Mapping[str, str],
        language: str,
        labels: Mapping[str, str] = MappingProxyType({}),
        plurals: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        self._plurals = plurals
        self._words = words
        self._labels = labels
        self._exact = {english.strip(): translated.strip() for english, translated in texts.items()}
        self._exact |= {word: translated for word, translated in words.items() if word.isupper()}  # no name is CRITICAL
        self._by_word: dict[str, list[_Pattern]] = {}
        self._fill([(key, value) for key, value in self._exact.items() if _fields(key)])
        self._group, self._decimal, months, weekdays = _LOCALES[language]
        self._months = dict(zip(_MONTHS, months, strict=True))
        self._weekdays = dict(zip(_WEEKDAYS, weekdays, strict=True))
        self._find = lru_cache(maxsize=5_000)(self._find_uncached)

    def translate(self, text: str) -> str:
        """Returns the sentence in the other language; what is not known of it stays English.

        A text that is one word is looked up among the words.
        """
        if text in self._words:
            return self._words[text]
        if _CELL.fullmatch(text):
            return " · ".join(map(self._number, text.split(" · ")))
        if not text or len(text) > _MOST_CHARACTERS:
            return text
        return self._find(text).text

    def label(self, text: str) -> str:
        """Returns a label in the other language: one of its words, else what `translate` returns."""
        return self._labels.get(text) or self.translate(text)

    def _fill(self, texts: list[tuple[str, str]]) -> None:
        counts = Counter(word for english, _ in texts for word in set(_literal_words(english)))
        for english, translated in texts:
            if words := _literal_words(english):
                rarest = min(words, key=lambda word: (counts[word], -len(word)))
                self._by_word.setdefault(rarest, []).append(_pattern(english, translated))

    def _find_uncached(self, text: str) -> _Found:
        stripped = text.strip()
        if not stripped:
            return _Found(text, 0)
        found = self._whole(stripped)
        if found is None or found.known < len(stripped):
            joined = self._joined(stripped)
            if found is None or (joined is not None and joined.known > found.known):
                found = joined
        if found is None:
            return _Found(text, 0)
        begin = text[: len(text) - len(text.lstrip())]
        return _Found(begin + found.text + text[len(text.rstrip()) :], found.known)

    def _whole(self, text: str) -> _Found | None:
        """The sentence as one text; with a small first letter if it is not known with a capital."""
        found = self._as_written(text)
        if found is None and text[:1].isupper():
            found = self._as_written(text[0].lower() + text[1:])
            if found is not None:
                return _Found(found.text[:1].upper() + found.text[1:], found.known)
        return found

    def _as_written(self, text: str) -> _Found | None:
        if (exact := self._exact.get(text)) is not None:
            return _Found(exact, len(text))
        if _PLAIN.fullmatch(text):
            return _Found(self._localised(text), len(text))
        if (counted := _COUNTED.fullmatch(text)) and counted[2] in self._words:
            word = self._words[counted[2]]
            word = word if counted[1] == "1" else self._plurals.get(counted[2], word)
            return _Found(f"{self._localised(counted[1])} {word}", len(text))
        if (signed := _SIGNED.fullmatch(text)) and signed[2] in self._words:
            return _Found(f"{signed[1]} {self._words[signed[2]]}", len(text))
        found = [
            (one.known, pattern.length, one.text)
            for pattern in self._candidates(text)
            if (one := self._filled(pattern, text)) is not None
        ]
        if not found:
            return None
        known, _, translated = max(found)  # of two that know as much, the one with fewer values
        return _Found(translated, known)

    def _candidates(self, text: str) -> Iterator[_Pattern]:
        for word in set(_WORDS.findall(text)):
            for pattern in self._by_word.get(word, ()):
                if pattern.length <= len(text):
                    yield pattern

    def _filled(self, pattern: _Pattern, text: str) -> _Found | None:
        match = pattern.match(text)
        if match is None:
            return None
        values: dict[str, str] = {}
        decimals: set[str] = set()
        known = pattern.length
        for number, (name, value) in enumerate(zip(pattern.fields, match.groups(), strict=True)):
            found = self._value(value, number in pattern.quoted, name in pattern.words)
            if pattern.is_short and not (number in pattern.quoted or self._is_ours(value, found)):
                return None
            values[name] = found.text
            if name in pattern.numbers and _ALONE.fullmatch(value):
                values[name] = self._number(value)
            elif _ENDS_WITH_DECIMAL.search(value):
                decimals.add(name)
            known += found.known
        return _Found(self._with_days(self._inserted(pattern.translated, values, decimals)), known)

    def _is_ours(self, value: str, found: _Found) -> bool:
        """Whether a value is a name, a list of names, a time, or known: a text with one word says little by itself."""
        value = value.strip()
        return " " not in value.replace(", ", "") or found.known > 0 or bool(_PLAIN.fullmatch(value))

    def _inserted(self, translated: str, values: Mapping[str, str], decimals: Set[str]) -> str:
        """Returns the translation with its values; a decimal before a unit has the sign of the language."""
        pieces = list(_tokens(translated))
        text = ""
        for (is_field, piece), (_, behind) in zip(pieces, [*pieces[1:], (False, "")], strict=True):
            value = values.get(piece, "") if is_field else piece
            if is_field and piece in decimals and _BEGINS_WITH_UNIT.match(behind):
                value = _ENDS_WITH_DECIMAL.sub(rf"\1{self._decimal}\2", value)
            text += value
        return text

    def _value(self, value: str, is_quoted: bool, is_word: bool) -> _Found:
        if is_quoted:
            return _Found(value, 0)
        if is_word and value in self._words:
            return _Found(self._words[value], len(value))
        found = self._find(value) if " " in value.strip() else _Found(value, 0)
        return _Found(self._localised(found.text), found.known)

    def _localised(self, text: str) -> str:
        """`18,543` → `18.543`, `4.1 MB` → `4,1 MB`, `17 Jan 2026` → `17 gen 2026`."""
        return self._with_days(_NUMBER.sub(lambda match: self._number(match[0]), text))

    def _number(self, text: str) -> str:
        """`1,204.5` → `1.204,5`."""
        whole, point, decimals = text.partition(".")
        return whole.replace(",", self._group) + (self._decimal if point else "") + decimals

    def _with_days(self, text: str) -> str:
        """Writes days as the language does, but for those in quotes."""
        parts = text.split('"')
        return '"'.join(self._days(part) if number % 2 == 0 else part for number, part in enumerate(parts))

    def _days(self, text: str) -> str:
        text = _WEEKDAY.sub(lambda match: self._weekdays[match[0]], text)
        text = _DAY.sub(lambda match: f"{match[1]} {self._months[match[2]]}", text)
        return _RANGE.sub(r"\1 – ", text)

    def _joined(self, text: str) -> _Found | None:
        """The best way to cut the sentence into known texts and others."""
        pieces = _PIECES.split(text)
        if not 3 <= len(pieces) <= 2 * _MOST_PIECES:
            return None
        best = [_Found("", 0)]
        for end in range(1, len(pieces) + 1):
            last = pieces[end - 1]
            choice = _Found(best[-1].text + last, best[-1].known)
            begins = range(end - 1, -1, -1) if end % 2 or last == ")" else ()  # a text ends with words, not between two
            for begin in begins:
                if begin % 2 and pieces[begin].strip() not in _OPENS:
                    continue
                part = "".join(pieces[begin:end])
                is_state = begin == 0 and part in self._plurals  # `failed: no broker answers`
                found = _Found(self._words.get(part, part), len(part)) if is_state else None
                if part != text and part.strip() and (found := found or self._whole(part)) is not None:
                    known = best[begin].known + found.known
                    if known > choice.known:
                        choice = _Found(best[begin].text + found.text, known)
            best.append(choice)
        return best[-1] if best[-1].known else None


def _fields(text: str) -> list[str]:
    return [match[0] for match in FIELD.finditer(text) if match[0] not in ("{{", "}}")]


def _literal_words(text: str) -> list[str]:
    return _WORDS.findall(FIELD.sub("\x00", text))


def _tokens(text: str) -> Iterator[tuple[bool, str]]:
    """Yields each piece of a text: whether it is a field, and its name or its literal characters."""
    return ((is_field, piece) for is_field, piece, _ in _marked(text))


def _marked(text: str) -> Iterator[tuple[bool, str, str]]:
    """As `_tokens`, with what a field has behind its colon."""
    at, unnamed = 0, 0
    for match in FIELD.finditer(text):
        yield False, text[at : match.start()], ""
        if match[0] in ("{{", "}}"):
            yield False, match[0][0], ""
        elif match[1]:
            yield True, match[1], match[2] or ""
        else:
            yield True, f"#{unnamed}", match[2] or ""
            unnamed += 1
        at = match.end()
    yield False, text[at:], ""


def _pattern(english: str, translated: str) -> _Pattern:
    literals = [""]
    names: list[str] = []
    quoted: set[int] = set()
    tokens = list(_tokens(english))
    for number, (is_field, piece) in enumerate(tokens):
        if not is_field:
            literals[-1] += piece
            continue
        if _is_quoted(tokens, number):
            quoted.add(len(names))
        names.append(piece)
        literals.append("")
    marked = {
        wanted: frozenset(name for is_field, name, mark in _marked(translated) if is_field and mark == wanted)
        for wanted in ("word", "number")
    }
    return _Pattern(
        tuple(literals),
        tuple(names),
        frozenset(quoted),
        marked["word"],
        marked["number"],
        translated,
        len("".join(literals)),
        len(_literal_words(english)) == 1 and len(names) <= 2,
    )


@cache
def _regex(literals: tuple[str, ...]) -> re.Pattern[str]:
    """Compiled when it is needed first: all of them at once take a fifth of a second."""
    return re.compile("(.*?)".join(map(re.escape, literals)), re.DOTALL)


def _is_quoted(tokens: list[tuple[bool, str]], number: int) -> bool:
    before = "".join(piece for is_field, piece in tokens[:number] if not is_field)
    after = "".join(piece for is_field, piece in tokens[number + 1 :] if not is_field)
    return before[-1:] in _QUOTES and after[:1] in _QUOTES and bool(before) and bool(after)
