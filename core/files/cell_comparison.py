"""Compares a cell of a message with a cell of a spreadsheet, which stores less than a message.

The column's form decides how the cells of both sides are read:

- number: the exact value; `1.50`, `1,5`, `1.234,50` and `1,50 ` are all read.
- float: 15 significant digits, as a spreadsheet shows them.
- moment (also dates): the point in time, to the millisecond in Excel; a serial number is the date that Excel shows for
  it; if only one side has an offset, local times are compared.
- time: as a moment.
- boolean (true/false, 1/0, vero/falso), JSON (by value).
- value (SQLite columns without a type): a number if the message has one, else text.
- text: as it is, except for blanks at its end, line ends, and the `'` before a formula. A number on the other side is
  compared by its digits.

NULL and an empty text are equal: a file cannot distinguish them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from datetime import date, datetime, time, timedelta
from decimal import Decimal, InvalidOperation
from typing import Any, ClassVar, Literal

from core.files.writer import DoubleText
from core.message.column_types import COLUMN_TYPES, CellForm
from core.model.source import Column

__all__ = ["CellComparison", "forms_of", "without_leading_zeros"]

EPOCH = datetime(1899, 12, 30)  # noqa: DTZ001 - Excel's days have no zone
END_OF_SERIALS = 2_958_466
"""Serial number of the day after 31 December 9999."""
DATE_FORMATS = (
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
"""Formats of European spreadsheets, tried after ISO 8601."""
_NUMBER = re.compile(r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d{1,3})?", re.ASCII)
_SERIAL = re.compile(r"\d{1,7}(?:\.\d+)?", re.ASCII)
_GROUPED = {
    ",": re.compile(r"[+-]?\d{1,3}(?:\.\d{3})+(?:,\d*)?"),
    ".": re.compile(r"[+-]?\d{1,3}(?:,\d{3})+(?:\.\d*)?"),
}
_ESCAPED_FORMULA = re.compile(r"'[=+\-@\t\r]")
_BOOLEANS = {"true": "true", "1": "true", "vero": "true", "false": "false", "0": "false", "falso": "false"}


def forms_of(columns: Sequence[Column], types: Mapping[str, str], wanted: Sequence[str]) -> list[CellForm]:
    """Returns the form of each wanted column (lower-case): by the job's `types`, else by the column's kind."""
    overrides = {name.lower(): kind for name, kind in types.items()}
    kinds = {column.name.lower(): overrides.get(column.name.lower(), column.kind) for column in columns}
    return [_form_of(kinds[name]) for name in wanted]


def _form_of(kind: str) -> CellForm:
    if kind == "array":
        return "json"
    return COLUMN_TYPES[kind].form if kind in COLUMN_TYPES else "text"


def without_leading_zeros(text: str) -> str:
    """Removes leading zeros from a text of digits; any other text stays as it is."""
    return text.lstrip("0") or "0" if text.isdigit() else text


class CellComparison:
    """Compares cells of messages with cells of one file.

    Args:
        kind: Excel stores numbers as doubles and moments to the millisecond.
        decimal: The decimal separator of a CSV; None: recognised in each number.
        moments: Further strftime formats of dates; empty ones are ignored.
    """

    ZEROS_LOST: ClassVar[str] = "leading zeros lost in the file"

    def __init__(self, kind: Literal["excel", "csv"], decimal: str | None = None, moments: Sequence[str] = ()) -> None:
        self.kind = kind
        self.decimal = decimal
        self._moments = (*filter(None, moments), *DATE_FORMATS)
        self._good_format = DATE_FORMATS[0]

    def normalizer(self, form: CellForm) -> Callable[[Any], str]:
        """Returns the function that converts a cell of this form to its normal text. A cell of another form stays as it is."""
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

    def are_equal(self, form: CellForm, ours: str, theirs: str) -> bool:
        """Whether two normal texts mean the same, also if they are written differently."""
        if ours == theirs:
            return True
        if form == "moment":
            return self._same_moment(ours, theirs)
        if form == "time":
            return self._same_moment(f"{EPOCH:%Y-%m-%d}T{ours}", f"{EPOCH:%Y-%m-%d}T{theirs}")
        if form == "value" and not _has_leading_zeros(ours) and _NUMBER.fullmatch(ours):
            return self._float(self._with_point(theirs)) == self._float(ours)
        if form == "text" and self.kind == "excel" and not _has_leading_zeros(ours):
            # Excel has made a number of it: 12.0 is shown as 12.
            return bool(_NUMBER.fullmatch(ours) and _NUMBER.fullmatch(theirs)) and Decimal(ours) == Decimal(theirs)
        return False

    def loss(self, form: CellForm, ours: str, theirs: str) -> str:
        """Returns what the file has lost of a differing cell; empty if it has another value."""
        if (
            form == "text"
            and _has_leading_zeros(ours)
            and theirs.isdigit()
            and without_leading_zeros(ours) == without_leading_zeros(theirs)
        ):
            return self.ZEROS_LOST
        if form == "number" and _NUMBER.fullmatch(ours) and _NUMBER.fullmatch(theirs):
            digits = len(Decimal(theirs).normalize().as_tuple().digits)
            if digits < len(Decimal(ours).as_tuple().digits) and _rounded(ours, digits) == Decimal(theirs):
                return f"rounded to {digits} digits in the file"
        if form == "moment":
            return _lost_precision(ours, theirs)
        if form == "text" and ours.casefold() == theirs.casefold():
            return "only capitals differ"
        return "only blanks differ" if form == "text" and "".join(ours.split()) == "".join(theirs.split()) else ""

    def shown(self, form: CellForm, text: str) -> str | None:
        """The text in reports."""
        return (text.removesuffix("T00:00:00.000000") if form == "moment" else text) or None

    def _number(self, cell: Any) -> str:
        number = self._value(cell)
        return _plain(number) if number is not None else self._text(cell)

    def _float(self, cell: Any) -> str:
        number = self._value(cell)
        return f"{float(number):.15g}" if number is not None else self._text(cell)

    def _any(self, cell: Any) -> str:
        return self._float(cell) if isinstance(cell, DoubleText) else self._text(cell)

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
        """`1.234,50` → `1234.50`. If the decimal separator is not given, it is the last of `.` and `,`."""
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
        # A file has its dates in one format: the one that matched last is tried first.
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
        # Half a millisecond of rounding, plus the last bits of a double.
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
        if number is not None:  # a file has it as a number, perhaps with a comma or rounded
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
            text = cell[1:] if cell[:1] == "'" and _ESCAPED_FORMULA.match(cell) else cell
            return text.replace("\r\n", "\n").rstrip(" ") if "\r" in text or text[-1:] == " " else str(text)
        if isinstance(cell, bool):
            return "true" if cell else "false"
        if isinstance(cell, int | float):
            return _plain(Decimal(repr(cell)))
        if isinstance(cell, datetime):
            return cell.isoformat().removesuffix("T00:00:00")
        return cell.isoformat() if isinstance(cell, date | time) else str(cell)


def _plain(number: Decimal) -> str:
    """All digits without an exponent and without trailing zeros of the fraction."""
    text = format(number, "f")
    text = text.rstrip("0").rstrip(".") if "." in text else text
    return "0" if text in ("-0", "") else text


def _of_serial(serial: float) -> datetime | None:
    if not 0 < serial < END_OF_SERIALS:
        return None
    try:
        return EPOCH + timedelta(milliseconds=round(serial * 86_400_000))
    except OverflowError:  # the last millisecond of 9999 rounds up
        return None


def _has_leading_zeros(text: str) -> bool:
    return len(text) > 1 and text[0] == "0" and text.isdigit()


def _rounded(text: str, digits: int) -> Decimal:
    return Decimal(f"{Decimal(text):.{max(digits - 1, 0)}e}")


def _lost_precision(ours: str, theirs: str) -> str:
    """Which part of the moment the file has cut off; empty if none."""
    for length, unit in ((10, "day"), (16, "minute"), (19, "second"), (23, "millisecond")):
        if ours[:length] == theirs[:length] and theirs == f"{theirs[:length]}{'T00:00:00.000000'[length - 10 :]}":
            return f"only to the {unit} in the file"
    return ""
