"""How the Oracle source behaves on the wire: session, blocks, time-outs, cancel, and every error."""

from __future__ import annotations

import itertools
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from typing import Any

import oracledb
import psutil
import pytest
from oracle_double import Drop, Hang, OracleDouble, OracleError
from oracledb import errors as driver_errors

from core.errors import ConfigError, NotAuthorised, PsttError, QueryFailed, RunCancelled, SourceUnavailable
from core.model.connection import DatabaseConnection, Secret
from core.model.query import Step
from core.sources import oracle as oracle_module
from core.sources.oracle import OracleSource
from tests.rigs.workspace import ROOT

# python-oracledb 26.1 forgets to close its socket when the server resets the connection.
pytestmark = pytest.mark.filterwarnings("ignore:unclosed <socket.socket:ResourceWarning")

PASSWORD = "s3cr3t;{pä}'--"
NUMBERS = [("N", "NUMBER(10)")]
PATIENCE_S = 5.0
"""Shorter than any hang here."""


@pytest.fixture
def double() -> Iterator[OracleDouble]:
    with OracleDouble(users={"pstt": PASSWORD}) as made:
        yield made
        assert made.failures == []


@pytest.fixture
def connection(double: OracleDouble) -> DatabaseConnection:
    return DatabaseConnection(
        "A00",
        "oracle",
        host=double.host,
        port=double.port,
        service_name=double.service,
        username="pstt",
        password=Secret(PASSWORD),
    )


@pytest.fixture
def source(connection: DatabaseConnection) -> Iterator[OracleSource]:
    with closing(OracleSource(connection)) as made:
        yield made


def rows_of(source: OracleSource, sql: str = "SELECT n FROM t", **options: Any) -> list[Any]:
    with source.read([Step(sql)], **options) as reading:
        return [row[0] for rows in reading for row in rows.rows]


def failure(source: OracleSource, sql: str = "SELECT n FROM t", **options: Any) -> PsttError:
    with pytest.raises(PsttError) as caught:
        rows_of(source, sql, **options)
    assert_no_secret(caught.value)
    return caught.value


def assert_no_secret(error: BaseException) -> None:
    link: BaseException | None = error
    while link is not None:
        assert PASSWORD not in f"{link} {link!r} {link.args}"
        link = link.__cause__ or link.__context__


# ── the session ───────────────────────────────────────────────────────────────────────────────


def test_steps_run_in_one_read_only_transaction_and_the_count_in_it_too(
    double: OracleDouble, source: OracleSource
) -> None:
    double.on("COUNT", columns=[("C", "NUMBER")], rows=[(2,)])
    double.on("FROM other", columns=NUMBERS, rows=[(9,)])
    double.on(r"^SELECT n FROM t", columns=NUMBERS, rows=[(1,), (2,)])
    steps = [
        Step("ALTER SESSION SET NLS_SORT = BINARY", returns_rows=False),
        Step("SELECT n FROM other"),
        Step("SELECT n FROM t WHERE d = :P_D ORDER BY n -- last", {"P_D": "x"}),
    ]
    with source.read(steps, count=True) as reading:
        assert reading.counted == 2
        assert [list(rows.rows) for rows in reading] == [[(1,), (2,)]]
    executed = double.statements()
    assert [event.sql for event in executed] == [
        "ALTER SESSION SET TIME_ZONE = '+00:00'",
        "SET TRANSACTION READ ONLY",
        "ALTER SESSION SET NLS_SORT = BINARY",
        "SELECT n FROM other",
        "SELECT COUNT(*) FROM (\nSELECT n FROM t WHERE d = :P_D ORDER BY n -- last\n) counted",
        "SELECT n FROM t WHERE d = :P_D ORDER BY n -- last",
    ]
    assert executed[4].binds == executed[5].binds == {"P_D": "x"}
    assert len({event.session for event in executed}) == 1
    assert "commit" not in double.kinds()


def test_connection_that_may_write_is_not_put_into_a_read_only_transaction(
    double: OracleDouble, connection: DatabaseConnection
) -> None:
    double.on("FROM t", columns=NUMBERS, rows=[(1,)])
    with closing(OracleSource(replace(connection, allow_writes=True))) as source:
        assert rows_of(source) == [1]
    assert not double.statements("READ ONLY")


