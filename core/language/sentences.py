"""Translates finished English sentences of `core`: finds the text that each was made from, and its values.

`core` writes English, into files as well: a reject of last month has its reason in the ledger. So the page does not
translate while a sentence is made, but when it is shown. A text with fields, `topic "{0}" has no partition {1}`, is a
pattern; a sentence is the text whose literal words cover most of it, alone or joined to others by `: `, `. `, `; `.
A value is translated if it is a text of `core` itself; names and data in quotes never are. A value that is one word can
be a name, so it is translated only where the translation says `{1:word}`.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache, lru_cache

__all__ = ["FIELD", "Sentences"]

FIELD = re.compile(r"\{\{|\}\}|\{(\w*)(?:[:!]([^{}\"]*))?\}")
"""A field of a text, `{0}`, `{host}`, `{:,}`, or a doubled brace, which is one brace of the sentence."""
_PIECES = re.compile(r"(: |\. |; |, | · | – | × |\] | \(|\)|\n|\.$|✔ |✘ )")
"""What joins texts of `core` to one sentence: where, what, why, what to do next."""
_OPENS = frozenset({"(", "✔", "✘"})
"""Of these, what a text itself can begin with."""
_WORDS = re.compile(r"[^\W\d_]{2,}")
_GROUPED = re.compile(r"(?<![\w.,])\d{1,3}(?:,\d{3})+(?![\w,]|\.\d)")
_UNIT = r" (?:ms|s|min|h|B|kB|MB|GB|TB|%)(?!\w)"
_WITH_UNIT = re.compile(rf"(?<![\w.,])(\d+)\.(\d+)(?={_UNIT})")
_BEGINS_WITH_UNIT = re.compile(_UNIT)
_DECIMAL = re.compile(r"\d+\.\d+")
_DAY = re.compile(r"\b(\d{1,2}) (Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec)\b")
_MONTHS = "Jan Feb Mar Apr May Jun Jul Aug Sep Oct Nov Dec".split()
_LOCALES = {"it": (".", ",", "gen feb mar apr mag giu lug ago set ott nov dic".split())}
"""Language → sign between thousands, sign before decimals, months; as in CLDR, without the 50 ms to import Babel."""
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
    translated: str
    length: int

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
    """

    def __init__(self, texts: Mapping[str, str], words: Mapping[str, str], language: str) -> None:
        self._words = words
        self._exact = {english.strip(): translated.strip() for english, translated in texts.items()}
        self._by_word: dict[str, list[_Pattern]] = {}
        self._fill([(key, value) for key, value in self._exact.items() if _fields(key)])
        self._group, self._decimal, months = _LOCALES[language]
        self._months = dict(zip(_MONTHS, months, strict=True))
        self._find = lru_cache(maxsize=5_000)(self._find_uncached)

    def translate(self, text: str) -> str:
        """Returns the sentence in the other language; what is not known of it stays English.

        A text that is one word is looked up among the words.
        """
        if text in self._words:
            return self._words[text]
        if not text or len(text) > _MOST_CHARACTERS:
            return text
        return self._find(text).text

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
        known = pattern.length
        for number, (name, value) in enumerate(zip(pattern.fields, match.groups(), strict=True)):
            found = self._value(value, number in pattern.quoted, name in pattern.words)
            values[name] = found.text
            known += found.known
        return _Found(self._inserted(pattern.translated, values), known)

    def _inserted(self, translated: str, values: Mapping[str, str]) -> str:
        pieces = list(_tokens(translated))
        text = ""
        for (is_field, piece), (_, behind) in zip(pieces, [*pieces[1:], (False, "")], strict=True):
            value = values.get(piece, "") if is_field else piece
            if is_field and _DECIMAL.fullmatch(value) and _BEGINS_WITH_UNIT.match(behind):
                value = value.replace(".", self._decimal)
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
        text = _GROUPED.sub(lambda match: match[0].replace(",", self._group), text)
        text = _WITH_UNIT.sub(lambda match: f"{match[1]}{self._decimal}{match[2]}", text)
        return _DAY.sub(lambda match: f"{match[1]} {self._months[match[2]]}", text)

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
                if part != text and part.strip() and (found := self._whole(part)) is not None:
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
    words = (name for is_field, name, mark in _marked(translated) if is_field and mark == "word")
    return _Pattern(
        tuple(literals), tuple(names), frozenset(quoted), frozenset(words), translated, len("".join(literals))
    )


@cache
def _regex(literals: tuple[str, ...]) -> re.Pattern[str]:
    """Compiled when it is needed first: all of them at once take a fifth of a second."""
    return re.compile("(.*?)".join(map(re.escape, literals)), re.DOTALL)


def _is_quoted(tokens: list[tuple[bool, str]], number: int) -> bool:
    before = "".join(piece for is_field, piece in tokens[:number] if not is_field)
    after = "".join(piece for is_field, piece in tokens[number + 1 :] if not is_field)
    return before[-1:] in _QUOTES and after[:1] in _QUOTES and bool(before) and bool(after)
