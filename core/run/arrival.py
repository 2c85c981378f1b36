"""Decides from ids and offsets whether a run's messages can still be on their topic, and what a verification means.

Pure functions: `core.kafka` describes the topic, `core.run.verification` reads the messages.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from core.errors import MessagesLost, PsttError, VerificationFailed
from core.formatting import counted
from core.model.publisher import LogSpan, TopicState
from core.model.run import PartitionRange, Verification, VerificationProblem

__all__ = ["OffsetFalls", "SentRange", "deleted_since", "failure_of", "lost_since", "not_verified"]

OffsetFalls = Mapping[tuple[str, int], Sequence[tuple[int, int]]]
"""Topic and partition → each acknowledgement with a lower offset than the one before it: (before, then)."""
LISTED = 3
"""Partitions that an error lists one by one; the others are counted."""


@dataclass(frozen=True, slots=True)
class SentRange:
    """What a run has sent, as its ledger row says."""

    run_id: str
    topic: str
    cluster_id: str
    topic_id: str
    partitions: tuple[PartitionRange, ...]
    """Their counts are of messages whose offset is known."""
    acknowledged: int


def lost_since(
    before: TopicState, after: TopicState, sent: Sequence[PartitionRange], falls: OffsetFalls, run_id: str
) -> MessagesLost | None:
    """Returns the error of a run whose acknowledged messages cannot all be on the topic; None: they can.

    Args:
        before: The topic before the first message.
        after: The topic after the last acknowledgement.
        sent: What was acknowledged, by partition.
        falls: Where offsets went back while the run sent.
        run_id: For the remedy.
    """
    whole = _of_the_topic(before, after)
    reasons = [whole] if whole else []
    gone = [span for span in sent if span.partition not in after.partitions]
    if gone and after.partitions:
        reasons.append(_are_gone([span.partition for span in gone]))
    most = sum(span.count for span in gone)
    parts = []
    for span in (span for span in sent if span.partition in after.partitions):
        found, affected = _of_partition(
            span, after.partitions[span.partition], falls.get((span.topic, span.partition), ())
        )
        parts += [f"partition {span.partition} {found}"] if found else []
        # Messages acknowledged by the earlier topic or cluster may all be gone, whatever the offsets are.
        most += affected if found or not whole else span.count
    if not reasons and not parts:
        return None
    reasons += parts[:LISTED]
    if len(parts) > LISTED:
        more = len(parts) - LISTED
        reasons.append(f"so it is with {more} other {'partition' if more == 1 else 'partitions'}")
    acknowledged = sum(span.count for span in sent)
    return MessagesLost(
        f'topic "{before.topic}" does not hold all that was acknowledged',
        why=f"{'; '.join(reasons)}; at most {most:,} of {acknowledged:,} messages {'is' if most == 1 else 'are'} affected",
        remedy=f"python -m core replay {run_id} sends the same rows again with the same message ids",
    )


def deleted_since(after: TopicState, sent: Sequence[PartitionRange]) -> list[str]:
    """Returns warnings about messages that arrived and were deleted since, by retention or by hand."""
    found = []
    for span in sent:
        now = after.partitions.get(span.partition)
        if now is not None and span.first_offset < now.earliest:
            gone = min(now.earliest, span.last_offset + 1) - span.first_offset
            found.append((span.partition, min(gone, span.count), now.earliest))
    if not found:
        return []
    count, others = sum(count for _, count, _ in found), len(found) - LISTED
    where = ", ".join(f"partition {number} begins at offset {earliest}" for number, _, earliest in found[:LISTED])
    more = f" and {others} more {'partition' if others == 1 else 'partitions'}" if others > 0 else ""
    return [
        f"up to {counted(count, 'message')} of this run {'was' if count == 1 else 'were'} deleted from the topic before it "
        f"ended (retention, or records deleted by hand): {where}{more}"
    ]


def _of_the_topic(before: TopicState, after: TopicState) -> str:
    if before.cluster_id and after.cluster_id and before.cluster_id != after.cluster_id:
        return f"the addresses lead to another cluster now ({before.cluster_id} before, {after.cluster_id} now)"
    if not after.partitions:
        return "the topic was deleted while the run sent"
    if before.topic_id and after.topic_id and before.topic_id != after.topic_id:
        return "the topic was deleted and made again while the run sent"
    return ""


def _are_gone(partitions: Sequence[int]) -> str:
    if len(partitions) == 1:
        return f"partition {partitions[0]} is gone"
    return f"partitions {', '.join(map(str, partitions[:-1]))} and {partitions[-1]} are gone"


def _of_partition(span: PartitionRange, now: LogSpan, falls: Sequence[tuple[int, int]]) -> tuple[str, int]:
    """Returns what happened to one partition, in words, and how many of its messages are affected at most."""
    found = [f"went back from offset {high} to {low}" for high, low in falls]
    affected = sum(high - low + 1 for high, low in falls)
    offsets = span.last_offset - span.first_offset + 1
    if span.count > offsets and not falls:
        found.append(f"gave {offsets:,} {'offset' if offsets == 1 else 'offsets'} to {span.count:,} messages")
        affected += span.count - offsets
    if now.end <= span.last_offset:
        found.append(f"ends before offset {now.end}, though {span.last_offset} was acknowledged")
        affected += span.last_offset - now.end + 1
    return " and ".join(found[:LISTED]), min(affected, span.count)


def failure_of(found: Verification, topic: str, *, may_repeat: bool) -> VerificationFailed | None:
    """Returns the error of a run for the result of its verification; None: it stays green.

    Args:
        found: The result.
        topic: For the text.
        may_repeat: Whether its delivery allows a message twice.
    """
    parts = [
        (found.missing, "is missing", "are missing"),
        (found.other_content, "has another content", "have another content"),
        (0 if may_repeat else found.duplicates, "is there twice", "are there twice"),
    ]
    wrong = [f"{count:,} {one if count == 1 else many}" for count, one, many in parts if count]
    if not wrong:
        return None
    where = "; ".join(_place(unlike) for unlike in found.listed[:3])
    return VerificationFailed(
        f'topic "{topic}" was read back, and of {found.acknowledged:,} acknowledged messages {" and ".join(wrong)}',
        why=f"the first: {where}" if where else "fewer messages of this run than were acknowledged",
        remedy=f"python -m core verify {found.run_id} lists them; python -m core replay {found.run_id} sends the rows again",
    )


def not_verified(sent: SentRange, failure: PsttError) -> VerificationFailed:
    """Returns the error of a run whose job asks for verification, but whose messages could not be read back."""
    return VerificationFailed(
        f'topic "{sent.topic}" could not be read back after '
        f"{counted(sent.acknowledged, 'message')} {'was' if sent.acknowledged == 1 else 'were'} acknowledged",
        why=failure.text,
        remedy=f"python -m core verify {sent.run_id} tries again",
    )


def _place(unlike: VerificationProblem) -> str:
    key = "without a key" if unlike.key is None else f"key {unlike.key}"
    return f"{key} at partition {unlike.partition}, offset {unlike.offset}"
