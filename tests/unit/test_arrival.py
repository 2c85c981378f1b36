"""What ids and offsets alone show of messages that were acknowledged."""

from __future__ import annotations

from array import array
from typing import Any

import pytest

from core.kafka.memory import MemoryPublisher
from core.model.publisher import Batch, Delivery, LogSpan, TopicState
from core.model.run import PartitionRange
from core.records.spool import Spool
from core.run.arrival import deleted_since, lost_since


def state(topic_id: str = "a", cluster_id: str = "c", **spans: tuple[int, int]) -> TopicState:
    partitions = {int(name[1:]): LogSpan(*span) for name, span in spans.items()}
    return TopicState("t", cluster_id, "host:9092", topic_id, partitions)


def sent(first: int, last: int, count: int, partition: int = 0) -> PartitionRange:
    return PartitionRange("t", partition, first, last, count)


BEFORE = state(p0=(0, 0), p1=(0, 0))


@pytest.mark.parametrize(
    ("after", "spans", "falls", "words"),
    [
        (state("b", p0=(0, 60)), [sent(0, 59, 100)], {("t", 0): [(39, 0)]}, "made again while the run sent; partition 0 went back from offset 39 to 0; at most 40 of 100"),
        (state("b", p0=(0, 500)), [sent(0, 99, 100)], {}, "made again while the run sent; at most 100 of 100"),
        (state("", p0=(0, 60)), [sent(0, 59, 100)], {("t", 0): [(39, 0)]}, ": partition 0 went back from offset 39 to 0; at most 40 of 100"),
        (state(p0=(0, 60)), [sent(0, 59, 100)], {}, ": partition 0 gave 60 offsets to 100 messages; at most 40 of 100"),
        (state(p0=(0, 60)), [sent(0, 99, 100)], {}, ": partition 0 ends before offset 60, though 99 was acknowledged; at most 40 of 100"),
        (state(p0=(0, 60)), [sent(90, 99, 10)], {}, ": partition 0 ends before offset 60, though 99 was acknowledged; at most 10 of 10 "),
        (state(p0=(0, 100)), [sent(0, 99, 100), sent(0, 9, 10, 1)], {}, ": partition 1 is gone; at most 10 of 110"),
        (state(), [sent(0, 99, 100)], {}, ": the topic was deleted while the run sent; at most 100 of 100"),
        (state(cluster_id="d", p0=(0, 100)), [sent(0, 99, 100)], {}, ": the addresses lead to another cluster now (c before, d now)"),
        (state(**{f"p{n}": (0, 0) for n in range(5)}), [sent(0, 9, 10, n) for n in range(5)], {}, "though 9 was acknowledged; so it is with 2 other partitions; at most 50 of 50"),
    ],
)  # fmt: skip
def test_what_was_lost_is_said_with_where_and_at_most_how_much(
    after: TopicState, spans: list[PartitionRange], falls: Any, words: str
):
    lost = lost_since(BEFORE, after, spans, falls, "abc")
    assert lost is not None
    assert words in lost.text
    assert lost.remedy.startswith("python -m core replay abc ")


@pytest.mark.parametrize(
    ("before", "after", "spans"),
    [
        (BEFORE, state(p0=(0, 100)), [sent(0, 99, 100)]),
        (BEFORE, state(p0=(0, 900)), [sent(100, 899, 100)]),
        (BEFORE, state(p0=(900, 900)), [sent(100, 899, 100)]),
        (state("", p0=(0, 0)), state("b", p0=(0, 100)), [sent(0, 99, 100)]),
        (state(p0=(0, 0)), state("", "", p0=(0, 100)), [sent(0, 99, 100)]),
        (BEFORE, state("b"), []),
    ],
)
def test_what_is_no_loss_is_no_error(before: TopicState, after: TopicState, spans: list[PartitionRange]):
    if not spans:
        after = state(p0=(0, 0))
    assert lost_since(before, after, spans, {}, "abc") is None


def test_what_was_deleted_since_is_a_warning_with_the_number():
    after = state(p0=(40, 100), p1=(0, 10), p2=(50, 50))
    spans = [sent(0, 99, 100), sent(0, 9, 10, 1), sent(0, 49, 7, 2)]
    assert deleted_since(after, spans) == [
        "up to 47 messages of this run were deleted from the topic before it ended (retention, or records deleted by "
        "hand): partition 0 begins at offset 40, partition 2 begins at offset 50"
    ]
    assert deleted_since(state(p0=(0, 100)), spans) == []


def test_offsets_that_go_back_are_noticed_and_kept_by_the_spool(tmp_path):
    publisher = MemoryPublisher(partitions=1)
    spool = Spool(tmp_path, run_id="r", job="j")
    for number in (1, 2, 3):
        if number == 3:
            publisher.remake("t")
        batch = Batch(number, "t", [b"k"] * 10, [b"v"] * 10, [b"0" * 32] * 10, range(10))
        delivery = Delivery.of(batch)
        publisher.publish(delivery)
        publisher.give_up(0) if number > 3 else publisher.poll(1)
        assert delivery.offsets == array("q", range(10)) if number != 2 else delivery.offsets[0] == 10
        spool.record(delivery)
    assert spool.close().falls == {("t", 0): [(19, 0)]}
