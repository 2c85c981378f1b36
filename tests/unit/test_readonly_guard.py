"""What the readonly guard accepts and refuses, before it reaches a database."""

from __future__ import annotations

import re
import time

import pytest

from core.sources import find_dialect
from core.sql import readonly_guard
from core.sql.lexer import Token, lex

READS: dict[str, list[str]] = {
    "oracle": [
        "SELECT a.x FROM a, b WHERE a.id = b.id (+) AND b.k(+) = 1",
        "SELECT LEVEL FROM dual CONNECT BY LEVEL <= 5",
        "SELECT * FROM t PARTITION (p1)",
        "SELECT * FROM t AS OF TIMESTAMP SYSTIMESTAMP - INTERVAL '1' HOUR",
        "SELECT * FROM t MODEL DIMENSION BY (a) MEASURES (b) RULES UPSERT (b[1] = 2)",
        "SELECT country, prod, year, s FROM sales_view MODEL RETURN UPDATED ROWS PARTITION BY (country) DIMENSION BY (prod, year) MEASURES (sale s) RULES UPDATE (s['Bounce', 2000] = s['Bounce', 1998] + 1)",
        "SELECT * FROM t PIVOT (SUM(x) FOR m IN ('a' AS a, 'b' AS b))",
        "SELECT SUM(x) OVER (PARTITION BY a ORDER BY b ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW) FROM t",
        "SELECT /*+ INDEX(t i) PARALLEL(4) */ * FROM t",
        "SELECT * FROM TABLE(SYS.ODCIVARCHAR2LIST('a','b'))",
        "SELECT x.* FROM t, XMLTABLE('/a/b' PASSING t.doc COLUMNS c VARCHAR2(10) PATH 'c') x",
        "SELECT LISTAGG(a, ',') WITHIN GROUP (ORDER BY a) FROM t",
        "SELECT q'[it's]' FROM dual",
        "SELECT * FROM t FETCH FIRST 5 ROWS ONLY",
        "SELECT DBMS_LOB.SUBSTR(c, 4000, 1), SYS.DBMS_LOB.GETLENGTH(c) FROM t",
        "SELECT UTL_RAW.CAST_TO_VARCHAR2(r) FROM t",
        "SELECT t.doc.getStringVal(), t.j.price.number() FROM t",
        "SELECT DBMS_RANDOM.VALUE FROM dual",
        "SELECT * FROM s.t@link WHERE ord.id = 1",
        "SELECT * FROM t MATCH_RECOGNIZE (PARTITION BY s ORDER BY d MEASURES a.d AS x PATTERN (a b+) DEFINE b AS b.p < PREV(b.p))",
        "SELECT JSON_VALUE(j, '$.a') FROM t",
        "SELECT JSON_OBJECT('a' : b, KEY 'c' VALUE d) FROM t",
        "SELECT JSON_TRANSFORM(j, SET '$.a' = 1) FROM t",
        "SELECT seq.CURRVAL FROM dual",
        "ALTER SESSION SET NLS_DATE_FORMAT = 'YYYY-MM-DD' NLS_NUMERIC_CHARACTERS='.,'",
        "ALTER SESSION SET CURRENT_SCHEMA=app",
        "ALTER SESSION SET TIME_ZONE = '+00:00'",
        "SET TRANSACTION READ ONLY",
        "(SELECT 1 FROM dual) UNION ALL (SELECT 2 FROM dual)",
        "WITH a AS (SELECT 1 x FROM dual) SELECT * FROM a",
        "SELECT CAST(MULTISET(SELECT 1 FROM dual) AS t_tab) FROM dual",
        "SELECT CURSOR(SELECT 1 FROM dual) FROM dual",
        "SELECT * FROM t SAMPLE (10)",
        "SELECT * FROM t VERSIONS BETWEEN SCN MINVALUE AND MAXVALUE",
        "SELECT EXTRACT(YEAR FROM d) FROM t",
        "SELECT COUNT(*) FROM t WHERE (a, b) IN (SELECT c, d FROM u)",
        "SELECT * FROM t START WITH p IS NULL CONNECT BY NOCYCLE PRIOR id = p ORDER SIBLINGS BY n",
        'SELECT XMLAGG(XMLELEMENT("a", x)).getClobVal() FROM t',
        "SELECT * FROM t CROSS APPLY (SELECT 1 FROM dual) x",
        "SELECT DECODE(a,1,'x','y') \"Col è\" FROM t",
    ],
    "sqlserver": [
        "SELECT TOP 10 * FROM t",
        "SELECT TOP (5) PERCENT [a b] FROM [dbo].[t] WITH (NOLOCK)",
        "SELECT * FROM t CROSS APPLY OPENJSON(j) WITH (a int '$.a') x",
        "SELECT a FROM t FOR JSON PATH",
        "SELECT a FROM t FOR XML PATH(''), TYPE",
        "SELECT a FROM t OPTION (MERGE JOIN, MAXDOP 1)",
        "SELECT a FROM t INNER MERGE JOIN u ON t.i=u.i",
        "SELECT dbo.fn_x(a) FROM t",
        "SELECT a FROM t OPTION (USE HINT ('x'))",
        "SET NOCOUNT ON",
        "SET TRANSACTION ISOLATION LEVEL READ UNCOMMITTED",
        "SET DATEFORMAT dmy",
        "WITH a AS (SELECT 1 x) SELECT * FROM a UNION ALL SELECT 2",
        "SELECT CASE WHEN a=1 THEN 'x' END FROM t",
        "SELECT * FROM f(1) AS x",
        "SELECT a FROM t ORDER BY a OFFSET 0 ROWS FETCH NEXT 5 ROWS ONLY",
        "SELECT * FROM t PIVOT (SUM(x) FOR m IN ([a],[b])) p",
        "SELECT @@VERSION, x = 1",
        "SELECT STRING_AGG(a, ',') WITHIN GROUP (ORDER BY a) FROM t",
        "SELECT REPLACE(a,'x','y'), update_date FROM t",
        "SELECT t.[update] FROM t",
        "SELECT * FROM db.dbo.t AS x JOIN srv.db.dbo.u y ON x.a=y.a",
        "SELECT * FROM t FOR SYSTEM_TIME AS OF '2026-01-01'",
        "SELECT a FROM t WHERE EXISTS (SELECT 1 FROM u)",
    ],
    "postgresql": [
        "SELECT a::int, j->>'k', j @> '{}' FROM t",
        "SELECT * FROM t, LATERAL (SELECT 1) x",
        "SELECT ARRAY[1,2] && ARRAY[2]",
        "SELECT delete, update, comment FROM t",
        "SELECT f(a) FROM t",
        "TABLE t",
        "VALUES (1),(2)",
        "SET search_path TO a, public",
        "SET statement_timeout = '5s'",
        "SET TIME ZONE 'UTC'",
        "SET LOCAL work_mem = '64MB'",
        "SET TRANSACTION READ ONLY",
        "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY",
        "RESET search_path",
        "SELECT DISTINCT ON (a) * FROM t ORDER BY a",
        "SELECT count(*) FILTER (WHERE a > 1) FROM t",
        "SELECT substring(s from 1 for 2), substring(s from 1 for key) FROM t",
        "SELECT pg_sleep(0), currval('s'), lo_get(1)",
        "WITH RECURSIVE a AS (SELECT 1 UNION ALL SELECT 2) SELECT * FROM a",
        "SELECT $$it's$$, E'a\\'b', U&'d!0061' UESCAPE '!'",
        "SELECT * FROM generate_series(1, 3) WITH ORDINALITY AS x(a, b)",
        "SELECT j ? 'a', j ?| array['a'], j #>> '{a}' FROM t",
        "SELECT * FROM json_to_recordset('[]') AS x(a int, b text)",
        "SELECT date_trunc('day', now()) AT TIME ZONE 'UTC'",
        "SELECT * FROM t TABLESAMPLE SYSTEM (1)",
        "SELECT replace(a, 'x', 'y') FROM t",
        "SELECT (a).b FROM t",
        "SELECT percentile_cont(0.5) WITHIN GROUP (ORDER BY x) FROM t",
        "SELECT a FROM t WINDOW w AS (ORDER BY b)",
        "SELECT * FROM ROWS FROM (generate_series(1,2)) x",
        "SELECT xmlelement(name a) FROM t",
        "SELECT 1 OPERATOR(pg_catalog.+) 2",
    ],
    "mysql": [
        "SELECT * FROM t",
        "SELECT SQL_NO_CACHE STRAIGHT_JOIN a FROM t USE INDEX (i) IGNORE INDEX (j)",
        "SELECT a FROM `delete` WHERE `update` = 1",
        'SELECT a FROM t WHERE b = "DELETE FROM t"',
        "SELECT a FROM t WHERE b = 'it\\'s; DROP TABLE t'",
        "SELECT GROUP_CONCAT(DISTINCT a ORDER BY b SEPARATOR ', ') FROM t",
        "SELECT REPLACE(a, 'x', 'y'), INSERT(a, 1, 2, 'z'), TRUNCATE(b, 2), IF(a = 1, 2, 3) FROM t",
        "SELECT a DIV 2, a MOD 2, a && b, a XOR b, a <=> b FROM t",
        "SELECT 5--3",
        "SELECT a FROM t LIMIT 5, 10",
        "SELECT MATCH (a) AGAINST ('x' IN BOOLEAN MODE) FROM t",
        "SELECT JSON_EXTRACT(j, '$.a'), j->>'$.b' FROM t",
        "SELECT a FROM t PARTITION (p0)",
        "SELECT DATE_ADD(d, INTERVAL 1 DAY), d - INTERVAL 1 MONTH FROM t",
        "SELECT @n := @n + 1, @@SESSION.time_zone FROM t",
        "WITH RECURSIVE c AS (SELECT 1 AS n UNION ALL SELECT n + 1 FROM c WHERE n < 5) SELECT n FROM c",
        "VALUES (1), (2)",
        "TABLE t",
        "SET @day = '2026-01-16'",
        "SET SESSION group_concat_max_len = 100000, time_zone = '+00:00'",
        "SET optimizer_switch = 'mrr=on'",
        "SET @@SESSION.max_statement_time = 5",
    ],
    "sqlite": [
        "SELECT * FROM t",
        "WITH RECURSIVE c(x) AS (VALUES(1) UNION ALL SELECT x+1 FROM c WHERE x<5) SELECT x FROM c",
        "SELECT json_extract(j,'$.a'), j->>'a' FROM t",
        "SELECT replace(a,'b','c'), [a b], `c d` FROM t",
        "VALUES (1)",
        "PRAGMA case_sensitive_like = ON",
        "SELECT group_concat(a) FROM t WHERE a GLOB 'x*'",
        "SELECT printf('%d', 1)",
    ],
}

