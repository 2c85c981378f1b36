"""Properties of every value and every text."""

from __future__ import annotations

import unicodedata

from hypothesis import assume, given, settings
from hypothesis import strategies as st

from core.errors import SqlError
from core.model.query import Query, Step
from core.sources import database_types, find_dialect
from core.sql import readonly_guard
from core.sql.lexer import lex
from core.sql.parser import parse

DIALECTS: tuple[str, ...] = database_types()

HOSTILE = [
    *["'", "''", '"', "';--", "'; DROP TABLE t; --", "' OR '1'='1", "\\", "\\'", "\n", "\r\n", "\0", "\x1a", "%", "%s"],
    *[
        "%(P_X)s",
        ":P_X",
        "?",
        "$1",
        "@x",
        "&X",
        "&&X.",
        "{date}",
        "/*",
        "*/",
        "--",
        "$$",
        "$t$",
        "]'",
        "]]",
        "q'[",
        "``",
    ],
    *["x" * 10_000, "'" * 10_000, "\ud800", "😀", "\u00a0", "\u2028", "İ", "NULL", "1", "-1", "1e5", "2026-01-17", ""],
]
VALUES = st.one_of(st.sampled_from(HOSTILE), st.text(), st.text(st.characters(codec=None), max_size=30))

FORMS: dict[str, list[str]] = {
    "oracle": [
        "SELECT '&X', 'a&X.b', '&X&X', N'&X', N'a&X', q'[&X]', q'!a&X!' FROM dual WHERE a LIKE '%&X%' AND '&X'='x'",
        "SELECT DATE '&X', TIMESTAMP '&X 00:00:00', &X, TO_DATE('&X','YYYY') FROM t WHERE a IN ('&X', &X) -- &X",
        "SELECT a \"b\" FROM t /* &X */ START WITH a = &X CONNECT BY PRIOR a = '&X'",
    ],
    "sqlserver": [
        "SELECT '&X', 'a&X.b', '&X&X', N'&X', N'a&X' FROM [t'?] WHERE a LIKE '%&X%' AND '&X'='x' -- ? &X",
        "SELECT TOP 5 &X, CAST('&X' AS date) FROM t WHERE a IN ('&X', &X) /* &X ? */",
    ],
    "postgresql": [
        "SELECT '&X', 'a&X.b', '&X&X', E'a\\'&X', $$&X$$, $t$it's &X$t$, '100%' WHERE a LIKE '%&X%' AND '&X'='x'",
        "SELECT DATE '&X', &X, concat('&X', 1), '&X'::date, INTERVAL '&X' FROM t WHERE a IN ('&X', &X) -- %s &X",
    ],
    "mysql": [
        "SELECT '&X', 'a&X.b', '&X&X', \"it's &X\", 'it\\'s &X', '100%' FROM `t'` WHERE a LIKE '%&X%' AND '&X'='x' # &X",
        "SELECT DATE '&X', &X, CONCAT('&X', 1) FROM t WHERE a IN ('&X', &X) AND d > NOW() - INTERVAL '&X' DAY -- %s &X",
    ],
    "sqlite": [
        "SELECT '&X', 'a&X.b', '&X&X', [a'b], `c` FROM t WHERE a LIKE '%&X%' AND '&X'='x' /* &X */",
        "SELECT &X, date('&X') FROM t WHERE a IN ('&X', &X)",
    ],
}
SAMPLES = [(db_type, form) for db_type, forms in FORMS.items() for form in forms]


def attempt(text: str, db_type: str, value: str = "", **options: bool) -> Query | SqlError:
    """The query with every parameter at one value, or the error."""
    try:
        parsed = parse(text, name="q", dialect=find_dialect(db_type))
        return parsed.bind({parameter.name: value for parameter in parsed.parameters}, **options)
    except SqlError as error:
        return error


def values_of(step: Step) -> list[object]:
    return list(step.binds.values()) if not isinstance(step.binds, tuple) else list(step.binds)


