"""The asynchronous service over the publisher in memory: callers that wait together, are cancelled, or lose their loop."""

from __future__ import annotations

import asyncio
import gc
import threading
from collections.abc import Callable
from contextvars import ContextVar
from typing import Any

import pytest

from core.errors import (
    BrokerUnavailable,
    ConfigError,
    DeliveryTimeout,
    MessageTooLarge,
    NotAuthorised,
    RetriesExhausted,
    RunFailed,
    StorageFailed,
)
from core.kafka.async_service import AsyncKafkaService
from core.kafka.memory import MemoryPublisher
from core.kafka.service_results import BatchResult, SendResult
from core.model.connection import Cluster
from core.model.publisher import Delivery
from tests.rigs.event_loop import run_apart, run_in_loop

AWAY = BrokerUnavailable("no broker answers", why="connection refused", remedy="start it")
DENIED = NotAuthorised("not let in", why="wrong password", remedy="correct it")


def service_over(
    *publishers: MemoryPublisher, recorder: Callable[[Delivery], None] | None = None, **options: Any
) -> AsyncKafkaService:
    waiting = list(publishers)
    cluster = Cluster("library", "memory", retry_backoff_ms=1, max_retries=2)
    return AsyncKafkaService(cluster, recorder=recorder, publisher=lambda _: waiting.pop(0), **options)


def send_all(service: AsyncKafkaService, keys: list[str], value: Any = "v") -> Any:
    """Sends a message for each key, and awaits all of them together; an error is in the place of its result."""
    return asyncio.gather(*(service.send_message("orders", key, value) for key in keys), return_exceptions=True)


async def until(condition: Callable[[], object]) -> None:
    while not condition():
        await asyncio.sleep(0)


class SlowToGreet(MemoryPublisher):
    """Waits in `brokers` until it is released."""

    released: threading.Event

    def brokers(self, timeout_s: float = 10.0) -> list[str]:
        assert self.released.wait(60)
        return super().brokers(timeout_s)


class Broken(MemoryPublisher):
    """A client with a fault that is not one of its errors."""

    def poll(self, timeout_s: float) -> int:
        raise KeyError("a fault of the client")


# ── together ──────────────────────────────────────────────────────────────────────────────────


def test_messages_of_one_turn_are_one_delivery_and_each_caller_gets_its_own_result():
    publisher, recorded = MemoryPublisher(), []

    async def main() -> list[SendResult]:
        async with service_over(publisher, recorder=recorded.append) as service:
            return await send_all(service, [str(number) for number in range(2000)])

    results = run_in_loop(main())
    stored = {(record.partition, record.offset): record for record in publisher.records["orders"]}
    assert len(stored) == len(results) == 2000
    for number, result in enumerate(results):
        record = stored[result.partition, result.offset]
        assert record.key == str(number).encode()
        assert record.headers == (("message_id", result.message_id.encode()),)
    assert [len(delivery.batch) for delivery in recorded] == [2000]


def test_more_than_a_block_is_several_deliveries():
    publisher, recorded = MemoryPublisher(), []

    async def main() -> list[SendResult]:
        async with service_over(publisher, recorder=recorded.append) as service:
            return await send_all(service, [str(number) for number in range(6000)])

    assert len({(result.partition, result.offset) for result in run_in_loop(main())}) == 6000
    assert [len(delivery.batch) for delivery in recorded] == [2500, 2500, 1000]


def test_topics_and_headers_are_kept_apart_and_a_key_keeps_its_order():
    publisher, recorded = MemoryPublisher(partitions=1), []
    sent = [("orders", f"k{number % 3}", str(number), {"job": f"j{number % 2}"}) for number in range(20)]
    sent += [("parcels", "k", "p", {}), ("orders", "k0", "last", {"job": "j0"})]

    async def main() -> None:
        async with service_over(publisher, recorder=recorded.append) as service:
            await asyncio.gather(*(service.send_message(*message) for message in sent))

    run_in_loop(main())
    found = [
        (topic, (record.key or b"").decode(), record.value.decode(), {n: v.decode() for n, v in record.headers[1:]})
        for topic in ("orders", "parcels")
        for record in publisher.records[topic]
    ]
    assert len(found) == len(sent)
    for topic, key in {(topic, key) for topic, key, _, _ in sent}:
        assert [m for m in found if m[:2] == (topic, key)] == [m for m in sent if m[:2] == (topic, key)]