WRITES: dict[str, list[str]] = {
    "mysql": [
        "INSERT INTO t VALUES (1)",
        "INSERT INTO t VALUES (1) RETURNING a",
        "REPLACE INTO t VALUES (1)",
        "UPDATE t SET a = 1",
        "WITH c AS (SELECT 1) DELETE FROM t",
        "SELECT * FROM t INTO OUTFILE '/tmp/x'",
        "SELECT a INTO DUMPFILE '/tmp/x' FROM t",
        "SELECT a INTO @x FROM t",
        "SELECT a FROM t FOR UPDATE",
        "SELECT a FROM t FOR SHARE SKIP LOCKED",
        "SELECT a FROM t LOCK IN SHARE MODE",
        "SELECT /*! a INTO @x */ FROM t",
        "SELECT a FROM t /*!50000 FOR UPDATE */",
        "SELECT a FROM t /*M!100100 FOR UPDATE */",
        "SELECT a FROM t /*!99999 ' */ FOR UPDATE",
        "SELECT LOAD_FILE('/etc/passwd')",
        "SELECT GET_LOCK('a', 1)",
        "SELECT NEXTVAL(s)",
        "SELECT SETVAL(s, 1)",
        "SET GLOBAL max_connections = 1",
        "SET @@GLOBAL.time_zone = '+00:00'",
        "SET sql_mode = 'ANSI_QUOTES'",
        "SET sql_select_limit = 5",
        "SET autocommit = 1",
        "SET SESSION TRANSACTION READ WRITE",
        "SET NAMES latin1",
        "SET PASSWORD = 'x'",
        "CALL p()",
        "DO SLEEP(1)",
        "HANDLER t OPEN",
        "LOAD DATA INFILE 'x' INTO TABLE t",
        "LOCK TABLES t WRITE",
        "PREPARE s FROM 'DELETE FROM t'",
        "EXECUTE s",
        "SHOW TABLES",
        "EXPLAIN SELECT 1",
        "USE other",
        "START TRANSACTION",
        "BEGIN",
        "COMMIT",
        "FLUSH TABLES",
        "TRUNCATE t",
        "CREATE TEMPORARY TABLE x SELECT 1",
    ],
    "oracle": [
        "DELETE FROM t",
        "INSERT INTO t VALUES (1)",
        "UPDATE t SET a=1",
        "MERGE INTO t USING u ON (1=1) WHEN MATCHED THEN UPDATE SET a=1",
        "BEGIN x; END",
        "DECLARE x NUMBER; BEGIN NULL; END",
        "SELECT * FROM t FOR UPDATE",
        "SELECT * FROM t FOR /* x */ UPDATE NOWAIT",
        "SELECT a INTO b FROM t",
        "SELECT DBMS_SQL.EXECUTE(1) FROM dual",
        "SELECT dbms_scheduler . run_job('x') FROM dual",
        'SELECT "DBMS_JOB".x FROM dual',
        "SELECT s.NEXTVAL FROM dual",
        "SELECT pkg.f(1) FROM dual",
        "SELECT own.pkg.f(1) FROM dual",
        "SELECT UTL_HTTP.REQUEST('x') FROM dual",
        "SELECT HTTPURITYPE('x').getclob() FROM dual",
        "WITH FUNCTION f RETURN NUMBER IS BEGIN RETURN 1; END; SELECT f FROM dual",
        "CREATE TABLE t (a NUMBER)",
        "DROP TABLE t",
        "TRUNCATE TABLE t",
        "GRANT ALL ON t TO u",
        "CALL p()",
        "EXPLAIN PLAN FOR SELECT 1 FROM dual",
        "LOCK TABLE t IN EXCLUSIVE MODE",
        "ALTER SESSION SET EVENTS 'x'",
        "ALTER SESSION ENABLE PARALLEL DML",
        "ALTER SYSTEM SET x=1",
        "SET ROLE admin",
        "SET TRANSACTION READ WRITE",
        "COMMIT",
        "ALTER SESSION SET NLS_DATE_FORMAT='x' EVENTS='y'",
        "SELECT hack.utl_raw.f(1) FROM dual",
        "WITH a AS (SELECT 1 FROM dual) DELETE FROM t",
        "SELECT * FROM EXTERNAL ((a NUMBER) TYPE ORACLE_LOADER DEFAULT DIRECTORY d LOCATION ('x'))",
        "SELECT DBMS_XMLGEN.GETXML('delete from t') FROM dual",
        "SELECT * FROM TABLE(app.pkg.rows_of(1))",
        "SHUTDOWN",
    ],
    "sqlserver": [
        "SELECT * INTO x FROM t",
        "EXEC sp_who",
        "xp_cmdshell 'dir'",
        "SELECT 1 DELETE FROM t",
        "SELECT 1 EXEC xp_cmdshell 'x'",
        "SELECT * FROM OPENROWSET('a','b','c')",
        "SELECT * FROM OPENQUERY(s, 'delete')",
        "SELECT * FROM OPENDATASOURCE('a','b').x.y.z",
        "SELECT NEXT VALUE FOR s",
        "WAITFOR DELAY '1'",
        "SELECT 1 WAITFOR DELAY '1'",
        "SELECT * FROM t WITH (UPDLOCK)",
        "SELECT * FROM t WITH(TABLOCKX)",
        "SELECT 1 SELECT 2",
        "SELECT * FROM f() SELECT 2",
        "DBCC x",
        "BACKUP DATABASE x TO DISK='y'",
        "KILL 5",
        "SHUTDOWN",
        "USE master",
        "DECLARE @x int",
        "IF 1=1 DELETE FROM t",
        "SET IDENTITY_INSERT t ON",
        "SET NOCOUNT ON SELECT 1",
        "WITH a AS (SELECT 1 x) UPDATE a SET x=2",
        "SELECT 1 RECEIVE * FROM q",
        "SELECT 1 END CONVERSATION @h",
        "MERGE t USING u ON 1=1 WHEN MATCHED THEN DELETE",
        "BULK INSERT t FROM 'x'",
        "SELECT 1 DISABLE TRIGGER x ON y",
        "SET IMPLICIT_TRANSACTIONS ON",
        "SET ROWCOUNT 100",
        "SET QUOTED_IDENTIFIER OFF",
        "ｘｐ_cmdshell",
        "{call sp_who}",
        "SELECT * INTO #t FROM (SELECT 1 AS a) x",
        "SELECT 1 GRANT CONTROL TO u",
        "SELECT CASE WHEN 1=1 THEN 1 END DROP TABLE t",
    ],
    "postgresql": [
        "WITH x AS (DELETE FROM t RETURNING *) SELECT * FROM x",
        "WITH x AS MATERIALIZED (/**/ update t SET a=1 RETURNING *) SELECT * FROM x",
        "SELECT * INTO x FROM t",
        "SELECT * FROM t FOR UPDATE",
        "SELECT * FROM t FOR NO KEY UPDATE",
        "SELECT * FROM t FOR KEY SHARE",
        "SELECT * FROM t FOR SHARE OF t",
        "EXPLAIN ANALYZE DELETE FROM t",
        "COPY t FROM PROGRAM 'x'",
        "COPY (SELECT 1) TO STDOUT",
        "DO $$ BEGIN END $$",
        "CALL p()",
        "VACUUM",
        "LISTEN x",
        "NOTIFY x",
        "SELECT pg_read_file('x')",
        "SELECT pg_catalog.\"pg_read_file\" /* x */ ('x')",
        "SELECT U&\"pg\\005fread_file\"('x')",
        "SELECT pg_catalog.U&\"pg\\005fread_file\"('x')",
        "VALUES (pg_terminate_backend(1))",
        "TABLE t FOR UPDATE",
        "SELECT * FROM ROWS FROM (pg_ls_dir('.')) x",
        "SELECT * FROM pg_ls_dir('.')",
        "SELECT lo_import('x')",
        "SELECT dblink_exec('x','y')",
        "SELECT set_config('transaction_read_only','off',false)",
        "SELECT nextval('s')",
        "SELECT setval('s',1)",
        "SELECT pg_advisory_lock(1)",
        "SELECT query_to_xml('delete from t',true,true,'')",
        "SELECT pg_terminate_backend(1)",
        "SET ROLE x",
        "SET SESSION AUTHORIZATION x",
        "SET SESSION CHARACTERISTICS AS TRANSACTION READ WRITE",
        "SET TRANSACTION READ WRITE",
        "SET default_transaction_read_only = off",
        "SET transaction_read_only = off",
        "SET standard_conforming_strings = off",
        "RESET ALL",
        "DISCARD ALL",
        "WITH x AS (SELECT 1) INSERT INTO t SELECT * FROM x",
        "GRANT ALL ON t TO u",
        "TRUNCATE t",
        "PREPARE x AS SELECT 1",
        "EXECUTE x",
        "DECLARE c CURSOR FOR SELECT 1",
        "MERGE INTO t USING u ON true WHEN MATCHED THEN DELETE",
        "LOCK TABLE t",
        "BEGIN",
        "COMMIT",
        "CREATE TABLE x AS SELECT 1",
        "SET search_path = x; DROP",
        "WITH x AS (SELECT 1), y AS (MERGE INTO t USING u ON true WHEN MATCHED THEN DELETE) SELECT 1",
    ],
    "sqlite": [
        "INSERT INTO t VALUES (1)",
        "REPLACE INTO t VALUES (1)",
        "WITH x AS (SELECT 1) REPLACE INTO t SELECT 1",
        "ATTACH 'x' AS y",
        "PRAGMA writable_schema=1",
        "PRAGMA query_only=OFF",
        "VACUUM INTO 'x'",
        "SELECT load_extension('x')",
        "SELECT writefile('a','b')",
        "DETACH x",
        "REINDEX",
        "ANALYZE",
        "DROP TABLE t",
        "CREATE TABLE t(a)",
    ],
}


