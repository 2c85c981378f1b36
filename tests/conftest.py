"""The real servers: one broker, one registry and one PostgreSQL for all test processes, one MariaDB for each process.

A machine without one skips the tests that need it, with the reason; where PSTT_REQUIRE names the service they fail.
"""

from __future__ import annotations

import gc
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import ExitStack, suppress
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

import hypothesis
import psutil
import pytest
from argon2 import PasswordHasher
from oracle_double import OracleDouble

from core.records import accounts
from tests.rigs.errors import RigMissing
from tests.rigs.fork_server import end_fork_server
from tests.rigs.left_behind import end_what_is_left_behind

if TYPE_CHECKING:
    from xdist.workermanage import WorkerController

    from tests.rigs.kafka import GivenKafka, KafkaRig
    from tests.rigs.mysql import MySqlRig
    from tests.rigs.oracle import OracleRig
    from tests.rigs.postgres import PostgresRig
    from tests.rigs.registry import RegistryRig
    from tests.rigs.shared import SharedServers
    from tests.rigs.sqlserver import SqlServerRig

# The double's own tests measure their memory in a way that Windows does not have.
collect_ignore = ["integration/test_oracle_double.py"] if os.name == "nt" else []

# No test has a clock: on a loaded machine an example may take long. The examples are the same in each run, so that a run
# of all tests says something about the change; PSTT_RANDOM_EXAMPLES looks for others.
IS_RANDOM = bool(os.environ.get("PSTT_RANDOM_EXAMPLES"))
hypothesis.settings.register_profile(
    "no_clock", deadline=None, derandomize=not IS_RANDOM, max_examples=100 if IS_RANDOM else 40
)
hypothesis.settings.load_profile("no_clock")


# Else each of some thousand processes compiles all that it imports.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False
# As a command of the product does it: numpy's threads would spin for 50 ms in each of the same processes.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

# A password costs a third of a second of a processor on purpose. tests/unit/test_accounts.py checks that it does.
accounts._hasher = lambda: PasswordHasher(time_cost=1, memory_cost=64, parallelism=1)


# ── how many at once ──────────────────────────────────────────────────────────────────────────

