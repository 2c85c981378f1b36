"""The connection to the scheduler of a Dask cluster (DASK_SCHEDULER_ADDRESS), with every failure as one clear error."""

from __future__ import annotations

import ast
import logging
import socket
import warnings
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import msgspec

from core.errors import BrokerUnavailable, ConfigError, RunInterrupted
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
        BrokerUnavailable: Nothing answers at the address, or another protocol does.
    """
    Client = _client_class(variables)
    _refuse_closed_port(address)
    try:
        with warnings.catch_warnings():
            # Other versions of numpy or the like: the workers' version of the product is compared later.
            warnings.simplefilter("ignore")
            return Client(address, timeout=CONNECT_S, set_as_default=False, name="pstt", heartbeat_interval=5000)
    except (OSError, ValueError, TypeError, RuntimeError, MemoryError) as error:
        raise _not_a_scheduler(address, error) from None


def _client_class(variables: Mapping[str, str]) -> Callable[..., Client]:
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
    found: Callable[..., Client] = distributed.Client
    return found


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


def _refuse_closed_port(address: str) -> None:
    host, _, port = address.partition("://")[2].rstrip("/").rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=CONNECT_S / 2).close()
    except OSError as error:
        why = "the time limit was reached" if isinstance(error, TimeoutError) else error.strerror or str(error)
        raise BrokerUnavailable(
            f"nothing answers at the Dask scheduler {address}",
            why=why,
            remedy="start it with `dask scheduler`, or set DASK_SCHEDULER_ADDRESS (docs/SCALE.md)",
        ) from None
    except (OverflowError, ValueError) as error:
        raise ConfigError(f"DASK_SCHEDULER_ADDRESS {address} is not valid", why=str(error)) from None


def _not_a_scheduler(address: str, error: Exception) -> Exception:
    said = str(error.__cause__ or error).splitlines()[0] if str(error.__cause__ or error) else type(error).__name__
    if isinstance(error, FileNotFoundError | TypeError | RuntimeError):
        return ConfigError(
            f"the connection to the Dask scheduler {address} cannot be made",
            why=said,
            remedy="check DASK_DISTRIBUTED__COMM__TLS__CA_FILE, …__CLIENT__CERT and …__CLIENT__KEY (docs/SCALE.md)",
        )
    other = "without TLS (tcp://)" if address.startswith("tls:") else "with TLS (tls://)"
    return BrokerUnavailable(
        f"what answers at {address} is no Dask scheduler of this kind",
        why=said,
        remedy=f"check host and port in DASK_SCHEDULER_ADDRESS, and whether the scheduler works {other}",
    )


def call_by_name(module: str, function: str) -> Callable[..., Any]:
    """Returns a function that calls another one where it is executed.

    It is passed as code and not as a name, so that a worker without the product reports that clearly and the scheduler
    needs no product at all.
    """

    def call(*arguments: Any) -> Any:
        from importlib import import_module

        return getattr(import_module(module), function)(*arguments)

    return call


def examine_workers(client: Client, order: bytes) -> list[Examined]:
    """Asks each worker for its version, and whether a part could work there.

    Args:
        client: Of the scheduler.
        order: A `core.run.dask_worker.PartOrder`; empty: only the versions.

    Raises:
        RunInterrupted: The scheduler does not answer.
    """

    # A task's function blocks the worker's event loop if it is not a coroutine: this one waits for sockets.
    async def examine(order: bytes, dask_worker: Any = None) -> bytes:
        import asyncio

        from core.run.dask_worker import examine

        return await asyncio.to_thread(examine, dask_worker, order)

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
    failed = RunInterrupted(f"worker {address} does not answer", why=_text(answer), remedy="restart that worker")
    return Examined(address, host, "", threads, PartError.of(failed))


def _text(answer: object) -> str:
    return f"{type(answer).__name__}: {answer}".splitlines()[0]


def lost_scheduler(client: Client, error: Exception | None = None) -> RunInterrupted:
    """Returns the error of a scheduler that no longer answers."""
    address = client._start_arg
    return RunInterrupted(
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