def test_different_keys_share_a_delivery_for_each_set_of_headers():
    recorded: list[Delivery] = []

    async def main() -> None:
        async with service_over(MemoryPublisher(), recorder=recorded.append) as service:
            await asyncio.gather(
                *(service.send_message("orders", str(n), "v", {"job": f"j{n % 2}"}) for n in range(100))
            )

    run_in_loop(main())
    assert [len(delivery.batch) for delivery in recorded] == [50, 50]


def test_a_message_can_be_awaited_in_each_way_that_asyncio_has():
    publisher = MemoryPublisher()

    async def main() -> list[SendResult]:
        async with service_over(publisher) as service:
            found = [await service.send_message("orders", "await", "v")]
            found.append(await asyncio.wait_for(service.send_message("orders", "wait_for", "v"), 60))
            found.append(await asyncio.create_task(service.send_message("orders", "task", "v")))
            async with asyncio.TaskGroup() as group:
                task = group.create_task(service.send_message("orders", "group", "v"))
            found.append(task.result())
            return found

    assert all(isinstance(result, SendResult) for result in run_in_loop(main()))
    assert [record.key for record in publisher.records["orders"]] == [b"await", b"wait_for", b"task", b"group"]


def test_a_task_made_of_a_message_fails_with_its_error_and_can_be_cancelled():
    async def main() -> None:
        async with service_over(MemoryPublisher(fail=lambda *_: DENIED)) as service:
            with pytest.raises(NotAuthorised):
                await asyncio.create_task(service.send_message("orders", "k", "v"))
        service = service_over(MemoryPublisher(delay_s=60))
        task = asyncio.create_task(service.send_message("orders", "k", "v"))
        await until(lambda: service._queue._in_flight)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await service.close(0.0)

    run_in_loop(main())


# ── one fails ─────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("key", "value", "headers", "words"),
    [
        (5, "v", None, "a key is neither text nor bytes: it is of type int"),
        ("k\ud800", "v", None, "a key is no UTF-8 text"),
        ("k", {"x": object()}, None, "a value has no JSON form"),
        ("k", "v", {"h": 5}, 'a header "h" is neither text nor bytes'),
    ],
)
def test_a_message_that_no_client_could_take_is_refused_to_its_caller_only(
    key: Any, value: Any, headers: Any, words: str
):
    publisher = MemoryPublisher()

    async def main() -> list[Any]:
        async with service_over(publisher) as service:
            with pytest.raises(ConfigError, match=words):
                await service.send_batch("orders", [("good", "v"), (key, value)], headers=headers)
            return await asyncio.gather(
                service.send_message("orders", "before", "v"),
                service.send_message("orders", key, value, headers),
                service.send_message("orders", "after", "v"),
                return_exceptions=True,
            )

    before, refused, after = run_in_loop(main())
    assert isinstance(refused, ConfigError)
    assert isinstance(before, SendResult)
    assert isinstance(after, SendResult)
    assert {record.key for record in publisher.records["orders"]} == {b"before", b"after"}


def test_a_message_needs_a_topic_and_a_batch_needs_a_size():
    async def main() -> None:
        async with service_over(MemoryPublisher()) as service:
            with pytest.raises(ConfigError, match="needs a topic"):
                await service.send_message("", "k", "v")
            with pytest.raises(ConfigError, match="needs a topic"):
                await service.send_batch("", [("k", "v")])
            with pytest.raises(ConfigError, match="batch_size is too small: it is 0"):
                await service.send_batch("orders", [("k", "v")], batch_size=0)

    run_in_loop(main())


