"""Whether two cells say the same, one of a message and one of a spreadsheet that keeps less than a message.

The column's form decides how a cell is read, on both sides alike:

- number: exact value; `1.50`, `1,5`, `1.234,50` and `1,50 ` are read as people write them.
- float: 15 significant digits, which is what a spreadsheet shows.
- moment (dates too): the point in time, to the millisecond in Excel; a serial number is the date that Excel shows for it;
  where only one side has an offset, the clock on the wall counts.
- time: as a moment.
- boolean (true/false, 1/0, vero/falso), JSON (by value).
- value (SQLite, where the column has no type): a number where the message has one, else text.
- text: as it is, but for blanks at its end, line ends, and the `'` that keeps a formula from running. A number in its
  place is its digits.

Nothing and an empty text are the same: a file cannot tell them apart.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from datetime import date, datetime, time, timedelta
from decimal import Decimal, InvalidOperation
from typing import Any, ClassVar, Literal

from core.files.writer import Double
from core.message.column_types import COLUMN_TYPES, CellForm
from core.model.source import Column

__all__ = ["CellComparison", "forms_of", "without_zeros"]

EPOCH = datetime(1899, 12, 30)  # noqa: DTZ001 - Excel's days have no zone
LAST_SERIAL = 2_958_466
"""The day after 31 December 9999."""
MOMENTS = (
    "%d/%m/%Y",
    "%d/%m/%Y %H:%M",
    "%d/%m/%Y %H:%M:%S",
    "%d/%m/%Y %H:%M:%S.%f",
    "%d-%m-%Y",
    "%d-%m-%Y %H:%M:%S",
    "%d.%m.%Y",
    "%d.%m.%Y %H:%M:%S",
    "%Y/%m/%d",
    "%Y/%m/%d %H:%M:%S",
)
"""As spreadsheets of Europe write them, after ISO 8601."""
_NUMBER = re.compile(r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d{1,3})?", re.ASCII)
_SERIAL = re.compile(r"\d{1,7}(?:\.\d+)?", re.ASCII)
_GROUPED = {
    ",": re.compile(r"[+-]?\d{1,3}(?:\.\d{3})+(?:,\d*)?"),
    ".": re.compile(r"[+-]?\d{1,3}(?:,\d{3})+(?:\.\d*)?"),
}
_GUARDED = re.compile(r"'[=+\-@\t\r]")
_BOOLEANS = {"true": "true", "1": "true", "vero": "true", "false": "false", "0": "false", "falso": "false"}


def forms_of(columns: Sequence[Column], types: Mapping[str, str], wanted: Sequence[str]) -> list[CellForm]:
    """The form of each wanted column (lower-case), by its kind or what the job says under `types`."""
    overrides = {name.lower(): kind for name, kind in types.items()}
    kinds = {column.name.lower(): overrides.get(column.name.lower(), column.kind) for column in columns}
    return [_form_of(kinds[name]) for name in wanted]


def _form_of(kind: str) -> CellForm:
    if kind == "array":
        return "json"
    return COLUMN_TYPES[kind].form if kind in COLUMN_TYPES else "text"


def without_zeros(text: str) -> str:
    """Digits without zeros in front."""
    return text.lstrip("0") or "0" if text.isdigit() else text


class CellComparison:
    """How the cells of one file are read.

    Args:
        kind: Excel keeps numbers as doubles and moments to the millisecond.
        decimal: The sign before the fraction in a CSV; None: told from each number.
        moments: More formats of strftime in which dates may stand.
    """

    ZEROS_LOST: ClassVar[str] = "leading zeros lost in the file"

    def __init__(self, kind: Literal["excel", "csv"], decimal: str | None = None, moments: Sequence[str] = ()) -> None:
        self.kind = kind
        self.decimal = decimal
        self._moments = (*filter(None, moments), *MOMENTS)
        self._good_format = MOMENTS[0]

    def text_of(self, form: CellForm) -> Callable[[Any], str]:
        """What brings a cell of that form to its one text; what is not of the form stays as it is."""
        return {
            "number": self._number,
            "float": self._float,
            "moment": self._moment,
            "time": self._time,
            "boolean": self._boolean,
            "json": self._json,
            "text": self._text,
            "value": self._any,
        }[form]

    def says_the_same(self, form: CellForm, ours: str, theirs: str) -> bool:
        """Whether two texts of `text_of` that are not equal say the same all the same."""
        if ours == theirs:
            return True
        if form == "moment":
            return self._same_moment(ours, theirs)
        if form == "time":
            return self._same_moment(f"{EPOCH:%Y-%m-%d}T{ours}", f"{EPOCH:%Y-%m-%d}T{theirs}")
        if form == "value" and not _has_zeros(ours) and _NUMBER.fullmatch(ours):
            return self._float(self._with_point(theirs)) == self._float(ours)
        if form == "text" and self.kind == "excel" and not _has_zeros(ours):
            # Excel made a number of it: 12.0 is shown as 12.
            return bool(_NUMBER.fullmatch(ours) and _NUMBER.fullmatch(theirs)) and Decimal(ours) == Decimal(theirs)
        return False

    def what_was_lost(self, form: CellForm, ours: str, theirs: str) -> str:
        """What the file kept less of; empty where it simply says something else."""
        if form == "text" and _has_zeros(ours) and theirs.isdigit() and without_zeros(ours) == without_zeros(theirs):
            return self.ZEROS_LOST
        if form == "number" and _NUMBER.fullmatch(ours) and _NUMBER.fullmatch(theirs):
            digits = len(Decimal(theirs).normalize().as_tuple().digits)
            if digits < len(Decimal(ours).as_tuple().digits) and _rounded(ours, digits) == Decimal(theirs):
                return f"rounded to {digits} digits in the file"
        if form == "moment":
            return _cut(ours, theirs)
        if form == "text" and ours.casefold() == theirs.casefold():
            return "only capitals differ"
        return "only blanks differ" if form == "text" and "".join(ours.split()) == "".join(theirs.split()) else ""

    def shown(self, form: CellForm, text: str) -> str | None:
        """The text for people."""
        return (text.removesuffix("T00:00:00.000000") if form == "moment" else text) or None

    def _number(self, cell: Any) -> str:
        number = self._value(cell)
        return _plain(number) if number is not None else self._text(cell)

    def _float(self, cell: Any) -> str:
        number = self._value(cell)
        return f"{float(number):.15g}" if number is not None else self._text(cell)

    def _any(self, cell: Any) -> str:
        return self._float(cell) if isinstance(cell, Double) else self._text(cell)

    def _value(self, cell: Any) -> Decimal | None:
        if isinstance(cell, str):
            text = cell.strip().replace("\xa0", "").replace("\u202f", "")
            text = text if type(cell) is not str else self._with_point(text)
            if not _NUMBER.fullmatch(text):
                return None
        elif isinstance(cell, int | float):
            text = repr(int(cell) if isinstance(cell, bool) else cell)
        else:
            return None
        try:
            number = Decimal(text)
        except InvalidOperation:
            return None
        return number if number.is_finite() else None

    def _with_point(self, text: str) -> str:
        """`1.234,50` → `1234.50`. Where the sign before the fraction is not given: it is the last of `.` and `,`."""
        decimal = self.decimal or ("," if text.rfind(",") > text.rfind(".") else ".")
        other = "." if decimal == "," else ","
        if other in text:
            if not _GROUPED[decimal].fullmatch(text):
                return text
            text = text.replace(other, "")
        return text.replace(",", ".")

    def _moment(self, cell: Any) -> str:
        moment = self._point(cell)
        return moment.isoformat(timespec="microseconds") if moment is not None else self._text(cell)

    def _point(self, cell: Any) -> datetime | None:
        if isinstance(cell, datetime):
            return cell
        if isinstance(cell, date):
            return datetime(cell.year, cell.month, cell.day)  # noqa: DTZ001 - no zone on either side
        if isinstance(cell, str):
            text = cell.strip()
            return _of_serial(float(text)) if _SERIAL.fullmatch(text) else self._parsed(text)
        return _of_serial(float(cell)) if isinstance(cell, int | float) else None

    def _parsed(self, text: str) -> datetime | None:
        if not text:
            return None
        # One file writes its dates in one way: what fitted last fits next.
        for form in (None, self._good_format, *self._moments):
            try:
                moment = datetime.fromisoformat(text) if form is None else datetime.strptime(text, form)  # noqa: DTZ007
            except ValueError:
                continue
            self._good_format = form or self._good_format
            return moment
        return None

    def _same_moment(self, ours: str, theirs: str) -> bool:
        try:
            our, their = datetime.fromisoformat(ours), datetime.fromisoformat(theirs)
        except ValueError:
            return False
        if (our.tzinfo is None) != (their.tzinfo is None):
            our, their = our.replace(tzinfo=None), their.replace(tzinfo=None)
        # Half a millisecond of rounding, and the last bits of a double.
        return abs(our - their) <= timedelta(milliseconds=1 if self.kind == "excel" else 0)

    def _time(self, cell: Any) -> str:
        if isinstance(cell, datetime):
            return cell.time().isoformat("microseconds")
        if isinstance(cell, timedelta):
            return (EPOCH + cell).time().isoformat("microseconds")
        if isinstance(cell, float | int):
            return (EPOCH + timedelta(days=cell % 1)).time().isoformat("microseconds")
        try:
            found = cell if isinstance(cell, time) else time.fromisoformat((cell or "").strip())
        except ValueError:
            return self._text(cell)
        return found.isoformat("microseconds")

    def _boolean(self, cell: Any) -> str:
        text = "true" if cell is True else "false" if cell is False else self._text(cell)
        return _BOOLEANS.get(text.strip().lower(), text)

    def _json(self, cell: Any) -> str:
        number = None if isinstance(cell, bool) else self._value(cell)
        if number is not None:  # in a file it stands as numbers do, with a comma or rounded
            return _plain(number)
        text = self._text(cell)
        try:
            value = json.loads(text, parse_float=Decimal)
            return json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":"), default=_plain)
        except (ValueError, RecursionError):
            return text

    def _text(self, cell: Any) -> str:
        if cell is None:
            return ""
        if isinstance(cell, str):
            text = cell[1:] if cell[:1] == "'" and _GUARDED.match(cell) else cell
            return text.replace("\r\n", "\n").rstrip(" ") if "\r" in text or text[-1:] == " " else str(text)
        if isinstance(cell, bool):
            return "true" if cell else "false"
        if isinstance(cell, int | float):
            return _plain(Decimal(repr(cell)))
        if isinstance(cell, datetime):
            return cell.isoformat().removesuffix("T00:00:00")
        return cell.isoformat() if isinstance(cell, date | time) else str(cell)


def _plain(number: Decimal) -> str:
    """All digits and no exponent; `12.50` and `12.5` alike."""
    text = format(number, "f")
    text = text.rstrip("0").rstrip(".") if "." in text else text
    return "0" if text in ("-0", "") else text


def _of_serial(serial: float) -> datetime | None:
    if not 0 < serial < LAST_SERIAL:
        return None
    try:
        return EPOCH + timedelta(milliseconds=round(serial * 86_400_000))
    except OverflowError:  # the last millisecond of 9999 is rounded up
        return None


def _has_zeros(text: str) -> bool:
    return len(text) > 1 and text[0] == "0" and text.isdigit()


def _rounded(text: str, digits: int) -> Decimal:
    return Decimal(f"{Decimal(text):.{max(digits - 1, 0)}e}")


def _cut(ours: str, theirs: str) -> str:
    """Whether the file has the moment without its end."""
    for length, unit in ((10, "day"), (16, "minute"), (19, "second"), (23, "millisecond")):
        if ours[:length] == theirs[:length] and theirs == f"{theirs[:length]}{'T00:00:00.000000'[length - 10 :]}":
            return f"only to the {unit} in the file"
    return ""
