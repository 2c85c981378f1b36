"""Find: every send of a key, and the message as it stands on the topic."""

import pytest

from tests.ui.conftest import SLY, cells, is_harmless, words
from ui import data

KEY = "572680000123"


def test_every_send_of_a_key_comes_with_run_place_and_outcome(worked, see):
    app = see("find", key=KEY)
    assert not app.exception
    assert f"**{KEY}**: 3 sends in 3 runs" in words(app)
    frame = app.dataframe[0].value
    assert list(frame["Run"]) == [run.run_id for run in worked.runs("export")]
    assert set(frame["Outcome"]) == {"✔ acknowledged"}
    assert set(frame["Topic"]) == {worked.topic}


def test_the_start_of_a_key_finds_those_that_begin_so(worked, see):
    app = see("find", key="57268000012")
    assert "10 keys begin with **57268000012**: 30 sends in 3 runs" in words(app)
    assert sorted(set(app.dataframe[0].value["Key"])) == [f"57268000012{digit}" for digit in range(10)]


def test_a_key_that_was_never_sent_says_so(worked, see):
    app = see("find", key=f"no such key {SLY}")
    assert "was never sent from this workspace" in words(app)
    assert is_harmless(app)


@pytest.mark.parametrize("key", ["%", "_", "' OR 1=1 --", "*", "x" * 1000, "日本語"])
def test_no_key_is_anything_but_a_key(worked, see, key):
    app = see("find", key=key)
    assert not app.exception
    assert not app.error


def test_the_message_on_the_topic_is_proven_equal(worked):
    send = data.find(KEY).sends[0]
    there = data.read_from_topic(send)
    assert there.is_equal
    assert (there.same_key, there.same_id, there.same_size, there.data_proven) == (True, True, True, True)
    assert SLY.encode() in there.message.value


def test_another_message_is_not_called_equal(worked):
    send, other = data.find(KEY).sends[0], data.find("572680000124").sends[0]
    elsewhere = send | {"partition": other["partition"], "offset": other["offset"]}
    there = data.read_from_topic(elsewhere)
    assert not there.is_equal
    assert (there.same_key, there.same_id, there.data_proven) == (False, False, False)


def test_a_single_send_is_opened_at_once_beside_what_was_sent(spoilt, see, kafka):
    topic = kafka.create_topic(partitions=1)
    sent = spoilt.command("send", topic, "one-of-a-kind", f'{{"note": "{SLY}"}}')
    app = see("find", key="one-of-a-kind")
    assert "Equal as far as can be told" in words(app)
    assert f"{topic}-0 @ {sent['offset']}" in words(app)
    assert SLY in "".join(code.value for code in app.code)
    assert is_harmless(app)


def test_a_message_that_is_gone_from_the_topic_leaves_what_was_sent(spoilt, see, kafka):
    topic = kafka.create_topic(partitions=1)
    spoilt.command("send", topic, "soon-gone", "{}")
    kafka.delete_records(topic)
    app = see("find", key="soon-gone")
    assert not app.exception
    assert "any more" in words(app)
    assert "message_id" in cells(app)


def test_without_a_key_the_box_says_what_it_does(worked, see):
    assert "every send of a key" in words(see("find"))
