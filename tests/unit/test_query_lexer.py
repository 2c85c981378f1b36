"""Where literals, comments and statements begin and end, in each dialect."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.sources import database_types, find_dialect
from core.sql.lexer import Token, lex, position

DIALECTS: tuple[str, ...] = database_types()
TEXTS_IN_DOUBLE_QUOTES = [name for name in DIALECTS if '"' in find_dialect(name).lexical.string_quotes]


def pieces(text: str, db_type: str) -> list[str]:
    """The significant tokens, as text."""
    return [token.text for token in lex(text, find_dialect(db_type)) if token.is_significant]


def only(text: str, db_type: str) -> Token:
    """The one token that the whole text should be."""
    tokens = lex(text, find_dialect(db_type))
    assert len(tokens) == 1, [token.text for token in tokens]
    return tokens[0]


@pytest.mark.parametrize(
    ("db_type", "literal", "content"),
    [
        *[(db, "'it''s'", "it''s") for db in DIALECTS],
        *[(db, "''", "") for db in DIALECTS],
        *[(db, "'-- no /* comment */ ; / '", "-- no /* comment */ ; / ") for db in DIALECTS],
        *[(db, "'two\nlines'", "two\nlines") for db in DIALECTS],
        ("oracle", "N'x'", "x"),
        ("oracle", "n'x'", "x"),
        ("oracle", "q'[it's]'", "it's"),
        ("oracle", "Q'{it's}'", "it's"),
        ("oracle", "q'(it's)'", "it's"),
        ("oracle", "q'<it's>'", "it's"),
        ("oracle", "q'!it's!'", "it's"),
        ("oracle", "q'Xit'sX'", "it's"),
        ("oracle", "nq'|it's|'", "it's"),
        ("oracle", "q'[a]b]'", "a]b"),
        ("oracle", "'\\'", "\\"),
        ("sqlserver", "N'x'", "x"),
        ("sqlserver", "'\\'", "\\"),
        ("postgresql", r"E'it\'s'", r"it\'s"),
        ("postgresql", r"e'\\'", r"\\"),
        ("postgresql", "'\\'", "\\"),
        ("postgresql", "U&'d!0061'", "d!0061"),
        ("postgresql", "X'1F'", "1F"),
        ("postgresql", "$$it's$$", "it's"),
        ("postgresql", "$a$ $b$ ' $b$ $a$", " $b$ ' $b$ "),
        ("postgresql", "$é$'$é$", "'"),
        ("sqlite", "x'1F'", "1F"),
        ("mysql", r"'it\'s'", r"it\'s"),
        ("mysql", r"'\\'", r"\\"),
        ("mysql", '"it\'s; -- #"', "it's; -- #"),
        ("mysql", r'''"a\"b""c"''', r"""a\"b""c"""),
        ("mysql", "N'x'", "x"),
        ("sqlite", "'\\'", "\\"),
    ],
)
def test_literal_is_one_token(db_type: str, literal: str, content: str) -> None:
    token = only(literal, db_type)
    assert token.kind == "string"
    assert token.closed
    assert token.text[token.opening : len(token.text) - token.closing] == content


@pytest.mark.parametrize(
    ("db_type", "text"),
    [
        *[(db, '"a;b"') for db in DIALECTS if db not in TEXTS_IN_DOUBLE_QUOTES],
        *[(db, '"a""b"') for db in DIALECTS if db not in TEXTS_IN_DOUBLE_QUOTES],
        ("mysql", "`it's`"),
        ("mysql", "`a``b`"),
        ("sqlserver", "[it's]"),
        ("sqlserver", "[a]]b]"),
        ("sqlite", "[it's]"),
        ("sqlite", "`it's`"),
        ("sqlite", "`a``b`"),
        ("postgresql", 'U&"d!0061"'),
    ],
)
def test_quoted_identifier_is_one_token(db_type: str, text: str) -> None:
    assert only(text, db_type).kind == "quoted"