def test_rows_are_fetched_in_arrays_of_fetch_rows(double: OracleDouble, source: OracleSource) -> None:
    double.on("FROM t", columns=NUMBERS, rows=lambda sql, binds: zip(range(10_500), strict=False))
    with source.read([Step("SELECT n FROM t")], fetch_rows=2000) as reading:
        assert [len(rows.rows) for rows in reading] == [2000, 2000, 2000, 2000, 2000, 500]
    wanted = [event.info["rows_wanted"] for event in double.log if event.kind == "fetch"]
    assert wanted == [16, 32, 64, 128, 256, 512, 992, 2000, 2000, 2000, 2000, 2000]


def test_rows_that_come_slowly_are_no_silence(double: OracleDouble, connection: DatabaseConnection) -> None:
    def slow_rows(sql: str, binds: Any) -> Iterator[tuple[int]]:
        for n in range(50):
            time.sleep(0.1)
            yield (n,)

    double.on("FROM t", columns=NUMBERS, rows=slow_rows)
    with closing(OracleSource(replace(connection, read_timeout_s=2.0))) as source:
        assert rows_of(source, fetch_rows=2000) == list(range(50))


def test_memory_stays_flat_over_a_million_rows(double: OracleDouble, source: OracleSource) -> None:
    row = (7, "x" * 100)
    columns = [*NUMBERS, ("NOTE", "VARCHAR2(200)")]
    double.on("FROM t", columns=columns, rows=lambda sql, binds: itertools.repeat(row, 1_000_000))
    memory, seen, early, peak = psutil.Process(), 0, 0, 0
    with source.read([Step("SELECT n, note FROM t")]) as reading:
        for rows in reading:
            seen += len(rows.rows)
            if seen == 100_000:
                early = memory.memory_info().rss
            peak = max(peak, memory.memory_info().rss)
    assert seen == 1_000_000
    assert peak - early < 20_000_000


def test_early_end_stops_a_fetch_that_waits_and_closes_the_session(double: OracleDouble, source: OracleSource) -> None:
    double.on("FROM t", columns=NUMBERS, rows=lambda sql, binds: [*zip(range(30), strict=False), Hang()])
    began = time.monotonic()
    with source.read([Step("SELECT n FROM t")], fetch_rows=10) as reading:
        blocks = iter(reading)
        assert [len(next(blocks).rows) for _ in range(3)] == [10, 10, 10]
    assert time.monotonic() - began < PATIENCE_S
    assert "break" in double.kinds()
    while double.kinds()[-1] not in ("logoff", "lost"):  # the double records it in a thread of its own
        assert time.monotonic() - began < 2 * PATIENCE_S
        time.sleep(0.01)
    double.on("FROM t", columns=NUMBERS, rows=[(1,)])
    assert rows_of(source) == [1]


# ── time-outs and cancel ──────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "answer",
    [
        {"hang": Hang()},
        {"rows": lambda sql, binds: [*zip(range(25), strict=False), Hang()]},
    ],
    ids=["before the first row", "in the middle"],
)
def test_statement_timeout_stops_the_query_in_the_server(
    double: OracleDouble, connection: DatabaseConnection, answer: dict[str, Any]
) -> None:
    double.on("FROM t", columns=NUMBERS, **answer)
    with closing(OracleSource(replace(connection, statement_timeout_s=0.5))) as source:
        error = failure(source, fetch_rows=10)
    assert type(error) is QueryFailed
    assert "statement_timeout_s = 0.5 s" in error.text
    assert "break" in double.kinds()


@pytest.mark.parametrize(
    "answer",
    [
        {"hang": Hang()},
        {"rows": lambda sql, binds: [*zip(range(25), strict=False), Hang()]},
    ],
    ids=["before the first row", "in the middle"],
)
def test_cancel_reaches_the_server_and_ends_the_read(
    double: OracleDouble, source: OracleSource, answer: dict[str, Any]
) -> None:
    double.on("FROM t", columns=NUMBERS, **answer)
    timer = threading.Timer(0.3, source.cancel)
    timer.start()
    began = time.monotonic()
    with pytest.raises(RunCancelled):
        rows_of(source, fetch_rows=10)
    timer.join()
    assert time.monotonic() - began < PATIENCE_S
    assert "break" in double.kinds()


def test_listener_that_accepts_and_is_silent_is_given_up_and_hinders_nobody(
    double: OracleDouble, connection: DatabaseConnection
) -> None:
    double.on("FROM t", columns=NUMBERS, rows=[(1,)])
    with socket.create_server(("127.0.0.1", 0)) as hole:
        deaf = replace(connection, port=hole.getsockname()[1], connect_timeout_s=0.2)
        with closing(OracleSource(deaf)) as source:
            error = failure(source)
        assert type(error) is SourceUnavailable
        assert "no answer to the login in connect_timeout_s = 0.2 s" in error.text
        with closing(OracleSource(connection)) as source:
            assert rows_of(source) == [1]


