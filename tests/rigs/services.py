"""Which servers this machine has for the tests, and which tests are skipped without one. Nothing is started to find out."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.rigs.browser import chromium
from tests.rigs.errors import RigMissing
from tests.rigs.kafka import kafka_origin
from tests.rigs.kerberos import kdc_tools
from tests.rigs.mysql import programs as programs_of_mariadb
from tests.rigs.oracle import oracle_origin
from tests.rigs.postgres import programs
from tests.rigs.sqlserver import sqlserver_origin

__all__ = ["SERVICES", "Service", "missing", "report", "skipped_without"]

TESTS = Path(__file__).parents[1]
_FUNCTION = re.compile(r"^(?:async )?def (\w+)\(([^)]*)\)", re.MULTILINE)


@dataclass(frozen=True)
class Service:
    """One kind of server."""

    name: str
    """As in PSTT_REQUIRE."""
    title: str
    origin: Callable[[], str]
    """Returns which one is used. Raises RigMissing if there is none."""
    fixtures: Collection[str]
    """A test that asks for one of these needs the service."""
    rig: str = ""
    """A class that such a test makes by itself."""


def _postgres_origin() -> str:
    return "POSTGRES_TEST_URL" if os.environ.get("POSTGRES_TEST_URL") else str(programs())


def _mariadb_origin() -> str:
    return programs_of_mariadb()[0]


def _registry_origin() -> str:
    found = shutil.which("java") and shutil.which("mvn")
    if not found:
        raise RigMissing("registry", "the schema registry needs Java and Maven: no `java` or no `mvn` on the PATH")
    return f"Apicurio from Maven, by {found}"


def _kerberos_origin() -> str:
    return kdc_tools()["krb5kdc"]


def _browser_origin() -> str:
    if importlib.util.find_spec("playwright") is None:
        raise RigMissing("browser", "playwright is not installed")
    program = chromium()
    return shutil.which(program) or program


SERVICES = (
    Service("kafka", "Kafka", kafka_origin, ("kafka", "own_kafka"), "KafkaRig("),
    Service("postgres", "PostgreSQL", _postgres_origin, ("postgres", "own_postgres"), "PostgresRig("),
    Service("mariadb", "MariaDB", _mariadb_origin, ("mariadb",), "MySqlRig("),
    Service("registry", "registry", _registry_origin, ("registry",), "RegistryRig("),
    Service("kerberos", "Kerberos", _kerberos_origin, ("kerberos",), "KerberosRig("),
    Service("sqlserver", "SQL Server", sqlserver_origin, ("sqlserver",)),
    Service("browser", "browser", _browser_origin, ("browser",)),
    Service("oracle", "Oracle", oracle_origin, ("true_oracle",)),
)


def missing() -> dict[str, str]:
    """Returns service → why this machine has none."""
    return {service.name: why for service in SERVICES for _, why in [_found(service)] if why}


def _found(service: Service) -> tuple[str, str]:
    """Returns which server is used, and why there is none: one of the two is empty."""
    try:
        return service.origin(), ""
    except RigMissing as error:
        return "", str(error)


def report() -> list[str]:
    """Returns a line for each service: which one is used, or what is skipped without it."""
    lines = []
    for service in SERVICES:
        origin, why = _found(service)
        text = f"{service.title:<11} {origin or 'not found: ' + why}"
        if why:
            count = skipped_without(service)
            where = ", ".join(f"{number} in tests/{folder}" for folder, number in sorted(count.items()))
            text += f"; tests skipped: {where}" if where else "; its tests run on a double"
        lines.append(("servers: " if not lines else " " * 9) + text)
    return lines


def skipped_without(service: Service) -> Counter[str]:
    """Returns folder of tests → how many test functions there ask for the service, also by other fixtures.

    Read from the text of the files, in a moment. What a parameter asks for, as each database in tests/contract, is not
    counted.
    """
    count: Counter[str] = Counter()
    shared = _functions(TESTS / "conftest.py")
    for folder in sorted(path for path in TESTS.iterdir() if path.is_dir()):
        own = folder / "conftest.py"
        known = shared | (_functions(own) if own.exists() else {})
        for file in sorted(folder.glob("test_*.py")):
            functions = known | _functions(file)
            asking = _asking(functions, service)
            count[folder.name] += sum(name.startswith("test_") for name in asking)
    return +count


def _functions(file: Path) -> dict[str, str]:
    """Returns name of each function of a module → its arguments and body."""
    text = file.read_text(encoding="utf-8")
    found = [*_FUNCTION.finditer(text)]
    ends = [match.start() for match in found[1:]] + [len(text)]
    return {match[1]: text[match.start(2) : end] for match, end in zip(found, ends, strict=True)}


def _asking(functions: dict[str, str], service: Service) -> set[str]:
    """Returns the functions that ask for the service by an argument, or by another function that they ask for."""
    asking: set[str] = set()
    wanted = set(service.fixtures)
    while new := {name for name, text in functions.items() if name not in asking and _asks(text, wanted, service.rig)}:
        asking |= new
        wanted |= new
    return asking


def _asks(text: str, wanted: Collection[str], rig: str) -> bool:
    return not wanted.isdisjoint(_arguments(text)) or (bool(rig) and rig in text)


def _arguments(text: str) -> Iterator[str]:
    """Yields the names of a function's arguments, and of the fixtures that it asks for by name."""
    arguments, _, body = text.partition(")")
    yield from re.findall(r"(?:^|,)\s*(\w+)", arguments)
    yield from re.findall(r'(?:getfixturevalue|usefixtures)\("(\w+)"', body)
