"""Find: every send of a key, and the message as it is on the topic."""

import json

import pyarrow.parquet as pq
import pytest

from core.errors import ConfigError
from core.records.ledger import Ledger
from core.workspace.paths import Workspace
from tests.rigs.sweeps import sweep
from tests.ui.conftest import SLY, cells, is_harmless, words
from ui import data
from ui.data.find import compare_with_topic, find_sends

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
    send = find_sends(KEY).sends[0]
    there = compare_with_topic(send)
    assert there.is_equal
    assert (there.same_key, there.same_id, there.same_size, there.data_proven) == (True, True, True, True)
    assert SLY.encode() in there.message.value


def test_another_message_is_not_called_equal(worked):
    send, other = find_sends(KEY).sends[0], find_sends("572680000124").sends[0]
    elsewhere = send | {"partition": other["partition"], "offset": other["offset"]}
    there = compare_with_topic(elsewhere)
    assert not there.is_equal
    assert (there.same_key, there.same_id, there.data_proven) == (False, False, False)


def test_a_single_send_is_opened_at_once_beside_what_was_sent(spoilt, see, kafka):
    topic = kafka.create_topic(partitions=1)
    sent = spoilt.command("send", topic, "one-of-a-kind", f'{{"note": "{SLY}"}}')
    app = see("find", key="one-of-a-kind")
    assert "Equal as far as can be checked" in words(app)
    assert f"{topic}-0 @ {sent['offset']}" in words(app)
    assert SLY in "".join(code.value for code in app.code)
    assert "again_row" not in [button.key for button in app.button]  # no query gives it again
    assert is_harmless(app)


def test_the_row_of_a_send_is_sent_again_after_it_said_what_readers_will_see(spoilt, see):
    send = find_sends(KEY).sends[0]
    name = f"{send['run_id']}.{send['partition']}.{send['offset']}.{send['attempt']}"
    app = see("find", key=KEY, send=name).button(key="again_row").click().run()
    assert f"Only the row with the key {KEY} is sent: readers of {spoilt.topic} on Kafka Rig see its message" in words(
        app
    )
    assert spoilt.requests() == []
    app = app.button(key="confirm_replay").click().run()
    assert not app.exception
    (request,) = spoilt.requests()
    args = {"rejects_only": False, "to": "run", "keys": [KEY]}
    assert (request.kind, request.run_id, request.args) == ("replay", send["run_id"], args)
    assert "send again" in words(app)


# ── on which cluster ──────────────────────────────────────────────────────────────────────────


def change_connections(place, change):
    file = place.folder / "connections.json"
    known = json.loads(file.read_text(encoding="utf-8"))
    change(known["kafka_connections"], known)
    file.write_text(json.dumps(known), encoding="utf-8")
    data.clear_caches()


def rename(clusters, known):
    clusters["renamed"] = clusters.pop("rig") | {"name": "Another name"}
    known["default_environment"] = "renamed"
    known["connections"][0]["environment"] = "renamed"


def forget_clusters(place):
    """As an earlier version left it: no send and no run knows an id or an address."""
    for segment in Workspace(place.folder).spool_dir.glob("*.parquet"):
        table = pq.read_table(segment)
        pq.write_table(table.drop_columns(["cluster", "cluster_id", "bootstrap_servers"]), segment)
    Workspace(place.folder).metrics_file.unlink(missing_ok=True)
    with Ledger(Workspace(place.folder).ledger_file) as ledger:
        ledger._db.execute("UPDATE run SET cluster_id = '', bootstrap_servers = ''")


def test_each_send_keeps_the_id_and_the_addresses_of_its_cluster(worked):
    send, run = find_sends(KEY).sends[0], worked.runs("export")[0]
    assert len(send["cluster_id"]) == 22
    told = (send["cluster"], send["cluster_id"], send["bootstrap_servers"])
    assert told == (run.cluster, run.cluster_id, run.bootstrap_servers)
    (found, *_) = worked.command("find", KEY)["sends"]
    assert (found["cluster"], found["cluster_id"], found["bootstrap_servers"]) == told


@pytest.mark.parametrize("is_old", [False, True])
def test_a_renamed_cluster_still_finds_what_was_sent_before(spoilt, see, is_old):
    if is_old:
        forget_clusters(spoilt)
    assert compare_with_topic(find_sends(KEY).sends[0]).is_equal
    change_connections(spoilt, rename)
    assert compare_with_topic(find_sends(KEY).sends[0]).is_equal
    app = see("find", key=KEY)
    assert not app.exception


def test_a_message_sent_by_hand_is_read_from_its_own_cluster(spoilt, own_kafka):
    with_other = own_kafka(auto_create=True).plaintext

    def add(clusters, known):
        clusters["other"] = {"bootstrap_servers": with_other}

    change_connections(spoilt, add)
    sent = spoilt.command("send", spoilt.topic, "by-hand", "there", "--cluster", "other")
    (send,) = find_sends("by-hand").sends
    assert (send["cluster"], send["bootstrap_servers"]) == ("other", with_other)
    assert sent["offset"] == 0  # at which the usual cluster has another message
    there = compare_with_topic(send)
    assert (there.message.value, there.is_equal) == (b"there", True)
    forget_clusters(spoilt)
    (send,) = find_sends("by-hand").sends
    assert send["cluster"] is None
    assert compare_with_topic(send).message.value == b"there"


@pytest.mark.parametrize("is_old", sweep([False, True], always=[True]))
def test_a_cluster_that_is_not_set_up_any_more_is_named(spoilt, see, kafka, own_kafka, is_old):
    if is_old:
        forget_clusters(spoilt)
    before = find_sends(KEY).sends[0]
    elsewhere = own_kafka().plaintext

    def move(clusters, known):
        rename(clusters, known)
        clusters["renamed"]["bootstrap_servers"] = elsewhere

    change_connections(spoilt, move)
    with pytest.raises(ConfigError, match="none of those that are set up now") as caught:
        compare_with_topic(before)
    assert 'it was then called "Kafka Rig"' in caught.value.why
    assert (kafka.plaintext in caught.value.why) != is_old
    assert "add that cluster to kafka_connections again" in caught.value.remedy


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