def verdict(sql: str, db_type: str) -> readonly_guard.Refusal | None:
    return readonly_guard.refusal(lex(sql, find_dialect(db_type)), find_dialect(db_type))


@pytest.mark.parametrize(("db_type", "sql"), [(db, sql) for db, texts in READS.items() for sql in texts])
def test_what_only_reads_passes(db_type: str, sql: str) -> None:
    assert verdict(sql, db_type) is None


@pytest.mark.parametrize(("db_type", "sql"), [(db, sql) for db, texts in WRITES.items() for sql in texts])
def test_what_could_write_is_refused(db_type: str, sql: str) -> None:
    found = verdict(sql, db_type)
    assert found is not None
    assert found.what
    assert found.why


@pytest.mark.parametrize(("db_type", "sql"), [(db, sql) for db, texts in READS.items() for sql in texts])
def test_what_only_reads_passes_in_any_case_and_with_comments_between(db_type: str, sql: str) -> None:
    spaced = "".join("/* x */ \n-- it's\n " if t.kind == "space" else t.text for t in lex(sql, find_dialect(db_type)))
    assert verdict(spaced, db_type) is None


@pytest.mark.parametrize(("db_type", "sql"), [(db, sql) for db, texts in WRITES.items() for sql in texts])
def test_comments_and_case_hide_no_write(db_type: str, sql: str) -> None:
    spaced = "".join("/**/--\n" if t.kind == "space" else t.text for t in lex(sql, find_dialect(db_type)))
    assert verdict(spaced, db_type) is not None
    lowered = "".join(t.text.lower() if t.kind == "word" else t.text for t in lex(sql, find_dialect(db_type)))
    assert verdict(lowered, db_type) is not None