def test_one_message_too_large_among_many_fails_alone():
    publisher = MemoryPublisher(max_record_batch_bytes=5_000)

    async def main() -> tuple[list[Any], Any]:
        async with service_over(publisher) as service:
            values = ["x" * 6_000 if number == 700 else "v" for number in range(1000)]
            sent = await asyncio.gather(
                *(service.send_message("orders", str(n), value) for n, value in enumerate(values)),
                return_exceptions=True,
            )
            return sent, service.get_metrics()

    results, metrics = run_in_loop(main())
    assert isinstance(results.pop(700), MessageTooLarge)
    assert all(isinstance(result, SendResult) for result in results)
    assert (metrics.total_sent, metrics.failed) == (999, 1)
    assert len(publisher.records["orders"]) == 999


def test_a_batch_reports_each_failure_by_its_index_also_behind_the_first_block():
    publisher = MemoryPublisher(fail=lambda _t, key, _v, _a: DENIED if key in (b"7", b"5999") else None)

    async def main() -> tuple[BatchResult, BatchResult]:
        async with service_over(publisher) as service:
            nothing = await service.send_batch("orders", [])
            return nothing, await service.send_batch("orders", ((str(n), "v") for n in range(6000)), batch_size=7)

    nothing, result = run_in_loop(main())
    assert nothing == BatchResult(0, 0, 0, {})
    assert (result.total, result.succeeded, result.failed) == (6000, 5998, 2)
    assert result.errors == {7: str(DENIED), 5999: str(DENIED)}


def test_other_tasks_run_while_a_batch_is_turned_into_bytes():
    async def main() -> int:
        turns = 0

        async def count() -> None:
            nonlocal turns
            while True:
                turns += 1
                await asyncio.sleep(0)

        service = service_over(MemoryPublisher())
        counting = asyncio.create_task(count())
        converted = 0

        def messages() -> Any:
            nonlocal converted
            for converted in range(1, 1001):
                yield str(converted), "v"

        batch = asyncio.create_task(service.send_batch("orders", messages(), batch_size=100))
        await until(lambda: converted == 1000)
        counting.cancel()
        assert (await batch).succeeded == 1000
        await service.close()
        return turns

    assert run_in_loop(main()) >= 9


def test_a_retriable_failure_is_tried_again_and_the_last_error_says_so():
    def fail(_t: str, key: bytes | None, _v: bytes, attempt: int) -> BrokerUnavailable | None:
        return AWAY if key == b"never" or attempt < 3 else None

    async def main() -> list[Any]:
        async with service_over(MemoryPublisher(fail=fail)) as service:
            return await send_all(service, ["late", "never", "late too"])

    late, never, late_too = run_in_loop(main())
    assert isinstance(late, SendResult)
    assert isinstance(late_too, SendResult)
    assert isinstance(never, RetriesExhausted)
    assert "connection refused, handed over 3 times" in str(never)


def test_who_has_an_acknowledgement_does_not_wait_for_the_retries_of_others():
    away = threading.Event()
    away.set()
    publisher = MemoryPublisher(fail=lambda _t, key, _v, _a: AWAY if key == b"late" and away.is_set() else None)

    async def main() -> None:
        cluster = Cluster("library", "memory", retry_backoff_ms=1, max_retries=100)
        async with AsyncKafkaService(cluster, publisher=lambda _: publisher) as service:
            late, early = (service.send_message("orders", key, "v") for key in ("late", "early"))
            assert (await early).topic == "orders"
            assert not late.done()
            away.clear()
            await service.close(0.5)
            assert late.done()
            metrics = service.get_metrics()
            assert metrics.total_sent + metrics.failed == 2

    run_in_loop(main())


# ── the client or the recorder fails ──────────────────────────────────────────────────────────


def test_all_who_wait_get_the_error_when_the_client_fails_for_good_and_the_next_one_is_used():
    stuck, second = MemoryPublisher(delay_s=60), MemoryPublisher()

    async def main() -> list[Any]:
        async with service_over(stuck, second) as service:
            sending = send_all(service, ["1", "2", "3"])
            await until(lambda: stuck.in_flight == 3)
            stuck.fatal = DENIED
            failed = await sending
            await service.send_message("orders", "after", "v")
            metrics = service.get_metrics()
            assert (metrics.total_sent, metrics.failed) == (1, 3)
            return failed

    assert run_in_loop(main()) == [DENIED] * 3
    assert [record.key for record in second.records["orders"]] == [b"after"]