MOST_PROCESSES = 8
PROCESSES_A_CORE = 2.5
"""Tests wait for more than half of their time: for servers, for processes, for a moment."""
BYTES_A_PROCESS = 1_500_000_000
"""With databases, a browser and brokers of its own."""


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """Test processes for `-n auto`; none for a single file, which one process would run alone."""
    files = {argument.split("::")[0] for argument in config.args}
    if len(files) == 1 and next(iter(files)).endswith(".py"):
        return 0
    cores, memory = psutil.cpu_count() or 1, psutil.virtual_memory().available
    return max(1, min(int(PROCESSES_A_CORE * cores), memory // BYTES_A_PROCESS, MOST_PROCESSES))


MEMORY = Path("/dev/shm")
"""Linux keeps the files of this folder in memory."""
BYTES_OF_FILES = 6_000_000_000
"""A whole run leaves 2 GB of files, with those of the servers."""


def pytest_configure(config: pytest.Config) -> None:
    """Puts the temporary files of a whole run into memory, where there is room for them.

    Ledgers, databases and brokers write each change through to the disk: a seventh of the run's processor time.
    """
    if hasattr(config, "workerinput") or config.args_source != pytest.Config.ArgsSource.TESTPATHS:
        return
    if "TMPDIR" in os.environ or not MEMORY.is_dir() or psutil.virtual_memory().available < 2 * BYTES_OF_FILES:
        return
    if shutil.disk_usage(MEMORY).free < BYTES_OF_FILES:
        return
    for left in MEMORY.glob("pstt-tests-*"):  # by a run that was killed
        if not psutil.pid_exists(int(left.name.split("-")[2])):
            shutil.rmtree(left, ignore_errors=True)
    folder = tempfile.mkdtemp(prefix=f"pstt-tests-{os.getpid()}-", dir=MEMORY)
    Path(folder).chmod(0o1777)  # as its kind is: the servers run under accounts of their own
    config.add_cleanup(lambda: shutil.rmtree(folder, ignore_errors=True))
    os.environ["TMPDIR"] = tempfile.tempdir = folder


# All modules and 12,000 tests stay to the end: 700,000 objects. To look through them again and again while they become more
# takes 5 s of a processor in each test process, and each full garbage collection afterwards 0.4 s.
@pytest.hookimpl(wrapper=True, trylast=True)  # inside pytest's own, which makes errors of warnings
def pytest_collection(session: pytest.Session) -> Generator[None, object, object]:
    """Collects the tests without garbage collections, and leaves what is there then out of later ones."""
    gc.disable()
    try:
        import_tests(session.config)
        return (yield)
    finally:
        gc.enable()
        gc.freeze()


def import_tests(config: pytest.Config) -> None:
    """Imports the test modules of whole folders; of several test processes each begins at another one.

    In one order, each process would compile in the same moments what all of them import: five times 10 s of a processor
    in a fresh checkout.
    """
    if not (worker := getattr(config, "workerinput", None)):
        return
    folders = [config.invocation_params.dir / argument for argument in config.args]
    files = [file for folder in folders if folder.is_dir() for file in sorted(folder.rglob("test_*.py"))]
    names = [".".join(file.relative_to(config.rootpath).with_suffix("").parts) for file in files]
    begin = len(names) * int(worker["workerid"].removeprefix("gw")) // worker["workercount"]
    for name in names[begin:] + names[:begin]:
        with suppress(Exception, pytest.skip.Exception):  # the collection meets the same one and reports it
            import_module(name)


def pytest_sessionfinish() -> None:
    """Ends the process that runs commands for this one."""
    end_fork_server()


# ── servers that test processes share ─────────────────────────────────────────────────────────


_servers: SharedServers | None = None


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: WorkerController) -> None:
    """Gives a test process the address of the servers that all of them share."""
    global _servers
    from tests.rigs.shared import SharedServers

    if _servers is None:
        _servers = SharedServers()
        node.config.add_cleanup(_servers.close)
    node.workerinput["servers"] = _servers.address


def servers_of(config: pytest.Config) -> tuple[str, int, bytes] | None:
    """Returns where this test process asks for a shared server; None: it is the only one."""
    asked: tuple[str, int, bytes] | None = getattr(config, "workerinput", {}).get("servers")
    return asked


# ── which services there are ──────────────────────────────────────────────────────────────────


def pytest_report_header() -> list[str]:
    """Says in the first lines which servers were found, and which tests are skipped."""
    from tests.rigs.services import report

    return report()


def pytest_sessionstart(session: pytest.Session) -> None:
    """Ends a run of all tests at once if a service that PSTT_REQUIRE names is missing.

    What tests start ends with this process from now on, also if it is killed.
    """
    end_what_is_left_behind()
    config = session.config
    if hasattr(config, "workerinput") or config.args_source != pytest.Config.ArgsSource.TESTPATHS or not required():
        return
    from tests.rigs.services import missing

    if lacking := [f"{name}: {why}" for name, why in missing().items() if name in required()]:
        raise pytest.UsageError("required here (PSTT_REQUIRE) and missing: " + "; ".join(lacking))


def required() -> set[str]:
    """The services whose tests must not be skipped."""
    return {name for name in os.environ.get("PSTT_REQUIRE", "").replace(" ", "").split(",") if name}


# ── a service that is not there ───────────────────────────────────────────────────────────────


@pytest.hookimpl(wrapper=True)
def pytest_runtest_setup() -> Generator[None, object, object]:
    """Skips or fails a test whose fixture found no server."""
    try:
        return (yield)
    except RigMissing as missing:
        skip_or_fail(missing)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call() -> Generator[None, object, object]:
    """Skips or fails a test that needs what the server lacks, such as a TLS listener."""
    try:
        return (yield)
    except RigMissing as missing:
        skip_or_fail(missing)


def skip_or_fail(missing: RigMissing) -> None:
    if missing.service in required():
        pytest.fail(f"{missing.service} is required here (PSTT_REQUIRE): {missing}", pytrace=False)
    pytest.skip(str(missing))


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Marks what is slow; python-oracledb 26.1 forgets to close its socket when the server resets the connection."""
    for item in items:
        always = item.get_closest_marker("always")
        if always and not any(word in item.name for word in always.args):
            item.add_marker(pytest.mark.slow)
    forgiving = pytest.mark.filterwarnings("ignore:unclosed <socket.socket:ResourceWarning")
    for item in items:
        if "oracle" in getattr(item, "fixturenames", ()) or item.path.name == "test_oracle_double.py":
            item.add_marker(forgiving)


# ── Kafka ─────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture(scope="session")
def kafka(pytestconfig: pytest.Config) -> Iterator[KafkaRig | GivenKafka]:
    """A broker with all listeners; shared by all test processes, so use topics of your own and never stop it."""
    from tests.rigs.kafka import GivenKafka
    from tests.rigs.shared import shared

    if given := os.environ.get("KAFKA_TEST_BOOTSTRAP_SERVERS"):
        yield GivenKafka(given)
    else:
        with shared("kafka", servers_of(pytestconfig)) as rig:
            yield rig


@pytest.fixture
def own_kafka() -> Iterator[Callable[..., KafkaRig]]:
    """Makes brokers that a test may stop, with the plaintext listener: `own_kafka(auto_create=…, properties={…})`."""
    from tests.rigs.kafka import PlainKafkaRig

    # A killed broker counts as alive for this time, and cannot register again.
    quick = {"broker.session.timeout.ms": "2000"}
    with ExitStack() as stack:

        def make(*, auto_create: bool = False, properties: Mapping[str, str] | None = None) -> KafkaRig:
            chosen = {**quick, **(properties or {})}
            return stack.enter_context(PlainKafkaRig(auto_create=auto_create, properties=chosen))

        yield make


@pytest.fixture(scope="session")
def registry(pytestconfig: pytest.Config) -> Iterator[RegistryRig]:
    """A schema registry; shared by all test processes, so use topics and record names of your own and never stop it."""
    from tests.rigs.shared import shared

    with shared("registry", servers_of(pytestconfig)) as rig:
        yield rig


# ── databases ─────────────────────────────────────────────────────────────────────────────────


@pytest.fixture(scope="session")
def postgres(pytestconfig: pytest.Config) -> Iterator[PostgresRig]:
    """A server; shared, so use tables of your own and never stop it.

    One for all test processes, each with a database of its own. Roles and databases are seen by all of them, as are the
    sessions of the others.
    """
    from tests.rigs.postgres import PostgresRig
    from tests.rigs.shared import shared

    if given := os.environ.get("POSTGRES_TEST_URL"):
        yield PostgresRig(given)
        return
    with shared("postgres", address := servers_of(pytestconfig)) as rig:
        yield rig.with_database(f"of_{pytestconfig.workerinput['workerid']}") if address else rig  # type: ignore[attr-defined]


@pytest.fixture
def own_postgres() -> Iterator[PostgresRig]:
    """A server that a test may stop."""
    from tests.rigs.postgres import PostgresRig

    with PostgresRig() as rig:
        yield rig


@pytest.fixture(scope="session")
def mariadb() -> Iterator[MySqlRig]:
    """A server; shared, so use tables of your own and never stop it."""
    from tests.rigs.mysql import MySqlRig

    with MySqlRig(os.environ.get("MYSQL_TEST_URL")) as rig:
        yield rig


@pytest.fixture(scope="session")
def sqlserver() -> SqlServerRig:
    """A server that speaks TDS; shared, so use tables of your own."""
    from tests.rigs.sqlserver import SqlServerRig

    return SqlServerRig()


@pytest.fixture
def oracle() -> Iterator[OracleDouble]:
    """A double with Oracle's wire protocol; an error in its responses fails the test.

    A test that causes such an error on purpose ends with `oracle.failures.clear()`.
    """
    with OracleDouble() as double:
        yield double
        assert double.failures == []


@pytest.fixture(scope="session")
def true_oracle() -> OracleRig:
    """The server of ORACLE_TEST_URL."""
    from tests.rigs.oracle import OracleRig

    return OracleRig()
