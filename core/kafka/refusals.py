"""Why a broker refuses a record or a record batch: its response is a bare code, the reason is in the topic's settings."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from core.errors import BatchRefused, BatchTooLarge, MessageRefused, MessageTooLarge, PsttError, RetriesExhausted
from core.kafka.diagnosis import BrokerObjection, Diagnosis
from core.kafka.topic_settings import topic_settings
from core.model.connection import Cluster
from core.model.publisher import Batch

__all__ = ["Refusals", "TopicLimits"]

ASKED_AGAIN_S = 60.0
"""Settings may be corrected while the process runs."""
ASK_TIMEOUT_S = 5.0
FRAMING_BYTES = 100
"""What a record batch holds beside its records: 61 bytes, and some that the clients do not count."""
RECORD_BYTES = 30
"""The most that a record holds beside key, value and headers, if those are short."""


@dataclass(frozen=True, slots=True)
class TopicLimits:
    """What a topic accepts. None: this account may not read its settings (DescribeConfigs)."""

    largest_bytes: int | None = None
    """The largest record batch."""
    largest_by: str = ""
    """The setting that limits it."""
    is_compacted: bool | None = None
    times: str = ""
    """`message.timestamp.before.max.ms=…, message.timestamp.after.max.ms=…`."""
    checked_by: str = ""
    """The setting by which the broker validates records against a schema; empty: none that is known."""

    @classmethod
    def of(cls, settings: Mapping[str, str]) -> TopicLimits:
        """Returns what the settings of a topic, by name, allow."""
        limits = [(int(settings[name]), name) for name in ("max.message.bytes", "segment.bytes") if name in settings]
        largest, by = min(limits, default=(None, ""))
        policy = settings.get("cleanup.policy")
        times = [
            f"{name}={value}"
            for name, value in settings.items()
            if name.startswith("message.timestamp.") and name.endswith("max.ms")
        ]
        checks = [
            name
            for name, value in settings.items()
            if "schema" in name and name.endswith("validation") and value == "true"
        ]
        return cls(
            largest, by, None if policy is None else "compact" in policy, ", ".join(sorted(times)), ", ".join(checks)
        )


class Refusals:
    """Creates the errors for refused records of one cluster.

    Args:
        cluster: Asked for a topic's settings when it refuses something, at most once a minute.
        diagnosis: Names the cluster.
        clock: Monotonic seconds.
    """

    def __init__(self, cluster: Cluster, diagnosis: Diagnosis, clock: Callable[[], float]) -> None:
        self._cluster = cluster
        self._diagnosis = diagnosis
        self._clock = clock
        self._topic_limits: dict[str, tuple[float, TopicLimits]] = {}
        self._made: dict[tuple[str, str, bool, bool], MessageRefused] = {}

    def limits_of(self, topic: str) -> TopicLimits:
        """Returns the topic's settings; empty ones if they cannot be read."""
        asked_at, known = self._topic_limits.get(topic, (0.0, None))
        if known is None or self._clock() - asked_at > ASKED_AGAIN_S:
            known = self._asked(topic)
            self._topic_limits[topic] = self._clock(), known
            self._made.clear()
        return known

    def together(self, topic: str) -> BatchRefused:
        """Returns the error for a message whose record batch was refused because of one of its records, perhaps another one."""
        return BatchRefused(
            f'topic "{topic}" of {self._diagnosis.place} refuses a record batch',
            why="one of its records is not accepted",
            remedy="look at the settings of the topic",
        )

    def in_transaction(self, batch: Batch, index: int, words: str, said: BrokerObjection) -> PsttError:
        """Returns the error for a message of a refused record batch within a transaction, where nothing is retried.

        Clients report one error for all of them, so the faulty one is found by what the topic requires: a key, or a time.
        """
        is_compacted = self.limits_of(batch.topic).is_compacted
        has_key = batch.keys[index] is not None
        if said != "other" and (is_compacted is False or not has_key or said in ("time", "policy")):
            return self.record(batch, index, words, said)
        return RetriesExhausted(
            f'a message for topic "{batch.topic}" of {self._diagnosis.place} was not taken',
            why="the broker refused a record of its batch, and the transaction is void",
            remedy="look at cleanup.policy (compact wants a key: message_key_field) and message.timestamp.* of the topic",
        )

    def record(self, batch: Batch, index: int, words: str, said: BrokerObjection = "record") -> MessageRefused:
        """Returns the error for a record that the broker refuses by itself.

        Args:
            batch: The record's batch.
            index: The record's index in it.
            words: The client's own text.
            said: What the broker objects to, as far as its code shows.
        """
        topic, has_key = batch.topic, batch.keys[index] is not None
        topic_limits = self.limits_of(topic)
        has_time = batch.timestamp_ms(index) is not None
        made = self._made.get((topic, words, has_key, has_time))
        if made is None:
            what = f'topic "{topic}" of {self._diagnosis.place} refuses a message'
            if said == "policy":
                made = MessageRefused(
                    what,
                    why=self._diagnosis.scrub(words),
                    remedy="look at the policies of the cluster, or of the proxy in front of it",
                )
            elif not has_key and topic_limits.is_compacted is not False and said == "record":
                made = self._without_key(what, topic_limits)
            elif topic_limits.checked_by and said == "record":
                made = MessageRefused(
                    what,
                    why=f"it does not pass the broker's check of schemas ({topic_limits.checked_by}=true)",
                    remedy="have that setting of the topic turned off, or send to another topic: messages are JSON without a schema id",
                )
            else:
                made = self._out_of_time(what, topic_limits, words, is_certain=said == "time", is_of_row=has_time)
            self._made[topic, words, has_key, has_time] = made
        return made

    def size(self, batch: Batch, index: int) -> MessageTooLarge:
        """Returns the error for a message that exceeds the broker's limit by itself."""
        topic_limits = self.limits_of(batch.topic)
        limit = "over max.message.bytes of the topic or message.max.bytes of the broker"
        if topic_limits.largest_bytes is not None:
            limit = f"over {topic_limits.largest_by}={topic_limits.largest_bytes:,} of the topic"
        return MessageTooLarge(
            f'a message of {_record_bytes(batch, index):,} bytes is too large for topic "{batch.topic}" of {self._diagnosis.place}',
            why=f"it is {limit}",
            remedy="shorten the row, or have that limit raised",
        )

    def size_together(self, topic: str) -> BatchTooLarge:
        """Returns the error for a message whose record batch exceeds the broker's limit."""
        return BatchTooLarge(
            f'a record batch is too large for topic "{topic}" of {self._diagnosis.place}',
            why="it is over max.message.bytes of the topic or message.max.bytes of the broker",
            remedy="have that limit raised, or set KAFKA_BATCH_SIZE below it",
        )

    def size_in_transaction(self, batch: Batch, index: int, batch_size_bytes: int) -> PsttError:
        """Returns the error for a message of a record batch above the broker's limit within a transaction, where nothing is retried."""
        largest = self.limits_of(batch.topic).largest_bytes or batch_size_bytes
        if _record_bytes(batch, index) + FRAMING_BYTES > largest:
            return self.size(batch, index)
        together = self.size_together(batch.topic)
        final = RetriesExhausted(
            together.what, why=f"{together.why}, and the transaction is void", remedy=together.remedy
        )
        final.__cause__ = together
        return final

    def smaller(self, topic: str, batch_size_bytes: int) -> int:
        """Returns the record batch size for a topic that refused some batches of `batch_size_bytes`."""
        largest = self.limits_of(topic).largest_bytes
        if largest is not None and largest - FRAMING_BYTES < batch_size_bytes:
            return max(largest - FRAMING_BYTES, 1)
        return max(batch_size_bytes // 2, 1)

    def _asked(self, topic: str) -> TopicLimits:
        try:
            found = topic_settings(self._cluster, topic, timeout_s=ASK_TIMEOUT_S)
        except (PsttError, ImportError):  # without confluent-kafka a topic's settings cannot be read
            return TopicLimits()
        return TopicLimits.of({setting.name: setting.value for setting in found})

    @staticmethod
    def _without_key(what: str, topic_limits: TopicLimits) -> MessageRefused:
        why = "it has no key, and the topic is compacted (cleanup.policy=compact)"
        if topic_limits.is_compacted is None:
            why = "it has no key, which a compacted topic (cleanup.policy=compact) does not take"
        return MessageRefused(
            f"{what} without a key",
            why=why,
            remedy="give each message a key (message_key_field in the job's kafka_config), or have cleanup.policy of the topic set to delete",
        )

    def _out_of_time(
        self, what: str, topic_limits: TopicLimits, words: str, *, is_certain: bool, is_of_row: bool
    ) -> MessageRefused:
        limits = topic_limits.times or "message.timestamp.before.max.ms, message.timestamp.after.max.ms"
        surely = "" if is_certain else "most likely "
        if is_of_row:
            return MessageRefused(
                what,
                why=f"{self._diagnosis.scrub(words)}; {surely}its time, which comes from timestamp_field, is outside the topic's limits ({limits})",
                remedy="have those limits raised, or leave kafka_config.timestamp_field out of the job",
            )
        return MessageRefused(
            what,
            why=f"{self._diagnosis.scrub(words)}; {surely}its time, which is this machine's clock, is outside the topic's limits ({limits})",
            remedy="compare this machine's clock with the broker's, or have those limits raised or message.timestamp.type set to LogAppendTime",
        )


def _record_bytes(batch: Batch, index: int) -> int:
    """Returns about how many bytes the record takes in an uncompressed record batch."""
    headers = sum(len(name) + len(value) + 2 for name, value in batch.headers_of(index))
    return len(batch.values[index] or b"") + len(batch.keys[index] or b"") + headers + RECORD_BYTES