@settings(max_examples=300)
@given(VALUES, st.sampled_from(SAMPLES))
def test_no_value_changes_the_statement(value: str, sample: tuple[str, str]) -> None:
    db_type, form = sample
    text = f"define X=v --Obbligatorio: x [type=string]\n{form}"
    (plain,) = parse(text, name="q", dialect=find_dialect(db_type)).bind({"X": "plain"}).steps
    cannot_be_sent = any("\ud800" <= char <= "\udfff" for char in value) or (db_type == "postgresql" and "\0" in value)
    query = attempt(text, db_type, value)
    if isinstance(query, SqlError):
        str(query).encode()
        # The only other reasons: SQL Server would cut a joined literal of about 4,000 characters, and a comma in IN ('&X').
        is_too_long = db_type == "sqlserver" and len(value) > 3000
        assert cannot_be_sent or is_too_long or ("," in value and "[list]" in query.remedy and "IN ('&X'" in form)
        return
    (step,) = query.steps
    assert not cannot_be_sent
    assert step.sql == plain.sql
    assert "plain" not in step.sql
    assert len(values_of(step)) == len(values_of(plain))
    expected = [str(old).replace("plain", value) for old in values_of(plain)]
    assert values_of(step) == expected
    assert any(bound == value for bound in values_of(step))


@settings(max_examples=200)
@given(VALUES, st.sampled_from(DIALECTS))
def test_allowed_names_let_no_other_value_in(value: str, db_type: str) -> None:
    text = "define T=orders --Opzionale: [allowed=orders,parcels]\nSELECT t.a FROM s.&T. t"
    parsed = parse(text, name="q", dialect=find_dialect(db_type))
    assert parsed.bind({"T": "parcels"}).steps[0].sql == "SELECT t.a FROM s.parcels t"
    assert value in ("orders", "parcels") or isinstance(attempt(text, db_type, value), SqlError)


COMMON = [
    *[
        "a",
        "t.b",
        "SELECT",
        "(",
        ")",
        ",",
        "=",
        "<>",
        "+",
        "-",
        "*",
        "/",
        "||",
        "%",
        "1",
        "1.5e3",
        "''",
        "'it''s'",
        "';'",
    ],
    *[
        "'--'",
        "'/*'",
        "'{\"k\":1}'",
        "'12:30'",
        "'100%'",
        "'%s'",
        "'%(a)s'",
        '"a;b"',
        '"a""b"',
        "FROM",
        "è",
        "価格",
        "[1]",
    ],
    *[
        "/* it's ; */",
        "/*+ HINT(x) */",
        "-- it's ;\n",
        "\n",
        "\r\n",
        "\t",
        "  ",
        ">",
        "<",
        "!",
        "^",
        "~",
        "|",
        "/**/",
        "{",
        "}",
    ],
]
OWN: dict[str, list[str]] = {
    "oracle": [
        "q'[it's ; ]'",
        "Q'!;'!'",
        "N'x'",
        "nq'(;'')'",
        "b(+)",
        ":=",
        "/* /* */",
        "'\\'",
        "t@l",
        "#",
        "a$b#",
        "':x'",
    ],
    "sqlserver": ["[a;b]", "[a]]b]", "N'it''s'", "@x", "@@ROWCOUNT", "#t", "/* /* ; */ */", "'\\'", "'?'", "[?]", "$5"],
    "postgresql": [
        *[
            "E'\\';'",
            "$$;'$$",
            "$t$ $$ ; $t$",
            "U&'d!0061'",
            "::int",
            "?",
            "?|",
            "#>>",
            "@>",
            "/* /* ; */ */",
            "'\\'",
            ":=",
        ],
        *["ARRAY[1]", "a[1:2]", "B'01'", "X'1F'"],
    ],
    "mysql": ["`a;b`", "'a\\';'", '"it\'s ;"', "# it's", "--x", "@x", "@@y", ":=", "x'1F'", "%s", "&&", "/* /* */"],
    "sqlite": ["`a;b`", "[it's]", "x'1F'", "->>", "/* /* */", "'\\'", "':x'", "'?'"],
}