# ── errors as a person meets them ─────────────────────────────────────────────────────────────


def test_wrong_password_is_refused_and_not_retriable(connection: DatabaseConnection) -> None:
    with closing(OracleSource(replace(connection, password=Secret(PASSWORD + "x")))) as source:
        error = failure(source)
    assert type(error) is NotAuthorised
    assert "refuses the login of pstt: ORA-01017" in error.text
    assert 'connection "A00"' in error.remedy


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"port": 1}, "DPY-6005"),
        ({"host": "nosuchhost.invalid"}, "nosuchhost.invalid"),
        ({"service_name": "NOPE"}, 'Service "NOPE" is not registered'),
    ],
)
def test_database_that_cannot_be_reached_is_retriable(
    connection: DatabaseConnection, change: dict[str, Any], words: str
) -> None:
    with closing(OracleSource(replace(connection, **change))) as source:
        error = failure(source)
        assert type(error) is SourceUnavailable
        assert error.is_retriable
        assert error.exit_code == 3
        assert words in error.text
        (result,) = source.check()
    assert (result.status, result.unreachable, result.text) == ("fail", True, result.text)
    assert words in result.text


def test_unknown_service_names_the_setting_to_check(connection: DatabaseConnection) -> None:
    with closing(OracleSource(replace(connection, service_name="NOPE"))) as source:
        assert "service_name" in failure(source).remedy


@pytest.mark.parametrize("reset", [False, True])
def test_connection_lost_before_the_first_row_is_retriable(
    double: OracleDouble, source: OracleSource, reset: bool
) -> None:
    double.on("FROM t", columns=NUMBERS, drop=Drop(reset=reset))
    error = failure(source)
    assert type(error) is SourceUnavailable
    assert "DPY-4011" in error.text


@pytest.mark.parametrize("slow_consumer", [False, True])
@pytest.mark.parametrize("end", [Drop(), Drop(reset=True), OracleError(28, "your session has been killed")])
def test_connection_lost_after_the_first_row_fails_the_read_for_good(
    double: OracleDouble, source: OracleSource, end: Any, slow_consumer: bool
) -> None:
    double.on("FROM t", columns=NUMBERS, rows=lambda sql, binds: [*zip(range(15), strict=False), end])
    seen = []

    def consume() -> None:
        with source.read([Step("SELECT n FROM t")], fetch_rows=10) as reading:
            for rows in reading:
                seen.extend(rows.rows)
                time.sleep(0.2 if slow_consumer else 0)  # the next fetch fails while these rows are still being sent

    with pytest.raises(QueryFailed) as caught:
        consume()
    assert "was lost in the middle of the rows" in caught.value.text
    assert not caught.value.is_retriable
    assert len(seen) == 10


def test_bad_sql_is_told_in_oracles_words_with_its_place(double: OracleDouble, source: OracleSource) -> None:
    double.on("FROM t", error=OracleError(942, 'table or view "PSTT"."T" does not exist', 14))
    error = failure(source)
    assert type(error) is QueryFailed
    assert error.why == 'ORA-00942: table or view "PSTT"."T" does not exist (at character 15)'


def test_settings_that_oracle_has_not_are_refused(connection: DatabaseConnection) -> None:
    with closing(OracleSource(replace(connection, sslmode="require"))) as source:
        error = failure(source)
    assert type(error) is ConfigError
    assert "sslmode" in error.text


def test_check_says_version_and_account_and_warns_of_rights_to_write(
    double: OracleDouble, source: OracleSource
) -> None:
    double.on("session_privs", columns=[("PRIVILEGE", "VARCHAR2(40)")], rows=[("UPDATE ANY TABLE",)])
    reached, version, rights = source.check()
    assert reached.status == version.status == "pass"
    assert version.text == "Oracle 19.3.0.0.0 (thin mode), account PSTT"
    assert (rights.status, rights.text) == ("warn", "the account may UPDATE ANY TABLE")


# ── errors one by one ─────────────────────────────────────────────────────────────────────────


def made(code: int = 0, full: str = "", text: str = "") -> oracledb.DatabaseError:
    full = full or f"ORA-{code:05}"
    detail = driver_errors._Error(f"{full}: {text or 'what the server said'}", code=code)
    assert detail.code == code
    return oracledb.DatabaseError(detail)


