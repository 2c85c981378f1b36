"""Lists as parameters: each value has a bind of its own, for every origin of values."""

from __future__ import annotations

import json
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.admin.edit_files import check_query
from core.errors import ConfigError, SqlError
from core.model.query import ParameterValue, Query
from core.run.planning import bound
from core.sources import database_types, find_dialect
from core.sql.parser import parse
from core.sql.values import join, split
from core.workspace.jobs import job_text, load_job

DIALECTS: tuple[str, ...] = database_types()
DEFINES = """define STATI='N' --Obbligatorio [list]: stati
define IDS=1,2 --Opzionale: numeri [list]
define DAYS='2026-01-01' --Opzionale [type=date] [list]: giorni
define CODES='007' --Opzionale [list]: codici
define KINDS=A --Opzionale [list] [allowed=A,B]: tipi
define ONE='N' --Opzionale: uno
define NUMBER=1 --Opzionale: uno [type=integer]
"""
AT = datetime(2026, 1, 17, 1, tzinfo=UTC)


def query(text: str, db_type: str = "postgresql", **values: str) -> Query:
    return parse(DEFINES + text, name="q.sql", dialect=find_dialect(db_type)).bind({"STATI": "N,S"} | values)


def binds(text: str, db_type: str = "postgresql", **values: str) -> list[Any]:
    found = query(text, db_type, **values).steps[0].binds
    return list(found) if isinstance(found, tuple) else list(found.values())


def refusal(text: str, db_type: str = "postgresql", **values: str) -> SqlError:
    with pytest.raises(SqlError) as caught:
        query(text, db_type, **values)
    return caught.value


# ── text and list ──


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("N", ("N",)),
        ("N,S", ("N", "S")),
        (" N , S ", ("N", "S")),
        ("'N','S'", ("N", "S")),
        ("'N', \"S\"", ("N", "S")),
        ('"Roma, Centro",Milano', ("Roma, Centro", "Milano")),
        ("'O''Brien',\"a\"\"b\"", ("O'Brien", 'a"b')),
        ("O'Brien,a\"b", ("O'Brien", 'a"b')),
        ('" N",""', (" N", "")),
        ('["N", "S"]', ("N", "S")),
        ("[1, 2.50, 12345678901234567890]", ("1", "2.50", "12345678901234567890")),
        ("N S;T", ("N S;T",)),
    ],
)
def test_a_list_is_written_with_commas_and_with_quotes_where_a_value_needs_them(
    text: str, values: tuple[str, ...]
) -> None:
    assert split(text) == values


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "the list is empty"),
        ("  ", "the list is empty"),
        ("[]", "the list is empty"),
        ("N,,S", "value 2 of the list is empty"),
        (",", "value 1 of the list is empty"),
        ("N,S,", "value 3 of the list is empty"),
        ("'N", "value 1 begins with ' and does not end with it"),
        ("N,'S' x", "value 2 begins with ' and does not end with it"),
        ("[N,S]", "no JSON list of texts and numbers"),
        ('["N", null]', "no JSON list of texts and numbers"),
        ('[["N"]]', "no JSON list of texts and numbers"),
    ],
)
def test_what_is_no_list_is_refused_with_the_reason(text: str, why: str) -> None:
    with pytest.raises(ValueError, match=why.replace("[", r"\[")):
        split(text)
    error = refusal("SELECT 1 WHERE 'a' IN (&STATI)", STATI=text)
    assert error.what.startswith("parameter STATI cannot be ")
    assert why in error.why
    assert "N,S" in error.remedy


@given(st.lists(st.text(), min_size=1))
def test_any_values_joined_are_the_same_values_again(values: list[str]) -> None:
    assert split(join(values)) == tuple(values)


# ── in the statement ──