@pytest.mark.parametrize(
    ("db_type", "text", "expected"),
    [
        ("postgresql", "w /* b /* c */ d */ e", ["w", "e"]),
        ("sqlserver", "w /* b /* c */ d */ e", ["w", "e"]),
        ("oracle", "w /* b /* c */ d", ["w", "d"]),
        ("sqlite", "w /* b /* c */ d", ["w", "d"]),
        *[(db, "w -- it's\nb", ["w", "b"]) for db in DIALECTS],
        *[(db, "w /*+ it's */ b", ["w", "b"]) for db in DIALECTS],
        ("postgresql", "w -- x\rb", ["w", "b"]),
        ("sqlite", "w -- x\rb\nc", ["w", "c"]),
        ("oracle", "xq'[a]'", ["xq", "'[a]'"]),
        ("postgresql", r"xE'a\'", ["xE", r"'a\'"]),
        ("postgresql", "a$b$c", ["a$b$c"]),
        # A no-break space is a letter to PostgreSQL: if it were a blank, a literal would begin after it.
        ("postgresql", "\u00a0$a$ x", ["\u00a0$a$", "x"]),
        ("postgresql", "x::int[]", ["x", "::", "int", "[", "]"]),
        ("postgresql", "x#>>'{a}'", ["x", "#", ">", ">", "'{a}'"]),
        ("oracle", "x:='12:30'", ["x", ":=", "'12:30'"]),
        ("oracle", "q'[it's", ["q'[it's"]),
        ("oracle", "q' a' b", ["q' a'", "b"]),
        ("sqlserver", "w @@rowcount #t a_$1", ["w", "@@rowcount", "#t", "a_$1"]),
        ("oracle", "1.5e-3+.5", ["1.5e-3", "+", ".5"]),
        ("oracle", "t.a.b(+)", ["t", ".", "a", ".", "b", "(", "+", ")"]),
        ("oracle", "w||'b'", ["w", "|", "|", "'b'"]),
        ("mysql", "w # it's\nb", ["w", "b"]),
        ("mysql", "5--3", ["5", "-", "-", "3"]),
        ("mysql", "5 --\n3 --", ["5", "3"]),
        ("mysql", "w --\tit's\nb", ["w", "b"]),
        ("mysql", "w /* b /* c */ d", ["w", "d"]),
        ("mysql", "$a a$b @x := @@y", ["$a", "a$b", "@", "x", ":=", "@", "@", "y"]),
        ("mysql", r"'a\' # b' c", [r"'a\' # b'", "c"]),
    ],
)
def test_tokens_are_those_of_the_dialect(db_type: str, text: str, expected: list[str]) -> None:
    assert pieces(text, db_type) == expected


@pytest.mark.parametrize("text", ["'abc", '"abc', "/* abc", "q'[abc'", "N'abc"])
def test_what_never_ends_says_so(text: str) -> None:
    assert not lex(f"SELECT {text}", find_dialect("oracle"))[-1].closed


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("'&DATA'", ["DATA"]),
        ("'a&x.b&&Y'", ["X", "Y"]),
        ("&città.", ["CITTÀ"]),
        ("'AT & T'", []),
        ("'a&'", []),
        ("'&1'", ["1"]),
        ("-- &x", []),
        ("/* &x */", []),
        ("/*+ &x */", []),
        ('"&x"', ["X"]),
        ("q'[&x]'", ["X"]),
    ],
)
def test_marks_stand_where_sql_plus_would_substitute_except_in_comments(text: str, names: list[str]) -> None:
    assert [mark.name for token in lex(f"SELECT {text}", find_dialect("oracle")) for mark in token.references] == names


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("'& DATA'", ["DATA"]),
        ("'a&&  data.b'", ["DATA"]),
        ("'&\tDATA &\u00a0DATA'", ["DATA", "DATA"]),
        ('"& DATA"', ["DATA"]),
        ("q'[& DATA]'", ["DATA"]),
        ("a = & DATA", ["DATA"]),
        ("EXPORT_& DATA.", ["DATA"]),
        ("'& DTA'", ["DTA"]),
        ("'Marks & Spencer & 5'", []),
        ("flags & mask && 5", []),
        ("flags & DTA", []),
        ("'&\nDATA'", []),
        ("-- & DATA", []),
        ("/* & DATA */", []),
    ],
)
@pytest.mark.parametrize("db_type", DIALECTS)
def test_blanks_behind_the_ampersand_are_skipped_where_the_name_is_defined(
    text: str, names: list[str], db_type: str
) -> None:
    if text.startswith("q'") and db_type != "oracle":
        text = text.removeprefix("q")
    tokens = lex(f"SELECT {text}", find_dialect(db_type), {"DATA"})
    assert [mark.name for token in tokens for mark in token.references] == names
    assert "".join(token.text for token in tokens) == f"SELECT {text}"


@pytest.mark.parametrize(
    "line", ["SET DEFINE OFF", "set define off;", "SET DEF OFF", "SET SCAN OFF", "Set  Define  Off ;"]
)
def test_set_define_off_makes_the_ampersand_plain_until_it_is_on_again(line: str) -> None:
    tokens = lex(f"SELECT '&a';\n{line}\nSELECT '&b';\nSET DEFINE ON\nSELECT '&c'", find_dialect("oracle"))
    assert [mark.name for token in tokens for mark in token.references] == ["A", "C"]