TABLE: dict[str, tuple[set[int], type[PsttError], type[PsttError]]] = {
    "REFUSED": (oracle_module.REFUSED, NotAuthorised, NotAuthorised),
    "UNREACHABLE": (oracle_module.UNREACHABLE, SourceUnavailable, QueryFailed),
    "NO_SERVICE": (oracle_module.NO_SERVICE, SourceUnavailable, QueryFailed),
    "LOST": (oracle_module.LOST, SourceUnavailable, QueryFailed),
    "CONFLICT": (oracle_module.CONFLICT, SourceUnavailable, QueryFailed),
    "FORBIDDEN": (oracle_module.FORBIDDEN, NotAuthorised, NotAuthorised),
    "READ_ONLY": (oracle_module.READ_ONLY, QueryFailed, QueryFailed),
    "CANCELLED": (oracle_module.CANCELLED, QueryFailed, QueryFailed),
}


def test_no_code_has_two_meanings() -> None:
    for (one, (codes, *_)), (other, (others, *_)) in itertools.combinations(TABLE.items(), 2):
        assert not codes & others, (one, other)


@pytest.mark.parametrize("name", TABLE)
def test_ora_code_has_its_class_before_and_after_the_first_row(source: OracleSource, name: str) -> None:
    codes, before, after = TABLE[name]
    assert codes
    for code in codes:
        assert type(source.error(made(code), reading=False)) is before, code
        assert type(source.error(made(code), reading=True)) is after, code


@pytest.mark.parametrize("code", [904, 911, 933, 942, 1476, 1722, 1841, 6502, 20998])
def test_ora_code_of_the_statement_fails_the_run_in_the_databases_words(source: OracleSource, code: int) -> None:
    error = source.error(made(code, text="what it said"), reading=False)
    assert type(error) is QueryFailed
    assert error.why == f"ORA-{code:05}: what it said"


def test_read_only_error_says_that_the_session_is_read_only(source: OracleSource) -> None:
    assert "(the session is read-only)" in source.error(made(1456), reading=False).text


DRIVER: dict[str, tuple[type[PsttError], type[PsttError]]] = {
    **dict.fromkeys(oracle_module.DRIVER_UNREACHABLE, (SourceUnavailable, QueryFailed)),
    **dict.fromkeys(oracle_module.DRIVER_LOST, (SourceUnavailable, QueryFailed)),
    **dict.fromkeys(oracle_module.DRIVER_REFUSED, (NotAuthorised, NotAuthorised)),
    **dict.fromkeys(oracle_module.DRIVER_TIMED_OUT, (SourceUnavailable, QueryFailed)),
    **dict.fromkeys(oracle_module.NEEDS_THICK, (ConfigError, ConfigError)),
}


@pytest.mark.parametrize("full", sorted(DRIVER))
def test_code_of_the_driver_has_its_class_before_and_after_the_first_row(source: OracleSource, full: str) -> None:
    before, after = DRIVER[full]
    assert type(source.error(made(full=full), reading=False)) is before
    assert type(source.error(made(full=full), reading=True)) is after