@pytest.mark.parametrize(
    ("db_type", "sql", "found"),
    [
        ("oracle", "SELECT a FROM t WHERE a IN (:L1_STATI, :L2_STATI)", {"L1_STATI": "N", "L2_STATI": "S"}),
        ("sqlite", "SELECT a FROM t WHERE a IN (:L1_STATI, :L2_STATI)", {"L1_STATI": "N", "L2_STATI": "S"}),
        ("postgresql", "SELECT a FROM t WHERE a IN (%(L1_STATI)s, %(L2_STATI)s)", {"L1_STATI": "N", "L2_STATI": "S"}),
        ("sqlserver", "SELECT a FROM t WHERE a IN (?, ?)", ("N", "S")),
    ],
)
@pytest.mark.parametrize("place", ["(&STATI)", "('&STATI')", "(& STATI)", "( '&&STATI.' )"])
def test_each_value_of_a_list_is_bound(db_type: str, sql: str, found: Any, place: str) -> None:
    (step,) = query(f"SELECT a FROM t WHERE a IN {place}", db_type).steps
    assert step.sql.replace("( ", "(").replace(" )", ")") == sql
    assert step.binds == found


@given(st.lists(st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1), min_size=1, max_size=5))
@pytest.mark.parametrize("db_type", DIALECTS)
def test_no_value_of_a_list_changes_the_statement(db_type: str, values: list[str]) -> None:
    text = "SELECT a FROM t WHERE a IN ('&STATI') AND b NOT IN (&STATI)"
    (plain,) = query(text, db_type, STATI=join(["x"] * len(values))).steps
    (step,) = query(text, db_type, STATI=join(values)).steps
    assert step.sql == plain.sql
    assert set(binds(text, db_type, STATI=join(values))) == set(values)


@pytest.mark.parametrize("db_type", DIALECTS)
def test_a_list_stands_beside_other_members_and_behind_not(db_type: str) -> None:
    text = "SELECT a FROM t WHERE a NOT IN ('X', &STATI, '&ONE') AND b in(&IDS, 7)"
    assert binds(text, db_type, ONE="Y", IDS="3,4") == ["N", "S", "Y", 3, 4]


@pytest.mark.parametrize("db_type", DIALECTS)
def test_declared_types_hold_for_each_value(db_type: str) -> None:
    days = binds("SELECT a FROM t WHERE a IN (&DAYS)", db_type, DAYS="2026-01-16,2026-01-17")
    assert [str(day) for day in days] == ["2026-01-16", "2026-01-17"]
    assert all(isinstance(day, str if db_type == "sqlite" else date) for day in days)
    error = refusal("SELECT a FROM t WHERE a IN (&DAYS)", db_type, DAYS="2026-01-16,tomorrow")
    assert "'tomorrow' in it: its declared type is date" in error.why


def test_a_list_without_quotes_and_type_has_the_type_of_the_values_on_its_define() -> None:
    assert binds("SELECT a FROM t WHERE a IN (&IDS)", IDS="3,4") == [3, 4]
    assert binds("SELECT a FROM t WHERE a IN ('&IDS')", IDS="3,4") == ["3", "4"]
    assert binds("SELECT a FROM t WHERE a IN (&CODES)", CODES="7,008") == ["7", "008"]
    assert binds("SELECT a FROM t WHERE a IN (&STATI)", STATI="1,2") == ["1", "2"]
    error = refusal("SELECT a FROM t WHERE a IN (&IDS)", IDS="3,x")
    assert (error.what, "has numbers" in error.why) == ("parameter IDS cannot be 'x'", True)


def test_allowed_values_hold_for_each_value_and_are_bound() -> None:
    assert binds("SELECT a FROM t WHERE a IN (&KINDS)", KINDS="B,A") == ["B", "A"]
    assert "'C' in it: allowed are A, B" in refusal("SELECT a FROM t WHERE a IN (&KINDS)", KINDS="A,C").why


