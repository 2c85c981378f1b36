"""Settings: typed, each with its origin, secrets masked everywhere, and every mistake with file, line and remedy."""

from __future__ import annotations

import json
import pickle
import sys
import traceback
from pathlib import Path

import pytest

from core.errors import ConfigError
from core.workspace.paths import Workspace
from core.workspace.settings import SETTING_NAMES, load_settings, mistyped, read_settings

SECRET = "s3cr3t-of-the-broker"


@pytest.fixture
def place(tmp_path: Path) -> Workspace:
    return Workspace(tmp_path)


def write(place: Workspace, text: str | bytes) -> None:
    place.env_file.write_bytes(text.encode() if isinstance(text, str) else text)


def problem(place: Workspace, **environ: str) -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        load_settings(place, environ)
    return caught.value


def test_without_a_file_everything_is_at_its_default(place):
    settings = load_settings(place, {})
    assert {settings.origin(name) for name in SETTING_NAMES} == {"default"}
    assert [row.name for row in settings.table()] == list(SETTING_NAMES)


@pytest.mark.parametrize(
    ("name", "default"),
    [
        ("KAFKA_COMPRESSION_TYPE", "snappy"),
        ("KAFKA_BATCH_SIZE", 16384),
        ("KAFKA_LINGER_MS", 10),
        ("KAFKA_MAX_REQUEST_SIZE", 1048576),
        ("KAFKA_REQUEST_TIMEOUT_MS", 30000),
        ("KAFKA_ENABLE_IDEMPOTENCE", True),
        ("KAFKA_RETRY_BACKOFF_MS", 100),
        ("KAFKA_MAX_IN_FLIGHT_REQUESTS", 5),
        ("KAFKA_DEFAULT_TOPIC", "pstt-data"),
        ("KAFKA_MESSAGE_BATCH_SIZE", 100),
        ("KAFKA_MAX_RETRIES", 3),
        ("KAFKA_HEALTH_CHECK_INTERVAL_SEC", 60),
        ("KAFKA_LOG_LEVEL", "INFO"),
        ("KAFKA_LOG_PAYLOAD", False),
        ("KAFKA_CLIENT", "aiokafka"),
    ],
)
def test_defaults_are_those_of_the_specification(place, name, default):
    value = getattr(load_settings(place, {}), name)
    assert value == default
    assert type(value) is type(default)


@pytest.mark.parametrize("absent", ["aiokafka", "cramjam", "google_crc32c"])
def test_without_a_library_of_aiokafka_the_default_client_is_confluent(place, monkeypatch, absent):
    monkeypatch.setitem(sys.modules, absent, None)  # as Python sees a module that is not installed
    assert load_settings(place, {}).KAFKA_CLIENT == "confluent"
    assert load_settings(place, {"KAFKA_CLIENT": "aiokafka"}).KAFKA_CLIENT == "aiokafka"


def test_the_environment_outranks_the_file_and_the_file_the_default(place):
    write(place, "\n# comment\nKAFKA_LINGER_MS=20\nKAFKA_BATCH_SIZE=2000\n")
    settings = load_settings(place, {"KAFKA_LINGER_MS": "30"})
    assert (settings.KAFKA_LINGER_MS, settings.origin("KAFKA_LINGER_MS")) == (30, "environment")
    assert (settings.KAFKA_BATCH_SIZE, settings.origin("KAFKA_BATCH_SIZE")) == (2000, ".env, line 4")
    assert (settings.KAFKA_MAX_RETRIES, settings.origin("KAFKA_MAX_RETRIES")) == (3, "default")


def test_an_empty_value_counts_as_not_given(place):
    write(place, "KAFKA_LINGER_MS=\nKAFKA_DEFAULT_TOPIC=''\n")
    settings = load_settings(place, {"KAFKA_BATCH_SIZE": ""})
    assert (settings.KAFKA_LINGER_MS, settings.KAFKA_DEFAULT_TOPIC, settings.KAFKA_BATCH_SIZE) == (
        10,
        "pstt-data",
        16384,
    )


@pytest.mark.parametrize(
    "text",
    [
        'KAFKA_DEFAULT_TOPIC="orders"',
        "KAFKA_DEFAULT_TOPIC='orders'",
        "export KAFKA_DEFAULT_TOPIC=orders",
        "KAFKA_DEFAULT_TOPIC = orders   # the topic",
        "  KAFKA_DEFAULT_TOPIC=orders",
        "KAFKA_DEFAULT_TOPIC=first\nKAFKA_DEFAULT_TOPIC=orders",
        "\ufeffKAFKA_DEFAULT_TOPIC=orders",
        "# comment\r\nKAFKA_DEFAULT_TOPIC=orders\r\n",
        "SOMETHING_ELSE=1\nOTHER_KAFKA_NAME=2\nKAFKA_DEFAULT_TOPIC=orders",
    ],
)
def test_the_usual_ways_of_writing_a_line_are_understood(place, text):
    write(place, text)
    assert load_settings(place, {}).KAFKA_DEFAULT_TOPIC == "orders"