STATEMENT = {
    "COLUMN_TRUNCATED ORACLE_NUMBER_NO_REPR INVALID_NUMBER ARRAY_DML_ROW_COUNTS_NOT_ENABLED INCONSISTENT_DATATYPES",
    "INVALID_BIND_NAME WRONG_NUMBER_OF_POSITIONAL_BINDS MISSING_BIND_VALUE NUMBER_WITH_INVALID_EXPONENT",
    "NUMBER_STRING_OF_ZERO_LENGTH NUMBER_STRING_TOO_LONG NUMBER_WITH_EMPTY_EXPONENT CONTENT_INVALID_AFTER_NUMBER",
    "INVALID_ENUM_VALUE INVALID_REF_CURSOR TOO_MANY_BATCH_ERRORS INVALID_VECTOR INVALID_INTEGER DPL_TOO_MUCH_DATA",
    "CANNOT_CONVERT_TO_ARROW_INTEGER CANNOT_CONVERT_TO_ARROW_DOUBLE CANNOT_CONVERT_TO_ARROW_FLOAT",
    "ARROW_FIXED_SIZE_BINARY_VIOLATED CANNOT_CONVERT_TO_ARROW_DECIMAL MESSAGE_TYPE_UNKNOWN BUFFER_LENGTH_INSUFFICIENT",
    "INTEGER_TOO_LARGE UNEXPECTED_NEGATIVE_INTEGER UNEXPECTED_DATA UNEXPECTED_END_OF_DATA UNEXPECTED_XML_TYPE",
    "UNKNOWN_SERVER_PIGGYBACK UNKNOWN_TRANSACTION_STATE UNEXPECTED_PIPELINE_FAILURE NOT_IMPLEMENTED SUBSCR_FAILED",
    "INTERNAL_CREATION_REQUIRED UNKNOWN_TRANSACTION_SYNC_VERSION NUMBER_TOO_LARGE VALUE_TOO_LARGE NULLS_NOT_ALLOWED",
    "ARROW_DATA_STRUCTURE_OVERFLOW",
}
"""Of the statement, of its values, or a defect: the run fails with the driver's words."""
NOT_OURS = {
    "TNS_ENTRY_NOT_FOUND INVALID_CONNECT_DESCRIPTOR CANNOT_PARSE_CONNECT_STRING INVALID_REDIRECT_DATA INVALID_PROTOCOL",
    "MISSING_FILE NO_CONFIG_DIR INVALID_SERVER_TYPE IFILE_CYCLE_DETECTED INVALID_SSL_VERSION INVALID_PASSWORD_TYPE",
    "INVALID_SERVER_RESPONSE ANO_STATUS_FAILURE INVALID_SERVER_CERT_DN INVALID_SERVER_NAME SERVER_VERIFY_FAILED",
    "SERVER_REFUSED_EZTLS",
}
"""Of tnsnames.ora, wallets and TLS, which we do not use, or a server that is none: reported with the driver's text."""


def test_every_runtime_error_of_the_driver_is_sorted() -> None:
    """A new version of the driver with a new error fails here, so that its meaning is decided."""
    known = {name for names in STATEMENT | NOT_OURS for name in names.split()}
    for name, number in vars(driver_errors).items():
        if name.startswith("ERR_") and isinstance(number, int) and number >= 4000:
            assert (f"DPY-{number}" in DRIVER) != (name.removeprefix("ERR_") in known), (name, number)


def test_error_that_the_driver_calls_recoverable_is_a_lost_connection(source: OracleSource) -> None:
    detail = driver_errors._Error("ORA-99999: new in some version")
    detail.isrecoverable = True
    assert type(source.error(oracledb.DatabaseError(detail), reading=False)) is SourceUnavailable


@pytest.mark.parametrize("full", sorted(oracle_module.NEEDS_THICK))
def test_what_thin_mode_cannot_do_names_thick_mode(source: OracleSource, full: str) -> None:
    assert '"thick": true' in source.error(made(full=full), reading=False).remedy


# ── thick mode, which decides for a whole process ─────────────────────────────────────────────


THICK = """
import oracledb
from core.errors import PsttError
from core.model.connection import DatabaseConnection, Secret
from core.sources.oracle import OracleSource

called = []
{setup}
source = OracleSource(DatabaseConnection("A00", "oracle", host="127.0.0.1", port=1, service_name="X",
                      username="u", password=Secret("p"), thick={thick}))
for _ in range(2):
    try:
        source.connect()
    except PsttError as error:
        print(type(error).__name__, error)
    except Exception as error:
        print("raw", type(error).__name__)
print("called", len(called))
"""


def thick_process(setup: str, *, thick: bool) -> str:
    code = THICK.format(setup=setup, thick=thick)
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, encoding="utf-8", check=True, timeout=60
    )
    return done.stdout


RECORDED = "oracledb.init_oracle_client = lambda: (called.append(1), setattr(oracledb, 'is_thin_mode', lambda: False))"


def test_thick_mode_is_set_up_once_before_the_first_connection() -> None:
    assert "called 1" in thick_process(RECORDED, thick=True)


def test_thin_mode_never_touches_the_oracle_client() -> None:
    assert "called 0" in thick_process(RECORDED, thick=False)


def test_missing_instant_client_is_named() -> None:
    out = thick_process("", thick=True)
    if "DPI-1047" not in out:
        pytest.skip("this machine has an Instant Client")
    assert 'ConfigError connection "A00" asks for thick mode' in out
    assert "install Oracle Instant Client" in out


def test_thick_after_thin_in_one_process_says_that_both_cannot_be() -> None:
    out = thick_process("oracledb.enable_thin_mode()", thick=True)
    assert "DPY-2019" in out
    assert "set thick on every Oracle connection that the same process uses, or on none" in out