@settings(max_examples=300)
@given(st.data(), st.sampled_from(DIALECTS))
def test_text_without_parameters_reaches_the_driver_byte_for_byte(data: st.DataObject, db_type: str) -> None:
    soup = st.lists(
        st.tuples(st.sampled_from(COMMON + OWN.get(db_type, [])), st.sampled_from([" ", "", "\n"])), max_size=30
    )
    text = "SELECT " + "".join(token + space for token, space in data.draw(soup))
    tokens = lex(text, find_dialect(db_type))
    # Two fragments may make something that is no statement at all: an open literal, a line with only /.
    assume(all(token.closed and token.kind not in ("end", "command") for token in tokens))
    query = attempt(text, db_type, allow_writes=True)
    if isinstance(query, SqlError):
        assert "bind variable" in query.what or "no SELECT" in query.what or "touches the word" in query.what
        return
    (step,) = query.steps
    assert text.startswith(step.sql)
    assert not text[len(step.sql) :].strip()
    assert not step.binds


@settings(max_examples=200)
@given(st.text(), st.sampled_from(DIALECTS))
def test_any_literal_comes_through_as_it_is(content: str, db_type: str) -> None:
    assume("\0" not in content and not any("\ud800" <= char <= "\udfff" for char in content))
    dialect = find_dialect(db_type)
    escaped = content.replace("\\", "\\\\") if dialect.lexical.backslash_escapes else content
    literal = "'" + escaped.replace("'", "''") + "'"
    text = f"SET DEFINE OFF\nSELECT {literal}, 1 /* {content.replace('*', '').replace('/', '')} */ FROM t"
    step = parse(text, name="q", dialect=dialect).bind({}).steps[-1]
    assert step.sql == text.split("\n", 1)[1]


@settings(max_examples=200)
@given(st.text(), st.sampled_from(DIALECTS))
def test_any_text_is_parsed_or_refused_in_words(text: str, db_type: str) -> None:
    result = attempt(text, db_type, "x")
    assert isinstance(result, Query) or result.what
    assert str(result).encode()


FRAGMENTS = [
    *[
        "define A='x' --Obbligatorio: a\n",
        "SELECT ",
        "'&A'",
        "&A",
        "'",
        '"',
        ";",
        "\n/\n",
        "GO\n",
        "--",
        "/*",
        "*/",
        "&B",
        "(",
    ],
    *[
        ")",
        "FROM t ",
        "BEGIN ",
        "END ",
        "SET DEFINE OFF\n",
        "\\",
        "q'[",
        "]'",
        "$$",
        "E'",
        ":x ",
        "?",
        "WITH ",
        "DELETE ",
        ",",
    ],
]


@settings(max_examples=300)
@given(st.lists(st.sampled_from(FRAGMENTS), max_size=15).map("".join), st.sampled_from(DIALECTS))
def test_any_soup_of_sql_is_parsed_or_refused_in_words(text: str, db_type: str) -> None:
    query = attempt(text, db_type, "7")
    if isinstance(query, SqlError):
        assert query.what
        return
    assert any(step.returns_rows for step in query.steps)
    assert not any("&A" in step.sql for step in query.steps) or "OFF" in text or "--" in text or "/*" in text


WRITES = sorted(readonly_guard._WORDS_OF_WRITES)


@given(st.lists(st.sampled_from([*WRITES, *map(str.lower, WRITES), "1", "_", " ", "x", "'", ".", "\u017f", "\uff29"])))
@settings(max_examples=300)
def test_the_short_search_for_a_write_in_plain_text_finds_what_the_pattern_finds(parts: list[str]) -> None:
    text = "".join(parts)
    found = readonly_guard._WRITE_IN_TEXT.search(unicodedata.normalize("NFKC", text))
    assert readonly_guard.has_word_of_a_write(text) == bool(found)
