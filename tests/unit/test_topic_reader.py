"""Pages of a topic, read from librdkafka's mock brokers: they speak the real protocol inside this process."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import count
from typing import Any

import pytest
from confluent_kafka import Producer

from core.errors import BrokerUnavailable, TopicMissing
from core.kafka.mock_cluster import resolved
from core.kafka.topic_list import list_topics, offsets_of_topic
from core.kafka.topic_reader import MessagePage, ReadLimits, TopicReader
from core.model.connection import Cluster

NUMBERS = count()


@dataclass
class Topic:
    """A topic of four partitions, the default of mock brokers; messages are numbered by their time."""

    cluster: Cluster
    name: str = field(default_factory=lambda: f"read-{next(NUMBERS)}")

    def put(self, *messages: dict[str, Any]) -> None:
        producer = Producer({"bootstrap.servers": self.cluster.bootstrap_servers})
        for message in messages:
            producer.produce(self.name, **{"partition": 0, **message})
        assert producer.flush(30) == 0

    def fill(self, messages: int, partitions: int = 3) -> None:
        self.put(
            *(
                {"key": f"k{n % 10}", "value": f"v{n}", "partition": n % partitions, "timestamp": 1_000_000 + n}
                for n in range(messages)
            )
        )

    def ranges(self) -> dict[int, range]:
        return {p: range(s.earliest, s.end) for p, s in offsets_of_topic(self.cluster, self.name).items()}

    def read(self, ranges: dict[int, range] | None = None, **how: Any) -> MessagePage:
        with TopicReader(self.cluster, self.name) as reader:
            return reader.page(self.ranges() if ranges is None else ranges, **how)

    def pages(self, **how: Any) -> Iterator[MessagePage]:
        rest = self.ranges()
        while rest:
            page = self.read(rest, **how)
            yield page
            rest = dict(page.rest)


@pytest.fixture(scope="module")
def cluster() -> Cluster:
    return resolved(Cluster("topic reader", "", mock_brokers=1))


@pytest.fixture
def topic(cluster) -> Topic:
    return Topic(cluster)


def values(*pages: MessagePage) -> list[str]:
    return [(message.value or b"").decode() for page in pages for message in page.messages]


@pytest.mark.parametrize("newest_first", [True, False], ids=["newest_first", "oldest_first"])
def test_pages_have_every_message_once_in_the_order_of_time_across_partitions(topic, newest_first):
    topic.fill(100)
    pages = list(topic.pages(newest_first=newest_first, limits=ReadLimits(messages=30)))
    wanted = [f"v{n}" for n in range(100)]
    assert values(*pages) == (wanted[::-1] if newest_first else wanted)
    assert [len(page.messages) for page in pages] == [30, 30, 30, 10]
    assert [page.end for page in pages] == ["full", "full", "full", "end"]


@pytest.mark.parametrize("newest_first", [True, False])
def test_a_filter_finds_each_match_and_says_when_it_stops_looking(topic, newest_first):
    topic.fill(300)
    pages = list(
        topic.pages(
            newest_first=newest_first,
            limits=ReadLimits(messages=50, examined=60),
            matches=lambda key, value, headers: key == b"k7" and headers() is None,
        )
    )
    wanted = [f"v{n}" for n in range(300) if n % 10 == 7]
    assert sorted(values(*pages)) == sorted(wanted)
    assert {page.end for page in pages[:-1]} == {"bound"}
    assert pages[-1].end == "end"
    assert sum(page.examined for page in pages) == 300
    assert max(page.examined for page in pages) <= 60 + 3 * 16


@pytest.mark.parametrize(
    ("newest_first", "odd", "wanted"), [(True, 1, "d5 odd d3 c2 c1"), (False, 999, "c1 c2 d3 odd d5")]
)
def test_a_message_with_an_odd_time_holds_nothing_back(topic, newest_first, odd, wanted):
    sent = (("c1", 0, 101), ("c2", 0, 102), ("d3", 1, 103), ("odd", 1, odd), ("d5", 1, 105))
    topic.put(*({"value": value, "partition": p, "timestamp": at} for value, p, at in sent))
    assert values(topic.read(newest_first=newest_first)) == wanted.split()


def test_only_the_offsets_asked_for_are_read(topic):
    topic.fill(30, partitions=1)
    assert values(topic.read({0: range(10, 13)})) == ["v12", "v11", "v10"]
    assert topic.read({0: range(5, 5)}).end == "end"


def test_a_message_has_its_key_headers_time_and_size(topic):
    headers = [("a", b"1"), ("a", b"\xff"), ("b", None)]
    topic.put({"key": b"\x00k", "value": "text", "headers": headers, "timestamp": 1_700_000_000_123})
    topic.put({"key": "gone", "value": None})
    tombstone, message = topic.read().messages
    assert (tombstone.key, tombstone.value, tombstone.size_bytes, tombstone.is_cut) == (b"gone", None, 0, False)
    assert (message.key, message.value, message.headers) == (b"\x00k", b"text", tuple(headers))
    assert (message.header("a"), message.header("b"), message.header("c")) == ("�", "", "")
    assert message.at == datetime(2023, 11, 14, 22, 13, 20, 123000, tzinfo=UTC)


def test_a_large_value_is_cut_and_its_size_is_known(topic):
    large = b"x" * 900_000  # mock brokers keep 5 MB of a partition
    topic.put(*({"value": large, "timestamp": n + 1} for n in range(3)), {"value": "small", "timestamp": 9})
    small, *rest = topic.read().messages
    assert (small.value, small.is_cut) == (b"small", False)
    assert [(len(message.value), message.size_bytes, message.is_cut) for message in rest] == [
        (4_096, 900_000, True)
    ] * 3
    whole = topic.read({0: range(1, 2)}, limits=ReadLimits(kept_bytes=2**31, page_bytes=2**31)).messages[0]
    assert whole.value == large


def test_a_page_keeps_only_excerpts_once_it_has_kept_enough(topic):
    topic.put(*({"value": b"y" * 50_000} for _ in range(10)))
    found = topic.read(limits=ReadLimits(page_bytes=120_000, excerpt_bytes=100)).messages
    assert sorted(len(message.value) for message in found) == [100] * 8 + [50_000] * 2
    assert {message.size_bytes for message in found} == {50_000}


def test_topics_are_listed_with_their_counts_and_searched_in_any_case(cluster, topic):
    topic.fill(12)
    found, total = list_topics(cluster, topic.name.upper())
    assert total == 1
    assert (found[0].name, found[0].partitions, found[0].messages) == (topic.name, 4, 12)
    first, count = list_topics(cluster, limit=1)
    second, _ = list_topics(cluster, limit=1, offset=1)
    assert count >= 2
    assert first != second
    assert list_topics(cluster, "nothing is called so") == ([], 0)


def test_a_topic_that_is_not_there_is_not_made_by_looking_for_it(cluster):
    with pytest.raises(TopicMissing, match="no-such-topic"):
        offsets_of_topic(cluster, "no-such-topic")
    assert list_topics(cluster, "no-such-topic") == ([], 0)


def test_a_broker_that_is_away_is_one_clear_error():
    away = Cluster("away", "127.0.0.1:9")
    with pytest.raises(BrokerUnavailable, match=r"127\.0\.0\.1:9"):
        list_topics(away, timeout_s=1)
    with pytest.raises(BrokerUnavailable, match=r"127\.0\.0\.1:9"):
        offsets_of_topic(away, "any", timeout_s=1)