@pytest.mark.parametrize(
    ("db_type", "sql", "culprit"),
    [
        ("oracle", "SELECT * FROM t\n FOR UPDATE", "FOR"),
        ("oracle", "SELECT a, hr.pay.raise(1) FROM dual", "hr"),
        ("oracle", "SELECT a FROM t WHERE b = s.NEXTVAL", "s"),
        ("postgresql", "WITH x AS (DELETE FROM t RETURNING *) SELECT * FROM x", "DELETE"),
        ("postgresql", "SELECT 1, pg_read_file('x')", "pg_read_file"),
        ("sqlserver", "SELECT 1 EXEC xp_cmdshell 'x'", "EXEC"),
        ("postgresql", "SET ROLE x", "ROLE"),
        ("oracle", "ALTER SESSION SET EVENTS 'x'", "EVENTS"),
    ],
)
def test_refusal_points_at_the_word(db_type: str, sql: str, culprit: str) -> None:
    found = verdict(sql, db_type)
    assert found is not None
    assert found.token.text == culprit


def test_words_inside_literals_comments_and_quoted_names_are_no_writes() -> None:
    sql = """SELECT 'DELETE FROM t; INTO x', "FOR UPDATE", "INTO" /* EXEC x */ FROM t -- DROP TABLE t"""
    for db_type in WRITES:
        assert verdict(sql, db_type) is None


