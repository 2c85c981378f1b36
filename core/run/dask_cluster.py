"""The connection to the scheduler of a Dask cluster (DASK_SCHEDULER_ADDRESS), with every failure as one clear error."""

from __future__ import annotations

import ast
import asyncio
import logging
import socket
import ssl
import warnings
from collections.abc import Callable, Mapping
from contextlib import suppress
from importlib import import_module
from typing import TYPE_CHECKING, Any

import msgspec

from core.errors import ConfigError, PsttError, WorkersUnavailable
from core.run.parts import PartError
from core.version import __version__

if TYPE_CHECKING:
    from distributed import Client

__all__ = ["Examined", "call_by_name", "connect", "examine_workers", "worker_label"]

REQUIREMENTS = "requirements-dask.txt"
CONNECT_S = 8.0
"""For a scheduler that answers; a port that refuses is known at once."""
ANSWER_S = 30.0
"""How long workers may take to examine what a part needs there."""
PREFIX = "DASK_DISTRIBUTED__"
MOST_GREETING_BYTES = 65_536
"""Of 300 bytes or so."""
TLS_REMEDY = (
    "set DASK_DISTRIBUTED__COMM__TLS__CA_FILE, DASK_DISTRIBUTED__COMM__TLS__CLIENT__CERT and "
    "DASK_DISTRIBUTED__COMM__TLS__CLIENT__KEY to files that belong to the scheduler's (docs/SCALE.md)"
)


class Examined(msgspec.Struct, frozen=True):
    """What a worker reports of itself before the first part."""

    address: str
    host: str
    version: str
    """Of the product; empty: it is not installed there."""
    threads: int = 1
    """Parts that it runs at once."""
    problem: PartError | None = None
    """Why no part of this run can work there."""


def connect(address: str, variables: Mapping[str, str]) -> Client:
    """Connects to the scheduler; the caller closes the client.

    Args:
        address: `tcp://host:port` or `tls://host:port`.
        variables: Environment and `.env`: Dask's own settings in them (`DASK_DISTRIBUTED__COMM__TLS__CA_FILE`) are used.

    Raises:
        ConfigError: dask and distributed are not installed, or a certificate cannot be used.
        WorkersUnavailable: Nothing answers at the address, or another protocol does.
    """
    distributed = _distributed(variables)
    try:
        security = distributed.Security()
        _greet(address, security.get_connection_args("client").get("ssl_context"))
        with warnings.catch_warnings():
            # Other versions of numpy or the like: the workers' version of the product is compared later.
            warnings.simplefilter("ignore")
            client: Client = distributed.Client(
                address, timeout=CONNECT_S, set_as_default=False, name="pstt", security=security
            )
            return client
    except (OSError, ValueError, TypeError, RuntimeError) as error:
        raise _not_connected(address, error) from None


