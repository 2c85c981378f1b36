"""What `exactly_once` writes beside its messages, so that a later attempt knows what was sent: names and markers.

A cluster is shared by workspaces, and a workspace changes: a marker says whose it is (the identity of the workspace) and
what was sent (environment, connection, topic, cluster, query, parameters). Only one that fits makes a run green.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TypeVar

import msgspec

from core.clock import iso_utc
from core.errors import RunFailed
from core.model.publisher import TopicState
from core.model.run import Plan, Run
from core.records.ledger import Ledger
from core.workspace.identity import Identity

__all__ = ["ExactlyOnce", "Holder", "Marker", "foreign_holder"]

_Struct = TypeVar("_Struct", bound=msgspec.Struct)


class Holder(msgspec.Struct, frozen=True):
    """Who was the last to commit a transaction under an identity: kept on the control topic with the identity as key."""

    run: str
    host: str
    path: str
    at: str


class Marker(msgspec.Struct, frozen=True):
    """That a run was sent, as a message of its own transaction. Empty: not told, as by markers of earlier versions."""

    run: str
    rows: int
    """Messages."""
    sha256: str
    """Over the message ids, in order."""
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


@dataclass(frozen=True, slots=True)
class ExactlyOnce:
    """What is sent once: the messages of one plan of one workspace."""

    plan: Plan
    identity: Identity
    environment: str
    """Of the plan's database connection."""
    cluster_key: str
    """Of the plan's cluster in `kafka_connections`; empty: that of the KAFKA_* settings."""
    folder: Path
    """`.pstt/pending`."""

    @property
    def transactional_id(self) -> str:
        """The same for every run of this job to this topic; no other workspace's. Neither names can hold a slash."""
        return f"pstt-{self.plan.job.slug}/{self.plan.topic}/{self.environment}/{self.identity.id}"

    @property
    def key(self) -> bytes:
        """The marker's. Topic, environment and query are in its value, so that a change of them is noticed."""
        repeat = f"#{self.plan.repeat}" if self.plan.repeat else ""
        return f"{self.identity.id}/{self.plan.job.slug}@{iso_utc(self.plan.scheduled_at)}{repeat}".encode()

    @property
    def old_keys(self) -> tuple[bytes, ...]:
        """The marker's as earlier versions named it: the same in every workspace."""
        names = [self.plan.job.slug, self.plan.of_run]
        return tuple(f"{name}@{iso_utc(self.plan.scheduled_at)}".encode() for name in names if name)

    @property
    def holder_key(self) -> bytes:
        """Of the newest `Holder`."""
        return self.identity.id.encode()

    @property
    def keys(self) -> tuple[bytes, ...]:
        """Everything that a run has to know from the control topic."""
        return self.key, *self.old_keys, self.holder_key

    def earlier(self, found: Mapping[bytes, bytes], ledger: Ledger, state: TopicState) -> Marker | None:
        """The marker of an earlier attempt that sent what this plan would send; None: nothing was sent.

        Args:
            found: The values of `keys` on the control topic.
            ledger: Of this workspace.
            state: The plan's topic now.

        Raises:
            RunFailed: Something else was sent for the same scheduled time, or another workspace uses this identity.
        """
        for raw in (found.get(self.holder_key), found.get(self.key)):
            if raw is not None and (foreign := foreign_holder(raw, self.identity, ledger)):
                raise foreign
        if self.key in found:
            marker: Marker | None = _decoded(found[self.key], Marker)
        else:
            marker = next(filter(None, (self._old(found[key], ledger) for key in self.old_keys if key in found)), None)
        if marker is None:
            return None
        if changes := _changes(marker, self, state):
            raise self._changed(marker, changes, ledger)
        return marker

    def marker(
        self, run: Run, *, rows: int, read: int, rejected: int, sha256: str, state: TopicState, now: datetime
    ) -> bytes:
        """What is written for a run that has sent `rows` messages."""
        place = self.identity.place
        return msgspec.json.encode(
            Marker(
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
            )
        )

    def holder(self, run: Run, now: datetime) -> bytes:
        """That this workspace was the last to send under its identity."""
        place = self.identity.place
        return msgspec.json.encode(Holder(run.run_id, place.host, place.path, iso_utc(now)))

    def _old(self, raw: bytes, ledger: Ledger) -> Marker | None:
        """A marker of an earlier version, which any workspace may have written: ours is the one whose run we know.

        What it does not tell stands in that run's row.
        """
        marker = _decoded(raw, Marker)
        run = ledger.known(marker.run)
        if run is None or run.job != self.plan.job.slug:
            return None
        if self.plan.repeat and run.acknowledged:  # that one is over, and this is wanted once more
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

    def _changed(self, marker: Marker, changes: list[str], ledger: Ledger) -> RunFailed:
        is_known = ledger.known(marker.run) is not None
        return RunFailed(
            f'job "{self.plan.job.name}" has sent other rows for {self.plan.scheduled_at:%Y-%m-%d %H:%M} before, '
            "and exactly_once sends once",
            why=f"run {marker.run} sent {marker.rows:,} messages to topic "
            f'"{marker.topic}"{f" on {marker.at[:10]}" if marker.at else ""}; since then {", ".join(changes)}; '
            "nothing was sent now",
            remedy=f"python -m core show {marker.run} tells what it sent; python -m core replay {marker.run} sends the "
            "rows as they are now, beside those, in a transaction of its own"
            if is_known
            else "undo the change, or run the job for another scheduled time: this ledger does not know that run",
        )


def foreign_holder(raw: bytes, identity: Identity, ledger: Ledger) -> RunFailed | None:
    """That another workspace sends under this identity; None: it was this one.

    A run that the ledger does not know was sent here all the same when its place is ours: the ledger was begun anew.

    Args:
        raw: A `Holder`, or a `Marker`.
        identity: Of this workspace.
        ledger: Of this workspace.
    """
    holder = _decoded(raw, Holder)
    if ledger.known(holder.run) or identity.was_at(holder.host, holder.path, holder.at):
        return None
    return RunFailed(
        "another workspace sends under the identity of this one",
        why=f"run {holder.run}, sent on {holder.at[:16].replace('T', ' ')} UTC from {holder.path} on {holder.host}, is not "
        "in this ledger",
        remedy="python -m core identity copied, in the workspace that is the copy",
    )


def _changes(marker: Marker, once: ExactlyOnce, state: TopicState) -> list[str]:
    """What is not now as it was when the marker was written, in words."""
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


def _decoded(raw: bytes, kind: type[_Struct]) -> _Struct:
    try:
        return msgspec.json.decode(raw, type=kind)
    except msgspec.DecodeError as error:
        raise RunFailed(
            "a marker on the control topic cannot be read",
            why=str(error),
            remedy="something else writes to that topic: name another one by PSTT_CONTROL_TOPIC",
        ) from None