@pytest.mark.parametrize(
    ("sql", "kind"),
    [
        ("SELECT 1", "rows"),
        ("((SELECT 1))", "rows"),
        ("WITH a AS (SELECT 1) SELECT 1", "rows"),
        ("WITH a AS (SELECT 1) DELETE FROM t", "other"),
        ("SELECT 1 INTO t", "other"),
        ("SET search_path = x", "setting"),
        ("DO $$x$$", "block"),
        ("DELETE FROM t", "other"),
        ("EXPLAIN SELECT 1", "other"),
    ],
)
def test_kind_is_told_from_the_words(sql: str, kind: str) -> None:
    assert readonly_guard.statement_kind(lex(sql, find_dialect("postgresql")), find_dialect("postgresql")) == kind


def test_what_sqlglot_cannot_read_is_judged_by_its_words() -> None:
    unknown = "SELECT a FROM t MODEL DIMENSION BY (a) MEASURES (b) RULES (b[1] = 2)"
    assert readonly_guard.parse_tree(unknown, find_dialect("oracle")) is None
    assert verdict(unknown, "oracle") is None
    found = verdict(unknown.replace("SELECT a", "SELECT a, lock"), "oracle")
    assert found is not None
    assert found.what == "LOCK is not allowed here"
    assert "cannot be shown that nothing is written" in found.why