def test_a_dollar_sign_in_a_password_stays_as_it_is(place):
    write(place, "KAFKA_SASL_PASSWORD='a$HOME${X}b'\n")
    password = load_settings(place, {"HOME": "/root"}).KAFKA_SASL_PASSWORD
    assert password is not None
    assert password.get_secret_value() == "a$HOME${X}b"


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("KAFKA_LINGER_MS\n", 1),
        ("\n\nKAFKA_LINGER_MS: 10\n", 3),
        ('A=1\r\nKAFKA_DEFAULT_TOPIC="open\n', 2),
        ("A=1\n\n= 5\n", 3),
    ],
)
def test_a_line_that_says_nothing_is_an_error_and_not_skipped(place, text, line):
    write(place, text)
    error = problem(place)
    assert (error.where, error.what) == (f".env, line {line}", "this line is not NAME=value")


@pytest.mark.parametrize("data", ["KAFKA_LINGER_MS=10".encode("utf-16"), b"A=\xff\xfe\n"])
def test_a_file_in_another_encoding_is_an_error(place, data):
    write(place, data)
    assert "cannot be read as UTF-8" in problem(place).text


def test_an_unknown_name_in_the_file_names_its_line_and_the_nearest(place):
    write(place, "A=1\nKAFKA_BOOTSTRAP_SERVER=h:9092\n")
    error = problem(place)
    assert error.text == ".env, line 2: unknown setting KAFKA_BOOTSTRAP_SERVER"
    assert error.remedy == 'did you mean "KAFKA_BOOTSTRAP_SERVERS"?'


@pytest.mark.parametrize(
    ("name", "value", "why"),
    [
        ("KAFKA_LINGER_MS", "ten", "valid integer"),
        ("KAFKA_LINGER_MS", "-1", "greater than or equal to 0"),
        ("KAFKA_ENABLE_IDEMPOTENCE", "perhaps", "valid boolean"),
        ("KAFKA_SECURITY_PROTOCOL", "TLS", "'SASL_SSL'"),
        ("KAFKA_SASL_MECHANISM", "KERBEROS", "'SCRAM-SHA-512'"),
        ("KAFKA_COMPRESSION_TYPE", "brotli", "'snappy'"),
        ("KAFKA_LOG_LEVEL", "LOUD", "'WARNING'"),
        ("KAFKA_CLIENT", "pykafka", "'kafka-python-ng'"),
        ("PSTT_TIMEZONE", "Europe/Roma", 'did you mean "Europe/Rome"?'),
    ],
)
def test_a_value_that_is_not_allowed_is_reported_with_what_is_allowed_and_its_line(place, name, value, why):
    write(place, f"\n{name}={value}\n")
    error = problem(place)
    assert error.where == ".env, line 2"
    assert name in error.what
    assert why in error.why
    place.env_file.unlink()
    error = problem(place, **{name: value})
    assert error.where == ""
    assert f"{name} is not valid (from the environment)" in error.text
    assert why in error.why


def test_all_problems_are_found_at_once(place):
    write(place, "KAFKA_FOO_BAR=1\nKAFKA_LINGER_MS=x\n")
    settings, problems = read_settings(place, {"KAFKA_BATCH_SIZE": "y"})
    assert settings is None
    assert {error.key for error in problems} == {"KAFKA_FOO_BAR", "KAFKA_LINGER_MS", "KAFKA_BATCH_SIZE"}


def test_a_mistyped_variable_of_the_environment_is_noticed_and_those_of_others_are_not():
    environ = {"KAFKA_LINGER_MSEC": "5", "KAFKA_HOME": "/opt/kafka", "KAFKA_OPTS": "-X", "PSTT_FETCH_ROW": "5"}
    environ |= {"KAFKA_LINGER_MS": "5", "PSTT_WORKSPACE": "x", "PATH": "y"}
    assert mistyped(environ) == [("KAFKA_LINGER_MSEC", "KAFKA_LINGER_MS"), ("PSTT_FETCH_ROW", "PSTT_FETCH_ROWS")]


def test_a_password_is_shown_nowhere(place):
    settings = load_settings(place, {"KAFKA_SASL_PASSWORD": SECRET})
    shown = {row.name: row.value for row in settings.table()}
    assert shown["KAFKA_SASL_PASSWORD"] == "***"
    for text in (
        repr(settings),
        str(settings),
        settings.model_dump_json(),
        json.dumps(shown),
        f"{settings.model_dump()}",
    ):
        assert SECRET not in text
    assert SECRET.encode() not in pickle.dumps(settings)
    copy = pickle.loads(pickle.dumps(settings))
    assert copy.KAFKA_SASL_PASSWORD.get_secret_value() == "***"
    assert (copy.KAFKA_LINGER_MS, copy.origin("KAFKA_SASL_PASSWORD")) == (10, "environment")


def test_a_password_is_in_no_exception(place):
    error = problem(place, KAFKA_SASL_PASSWORD=SECRET, KAFKA_LINGER_MS=SECRET)
    assert SECRET not in "".join(traceback.format_exception(error))


def test_settings_cannot_be_changed_once_read(place):
    settings = load_settings(place, {})
    with pytest.raises(ValueError, match="frozen"):
        settings.KAFKA_LINGER_MS = 5