def test_prefixed_and_typed_literals_are_repeated_whole() -> None:
    text = "SELECT a FROM t WHERE a IN (DATE '&DAYS') OR b IN (N'&STATI')"
    (step,) = query(text, "oracle", DAYS="2026-01-16,2026-01-17").steps
    assert "IN (TO_DATE(:L1_DAYS, 'YYYY-MM-DD'), TO_DATE(:L2_DAYS, 'YYYY-MM-DD'))" in step.sql
    assert "IN (TO_NCHAR(:L1_STATI), TO_NCHAR(:L2_STATI))" in step.sql
    assert "IN (%(L1_DAYS)s::DATE)" in query(text, "postgresql").steps[0].sql


@pytest.mark.parametrize(
    "text",
    [
        "SELECT &STATI FROM t",
        "SELECT '&STATI' FROM t",
        "SELECT a FROM t WHERE a = &STATI",
        "SELECT a FROM t WHERE a = '&STATI'",
        "SELECT a FROM t WHERE a IN '&STATI'",
        "SELECT a FROM t WHERE a IN ('x&STATI')",
        "SELECT a FROM t WHERE a IN ('&STATI&STATI')",
        "SELECT a FROM t WHERE a IN (upper('&STATI'))",
        "SELECT a FROM t WHERE a IN (&STATI || 'x')",
        "SELECT a FROM t WHERE a IN (SELECT &STATI)",
        "SELECT a FROM t WHERE a IN (SELECT b, &STATI, c FROM u)",
        "SELECT a FROM &STATI",
        "SELECT a FROM t ORDER BY &KINDS",
        "SELECT a FROM x_&KINDS",
        "SELECT coalesce(a, &STATI) FROM t",
    ],
)
@pytest.mark.parametrize("db_type", DIALECTS)
def test_a_list_stands_in_in_alone(text: str, db_type: str) -> None:
    error = refusal(text, db_type)
    assert "is a list and stands where one value belongs" in error.what
    assert "write in (&" in error.remedy
    assert (error.line, error.column) == (8, text.index("&") + 1)


@pytest.mark.parametrize(
    ("db_type", "most"), [("oracle", 1000), ("sqlserver", 2097), ("postgresql", 65_535), ("sqlite", 32_766)]
)
def test_more_values_than_the_driver_takes_are_refused(db_type: str, most: int) -> None:
    text = "SELECT a FROM t WHERE a IN (&IDS)"
    assert len(binds(text, db_type, IDS=",".join(map(str, range(most))))) == most
    error = refusal(text, db_type, IDS=",".join(map(str, range(most + 1))))
    assert error.what == f"parameter IDS has {most + 1:,} values"
    assert error.why.endswith(f"takes at most {most:,} in one list")
    assert "table" in error.remedy


def test_lists_that_are_too_many_values_together_are_refused() -> None:
    text = "SELECT a FROM t WHERE a IN (&IDS) OR b IN (&IDS)"
    error = refusal(text, "sqlserver", IDS=",".join(map(str, range(1049))))
    assert error.what == "the statement would have 2,098 values"
    assert len(binds(text, "oracle", IDS=",".join(map(str, range(1000))))) == 1000


def test_an_empty_value_is_refused_where_it_would_be_null() -> None:
    assert binds("SELECT a FROM t WHERE a NOT IN (&STATI)", STATI='N,""') == ["N", ""]
    assert "Oracle takes for NULL" in refusal("SELECT a FROM t WHERE a NOT IN (&STATI)", "oracle", STATI='N,""').why


def test_names_of_list_binds_are_short_and_never_those_of_others() -> None:
    long = "L" * 60
    text = f"define {long}=1,2 -- [list]\ndefine X=1,2 -- [list]\ndefine X_2=3,4 -- [list]\ndefine L1_X=5\n"
    text += f"SELECT &L1_X FROM t WHERE a IN (&{long}) AND b IN (&X) AND c || d IN (&X) AND e IN (&X_2)"
    found = parse(text, name="q", dialect=find_dialect("postgresql")).bind({}).steps[0].binds
    assert sorted(map(str, dict(found).values())) == sorted(["5", "1", "2", "1", "2", "1", "2", "3", "4"])
    (step,) = parse(text, name="q", dialect=find_dialect("oracle")).bind({long: ",".join(["1"] * 1000)}).steps
    assert max(map(len, step.binds)) <= 30


