"""Connections as companies have them: on a real PostgreSQL and MariaDB, on the Oracle double, else on what the driver is given."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import oracledb
import pytest
from oracle_double import OracleDouble

from core.errors import ConfigError, NotAuthorised, PsttError, SourceUnavailable
from core.model.connection import DatabaseConnection, Secret
from core.model.query import Step
from core.sources import open_source
from core.sources.oracle import OracleSource
from core.sources.postgresql import PostgresSource
from core.sources.sqlserver import SqlServerSource
from tests.rigs.certificates import CLIENT_NAME, Certificates, make_certificates
from tests.rigs.mysql import MySqlRig
from tests.rigs.postgres import ACCOUNT, PostgresRig
from tests.rigs.server import free_ports

# python-oracledb 26.1 forgets to close its socket when the server resets the connection.
pytestmark = pytest.mark.filterwarnings("ignore:unclosed <socket.socket:ResourceWarning")


def read_all(connection: DatabaseConnection, sql: str = "SELECT 1 AS n") -> list[tuple[Any, ...]]:
    with closing(open_source(connection)) as source, source.read([Step(sql)]) as reading:
        return [tuple(row) for rows in reading for row in rows.rows]


def error_of(connection: DatabaseConnection) -> PsttError:
    with pytest.raises(PsttError) as caught:
        read_all(connection)
    return caught.value


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return make_certificates(tmp_path_factory.mktemp("tls"))


# ── PostgreSQL ────────────────────────────────────────────────────────────────────────────────

WHO = "SELECT current_user::text AS u, current_database()::text AS d, current_setting('application_name') AS a"


def test_a_service_file_names_host_database_and_account(postgres: PostgresRig, tmp_path: Path) -> None:
    file = tmp_path / "pg_service.conf"
    file.write_text(
        f"[tt2]\nhost={postgres.host}\nport={postgres.port}\ndbname={postgres.database}\nuser={postgres.user}\n"
        "application_name=other\nconnect_timeout=600\noptions=-c DateStyle=German\n",
        encoding="utf-8",
    )
    given = DatabaseConnection(
        "TT2", "postgresql", service="tt2", service_file=file, password=Secret(postgres.password)
    )
    assert read_all(given, WHO) == [(postgres.user, postgres.database, "pstt-kafka")]
    assert read_all(given, "SELECT current_setting('DateStyle') AS s") == [("ISO, MDY",)]
    unknown = error_of(replace(given, service="tt3"))
    assert "tt3" in unknown.text


def test_a_password_comes_from_the_passfile(postgres: PostgresRig, tmp_path: Path) -> None:
    file = tmp_path / "pgpass"
    file.write_text(f"{postgres.host}:{postgres.port}:*:{postgres.user}:{postgres.password}\n", encoding="utf-8")
    file.chmod(0o600)
    given = replace(postgres.connection(), password=None, passfile=file)
    assert read_all(given) == [(1,)]
    file.write_text(f"{postgres.host}:{postgres.port}:*:{postgres.user}:wrong\n", encoding="utf-8")
    assert type(error_of(given)) is NotAuthorised


def test_the_next_host_is_taken_where_one_is_away(postgres: PostgresRig) -> None:
    (closed,) = free_ports(1)
    hosts = f"127.0.0.1:{closed},{postgres.host}:{postgres.port}"
    given = postgres.connection(host=hosts, port=None, target_session_attrs="read-write")
    assert read_all(given) == [(1,)]
    error = error_of(replace(given, target_session_attrs="standby"))
    assert type(error) is SourceUnavailable
    assert error.is_retriable


def test_several_hosts_share_a_port_unless_they_name_their_own() -> None:
    def parameters(**values: Any) -> dict[str, Any]:
        given = {"host": "a:5433,b, [::1]:5434", "database": "d", "username": "u", **values}
        return PostgresSource(DatabaseConnection("x", "postgresql", **given)).parameters()

    assert (parameters()["host"], parameters()["port"]) == ("a,b,::1", "5433,5432,5434")
    assert parameters(port=6000)["port"] == "5433,6000,5434"
    assert "port" not in parameters(host="", service="s")


def test_settings_of_the_session_come_from_options_and_never_undo_ours(postgres: PostgresRig) -> None:
    given = postgres.connection(
        options={"options": "-c search_path=a,public -c work_mem=32MB -c DateStyle=German", "sslsni": 0},
        statement_timeout_s=7,
    )
    names = ("search_path", "work_mem", "DateStyle", "statement_timeout", "transaction_read_only")
    sql = "SELECT " + ", ".join(f"current_setting('{name}') AS s{i}" for i, name in enumerate(names))
    assert read_all(given, sql) == [("a,public", "32MB", "ISO, DMY", "7s", "on")]


def test_an_option_that_the_driver_has_not_is_a_problem_of_the_connection(
    postgres: PostgresRig, mariadb: MySqlRig
) -> None:
    for given in (postgres.connection(), mariadb.connection()):
        error = error_of(replace(given, options={"no_such_thing": 1}))
        assert type(error) is ConfigError
        assert "no_such_thing" in error.text


@pytest.fixture(scope="module")
def guarded(certificates: Certificates) -> Iterator[PostgresRig]:
    """A server that lets one account in by its certificate only."""
    with PostgresRig() as rig:
        rig.use_tls(certificates.server)
        data = rig._data
        ca = data / "ca.pem"
        ca.write_bytes(certificates.ca_file.read_bytes())
        hba = data / "pg_hba.conf"
        hba.write_text(
            f"hostssl all {CLIENT_NAME}_cert all cert map=m\n" + hba.read_text(encoding="utf-8"), encoding="utf-8"
        )
        (data / "pg_ident.conf").write_text(f"m {CLIENT_NAME} {CLIENT_NAME}_cert\n", encoding="utf-8")
        if ACCOUNT:
            subprocess.run(["chown", ACCOUNT, str(ca)], check=True)
        with closing(rig.connect()) as connection:
            connection.execute(f"CREATE ROLE {CLIENT_NAME}_cert LOGIN".encode())
            connection.execute("ALTER SYSTEM SET ssl_ca_file = 'ca.pem'")
            connection.execute("SELECT pg_reload_conf()")
        yield rig


def test_a_client_certificate_logs_in_without_a_password(
    guarded: PostgresRig, certificates: Certificates, tmp_path: Path
) -> None:
    key = tmp_path / "client.key"
    key.write_bytes(certificates.client_key_file.read_bytes())
    key.chmod(0o600)
    given = guarded.connection(
        username=f"{CLIENT_NAME}_cert",
        password=None,
        sslmode="verify-full",
        sslrootcert=certificates.ca_file,
        sslcert=certificates.client_cert_file,
        sslkey=key,
    )
    assert read_all(given, WHO)[0][0] == f"{CLIENT_NAME}_cert"
    locked = tmp_path / "locked.key"
    command = ["openssl", "pkcs8", "-topk8", "-in", str(key), "-out", str(locked), "-passout", "pass:geheim"]
    subprocess.run(command, check=True, capture_output=True)
    locked.chmod(0o600)
    assert read_all(replace(given, sslkey=locked, sslpassword=Secret("geheim")))
    assert type(error_of(replace(given, sslkey=locked, sslpassword=Secret("wrong")))) is ConfigError
    without = error_of(replace(given, sslcert=None, sslkey=None))
    assert type(without) in (NotAuthorised, ConfigError)


# ── MySQL ─────────────────────────────────────────────────────────────────────────────────────


def test_a_client_certificate_of_mysql(certificates: Certificates, tmp_path: Path) -> None:
    with MySqlRig(keystore=certificates.server, client_ca=certificates.ca_file) as rig:
        rig.execute("CREATE USER by_cert@'%' REQUIRE X509")
        given = rig.connection(username="by_cert", password=None, database="information_schema", sslmode="verify-full")
        given = replace(given, sslrootcert=certificates.ca_file)
        assert type(error_of(given)) is NotAuthorised
        given = replace(given, sslcert=certificates.client_cert_file, sslkey=certificates.client_key_file)
        assert read_all(given, "SELECT SUBSTRING_INDEX(CURRENT_USER(), '@', 1) AS u") == [("by_cert",)]
        locked = tmp_path / "locked.key"
        plain = str(certificates.client_key_file)
        command = ["openssl", "pkcs8", "-topk8", "-in", plain, "-out", str(locked), "-passout", "pass:geheim"]
        subprocess.run(command, check=True, capture_output=True)
        assert read_all(replace(given, sslkey=locked, sslpassword=Secret("geheim"))) == [(1,)]
        assert type(error_of(replace(given, sslkey=locked))) is ConfigError


def test_a_setting_of_the_driver_reaches_mysql(mariadb: MySqlRig) -> None:
    given = mariadb.connection(options={"collation": "utf8mb4_bin"})
    assert read_all(given, "SELECT @@collation_connection AS c") == [("utf8mb4_bin",)]


# ── SQL Server: what the ODBC driver is given ─────────────────────────────────────────────────

MICROSOFT = "ODBC Driver 18 for SQL Server"


def attributes(driver: str = MICROSOFT, **changes: Any) -> dict[str, str]:
    values: dict[str, Any] = {"host": "db.example.com", "database": "BOSC", "username": "pstt", "password": Secret("p")}
    source = SqlServerSource(DatabaseConnection("BOSC", "sqlserver", **{**values, **changes}))
    return {name: value for name, value in source._attributes(driver).items() if value}


def test_without_username_the_windows_account_logs_in() -> None:
    made = attributes(username="", password=None)
    assert made["Trusted_Connection"] == "yes"
    assert not {"UID", "PWD", "Authentication"} & set(made)
    assert "Trusted_Connection" not in attributes()
    assert attributes("FreeTDS", username="", password=None)["Trusted_Connection"] == "yes"


def test_entra_is_named_as_the_driver_names_it() -> None:
    principal = attributes(authentication="ActiveDirectoryServicePrincipal")
    assert (principal["Authentication"], principal["UID"], principal["PWD"]) == (
        "ActiveDirectoryServicePrincipal",
        "pstt",
        "p",
    )
    managed = attributes(authentication="ActiveDirectoryMsi", username="", password=None)
    assert managed["Authentication"] == "ActiveDirectoryMsi"
    assert not {"UID", "PWD", "Trusted_Connection"} & set(managed)
    assert managed["Encrypt"] == "yes"


@pytest.mark.parametrize(
    ("changes", "server"),
    [
        ({"host": "SRV\\BOSC"}, "SRV\\BOSC"),
        ({"host": "SRV\\BOSC", "port": 1500}, "SRV\\BOSC,1500"),
        ({"host": "SRV"}, "SRV,1433"),
    ],
)
def test_an_instance_is_found_by_its_name(changes: dict[str, Any], server: str) -> None:
    assert attributes(**changes)["SERVER"] == server


def test_an_instance_reaches_freetds_without_a_port() -> None:
    assert "PORT" not in attributes("FreeTDS", host="SRV\\BOSC")
    assert attributes("FreeTDS", host="SRV")["PORT"] == "1433"


def test_availability_groups_and_settings_of_the_driver() -> None:
    made = attributes(multi_subnet_failover=True, options={"PacketSize": 8192, "KeepAlive": True, "WSID": "it's;x"})
    assert (made["MultiSubnetFailover"], made["ApplicationIntent"]) == ("yes", "ReadOnly")
    assert (made["PacketSize"], made["KeepAlive"], made["WSID"]) == ("8192", "yes", "it's;x")
    assert attributes(application_intent="ReadWrite")["ApplicationIntent"] == "ReadWrite"
    assert attributes(allow_writes=True)["ApplicationIntent"] == "ReadWrite"
    assert attributes("FreeTDS", application_intent="ReadOnly")["ApplicationIntent"] == "ReadOnly"
    given = DatabaseConnection("B", "sqlserver", host="h", options={"WSID": "a;UID=sa}"})
    assert "WSID={a;UID=sa}}};" in SqlServerSource(given)._connection_string(MICROSOFT)


def test_a_setting_of_the_driver_reaches_the_server(sqlserver: Any) -> None:
    given = sqlserver.connection(options={"WSID": "office-7"})
    assert read_all(given) == [(1,)]


# ── Oracle: the double, and what the driver is given ──────────────────────────────────────────


def oracle(**changes: Any) -> DatabaseConnection:
    values: dict[str, Any] = {"username": "pstt", "password": Secret("geheim-4711")}
    return DatabaseConnection("A00", "oracle", **{**values, **changes})


@pytest.fixture
def double() -> Iterator[OracleDouble]:
    with OracleDouble(users={"pstt": "geheim-4711"}) as made:
        made.on("FROM t", [("N", "NUMBER(10)")], [(1,)])
        yield made
        assert made.failures == []


def descriptor(double: OracleDouble) -> str:
    address = f"(ADDRESS=(PROTOCOL=tcp)(HOST={double.host})(PORT={double.port}))"
    return f"(DESCRIPTION={address}(CONNECT_DATA=(SERVICE_NAME={double.service})))"


def test_an_alias_is_found_in_the_tnsnames_of_config_dir(double: OracleDouble, tmp_path: Path) -> None:
    (tmp_path / "tnsnames.ora").write_text(f"CDG.WORLD =\n  {descriptor(double)}\n", encoding="utf-8")
    assert read_all(oracle(dsn="cdg.world", config_dir=tmp_path), "SELECT n FROM t") == [(1,)]
    unknown = error_of(oracle(dsn="other.world", config_dir=tmp_path))
    assert "other.world" in unknown.text
    assert "geheim" not in unknown.text


def test_a_full_descriptor_and_an_easy_connect_string(double: OracleDouble) -> None:
    for dsn in (descriptor(double), f"{double.host}:{double.port}/{double.service}"):
        assert read_all(oracle(dsn=dsn), "SELECT n FROM t") == [(1,)]


def test_the_resident_pool_gives_a_new_session() -> None:
    given = oracle(host="h", service_name="S", server_type="pooled", options={"sdu": 16384, "edition": "E1"})
    parameters: oracledb.ConnectParams = OracleSource(given).parameters()["params"]
    assert (parameters.server_type, parameters.cclass, parameters.purity) == ("pooled", "PSTT", oracledb.PURITY_NEW)
    assert "(SERVER=pooled)" in parameters.get_connect_string()
    assert (parameters.sdu, parameters.edition) == (16384, "E1")
    plain: oracledb.ConnectParams = OracleSource(oracle(host="h", service_name="S")).parameters()["params"]
    assert plain.server_type is None


def test_wallets_and_accounts_behind_a_proxy(tmp_path: Path) -> None:
    given = oracle(
        dsn="tcps://h:2484/S", wallet_location=tmp_path, wallet_password=Secret("wallet"), proxy_user="owner"
    )
    made = OracleSource(given).parameters()
    assert (made["user"], made["proxy_user"], made["dsn"]) == ("pstt", "owner", "tcps://h:2484/S")
    assert made["params"].wallet_location == str(tmp_path)
    external = OracleSource(oracle(username="", password=None, dsn="cdg", wallet_location=tmp_path, thick=True))
    made = external.parameters()
    assert made["externalauth"] is True
    assert not {"user", "password"} & set(made)


def test_the_proxy_user_reaches_the_server(double: OracleDouble) -> None:
    given = oracle(dsn=descriptor(double), proxy_user="owner")
    assert read_all(given, "SELECT n FROM t") == [(1,)]


def test_an_option_that_oracles_driver_has_not_is_a_problem_of_the_connection() -> None:
    with pytest.raises(ConfigError, match="no_such_thing"):
        OracleSource(oracle(host="h", service_name="S", options={"no_such_thing": 1})).parameters()