def test_a_fault_of_the_client_is_an_error_of_what_is_in_flight_and_not_the_end_of_the_service():
    second = MemoryPublisher()

    async def main() -> None:
        service = service_over(Broken(), second)
        failed = await send_all(service, ["1", "2"])
        assert [type(error) for error in failed] == [RunFailed, RunFailed]
        assert "KeyError: 'a fault of the client'" in str(failed[0])
        await service.send_message("orders", "after", "v")
        metrics = service.get_metrics()
        assert (metrics.total_sent, metrics.failed) == (1, 2)
        await service.close()

    run_in_loop(main())


def test_a_client_that_cannot_be_opened_is_reported_by_connect_and_by_each_message():
    def refuse(_: Cluster) -> MemoryPublisher:
        raise ConfigError("the settings cannot be used", why="no CA file")

    async def main() -> None:
        service = AsyncKafkaService(Cluster("library", "memory"), publisher=refuse)
        with pytest.raises(ConfigError, match="no CA file"):
            await service.connect()
        with pytest.raises(ConfigError, match="no CA file"):
            await service.send_message("orders", "k", "v")
        assert (await service.health_check()).error == "the settings cannot be used: no CA file"
        await service.close()
        with pytest.raises(ConfigError, match="no CA file"):
            async with AsyncKafkaService(Cluster("library", "memory"), publisher=refuse) as service:
                pass

    run_in_loop(main())
    await_end_of_threads()


@pytest.mark.parametrize(
    "failure", [StorageFailed("cannot be written", why="disk full"), ValueError("?"), StopIteration()]
)
def test_what_the_recorder_raises_reaches_those_who_sent_these_messages(failure: Exception):
    def record(delivery: Delivery) -> None:
        if delivery.batch.topic == "unlucky":
            raise failure

    async def main() -> list[Any]:
        async with service_over(MemoryPublisher(), recorder=record) as service:
            with pytest.raises(type(failure) if not isinstance(failure, StopIteration) else RuntimeError):
                await service.send_batch("unlucky", [("k", "v")])
            return await asyncio.gather(
                *(service.send_message(topic, "k", "v") for topic in ("orders", "unlucky")), return_exceptions=True
            )

    fine, unlucky = run_in_loop(main())
    assert isinstance(fine, SendResult)
    assert unlucky is failure or isinstance(unlucky.__cause__, StopIteration)


# ── cancelling and closing ────────────────────────────────────────────────────────────────────


def test_a_cancelled_caller_loses_its_result_and_nothing_else():
    publisher, recorded = MemoryPublisher(delay_s=0.05), []

    async def main() -> Any:
        async with service_over(publisher, recorder=recorded.append) as service:
            at_once = service.send_message("orders", "at once", "v")
            at_once.cancel()
            tasks = [asyncio.ensure_future(service.send_message("orders", str(n), "v")) for n in range(10)]
            batch = asyncio.create_task(service.send_batch("orders", [("in a batch", "v")]))
            await until(lambda: publisher.in_flight == 12)
            for task in (*tasks[:5], batch):
                task.cancel()
            assert all(isinstance(result, SendResult) for result in await asyncio.gather(*tasks[5:]))
        return service.get_metrics()

    metrics = run_in_loop(main())
    keys = [record.key for record in publisher.records["orders"]]
    assert sorted(keys) == sorted([b"at once", b"in a batch", *(str(n).encode() for n in range(10))])
    assert (metrics.total_sent, metrics.failed) == (12, 0)
    assert sum(delivery.acknowledged for delivery in recorded) == 12