@pytest.mark.parametrize("db_type", DIALECTS)
def test_a_setting_before_the_list_and_its_percent_signs_stay(db_type: str) -> None:
    (step,) = query("SELECT '100%' FROM t WHERE a IN (/* 5% */ &STATI /* 6% */)", db_type).steps
    assert ("'100%%'" in step.sql) == find_dialect(db_type).binds.doubles_percent
    assert len(step.binds) == 2


# ── a comma where no list was meant ──


@pytest.mark.parametrize(
    ("text", "name", "value"),
    [
        ("SELECT a FROM t WHERE a IN ('&ONE')", "ONE", "N,S"),
        ("SELECT a FROM t WHERE a NOT IN (&ONE)", "ONE", "N,S"),
        ("SELECT a FROM t WHERE a in ('A', '&ONE')", "ONE", "'N','S'"),
        ("SELECT a FROM t WHERE a in (&NUMBER)", "NUMBER", "1,2"),
        ("SELECT a FROM t WHERE a in '&ONE'", "ONE", "N,S"),
    ],
)
@pytest.mark.parametrize("db_type", DIALECTS)
def test_a_comma_in_the_value_of_one_parameter_in_in_names_list(text: str, name: str, value: str, db_type: str) -> None:
    error = refusal(text, db_type, **{name: value})
    assert error.what == f"parameter {name} stands in IN (…) and cannot be {value!a}"
    assert "add [list] to the comment of its define (--Opzionale [list]: …)" in error.remedy


@pytest.mark.parametrize(
    "text",
    [
        "SELECT a FROM t WHERE a = '&ONE'",
        "SELECT a FROM t WHERE a IN (trim('&ONE'), 'b')",
        "SELECT a FROM t WHERE a IN (SELECT b, '&ONE', c FROM u)",
        "SELECT a FROM t WHERE instr(',&ONE,', ',' || a || ',') > 0",
    ],
)
def test_a_comma_elsewhere_is_a_comma(text: str) -> None:
    assert len(binds(text, "sqlite", ONE="Roma, Centro")) == 1


# ── the define ──


@pytest.mark.parametrize(
    "comment",
    [
        "Obbligatorio [list]: stati",
        "Obbligatorio[list]: stati",
        "obbligatorio [ LIST ] : stati",
        "Obbligatorio: [list] stati",
        "Obbligatorio: stati [list]",
        "Mandatory [list] stati",
    ],
)
def test_the_mark_stands_before_or_behind_the_colon(comment: str) -> None:
    (parameter,) = parse(f"define S='N' --{comment}\nSELECT 1 x", name="q", dialect=find_dialect("sqlite")).parameters
    assert (parameter.is_list, parameter.mandatory, parameter.description) == (True, True, "stati")


@pytest.mark.parametrize("mark", ["[lists]", "[lista]", "[lst]", "[list=N,S]"])
def test_a_misspelt_mark_is_an_error(mark: str) -> None:
    with pytest.raises(SqlError, match=r"is not known.*\[list\]"):
        parse(f"define S='N' --Opzionale {mark}: stati\nSELECT 1 x", name="q", dialect=find_dialect("sqlite"))


def test_other_words_in_brackets_stay_in_the_description() -> None:
    (parameter,) = parse(
        "define D='N' --Opzionale [giorno]: il giorno\nSELECT 1 x", name="q", dialect=find_dialect("sqlite")
    ).parameters
    assert (parameter.is_list, parameter.description) == (False, "[giorno] il giorno")


