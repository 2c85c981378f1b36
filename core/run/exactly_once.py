"""The markers that `exactly_once` writes beside its messages, from which a later attempt knows what was sent.

Several workspaces share a cluster, and a workspace changes: a marker names its owner (the identity of the workspace) and
what was sent (environment, connection, topic, cluster, query, parameters). Only one that matches makes a run green.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import TypeVar

import msgspec

from core.clock import iso_utc
from core.errors import RunFailed, StorageFailed
from core.formatting import counted
from core.model.publisher import TopicState
from core.model.run import Plan, Run
from core.model.window import Cursor
from core.records.ledger import Ledger
from core.records.merged_segments import sent_by
from core.records.send_totals import SendTotals
from core.workspace.identity import Identity

__all__ = ["ExactlyOnce", "LastSender", "SentMarker", "decoded", "foreign_sender", "same_content"]

_Struct = TypeVar("_Struct", bound=msgspec.Struct)


class LastSender(msgspec.Struct, frozen=True):
    """The last run that committed a transaction under an identity: stored on the control topic with the identity as key."""

    run: str
    host: str
    path: str
    at: str


class SentMarker(msgspec.Struct, frozen=True):
    """Proof that a run was sent, as a message of its own transaction. Empty fields: written by an earlier version."""

    run: str
    rows: int
    """Number of messages."""
    sha256: str
    """Hash of the message ids, in order."""
    read: int | None = None
    rejected: int = 0
    topic: str = ""
    topic_id: str = ""
    cluster_id: str = ""
    environment: str = ""
    connection: str = ""
    query: str = ""
    """Hash of the statements as they reached the driver."""
    parameters: str = ""
    """Hash of the values that were bound."""
    at: str = ""
    host: str = ""
    path: str = ""
    part: str = ""
    """`2/8`: the third of eight parts; empty: the whole run."""
    attempt: int = 0
    """Of the part in its run, from 1."""
    high: str = ""
    """Incremental job: the position up to which rows were read; empty: there is none."""
    high_tie: str = ""
    left_out: int = 0
    """Of a part: rows of a look-back that earlier runs had sent."""

    @property
    def moved_to(self) -> Cursor | None:
        """Where the watermark moved with this transaction; None: nowhere."""
        return Cursor(self.high, self.high_tie) if self.high else None

    @property
    def rows_read(self) -> int:
        """Rows that were read for it, also the rejected ones."""
        return self.rows + self.rejected if self.read is None else self.read

    def recorded_sends(self, folder: Path, name: str) -> SendTotals | None:
        """Returns its sends; None: not all of them are recorded.

        Args:
            folder: Where they are recorded.
            name: What the names of their segments begin with.
        """
        sends = SendTotals()
        with suppress(StorageFailed):  # `doctor` reports a damaged segment; the marker is the proof
            sends = sent_by(folder, name)
        return replace(sends, failed=0, retried=0) if sends.acknowledged == self.rows else None


@dataclass(frozen=True, slots=True)
class ExactlyOnce:
    """Identifies what is sent once: the messages of one plan of one workspace."""

    plan: Plan
    identity: Identity
    environment: str
    """The environment of the plan's database connection."""
    cluster_key: str
    """Key of the plan's cluster in `kafka_connections`; empty: that of the KAFKA_* settings."""
    folder: Path
    """`.pstt/pending`."""

    @property
    def transactional_id(self) -> str:
        """The transactional id: the same for every run of this job to this topic, different in every workspace.

        Runs of a backfill go on beside each other, so theirs ends in the scheduled time: each attempt of one time fences
        the attempt before and no other run. No part can contain a slash.
        """
        of_job = f"pstt-{self.plan.job.slug}/{self.plan.topic}/{self.environment}/{self.identity.id}"
        return f"{of_job}/{iso_utc(self.plan.scheduled_at)}" if self.plan.is_backfill else of_job

    @property
    def key(self) -> bytes:
        """Key of the marker. Topic, environment and query are in its value, so that a change of them is noticed."""
        if (
            self.plan.window and self.plan.window.moves
        ):  # all attempts from one watermark, whatever their scheduled time
            return f"{self.identity.id}/{self.plan.job.slug}@w{self.plan.window.version}".encode()
        repeat = f"#{self.plan.repeat}" if self.plan.repeat else ""
        return f"{self.identity.id}/{self.plan.job.slug}@{iso_utc(self.plan.scheduled_at)}{repeat}".encode()

    @property
    def earlier_keys(self) -> tuple[bytes, ...]:
        """Keys of the marker as earlier versions wrote it: the same in every workspace."""
        names = [self.plan.job.slug, self.plan.of_run]
        return tuple(f"{name}@{iso_utc(self.plan.scheduled_at)}".encode() for name in names if name)

    @property
    def last_sender_key(self) -> bytes:
        """Key of the newest `LastSender`."""
        return self.identity.id.encode()

    @property
    def watermark_key(self) -> bytes:
        """Key of the newest `core.run.incremental.WatermarkRecord` of the job."""
        return f"{self.identity.id}/{self.plan.job.slug}#watermark".encode()

    @property
    def parts_key(self) -> bytes:
        """Key of how the query was split (`core.run.part_markers.PartsRecord`)."""
        return self.key + b"#parts"

    def part_key(self, index: int, count: int) -> bytes:
        """Returns the key of the marker of one part."""
        return self.key + f"#{index}/{count}".encode()

    @property
    def keys(self) -> tuple[bytes, ...]:
        """All keys that a run reads from the control topic."""
        own = (self.watermark_key,) if self.plan.window else self.earlier_keys
        return self.key, *own, self.last_sender_key, self.parts_key

    def earlier(self, found: Mapping[bytes, bytes], ledger: Ledger, state: TopicState) -> SentMarker | None:
        """Returns the marker of an earlier attempt that sent what this plan would send; None: nothing was sent.

        Args:
            found: Key → value, of `keys` on the control topic.
            ledger: The ledger of this workspace.
            state: The plan's topic now.

        Raises:
            RunFailed: Something else was sent for the same scheduled time, or another workspace uses this identity.
        """
        for raw in (found.get(self.last_sender_key), found.get(self.key)):
            if raw is not None and (foreign := foreign_sender(raw, self.identity, ledger)):
                raise foreign
        if self.key in found:
            marker: SentMarker | None = decoded(found[self.key], SentMarker)
        else:
            marker = next(
                filter(
                    None, (self._of_earlier_version(found[key], ledger) for key in self.earlier_keys if key in found)
                ),
                None,
            )
        if marker is None:
            return None
        if changes := _changes(marker, self, state):
            raise self._changed_error(marker, changes, ledger)
        return marker

    def checked(self, raw: bytes, ledger: Ledger, state: TopicState) -> SentMarker:
        """Returns the marker of a part; raises as `earlier`."""
        if foreign := foreign_sender(raw, self.identity, ledger):
            raise foreign
        marker = decoded(raw, SentMarker)
        if changes := _changes(marker, self, state):
            raise self._changed_error(marker, changes, ledger)
        return marker

    def marker(
        self,
        run: Run,
        *,
        rows: int,
        read: int,
        rejected: int,
        sha256: str,
        state: TopicState,
        now: datetime,
        high: Cursor | None = None,
    ) -> bytes:
        """Returns the marker of a run that has sent `rows` messages, up to that position of its cursor, as JSON."""
        place = self.identity.place
        return msgspec.json.encode(
            SentMarker(
                run.run_id,
                rows,
                sha256,
                read,
                rejected,
                self.plan.topic,
                state.topic_id,
                state.cluster_id,
                self.environment,
                self.plan.job.connection,
                _hash_of_query(run.sql_text),
                _hash_of_values(run.parameters),
                iso_utc(now),
                place.host,
                place.path,
                high=high.value if high else "",
                high_tie=high.tie if high else "",
            )
        )

    def last_sender(self, run: Run, now: datetime) -> bytes:
        """Returns the record that this workspace was the last to send under its identity, as JSON."""
        place = self.identity.place
        return msgspec.json.encode(LastSender(run.run_id, place.host, place.path, iso_utc(now)))

    def _of_earlier_version(self, raw: bytes, ledger: Ledger) -> SentMarker | None:
        """Decodes a marker of an earlier version; None: another workspace wrote it, since our ledger does not know its run.

        Fields that it lacks are taken from that run's row in the ledger.
        """
        marker = decoded(raw, SentMarker)
        run = ledger.known(marker.run)
        if run is None or run.job != self.plan.job.slug:
            return None
        if self.plan.repeat and run.acknowledged:  # that one has ended, and this plan repeats it on purpose
            return None
        rejected = ledger.rejects.count(run.run_id)
        return msgspec.structs.replace(
            marker,
            read=marker.rows + rejected,
            rejected=rejected,
            topic=run.topic,
            topic_id=run.topic_id,
            cluster_id=run.cluster_id,
            connection=run.connection,
            query=_hash_of_query(run.sql_text) if run.sql_text else "",
            parameters=_hash_of_values(run.parameters),
            at=iso_utc(run.started_at),
        )

    def _changed_error(self, marker: SentMarker, changes: list[str], ledger: Ledger) -> RunFailed:
        is_known = ledger.known(marker.run) is not None
        return RunFailed(
            f'job "{self.plan.job.name}" has sent other rows for {self.plan.scheduled_at:%Y-%m-%d %H:%M} before, '
            "and exactly_once sends once",
            why=f"run {marker.run} sent {counted(marker.rows, 'message')} to topic "
            f'"{marker.topic}"{f" on {marker.at[:10]}" if marker.at else ""}; since then {", ".join(changes)}; '
            "nothing was sent now",
            remedy=f"python -m core show {marker.run} tells what it sent; python -m core replay {marker.run} sends the "
            "rows as they are now, beside those, in a transaction of its own"
            if is_known
            else "undo the change, or run the job for another scheduled time: this ledger does not know that run",
        )