@pytest.mark.parametrize(
    "sql",
    [
        "WITH x AS (DELETE FROM t RETURNING *) SELECT * FROM x",
        "WITH x AS (UPDATE t SET a = 1 RETURNING *) SELECT * FROM x",
        "SELECT * FROM t FOR UPDATE",
        "SELECT * INTO x FROM t",
    ],
)
def test_syntax_tree_is_an_opinion_of_its_own(sql: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(readonly_guard, "_token_refusal", lambda tokens, db_type: None)
    monkeypatch.setattr(readonly_guard, "statement_kind", lambda tokens, db_type: "rows")
    assert verdict(sql, "postgresql") is not None


@pytest.mark.parametrize(
    ("db_type", "sql"),
    [(db, sql) for db, texts in WRITES.items() for sql in texts if sql.startswith(("SELECT", "WITH"))],
)
def test_a_text_that_needs_no_tree_has_none_that_refuses(
    db_type: str, sql: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each write that the tree finds is found without the other check of tokens, so its text has such a word."""
    tokens, dialect = lex(sql, find_dialect(db_type)), find_dialect(db_type)
    monkeypatch.setattr(readonly_guard, "_token_refusal", lambda tokens, db_type: None)
    monkeypatch.setattr(readonly_guard, "statement_kind", lambda tokens, db_type: "rows")
    found = readonly_guard.refusal(tokens, dialect)
    monkeypatch.setattr(readonly_guard, "_WRITE_IN_TEXT", re.compile(""))
    assert readonly_guard.refusal(tokens, dialect) == found


@pytest.mark.parametrize("hidden", ["1DELETE FROM t", "1 INTO x FROM t", "1 FROM t for update", "1 FROM t FOR SHARE"])
def test_a_write_that_the_lexer_takes_for_a_literal_reaches_the_tree(hidden: str) -> None:
    tokens = [Token("word", "SELECT", 0), Token("space", " ", 6), Token("string", hidden, 7)]
    texts: list[str] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(readonly_guard, "parse_tree", lambda sql, dialect: texts.append(sql))
        readonly_guard.refusal(tokens, find_dialect("postgresql"))
    assert texts == [f"SELECT {hidden}"]


@pytest.mark.parametrize("opener", ["(", "(SELECT ", "f(", "CASE WHEN 1=1 THEN (", "["])
def test_deep_nesting_costs_no_time(opener: str) -> None:
    started = time.perf_counter()
    verdict("SELECT " + opener * 2000 + "1", "postgresql")
    verdict("SELECT " + opener * 30 + "1" + ")" * 30, "postgresql")
    assert time.perf_counter() - started < 5


# ── columns that are called as a write ──

PARENTHESES = [
    "SELECT ({0}) FROM t",
    "SELECT ({0} IS NULL), ({0} = 1 AND {0} IS NOT NULL) FROM t",
    "SELECT ({0} IN (1, 2) OR {0} NOT IN (3)) FROM t",
    "SELECT ({0} BETWEEN 1 AND 2), ({0} LIKE 'a%') FROM t",
    "SELECT COALESCE({0}, 0), MAX({0}) AS {0} FROM t",
    "SELECT SUM({0}) OVER (PARTITION BY {0} ORDER BY {0} DESC) FROM t",
    "SELECT CAST({0} AS CHAR(5)), ({0} + 1) AS x FROM t ORDER BY ({0}) DESC",
    "SELECT a.* FROM t a JOIN u b USING ({0})",
    "WITH x ({0}, b) AS (SELECT 1, 2) SELECT ({0}) FROM x",
    "SELECT (CASE WHEN {0} IS NULL THEN {0} END) FROM t",
    "SELECT {0} FROM t WHERE ({0} > 1)",
    "SELECT x.{0} FROM (SELECT {0} FROM t) x",
]
UNRESERVED: list[tuple[str, str]] = [
    *[
        ("postgresql", word)
        for word in ("delete", "insert", "update", "merge", "replace", "truncate", "drop", "alter", "rollback", "lock")
    ],
    *[("oracle", word) for word in ("merge", "replace", "truncate")],
    *[("sqlite", word) for word in ("merge", "replace", "truncate", "rollback", "attach", "vacuum")],
    ("sqlserver", "replace"),
]


@pytest.mark.parametrize(("db_type", "word"), UNRESERVED)
@pytest.mark.parametrize("form", PARENTHESES)
def test_a_column_called_as_a_write_is_a_column(db_type: str, word: str, form: str) -> None:
    assert verdict(form.format(word), db_type) is None
    assert verdict(form.format(f'"{word}"'), db_type) is None


@pytest.mark.parametrize(
    "sql",
    [
        "WITH x AS (DELETE FROM t RETURNING *) SELECT (delete) FROM x",
        "WITH x AS MATERIALIZED (DELETE FROM t RETURNING *) SELECT (delete IS NULL) FROM x",
        "WITH x AS NOT MATERIALIZED (INSERT INTO t VALUES (1) RETURNING *) SELECT (insert) FROM x",
        "WITH x AS (UPDATE t SET update = 1 RETURNING *) SELECT (update IS NULL) FROM x",
        "WITH x AS (UPDATE between SET a = 1 RETURNING *) SELECT * FROM x",
        "WITH x AS (MERGE INTO t USING u ON true WHEN MATCHED THEN DELETE RETURNING *) SELECT (merge) FROM x",
        "WITH x AS (WITH y AS (SELECT 1) DELETE FROM t RETURNING *) SELECT (delete) FROM x",
        "WITH x AS (WITH RECURSIVE y AS (SELECT 1 a UNION ALL SELECT a FROM y) SEARCH DEPTH FIRST BY a SET o"
        " DELETE FROM t RETURNING *) SELECT * FROM x",
        "WITH x AS (SELECT (delete) FROM t) DELETE FROM t",
        "SELECT (delete) INTO u FROM t",
        "SELECT (update) FROM t FOR UPDATE",
        "SELECT (update) FROM t FOR NO KEY UPDATE",
    ],
)
def test_a_column_called_as_a_write_hides_none(sql: str) -> None:
    assert verdict(sql, "postgresql") is not None
    assert verdict(sql.lower(), "postgresql") is not None


def test_a_refused_word_can_be_a_name_in_double_quotes() -> None:
    found = verdict("SELECT MAX(a) delete FROM t", "postgresql")
    assert found is not None
    assert found.remedy == "if it is a name, put it in double quotes"
    assert verdict('SELECT MAX(a) "delete" FROM t', "postgresql") is None