def test_closing_waits_for_what_was_sent_and_refuses_what_comes_later():
    publisher = MemoryPublisher(delay_s=0.05)

    async def main() -> None:
        service = service_over(publisher)
        sending = send_all(service, ["1", "2"])
        await service.close()
        await service.close()
        assert [type(result) for result in await sending] == [SendResult, SendResult]
        with pytest.raises(ConfigError, match=r'service for cluster "library" is closed. make a new one'):
            await service.send_message("orders", "k", "v")
        with pytest.raises(ConfigError, match="is closed"):
            await service.send_batch("orders", [("k", "v")])
        with pytest.raises(ConfigError, match="is closed"):
            await service.connect()
        assert "is closed" in ((await service.health_check()).error or "")
        assert service.get_metrics().total_sent == 2

    run_in_loop(main())
    await_end_of_threads()


def test_closing_gives_up_what_does_not_arrive_in_its_time_also_what_was_not_published():
    recorded: list[Delivery] = []

    async def main() -> Any:
        service = service_over(MemoryPublisher(delay_s=60, max_in_flight=100), recorder=recorded.append)
        sending = [send_all(service, [str(n) for n in range(80)])]
        await until(lambda: service._queue._in_flight)
        sending.append(send_all(service, [str(n) for n in range(80)]))
        await service.close(0.0)
        for results in await asyncio.gather(*sending):
            assert [type(result) for result in results] == [DeliveryTimeout] * 80
        return service.get_metrics()

    metrics = run_in_loop(main())
    assert (metrics.total_sent, metrics.failed) == (0, 160)
    assert sum(len(delivery.errors) for delivery in recorded) == 160


def test_cancelling_close_does_not_stop_it():
    publisher = MemoryPublisher(delay_s=0.05)

    async def main() -> None:
        service = service_over(publisher)
        sending = service.send_message("orders", "k", "v")
        closing = asyncio.create_task(service.close())
        await until(lambda: service._thread._ended)
        closing.cancel()
        assert (await sending).topic == "orders"
        await service.close()

    run_in_loop(main())
    await_end_of_threads()


def test_a_service_that_nobody_closes_ends_its_thread_after_what_it_sent():
    publisher = MemoryPublisher(delay_s=0.05)

    async def main() -> SendResult:
        return await service_over(publisher).send_message("orders", "k", "v")

    assert run_in_loop(main()).topic == "orders"
    gc.collect()
    await_end_of_threads()


def test_a_service_that_was_never_used_has_no_thread():
    async def main() -> None:
        service = service_over()
        await service.close()
        with pytest.raises(ConfigError, match="is closed"):
            await service.send_message("orders", "k", "v")

    before = service_threads()
    service_over()
    run_in_loop(main())
    assert service_threads() == before


# ── the event loop ────────────────────────────────────────────────────────────────────────────


def test_the_loop_goes_on_while_the_client_waits_for_the_broker():
    publisher = SlowToGreet()
    publisher.released = threading.Event()

    async def main() -> None:
        service = service_over(publisher)
        connecting = asyncio.create_task(service.connect())
        asyncio.get_running_loop().call_later(0.01, publisher.released.set)
        await connecting
        assert (await service.health_check()).brokers == ("memory:0",)
        await service.close()

    run_in_loop(main())


def test_what_a_loop_leaves_when_it_ends_is_counted_and_the_next_loop_goes_on():
    publisher, recorded = MemoryPublisher(delay_s=0.05), []
    service = service_over(publisher, recorder=recorded.append)

    async def leave() -> None:
        send_all(service, ["1", "2", "3"])
        await asyncio.sleep(0)

    async def go_on() -> None:
        await service.send_message("orders", "4", "v")
        await service.close()

    def abandon() -> None:
        loop = asyncio.new_event_loop()
        loop.call_soon(lambda: (service.send_message("orders", "5", "v"), loop.stop()))
        loop.run_forever()
        loop.close()

    run_in_loop(leave())
    run_apart(abandon)
    run_in_loop(go_on())
    assert sorted(record.key or b"" for record in publisher.records["orders"]) == [b"1", b"2", b"3", b"4", b"5"]
    assert service.get_metrics().total_sent == 5
    assert sum(len(delivery.batch) for delivery in recorded) == 5


