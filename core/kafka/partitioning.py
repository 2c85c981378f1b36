"""Assigns a column of messages to partitions: by key as Java's default partitioner does, or as the job wants it.

Kafka promises order per key only if every producer places a key alike. Java, librdkafka with `murmur2_random` and
kafka-python-ng hash with murmur2; here it is computed for all keys of a block at once.

Source: `Utils.murmur2` of Apache Kafka, https://github.com/apache/kafka
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from core.errors import ConfigError
from core.model.job import KafkaConfig

__all__ = ["group_by_partition", "murmur2", "partitions_of", "places"]

_Hashes = npt.NDArray[np.uint32]
_Positions = npt.NDArray[np.int64]

_SEED = 0x9747B28C
_MULTIPLIER = 0x5BD1E995
_M = np.uint32(_MULTIPLIER)
_BITS_32 = 0xFFFFFFFF
_POSITIVE = np.uint32(0x7FFFFFFF)
_WORD_BYTES = 4
_FEW_KEYS = 16
"""Below this number of keys a step of numpy costs more than the same arithmetic on Python integers."""
_TAIL_MASKS = np.array([0, 0xFF, 0xFFFF, 0xFFFFFF], np.uint32)


def partitions_of(keys: Sequence[bytes | None], partitions: int, sticky: int) -> npt.NDArray[np.int32]:
    """Returns the partition of each key.

    Args:
        keys: None is a null key.
        partitions: How many the topic has.
        sticky: The partition of null keys.
    """
    try:
        hashes = murmur2(keys)  # type: ignore[arg-type]
    except TypeError:
        rows = [row for row, key in enumerate(keys) if key is not None]
        placed = np.full(len(keys), sticky, np.int32)
        placed[rows] = _placed(murmur2([key for key in keys if key is not None]), partitions)
        return placed
    return _placed(hashes, partitions)


def places(
    config: KafkaConfig, topic: str, partitions: int, row_numbers: Sequence[int], texts: Sequence[bytes]
) -> list[int]:
    """Returns the partition of each message of a job that has another partitioner than `murmur2`.

    The same rows in the same order get the same partitions in every attempt, as long as the topic has as many.

    Args:
        config: The job's.
        topic: The topic's name, for errors.
        partitions: How many it has.
        row_numbers: Of the messages, from 1.
        texts: What `partition_field` is in each row; only for `column`.

    Raises:
        ConfigError: The topic has no such partition, or does not exist.
    """
    if not partitions:
        raise ConfigError(
            f'topic "{topic}" has no partitions', why="it does not exist", remedy="have it created, or set create_topic"
        )
    if config.partitioner == "column":
        return list(map(int, _placed(murmur2(texts), partitions)))
    if config.partitioner == "round_robin":
        return [(number - 1) % partitions for number in row_numbers]
    number = config.partition or 0
    if number >= partitions:
        raise ConfigError(
            f'topic "{topic}" has no partition {number}',
            why=f"its partitions are 0 to {partitions - 1}",
            remedy="correct kafka_config.partition of the job, or have partitions added to the topic",
            key="kafka_config.partition",
        )
    return [number] * len(row_numbers)


def murmur2(keys: Sequence[bytes]) -> _Hashes:
    """Returns Kafka's hash of each key.

    Word after word is mixed into the hashes of all keys that are so long. Keys are sorted by their number of words, the
    longest first, so that those are the first ones, and a single huge key needs no more memory than its bytes.
    """
    if not len(keys):
        return np.empty(0, np.uint32)
    lengths = np.fromiter(map(len, keys), np.int64, len(keys))
    data = np.frombuffer(b"".join((*keys, bytes(_WORD_BYTES))), np.uint8)
    words = np.ndarray((len(data) - _WORD_BYTES + 1,), "<u4", data, strides=(1,))
    """The word that begins at each byte; the padding is for those of the last key."""
    starts, counts = np.cumsum(lengths) - lengths, lengths // _WORD_BYTES
    order = None
    if counts.min() != counts.max():
        order = np.argsort(-counts, kind="stable")
        lengths, starts, counts = lengths[order], starts[order], counts[order]
    hashes = lengths.astype(np.uint32) ^ np.uint32(_SEED)
    _mix_words(hashes, words, starts, counts)
    _mix_tails(hashes, words, starts + counts * _WORD_BYTES, lengths % _WORD_BYTES)
    hashes ^= hashes >> np.uint32(13)
    hashes *= _M
    hashes ^= hashes >> np.uint32(15)
    if order is None:
        return hashes
    in_order = np.empty_like(hashes)
    in_order[order] = hashes
    return in_order


def group_by_partition(partitions: npt.NDArray[np.int32], count: int) -> list[tuple[int, list[int]]]:
    """Returns each partition that has rows, with the indexes of its rows in their order.

    Args:
        partitions: The partition of each row.
        count: How many partitions the topic has.
    """
    if not len(partitions):
        return []
    if count == 1:
        return [(int(partitions[0]), list(range(len(partitions))))]
    # numpy sorts 16-bit numbers by their digits: ten times as fast.
    order = np.argsort(partitions.astype(np.uint16) if count <= 1 << 16 else partitions, kind="stable")
    present, starts = np.unique(partitions[order], return_index=True)
    ends = [*starts[1:].tolist(), len(order)]
    rows = order.tolist()
    return [(p, rows[a:b]) for p, a, b in zip(present.tolist(), starts.tolist(), ends, strict=True)]


def _placed(hashes: _Hashes, partitions: int) -> npt.NDArray[np.int32]:
    return ((hashes & _POSITIVE) % np.uint32(partitions)).astype(np.int32)


def _mix_words(hashes: _Hashes, words: _Hashes, starts: _Positions, counts: _Positions) -> None:
    """Mixes the whole words of each key into its hash; `counts` of words are in descending order."""
    done = 0
    for reaches in np.flatnonzero(np.bincount(counts)).tolist():  # np.unique imports numpy.ma, 8 ms
        longer = int(np.searchsorted(-counts, -reaches, side="right"))
        if longer < _FEW_KEYS:
            break
        active = hashes[:longer]
        for word in range(done, reaches):
            active *= _M
            active ^= _scrambled(words[starts[:longer] + word * _WORD_BYTES])
        done = reaches
    else:
        return
    for key in range(longer):
        start, end = int(starts[key]) + done * _WORD_BYTES, int(starts[key] + counts[key] * _WORD_BYTES)
        hash_ = int(hashes[key])
        for scrambled in _scrambled(words[start:end:_WORD_BYTES].copy()).tolist():
            hash_ = (hash_ * _MULTIPLIER & _BITS_32) ^ scrambled
        hashes[key] = hash_


def _scrambled(words: _Hashes) -> _Hashes:
    """Returns what of each word goes into the hash, in the same memory."""
    words *= _M
    words ^= words >> np.uint32(24)
    words *= _M
    return words


def _mix_tails(hashes: _Hashes, words: _Hashes, starts: _Positions, lengths: _Positions) -> None:
    """Mixes the last 0 to 3 bytes of each key into its hash."""
    tails = words[starts] & _TAIL_MASKS[lengths]
    mixed = (hashes ^ tails) * _M
    np.copyto(hashes, mixed, where=lengths > 0)
