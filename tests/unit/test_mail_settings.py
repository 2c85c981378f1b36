"""The mail server's settings: a test with typed values sends and saves nothing; saving is all or none."""

from datetime import UTC, datetime

import pytest

from core.admin.edit_settings import _BY_RUNNER, setting_applies
from core.admin.mail_settings import save_mail_settings, send_test_with
from core.app import App
from core.errors import AccessRefused, ConfigError, NotDelivered
from core.workspace.settings import SETTING_NAMES, load_settings
from tests.rigs.callers import caller
from tests.rigs.smtp import MailRig
from tests.rigs.workspace import ROOT

NOW = datetime(2026, 1, 17, tzinfo=UTC)
ADMIN = caller("anna", "admin")
ENV = "PSTT_SMTP_HOST=old.example.com\nPSTT_WORKERS=2\n"


@pytest.fixture
def opened(tmp_path):
    (tmp_path / ".env").write_text(ENV, encoding="utf-8")
    with App.open(tmp_path, {}, log=False) as app:
        yield app


@pytest.fixture
def rig():
    with MailRig() as made:
        yield made


def typed(rig: MailRig, **more: str | None) -> dict[str, str | None]:
    server = {"PSTT_SMTP_HOST": "127.0.0.1", "PSTT_SMTP_PORT": str(rig.port), "PSTT_SMTP_SECURITY": "none"}
    return {**server, "PSTT_SMTP_USERNAME": None, "PSTT_MAIL_FROM": "pstt@example.com", **more}


def test_a_test_uses_the_typed_values_and_saves_nothing(opened, rig):
    result = send_test_with(opened, typed(rig), password=None, to=["a@example.com"], caller=ADMIN, now=NOW)
    assert result.delivered == ["a@example.com"]
    assert [mail["To"] for mail in rig.inbox.mails] == ["a@example.com"]
    assert opened.workspace.env_file.read_text(encoding="utf-8") == ENV
    (entry,) = opened.ledger.audit.entries()
    assert (entry.action, entry.after) == ("test mail", {"to": ["a@example.com"], "host": "127.0.0.1"})


def test_a_server_that_is_away_is_an_answer(opened, rig):
    values = typed(rig, PSTT_SMTP_PORT="1")
    with pytest.raises(NotDelivered, match=r"127\.0\.0\.1:1"):
        send_test_with(opened, values, password=None, to=["a@example.com"], caller=ADMIN, now=NOW)


def test_only_an_admin_sends_to_a_server_of_his_choice(opened, rig):
    operator = caller("olga", "operator")
    with pytest.raises(AccessRefused):
        send_test_with(opened, typed(rig), password=None, to=["a@example.com"], caller=operator, now=NOW)
    with pytest.raises(AccessRefused):
        save_mail_settings(opened, typed(rig), {}, password=None, keep_in="", caller=operator, now=NOW)
    assert rig.inbox.mails == []


def test_saved_together_with_the_password_as_a_secret(opened, rig):
    values = typed(rig, PSTT_SMTP_SECURITY=None, PSTT_SMTP_USERNAME="pstt")
    save_mail_settings(opened, values, {}, password="s3cret", keep_in="file:secrets/smtp", caller=ADMIN, now=NOW)
    text = opened.workspace.env_file.read_text(encoding="utf-8")
    assert "s3cret" not in text
    assert "PSTT_WORKERS=2" in text
    assert (opened.workspace.root / "secrets" / "smtp").read_text(encoding="utf-8").strip() == "s3cret"
    saved = load_settings(opened.workspace, {})
    assert (saved.PSTT_SMTP_HOST, saved.PSTT_SMTP_USERNAME) == ("127.0.0.1", "pstt")
    assert saved.PSTT_SMTP_PASSWORD.get_secret_value() == "file:secrets/smtp"
    assert all("s3cret" not in str(entry) for entry in opened.ledger.audit.entries())


def test_a_user_that_is_taken_away_takes_the_password_with_it(opened, rig):
    values = typed(rig, PSTT_SMTP_SECURITY=None, PSTT_SMTP_USERNAME="pstt")
    save_mail_settings(opened, values, {}, password="s3cret", keep_in="file:secrets/smtp", caller=ADMIN, now=NOW)
    with App.open(opened.workspace.root, {}, log=False) as again:
        save_mail_settings(again, typed(rig), {}, password=None, keep_in="", caller=ADMIN, now=NOW)
    assert load_settings(opened.workspace, {}).PSTT_SMTP_PASSWORD is None


@pytest.mark.parametrize(
    ("more", "password", "words"),
    [
        ({"PSTT_SMTP_PORT": "no"}, None, "PSTT_SMTP_PORT is not valid"),
        ({"PSTT_MAIL_FROM": None}, None, "PSTT_MAIL_FROM is missing"),
        ({"PSTT_SMTP_USERNAME": "x"}, None, "belong together"),
        ({"PSTT_SMTP_USERNAME": "x"}, "p", "PSTT_SMTP_SECURITY is none"),
        ({"PSTT_WORKERS": "3"}, None, "is no setting of the mail server"),
    ],
)
def test_what_does_not_fit_together_is_refused_and_nothing_is_written(opened, rig, more, password, words):
    values = typed(rig, **more)
    with pytest.raises(ConfigError, match=words):
        save_mail_settings(opened, values, {}, password=password, keep_in="file:secrets/x", caller=ADMIN, now=NOW)
    with pytest.raises(ConfigError, match=words):
        send_test_with(opened, values, password=password, to=["a@example.com"], caller=ADMIN, now=NOW)
    assert opened.workspace.env_file.read_text(encoding="utf-8") == ENV
    assert not (opened.workspace.root / "secrets").exists()


def test_what_the_runner_reads_when_it_starts_says_so():
    """Of the files that only the runner imports; runs open the settings anew."""
    files = [*(ROOT / "core" / "scheduler").glob("*.py"), ROOT / "core" / "notify" / "smtp.py"]
    files.append(ROOT / "core" / "notify" / "wiring.py")
    text = "".join(file.read_text(encoding="utf-8") for file in files)
    read = {name for name in SETTING_NAMES if f"settings.{name}" in text}
    assert len(read) > 15
    assert {name for name in read if not setting_applies(name).startswith("runner")} == set()
    assert set(SETTING_NAMES) >= _BY_RUNNER
