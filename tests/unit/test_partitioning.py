"""Keys are placed as Java places them, and rows are grouped in their order."""

from __future__ import annotations

import random
import secrets
import tracemalloc

import numpy as np
import pytest
from aiokafka.partitioner import murmur2 as aiokafka_murmur2
from hypothesis import given
from hypothesis import strategies as st
from kafka.partitioner.default import murmur2 as kafka_python_murmur2

from core.errors import ConfigError
from core.kafka.partitioning import group_by_partition, murmur2, partitions_of, places
from core.model.job import KafkaConfig
from tests.contract.test_publishers import JAVA_MURMUR2

keys_of_any_length = st.lists(st.binary(max_size=70), max_size=60)
keys_of_one_length = st.integers(0, 40).flatmap(lambda n: st.lists(st.binary(min_size=n, max_size=n), max_size=60))


def test_hashes_are_those_that_java_computes():
    assert murmur2(list(JAVA_MURMUR2)).astype(np.int32).tolist() == list(JAVA_MURMUR2.values())


@given(keys_of_any_length | keys_of_one_length)
def test_hashes_are_those_of_two_other_clients(keys: list[bytes]):
    ours = murmur2(keys).tolist()
    assert ours == [aiokafka_murmur2(key) & 0xFFFFFFFF for key in keys]
    assert ours == [kafka_python_murmur2(key) & 0xFFFFFFFF for key in keys]


@pytest.mark.parametrize("count", [15, 16, 17, 2_000])
@pytest.mark.parametrize("longest", [0, 3, 4, 200])
def test_many_keys_of_many_lengths(count: int, longest: int):
    keys = [secrets.token_bytes(random.randrange(longest + 1)) for _ in range(count)]
    assert murmur2(keys).tolist() == [aiokafka_murmur2(key) & 0xFFFFFFFF for key in keys]


@given(st.lists(st.none() | st.binary(), max_size=60), st.integers(1, 1_000), st.data())
def test_a_key_has_its_partition_and_a_null_key_the_sticky_one(
    keys: list[bytes | None], count: int, data: st.DataObject
):
    sticky = data.draw(st.integers(0, count - 1))
    placed = partitions_of(keys, count, sticky)
    assert placed.dtype == np.int32
    expected = [sticky if key is None else (aiokafka_murmur2(key) & 0x7FFFFFFF) % count for key in keys]
    assert placed.tolist() == expected


def test_a_huge_key_among_short_ones_takes_little_memory():
    keys = [b"key-%d" % number for number in range(2_000)]
    keys[1_234] = secrets.token_bytes(200_000)
    tracemalloc.start()
    try:
        placed = partitions_of(keys, 12, 0)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 8 << 20, "a matrix of all keys would take 400 MB"
    assert placed.tolist() == [(aiokafka_murmur2(key) & 0x7FFFFFFF) % 12 for key in keys]


def test_a_key_that_is_not_bytes_is_refused():
    with pytest.raises(TypeError):
        partitions_of([b"a", 5], 3, 0)  # type: ignore[list-item]


@given(
    st.sampled_from([1, 2, 6, 1_000, 70_000]).flatmap(
        lambda count: st.tuples(st.just(count), st.lists(st.integers(0, count - 1)))
    )
)
def test_rows_are_grouped_in_their_order(given_: tuple[int, list[int]]):
    count, placed = given_
    expected = [(p, [row for row, q in enumerate(placed) if q == p]) for p in sorted(set(placed))]
    found = group_by_partition(np.array(placed, np.int32), count)
    assert found == expected
    assert all(type(row) is int for _, rows in found for row in rows)


def test_no_rows_have_no_groups():
    assert group_by_partition(partitions_of([], 6, 0), 6) == []


# ── partitioners of jobs ──────────────────────────────────────────────────────────────────────


@given(st.lists(st.binary(), max_size=60), st.integers(1, 1_000))
def test_a_column_places_its_rows_as_it_would_as_a_key(texts: list[bytes], count: int):
    placed = places(KafkaConfig(partitioner="column"), "t", count, range(1, len(texts) + 1), texts)
    assert placed == [(aiokafka_murmur2(text) & 0x7FFFFFFF) % count for text in texts]


def test_round_robin_goes_by_the_number_of_the_row_so_that_each_attempt_places_it_alike():
    config = KafkaConfig(partitioner="round_robin")
    assert places(config, "t", 3, range(1, 8), ()) == [0, 1, 2, 0, 1, 2, 0]
    assert places(config, "t", 3, [2, 3, 7], ()) == [1, 2, 0], "the rows between them were rejected"


def test_a_fixed_partition_has_to_be_there():
    config = KafkaConfig(partitioner="fixed", partition=2)
    assert places(config, "t", 3, range(1, 4), ()) == [2, 2, 2]
    with pytest.raises(ConfigError, match='topic "t" has no partition 2: its partitions are 0 to 1'):
        places(config, "t", 2, range(1, 4), ())
    with pytest.raises(ConfigError, match="it does not exist"):
        places(config, "t", 0, range(1, 4), ())