@pytest.mark.parametrize(
    ("db_type", "text", "ends"),
    [
        ("oracle", "w;v;", [";", ";"]),
        ("oracle", "w\n/\nb\n / \n", ["/", "/"]),
        ("oracle", "w / b", []),
        ("oracle", "w /\n b", []),
        ("oracle", "BEGIN x; END;\n/\nSELECT 1", ["/"]),
        ("oracle", "DECLARE x NUMBER; BEGIN NULL; END;\n/", ["/"]),
        ("oracle", "CREATE OR REPLACE PROCEDURE p IS BEGIN NULL; END;\n/", ["/"]),
        ("oracle", "CREATE TABLE type (a NUMBER);", [";"]),
        ("oracle", "/* x */ BEGIN -- y\n x; END;\n/", ["/"]),
        ("oracle", "WITH FUNCTION f RETURN NUMBER IS BEGIN RETURN 1; END; SELECT f FROM dual\n/", ["/"]),
        ("sqlserver", "w\nGO\nb\ngo\n", ["GO", "go"]),
        ("sqlserver", "w\n  GO  -- next\nb", ["GO"]),
        ("sqlserver", "SELECT 1 AS go", []),
        ("sqlserver", "DECLARE @a int; SET @a = 1;\nGO", ["GO"]),
        ("sqlserver", "BEGIN TRAN; COMMIT;", [";", ";"]),
        ("postgresql", "BEGIN; COMMIT;", [";", ";"]),
        ("postgresql", "DO $$ BEGIN x; END $$;", [";"]),
        ("postgresql", "w\nGO\nb", []),
        ("sqlite", "CREATE TRIGGER t AFTER INSERT ON a BEGIN SELECT 1; END;\n/\n", ["/"]),
    ],
)
def test_statements_end_where_they_should(db_type: str, text: str, ends: list[str]) -> None:
    assert [token.text for token in lex(text, find_dialect(db_type)) if token.kind == "end"] == ends


@pytest.mark.parametrize(
    ("db_type", "line", "is_command"),
    [
        ("oracle", "SPOOL x.txt", True),
        ("oracle", "spo x.txt", True),
        ("oracle", "WHENEVER SQLERROR EXIT", True),
        ("oracle", "@other.sql", True),
        ("oracle", "@@other.sql", True),
        ("oracle", "! ls", True),
        ("oracle", "REM it's a remark", True),
        ("oracle", "PROMPT it's", True),
        ("oracle", "SET PAGESIZE 0", True),
        ("oracle", "SET TRANSACTION READ ONLY", False),
        ("oracle", "EXEC p", True),
        ("sqlserver", "EXEC p", False),
        ("sqlserver", "SET NOCOUNT ON", False),
        ("postgresql", "SET search_path = x", False),
        ("postgresql", "SHOW timezone", False),
        ("postgresql", "\\copy x to y", True),
        ("sqlite", ".mode csv", True),
        ("oracle", "DESC t", True),
        ("oracle", "SELECT 1", False),
    ],
)
def test_lines_for_a_client_are_told_from_sql(db_type: str, line: str, is_command: bool) -> None:
    assert (lex(line, find_dialect(db_type))[0].kind == "command") is is_command


def test_words_of_commands_are_plain_inside_a_statement() -> None:
    assert not [t for t in lex("SELECT a\nSET\n, spool\nFROM list", find_dialect("oracle")) if t.kind == "command"]


FRAGMENTS = st.sampled_from(
    [
        *"'\"[]`$&/*-:;@#!\\(){}.,?%|=\n\r\t \0\u00a0\ud800é",
        *[
            "--",
            "/*",
            "*/",
            "q'[",
            "]'",
            "E'",
            "N'",
            "U&'",
            "$a$",
            "$$",
            "&x",
            "&&x.",
            "GO\n",
            "\n/\n",
            "define a='b'\n",
        ],
        *["SET DEFINE OFF\n", "BEGIN", "SELECT", "1.5", "::", ":=", "x'", "DECLARE "],
    ]
)


@settings(max_examples=300)
@given(st.one_of(st.text(), st.lists(FRAGMENTS, max_size=25).map("".join)), st.sampled_from(DIALECTS))
def test_tokens_joined_are_the_text(text: str, db_type: str) -> None:
    tokens = lex(text, find_dialect(db_type))
    assert "".join(token.text for token in tokens) == text
    assert [token.start for token in tokens] == [sum(len(t.text) for t in tokens[:i]) for i in range(len(tokens))]
    for token in tokens:
        assert token.text
        assert all(token.start <= mark.start < mark.end <= token.end for mark in token.references)


@given(st.text(alphabet="ab\n"), st.integers(0, 10))
def test_position_counts_lines_and_columns_from_one(text: str, offset: int) -> None:
    line, column = position(text, min(offset, len(text)))
    assert text.split("\n")[line - 1][: column - 1] == text[: min(offset, len(text))].split("\n")[-1]


@pytest.mark.parametrize("dialect", ["sqlite", "postgresql", "oracle", "sqlserver", "mysql"])
def test_a_list_of_values_is_cut_in_a_long_statement_as_at_its_beginning(dialect: str) -> None:
    """Behind its first words a statement is cut by another pattern, which is faster."""
    rules = find_dialect(dialect)
    values = "'a','b''c',\t'\\x', 'd\\'e',1,-2.5e3,0x1F,.5,1..2,1a,'',N'x',E'y','&P','f'\r\n'g' , ''''"
    alone = lex(f"({values})", rules)[1:]
    behind = lex(f"SELECT a FROM t WHERE b IN ({values})", rules)[15:]
    assert [(t.kind, t.text, t.opening, t.closing, len(t.references)) for t in behind] == [
        (t.kind, t.text, t.opening, t.closing, len(t.references)) for t in alone
    ]
