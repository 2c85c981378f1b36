"""Reads the messages of a finished run back from its topic and stores the answer."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from datetime import datetime
from pathlib import Path

from core.errors import ConfigError
from core.message.key_comparison import KeyComparison
from core.model.connection import Cluster
from core.model.job import Job, VerifyMode
from core.model.run import Run, Verification
from core.records.opened import OpenWorkspace
from core.run.arrival import SentRange
from core.run.destination import cluster_of_run
from core.run.known_sends import require_known
from core.run.schemas import key_comparison
from core.workspace.jobs import SUFFIX, parse_job, read_job_file

__all__ = ["verifier", "verify_run"]


def verify_run(
    opened: OpenWorkspace, prefix: str, *, should_stop: Callable[[], bool], now: Callable[[], datetime]
) -> Verification:
    """Reads a run's messages back, compares each with what was sent, and stores the answer in the ledger.

    Args:
        opened: The workspace.
        prefix: The run's id, or its beginning.
        should_stop: Checked between two blocks of messages.
        now: The clock, aware UTC.

    Raises:
        ConfigError: It has not ended, or acknowledged nothing, or its single sends are no longer known, or its cluster is not in connections.json any more.
        BrokerUnavailable, NotAuthorised: The topic cannot be read.
    """
    run = opened.ledger.run(prefix)
    if run.finished_at is None or not run.topic or not run.acknowledged:
        why = "it has not ended" if run.finished_at is None else "it acknowledged no message"
        raise ConfigError(f"run {run.run_id} cannot be verified", why=why if run.topic else "it wrote a file")
    if not run.sent:
        raise ConfigError(
            f"run {run.run_id} sent nothing itself",
            why="an earlier attempt had sent its rows exactly once",
            remedy=f"python -m core verify {run.of_run}" if run.of_run else "",
        )
    require_known(opened, [run.run_id], f"run {run.run_id} cannot be verified")
    cluster, job = cluster_of_run(opened, run), _job_of(opened, run)
    check = verifier(
        cluster,
        opened.workspace.spool_dir,
        "full",
        should_stop,
        now,
        keys=key_comparison(job, cluster) if job else None,
    )
    found = check(SentRange(run.run_id, run.topic, run.cluster_id, run.topic_id, run.partitions, run.acknowledged))
    opened.ledger.add_verification(found)
    return found


def verifier(
    cluster: Cluster,
    spool_dir: Path,
    mode: VerifyMode,
    should_stop: Callable[[], bool],
    now: Callable[[], datetime],
    *,
    keys: KeyComparison | None = None,
) -> Callable[[SentRange], Verification]:
    """Returns a function that reads a run's messages back from this cluster; see `core.run.verification.verify`.

    Raises:
        ConfigError: confluent-kafka, which reads them, is not installed or cannot log in.
    """
    try:
        from core.kafka.librdkafka import can_log_in, require_gssapi
        from core.run.verification import verify
    except ImportError:
        raise ConfigError(
            "messages cannot be read back without confluent-kafka",
            why="it is not installed on this machine",
            remedy='install it, or set "verify": "none"',
        ) from None
    if not can_log_in(cluster):
        require_gssapi(cluster)  # before the first message, not after the last
    return lambda sent: verify(sent, cluster, spool_dir, mode, now=now, should_stop=should_stop, keys=keys)


def _job_of(opened: OpenWorkspace, run: Run) -> Job | None:
    """Returns the job as it was when it ran; if that version is not known: as it is now; None: it was deleted."""
    version = opened.ledger.job_versions.get(run.job, run.job_sha256) if run.job_sha256 else None
    with suppress(ConfigError):  # deleted, or written by a version of the product with other keys
        if version is not None:
            return parse_job(opened.workspace.queries_dir / f"{run.job}{SUFFIX}", version.document)
        return read_job_file(opened.workspace, run.job).job
    return None