def _distributed(variables: Mapping[str, str]) -> Any:
    """Returns the module distributed with the user's settings."""
    try:
        import dask
        import distributed
    except ImportError as error:
        raise ConfigError(
            "DASK_SCHEDULER_ADDRESS is set, and dask is not installed",
            why=str(error),
            remedy=f"python -m pip install -r {REQUIREMENTS}, or remove DASK_SCHEDULER_ADDRESS",
        ) from None
    # It reports a lost connection in its log, with a traceback: we report it as an error.
    for name in ("distributed", "distributed.core", "distributed.client", "tornado.application"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    dask.config.set(_dask_settings(variables))
    return distributed


def _dask_settings(variables: Mapping[str, str]) -> dict[str, Any]:
    """Returns Dask's own settings: dask reads those of the environment only, and at its import."""
    found: dict[str, Any] = {}
    for name, text in variables.items():
        if name.startswith(PREFIX):
            value: Any = text
            with suppress(ValueError, SyntaxError):
                value = ast.literal_eval(text)
            found[name.removeprefix("DASK_").lower().replace("__", ".")] = value
    return found


def _greet(address: str, context: ssl.SSLContext | None) -> None:
    """Reads the greeting that a server of distributed sends first, with time limits.

    distributed 2026.8 waits without a limit for the greeting of a server that is silent, and reserves as much memory
    as the first bytes of another protocol say.

    Raises:
        WorkersUnavailable: Nothing answers, or no scheduler does.
        ConfigError: The address is tls:// and there are no certificates.
        OSError: The two do not trust each other.
    """
    if address.startswith("tls:") and context is None:
        raise ConfigError(
            f"there are no certificates for the Dask scheduler {address}", why="tls:// needs them", remedy=TLS_REMEDY
        )
    host, _, port = address.partition("://")[2].rstrip("/").rpartition(":")
    try:
        connection = socket.create_connection((host.strip("[]"), int(port)), timeout=CONNECT_S / 2)
    except OSError as error:
        why = "the time limit was reached" if isinstance(error, TimeoutError) else error.strerror or str(error)
        raise WorkersUnavailable(
            f"nothing answers at the Dask scheduler {address}",
            why=why,
            remedy="start it with `dask scheduler`, or set DASK_SCHEDULER_ADDRESS (docs/SCALE.md)",
        ) from None
    with connection:
        if address.startswith("tls:") and context is not None:
            connection = context.wrap_socket(connection, server_hostname=host.strip("[]"))
        with connection, connection.makefile("rb") as stream:
            length = int.from_bytes(stream.read(8), "little")
            greeting = stream.read(length) if length <= MOST_GREETING_BYTES else b""
    if b"pickle-protocol" not in greeting:
        raise ValueError("it answers in another protocol" if length else "it closes the connection")


def _not_connected(address: str, error: Exception) -> PsttError:
    """Returns the error of a server that answers, but not as the scheduler of this address should."""
    if isinstance(error, FileNotFoundError):
        return ConfigError(
            f"a certificate for the Dask scheduler {address} cannot be read",
            why=error.strerror or "",
            remedy=TLS_REMEDY,
        )
    if isinstance(error, ssl.SSLError) and not isinstance(error, TimeoutError):
        return WorkersUnavailable(
            f"no TLS connection to the Dask scheduler {address}", why=error.reason or str(error), remedy=TLS_REMEDY
        )
    why = "it does not answer in time" if isinstance(error, TimeoutError) else str(error) or type(error).__name__
    other = "without TLS (tcp://)" if address.startswith("tls:") else "with TLS (tls://)"
    return WorkersUnavailable(
        f"what answers at {address} is not a Dask scheduler",
        why=why.splitlines()[0],
        remedy=f"check host and port in DASK_SCHEDULER_ADDRESS, and whether the scheduler works {other}",
    )


def call_by_name(module: str, function: str) -> Callable[..., Any]:
    """Returns a function that calls another one where it is executed.

    It is passed as code and not as a name, so that a worker without the product reports that clearly and the scheduler
    needs no product at all.
    """

    def call(*arguments: Any) -> Any:
        return getattr(import_module(module), function)(*arguments)

    return call


def examine_workers(client: Client, order: bytes) -> list[Examined]:
    """Asks each worker for its version, and whether a part could work there.

    Args:
        client: Of the scheduler.
        order: A `core.run.dask_worker.PartOrder`; empty: only the versions.

    Raises:
        WorkersUnavailable: The scheduler does not answer.
    """

    # A task's function blocks the worker's event loop if it is not a coroutine: this one waits for sockets.
    async def examine(order: bytes, dask_worker: Any = None) -> bytes:
        found = import_module("core.run.dask_worker").examine
        return await asyncio.to_thread(found, dask_worker, order)

    try:
        threads = client.nthreads()
        answers = client.run(examine, order, on_error="return")
    except (OSError, TimeoutError) as error:
        raise lost_scheduler(client, error) from None
    return [_examined(address, threads.get(address, 1), answer) for address, answer in sorted(answers.items())]


def _examined(address: str, threads: int, answer: object) -> Examined:
    if isinstance(answer, bytes):
        return msgspec.structs.replace(msgspec.json.decode(answer, type=Examined), address=address, threads=threads)
    host = address.partition("://")[2].rpartition(":")[0]
    if isinstance(answer, ImportError):
        error = ConfigError(
            f"worker {address} cannot import PSTT Kafka",
            why=str(answer),
            remedy="install the same version there, and start `dask worker` with its folder in PYTHONPATH",
        )
        return Examined(address, host, "", threads, PartError.of(error))
    failed = WorkersUnavailable(f"worker {address} does not answer", why=_text(answer), remedy="restart that worker")
    return Examined(address, host, "", threads, PartError.of(failed))


def _text(answer: object) -> str:
    return f"{type(answer).__name__}: {answer}".splitlines()[0]


def lost_scheduler(client: Client, error: Exception | None = None) -> WorkersUnavailable:
    """Returns the error of a scheduler that no longer answers."""
    address = client._start_arg
    return WorkersUnavailable(
        f"the connection to the Dask scheduler {address} is lost",
        why=_text(error) if error else "it was closed",
        remedy="start the scheduler and its workers; the run is then executed again",
    )


def worker_label(host: str, address: str) -> str:
    """Returns a worker for display: `etl-3 (tcp://10.0.0.3:41234)`."""
    return f"{host} ({address})"


def other_version(examined: Examined) -> ConfigError:
    """Returns the error of a worker with another version of the product."""
    return ConfigError(
        f"worker {worker_label(examined.host, examined.address)} has PSTT Kafka {examined.version}",
        why=f"this run is of version {__version__}, and parts of two versions may differ",
        remedy=f"install {__version__} there and restart the worker",
    )