def test_an_optional_list_without_a_value_is_an_error_of_the_file() -> None:
    with pytest.raises(SqlError, match="the default of S cannot be '': the list is empty"):
        parse("define S='' --Opzionale [list]: stati\nSELECT 1 x", name="q", dialect=find_dialect("sqlite"))
    with pytest.raises(SqlError, match=r"for several values add \[list\]"):
        parse("define S='1,2' --Opzionale [type=integer]\nSELECT 1 x", name="q", dialect=find_dialect("sqlite"))


def test_a_query_with_a_list_can_be_saved_before_any_job_gives_it_values() -> None:
    for define in ("define S='' --Obbligatorio [list]: s", "define S='{date-1}' --Obbligatorio [type=date] [list]: s"):
        content = f"{define}\nSELECT 1 x WHERE 1 IN (&S)".encode()
        assert check_query(Path("q.sql"), content, find_dialect("postgresql"), allow_writes=False) == ()


# ── from a job and a command ──

TWO_DAYS = (
    "define G='x' --Obbligatorio [list]: giorni\ndefine U='x' --Opzionale: uno\nSELECT '&U' a FROM t WHERE d IN ('&G')"
)


def from_file(tmp_path: Path, values: dict[str, ParameterValue]) -> Query:
    file = tmp_path / "q.sql"
    file.write_text(TWO_DAYS, encoding="utf-8")
    return bound(file, find_dialect("sqlite"), values, AT, "Europe/Rome", allow_writes=False)


@pytest.mark.parametrize(
    "value",
    [
        "{date-1},{date}",
        " {date-1} , '{date}'",
        ("{date-1}", "{date}"),
        ["{date-1}", "{date}"],
        '["{date-1}", "{date}"]',
    ],
)
def test_templates_of_a_list_are_resolved_one_by_one(tmp_path: Path, value: Any) -> None:
    made = from_file(tmp_path, {"g": value})
    assert made.steps[0].binds == {"P_U": "x", "L1_G": "2026-01-16", "L2_G": "2026-01-17"}
    assert made.values == {"G": "2026-01-16,2026-01-17", "U": "x"}


def test_what_a_template_makes_is_one_value_and_can_be_given_again(tmp_path: Path) -> None:
    values = from_file(tmp_path, {"G": '"{date:%d,%m}",{{x}},N'}).values
    assert values["G"] == '"17,01",{x},N'
    again = {name: value.replace("{", "{{").replace("}", "}}") for name, value in values.items()}
    assert from_file(tmp_path, dict(again)).values == values


def test_a_json_list_for_a_parameter_of_one_value_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SqlError) as caught:
        from_file(tmp_path, {"G": "N", "U": ("a", "b")})
    assert caught.value.what == "parameter U is given a list and takes one value"
    assert "[list]" in caught.value.remedy


def test_one_name_in_two_cases_with_two_values_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SqlError, match="parameter G is given twice, with different values"):
        from_file(tmp_path, {"G": "N", "g": ("N",)})
    assert from_file(tmp_path, {"G": "N", "g": "N"}).values["G"] == "N"


def test_an_empty_json_list_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SqlError, match="the list is empty"):
        from_file(tmp_path, {"G": ()})


def test_a_job_file_has_a_list_or_a_text_and_keeps_its_form(tmp_path: Path) -> None:
    document = {
        "name": "J",
        "query": "q.sql",
        "connection": "c",
        "parameters": {"G": ["a,b", 7, 1.5], "H": "N,S"},
        "kafka_config": {"topic": "t"},
    }
    file = tmp_path / "j.job.json"
    file.write_text(json.dumps(document), encoding="utf-8")
    job = load_job(file)
    assert job.parameters == {"G": ("a,b", "7", "1.5"), "H": "N,S"}
    assert json.loads(job_text(job))["parameters"] == {"G": ["a,b", "7", "1.5"], "H": "N,S"}
    file.write_text(json.dumps(document | {"parameters": {"G": ["a", None]}}), encoding="utf-8")
    with pytest.raises(ConfigError, match="G"):
        load_job(file)
