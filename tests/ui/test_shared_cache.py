"""Answers that many callers ask for are computed once; responses leave without delay."""

from __future__ import annotations

import asyncio
import socket
import threading
from asyncio import base_events
from concurrent.futures import ThreadPoolExecutor

import pytest

from core.errors import LedgerBusy
from tests.rigs.waiting import until
from ui.cache import SharedCache
from ui.no_delay import send_without_delay


def asyncio_run(coroutine):
    with ThreadPoolExecutor(1) as apart:  # the browser's driver keeps a loop in this thread
        return apart.submit(asyncio.run, coroutine).result(30)


@pytest.fixture
def clock(monkeypatch):
    """A clock that the test moves."""
    now = [1000.0]
    monkeypatch.setattr("ui.cache.time.monotonic", lambda: now[0])
    return now


def test_an_answer_is_computed_again_when_it_is_old_and_after_a_clear(clock):
    asked = []
    known = SharedCache(lambda key: asked.append(key) or len(asked), fresh_s=60, stale_s=60)
    assert [known.get("a"), known.get("a"), known.get("b")] == [1, 1, 2]
    clock[0] += 59
    assert known.get("a") == 1
    clock[0] += 2
    assert known.get("a") == 3
    known.clear()
    assert known.get("a") == 4


def test_an_error_is_cached_for_its_own_time(clock):
    tries = []

    def find(key):
        tries.append(key)
        if len(tries) < 3:
            raise LedgerBusy("held")
        return "read"

    known = SharedCache(find, fresh_s=60, stale_s=60, error_s=5)
    for _ in range(2):
        with pytest.raises(LedgerBusy):
            known.get("a")
    assert len(tries) == 1
    clock[0] += 6
    with pytest.raises(LedgerBusy):
        known.get("a")
    clock[0] += 6
    assert known.get("a") == "read"
    clock[0] += 59
    assert (known.get("a"), len(tries)) == ("read", 3)


def test_a_stale_answer_is_returned_at_once_and_computed_again_in_a_thread(clock):
    computed, go_on = [], threading.Event()

    def find(key):
        computed.append(threading.current_thread())
        assert len(computed) == 1 or go_on.wait(10)
        return len(computed)

    known = SharedCache(find, fresh_s=60, stale_s=900)
    assert known.get("a") == 1
    clock[0] += 61
    assert [known.get("a"), known.get("a"), asyncio_run(known.get_async("a"))] == [1, 1, 1]
    go_on.set()
    until(lambda: known.get("a") == 2, "the new answer")
    assert len(computed) == 2
    assert computed[1] is not threading.current_thread()
    clock[0] += 901
    assert known.get("a") == 3
    assert computed[2] is threading.current_thread()


def test_an_old_error_is_not_returned(clock):
    answers = [LedgerBusy("held"), "read"]

    def find(_key):
        answer = answers.pop(0)
        if isinstance(answer, LedgerBusy):
            raise answer
        return answer

    known = SharedCache(find, fresh_s=60, stale_s=900, error_s=5)
    with pytest.raises(LedgerBusy):
        known.get("a")
    clock[0] += 6
    assert known.get("a") == "read"


def test_one_of_many_simultaneous_callers_computes():
    begun, go_on, asked = threading.Event(), threading.Event(), []

    def find(key):
        asked.append(key)
        begun.set()
        assert go_on.wait(10)
        return "found"

    known = SharedCache(find, fresh_s=60, stale_s=60)
    answers: list[str] = []
    visitors = [threading.Thread(target=lambda: answers.append(known.get("a"))) for _ in range(8)]
    for visitor in visitors:
        visitor.start()
    assert begun.wait(10)
    go_on.set()
    for visitor in visitors:
        visitor.join(10)
    assert (answers, asked) == (["found"] * 8, ["a"])


def test_a_connection_sends_at_once_however_its_socket_was_made(monkeypatch):
    monkeypatch.setattr(base_events, "_set_nodelay", base_events._set_nodelay)
    send_without_delay()

    async def sends_at_once() -> int:
        seen: asyncio.Future[int] = asyncio.get_running_loop().create_future()

        async def met(_reader, writer):
            connection = writer.get_extra_info("socket")
            seen.set_result(connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))
            writer.close()

        bound = socket.socket(socket.AF_INET, socket.SOCK_STREAM)  # as Streamlit makes it: the protocol is not named
        bound.bind(("127.0.0.1", 0))
        async with await asyncio.start_server(met, sock=bound):
            _, writer = await asyncio.open_connection(*bound.getsockname())
            found = await asyncio.wait_for(seen, 10)
            writer.close()
            await writer.wait_closed()
            return found

    assert asyncio_run(sends_at_once()) != 0