def same_content(marker: SentMarker, other: SentMarker) -> bool:
    """Returns whether both are for the same query, values, topic and cluster."""

    def content(of: SentMarker) -> tuple[str, ...]:
        return of.topic, of.topic_id, of.cluster_id, of.environment, of.connection, of.query, of.parameters, of.part

    return content(marker) == content(other)


def foreign_sender(raw: bytes, identity: Identity, ledger: Ledger) -> RunFailed | None:
    """Returns the error that another workspace sends under this identity; None: it was this one.

    A run that the ledger does not know was sent here if host and folder are ours: the ledger was deleted since.

    Args:
        raw: A `LastSender`, or a `SentMarker`.
        identity: The identity of this workspace.
        ledger: The ledger of this workspace.
    """
    last_sender = decoded(raw, LastSender)
    if ledger.known(last_sender.run) or identity.was_at(last_sender.host, last_sender.path, last_sender.at):
        return None
    return RunFailed(
        "another workspace sends under the identity of this one",
        why=f"run {last_sender.run}, sent on {last_sender.at[:16].replace('T', ' ')} UTC from {last_sender.path} on {last_sender.host}, is not "
        "in this ledger",
        remedy="python -m core identity copied, in the workspace that is the copy",
    )


def _changes(marker: SentMarker, once: ExactlyOnce, state: TopicState) -> list[str]:
    """Returns what has changed since the marker was written, in words."""
    plan = once.plan
    changes = [
        (marker.topic, plan.topic, f'the job was given topic "{plan.topic}"'),
        (marker.cluster_id, state.cluster_id, "the cluster became another one"),
        (marker.environment, once.environment, f"the environment was changed to {once.environment}"),
        (marker.connection, plan.job.connection, f"the connection was changed to {plan.job.connection}"),
        (marker.query, _hash_of_query(plan.query.sql_text), "the SQL was changed"),
        (marker.parameters, _hash_of_values(plan.query.values), "the parameters were given other values"),
    ]
    if (marker.topic, marker.cluster_id) == (plan.topic, state.cluster_id):
        changes.append((marker.topic_id, state.topic_id, f'topic "{plan.topic}" was deleted and made again'))
    return [words for before, after, words in changes if before and after and before != after]


def _hash_of_query(sql_text: str) -> str:
    return hashlib.sha256(sql_text.encode()).hexdigest()


def _hash_of_values(values: Mapping[str, str]) -> str:
    return hashlib.sha256(msgspec.json.encode(sorted(values.items()))).hexdigest()


def decoded(raw: bytes, kind: type[_Struct]) -> _Struct:
    """Returns a record of the control topic.

    Raises:
        RunFailed: It is none.
    """
    try:
        return msgspec.json.decode(raw, type=kind)
    except msgspec.DecodeError as error:
        raise RunFailed(
            "a marker on the control topic cannot be read",
            why=str(error),
            remedy="something else writes to that topic: name another one by PSTT_CONTROL_TOPIC",
        ) from None