def test_a_second_loop_is_refused_while_the_first_one_runs():
    async def main() -> None:
        async with service_over(MemoryPublisher()) as service:
            await service.send_message("orders", "1", "v")

            async def other() -> None:
                with pytest.raises(ConfigError, match="used by two event loops: the other one still runs"):
                    await service.send_message("orders", "2", "v")

            await asyncio.to_thread(asyncio.run, other())
            await service.send_message("orders", "3", "v")
            assert service.get_metrics().total_sent == 2

    run_in_loop(main())


def service_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "kafka-service"]


def await_end_of_threads() -> None:
    for thread in service_threads():
        thread.join(30)
        assert not thread.is_alive()


# ── callbacks ─────────────────────────────────────────────────────────────────────────────────


def test_every_callback_of_a_message_is_called_once_in_its_context_unless_it_was_removed():
    called: list[str] = []
    name: ContextVar[str] = ContextVar("name", default="")

    def note(message: Any) -> None:
        called.append(f"{name.get()} {message.result().topic}")

    def removed(message: Any) -> None:
        called.append("removed")

    async def main() -> None:
        async with service_over(MemoryPublisher()) as service:
            first, second = (service.send_message("orders", key, "v") for key in "ab")
            for number, message in enumerate((first, first, second)):
                name.set(f"c{number}")
                message.add_done_callback(note)
            second.add_done_callback(removed)
            assert second.remove_done_callback(removed) == 1
            assert second.remove_done_callback(note) == 1
            third = service.send_message("orders", "c", "v")
            third.add_done_callback(removed)
            third.add_done_callback(removed)
            assert third.remove_done_callback(removed) == 2
            await asyncio.gather(first, second, third)
            name.set("late")
            first.add_done_callback(note)
            await asyncio.sleep(0)

    run_in_loop(main())
    assert called == ["c0 orders", "c1 orders", "late orders"]


def test_a_cancelled_message_calls_its_callback_and_the_others_get_their_results():
    async def main() -> tuple[list[str], list[SendResult]]:
        ended: list[str] = []
        async with service_over(MemoryPublisher()) as service:
            messages = [service.send_message("orders", key, "v") for key in "abc"]
            messages[1].add_done_callback(lambda message: ended.append(f"cancelled: {message.cancelled()}"))
            assert messages[1].cancel()
            assert not messages[1].cancel()
            await asyncio.sleep(0)
            return ended, await asyncio.gather(messages[0], messages[2])

    ended, results = run_in_loop(main())
    assert ended == ["cancelled: True"]
    assert len(results) == 2


def test_a_callback_that_raises_keeps_no_other_caller_waiting():
    reported: list[dict[str, Any]] = []

    def broken(message: Any) -> None:
        raise ValueError("a fault of the caller")

    async def main() -> list[SendResult]:
        asyncio.get_running_loop().set_exception_handler(lambda _loop, context: reported.append(context))
        async with service_over(MemoryPublisher()) as service:
            messages = [service.send_message("orders", key, "v") for key in "abc"]
            messages[0].add_done_callback(broken)
            return await asyncio.gather(*messages)

    assert len(run_in_loop(main())) == 3
    assert [str(context["exception"]) for context in reported] == ["a fault of the caller"]


def test_a_task_that_is_told_to_end_the_program_keeps_no_other_task_waiting():
    ended: list[str] = []

    async def waiting(service: AsyncKafkaService, key: str) -> None:
        await service.send_message("orders", key, "v")
        ended.append(key)
        if key == "a":
            raise KeyboardInterrupt

    def ended_by_a_task() -> BaseException | None:
        service, loop = service_over(MemoryPublisher()), asyncio.new_event_loop()
        tasks = [loop.create_task(waiting(service, key)) for key in "abc"]
        with pytest.raises(KeyboardInterrupt):
            loop.run_until_complete(asyncio.wait(tasks))
        loop.run_until_complete(asyncio.wait(tasks))
        loop.run_until_complete(service.close())
        loop.close()
        return tasks[0].exception()

    assert isinstance(run_apart(ended_by_a_task), KeyboardInterrupt)
    assert ended == ["a", "b", "c"]
