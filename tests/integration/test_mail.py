"""Mail through a real SMTP server: stopped, slow, refusing, with wrong certificates and passwords, and restarted."""

import ssl
from contextlib import ExitStack
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path

import pytest

from core.errors import ConfigError, NotDelivered
from core.model.connection import Secret
from core.notify.channels import channel_factory
from core.notify.delivery import MAIL
from core.notify.mail_channel import check_mail
from core.notify.notification import Notification, NotificationTable
from core.notify.outbox import Outbox, new_message
from core.notify.smtp import Mail, MailServer, connect, mail_server
from core.workspace.settings import Settings
from tests.rigs.certificates import make_certificates
from tests.rigs.smtp import MailRig, free_port

NOW = datetime(2026, 1, 17, 6, 0, tzinfo=UTC)
ANNA, CARLO = "anna@example.com", "carlo@example.com"
USER, PASSWORD = "pstt@example.com", "hunter2-in-the-rig"
NOTIFICATION = Notification(
    "✘ Export CDG: la città è «chiusa»",
    "Export CDG: 0 of 20,000 rows arrived – perché?",
    [("What", "run 7f3c2 failed"), ("Why", "a < b & c")],
    [NotificationTable("Figures", [("figure", "value"), ("rows", "0")])],
    [("python -m core show 7f3c2", "what happened")],
    "Sent by PSTT Kafka.",
)


@pytest.fixture(scope="module")
def certificates(tmp_path_factory):
    return make_certificates(tmp_path_factory.mktemp("certificates"))


@pytest.fixture
def rig(certificates):
    """Starts mail servers; returns the settings for each."""
    with ExitStack() as stack:

        def start(certificate: Path | None = certificates.server, *, implicit: bool = False, users=None) -> MailRig:
            return stack.enter_context(MailRig(certificate, implicit=implicit, users=users))

        yield start


@pytest.fixture
def server(certificates):
    """Returns the correct settings for a rig."""

    def of(rig: MailRig, **changes) -> MailServer:
        made = MailServer(
            "127.0.0.1", rig.port, "starttls", "pstt@example.com", cafile=certificates.ca_file, timeout_s=5
        )
        return replace(made, **changes)

    return of


def send(server: MailServer, *to: str):
    with connect(server) as link:
        return link.send(
            Mail(
                to or (ANNA,),
                NOTIFICATION.subject_line,
                NOTIFICATION.text,
                NOTIFICATION.html,
                NOW,
                "<pstt-1@example.com>",
            )
        )


def test_a_mail_is_read_as_plain_text_and_as_html_with_every_letter(rig, server):
    mails = rig()
    assert send(server(mails), ANNA, CARLO).delivered == [ANNA, CARLO]
    (mail,) = mails.inbox.mails
    assert mail["Subject"] == "✘ Export CDG: la città è «chiusa»"
    assert mail["To"] == "anna@example.com, carlo@example.com"
    assert mail["From"] == "PSTT Kafka <pstt@example.com>"
    assert mail["Message-ID"] == "<pstt-1@example.com>"
    assert mail["Auto-Submitted"] == "auto-generated"
    assert mails.inbox.text() == (
        "Export CDG: 0 of 20,000 rows arrived – perché?\n"
        "\n"
        "What  run 7f3c2 failed\n"
        "Why   a < b & c\n"
        "\n"
        "Figures\n"
        "  figure   value\n"
        "  rows     0\n"
        "\n"
        "Commands\n"
        "  python -m core show 7f3c2   what happened\n"
        "\n"
        "--\n"
        "Sent by PSTT Kafka.\n"
    )
    html = mails.inbox.html()
    assert "<b>Export CDG: 0 of 20,000 rows arrived – perché?</b>" in html
    assert "a &lt; b &amp; c" in html
    assert "<code>python -m core show 7f3c2</code>" in html


def test_a_mail_of_the_outbox_arrives_in_the_language_of_the_settings(tmp_path, rig, server):
    mails = rig()
    with Outbox(tmp_path / "ledger.sqlite") as outbox:
        answer = Notification(
            '✘ CRITICAL: Export CDG failed: no broker of "A" answers',
            "Everything that was due has arrived: 20,000 rows of 1 job.",
            [("Why", 'no broker of "A" answers'), ("Next", "fix that file first")],
            [NotificationTable("Figures", [("figure", "value"), ("rejected", "1,204")], has_labels=True)],
            [("python -m core show 7f3c2", "what happened, step by step")],
        )
        outbox.apply([new_message("alert", "a", MAIL, (ANNA,), answer, NOW, language="it")])
        assert outbox.deliver(lambda: NOW, channel_factory(lambda: server(mails), dict, {}, Path())) == 1
    (mail,) = mails.inbox.mails
    assert mail["Subject"] == '✘ CRITICO: Export CDG failed: nessun broker di "A" risponde'
    assert mails.inbox.text() == (
        "È arrivato tutto ciò che era previsto: 20.000 righe di 1 job.\n"
        "\n"
        'Perché         nessun broker di "A" risponde\n'
        "Che cosa fare  correggere prima quel file\n"
        "\n"
        "Cifre\n"
        "  cifra      valore\n"
        "  scartate   1.204\n"
        "\n"
        "Comandi\n"
        "  python -m core show 7f3c2   che cosa è successo, passo per passo\n"
    )
    assert '<html lang="it">' in mails.inbox.html()


def test_a_subject_of_several_lines_cannot_add_headers(rig, server):
    mails = rig()
    notification = replace(NOTIFICATION, subject="✘ Export\r\nBcc: eve@example.com\n\n" + "x" * 400)
    with connect(server(mails)) as link:
        link.send(
            Mail((ANNA,), notification.subject_line, notification.text, notification.html, NOW, "<pstt-2@example.com>")
        )
    assert mails.inbox.recipients == [[ANNA]]
    assert mails.inbox.mails[0]["Bcc"] is None
    assert len(mails.inbox.mails[0]["Subject"]) == 200


@pytest.mark.parametrize("implicit", [False, True])
def test_with_tls_and_login_the_mail_arrives(rig, server, implicit):
    mails = rig(implicit=implicit, users={USER: PASSWORD})
    chosen = server(mails, security="tls" if implicit else "starttls", username=USER, password=Secret(PASSWORD))
    assert send(chosen).delivered == [ANNA]
    assert mails.inbox.logins == [USER]


def told(server: MailServer) -> NotDelivered:
    with pytest.raises(NotDelivered) as caught:
        send(server)
    assert caught.value.is_retriable
    assert caught.value.remedy
    assert PASSWORD not in str(caught.value)
    return caught.value


@pytest.mark.parametrize("implicit", [False, True])
@pytest.mark.parametrize(
    ("which", "why"),
    [("expired", "certificate has expired"), ("wrong_host", "not valid for '127.0.0.1'"), ("unknown", "issuer")],
)
def test_a_certificate_that_is_not_right_stops_the_mail_and_says_why(rig, server, certificates, implicit, which, why):
    mails = rig(certificates.server if which == "unknown" else getattr(certificates, which), implicit=implicit)
    trusted = certificates.other_ca_file if which == "unknown" else certificates.ca_file
    error = told(server(mails, security="tls" if implicit else "starttls", cafile=trusted))
    assert error.what == f"the certificate of mail server 127.0.0.1:{mails.port} is not trusted"
    assert why in error.why
    assert "PSTT_SMTP_CAFILE" in error.remedy
    assert mails.inbox.mails == []


def test_without_a_cafile_only_the_machines_authorities_are_trusted(rig, server):
    mails = rig()
    assert "is not trusted" in told(server(mails, cafile=None)).what


def test_a_wrong_password_names_the_user_and_the_settings_to_check(rig, server):
    mails = rig(users={USER: PASSWORD})
    error = told(server(mails, username=USER, password=Secret("wrong")))
    assert error.what == f'mail server 127.0.0.1:{mails.port} refuses the user "{USER}"'
    assert error.why.startswith("535")
    assert error.remedy == "check PSTT_SMTP_USERNAME and PSTT_SMTP_PASSWORD"


def test_a_server_without_starttls_gets_no_mail_in_the_clear(rig, server):
    mails = rig(None)
    error = told(server(mails))
    assert "STARTTLS" in error.why
    assert "PSTT_SMTP_SECURITY is starttls" in error.remedy
    assert mails.inbox.mails == []
    assert send(server(mails, security="none")).delivered == [ANNA]


def test_tls_where_the_server_speaks_plain_smtp_says_so(rig, server):
    mails = rig(None)
    assert "PSTT_SMTP_SECURITY is tls" in told(server(mails, security="tls")).remedy


def test_a_server_that_is_down_says_where_it_was_looked_for(server, rig):
    mails = rig()
    mails.stop()
    error = told(server(mails))
    assert error.text == f"mail server 127.0.0.1:{mails.port} cannot be reached: Connection refused"


def test_a_name_that_nobody_knows(server, rig):
    assert "is not known by that name" in told(server(rig(), host="mail.invalid")).what


def test_a_server_that_does_not_answer_in_time(server, rig):
    mails = rig()
    mails.inbox.delay_s = 3
    error = told(server(mails, timeout_s=1))
    assert (error.what, error.why) == (f"mail server 127.0.0.1:{mails.port} does not answer", "waited 1 s")


def test_a_mail_that_is_refused_gives_the_servers_own_words(server, rig):
    mails = rig()
    mails.inbox.data_answer = "554 5.7.1 this looks like spam"
    assert told(server(mails)).text.endswith("refuses the mail: 554 5.7.1 this looks like spam")


def test_recipients_who_are_refused_do_not_take_the_mail_from_the_others(server, rig):
    mails = rig()
    mails.inbox.answers = {ANNA: "550 5.1.1 no such user", "later@example.com": "450 4.2.1 mailbox busy"}
    result = send(server(mails), ANNA, CARLO, "later@example.com")
    assert result.delivered == [CARLO]
    assert result.refused == {ANNA: "550 5.1.1 no such user"}
    assert result.later == {"later@example.com": "450 4.2.1 mailbox busy"}
    assert mails.inbox.recipients == [[CARLO]]


def test_when_all_recipients_are_refused_the_next_mail_still_leaves(server, rig):
    mails = rig()
    mails.inbox.answers = {ANNA: "550 5.1.1 no such user"}
    with connect(server(mails)) as link:
        first = Mail((ANNA,), "a", "a", "a", NOW, "<1@example.com>")
        assert link.send(first).refused == {ANNA: "550 5.1.1 no such user"}
        assert link.send(replace(first, to=(CARLO,))).delivered == [CARLO]


def test_doctor_connects_verifies_and_logs_in_without_sending(server, rig):
    mails = rig(users={USER: PASSWORD})
    good = check_mail(server(mails, username=USER, password=Secret(PASSWORD)), (ANNA,))
    assert (good.status, good.text) == (
        "pass",
        f'mail server 127.0.0.1:{mails.port} answers: STARTTLS, certificate verified, logged in as "{USER}"',
    )
    assert check_mail(server(mails, username=USER, password=Secret("wrong")), (ANNA,)).status == "fail"
    assert check_mail(None, ()).status == "warn"
    nobody = check_mail(server(mails, username=USER, password=Secret(PASSWORD)), ())
    assert (nobody.status, "but the rules have no recipient" in nobody.text) == ("warn", True)
    assert mails.inbox.mails == []


class Post:
    """An outbox, its clock, and the settings for a rig."""

    def __init__(self, outbox: Outbox, server: MailServer) -> None:
        self.outbox, self.server, self.at = outbox, server, NOW

    def put(self, key: str, *to: str) -> None:
        self.outbox.apply([new_message("alert", key, MAIL, to or (ANNA,), NOTIFICATION, self.at)])

    def deliver(self, after: timedelta = timedelta()) -> int:
        self.at += after
        ways = channel_factory(lambda: self.server, dict, {}, Path())
        return self.outbox.deliver(lambda: self.at, ways)


@pytest.fixture
def post(tmp_path, rig, server):
    mails = rig()
    with Outbox(tmp_path / "ledger.sqlite") as outbox:
        yield Post(outbox, server(mails)), mails


def test_a_server_that_is_down_delays_mail_until_it_comes_back_and_then_each_arrives_once(post):
    office, mails = post
    mails.stop()
    office.put("first")
    office.put("second")
    for _ in range(5):
        assert office.deliver(timedelta(minutes=31)) == 0
    (first, second) = office.outbox.waiting()
    assert first.tries == second.tries == 5
    assert "Connection refused" in first.last_error
    mails.start()
    assert office.deliver(timedelta(minutes=31)) == 2
    assert office.deliver(timedelta(minutes=31)) == 0
    assert len(mails.inbox.mails) == 2
    assert office.outbox.waiting() == []


def test_it_is_tried_again_ever_more_rarely_and_given_up_after_a_day(post):
    office, mails = post
    mails.stop()
    office.put("first")
    tried = []
    while office.outbox.waiting():
        before = office.outbox.waiting()[0].tries
        office.deliver()
        if not office.outbox.waiting() or office.outbox.waiting()[0].tries > before:
            tried.append((office.at - NOW).total_seconds())
        office.at += timedelta(seconds=30)
    waits = [later - earlier for earlier, later in pairwise(tried)]
    assert waits[:6] == [30, 60, 120, 240, 480, 960]
    assert set(waits[6:-1]) == {1800}
    assert tried[-1] == 24 * 3600
    (entry,) = office.outbox.given_up_since(NOW)
    assert (entry.state, entry.tries) == ("given_up", len(tried))
    mails.start()
    assert office.deliver(timedelta(days=1)) == 0


def test_who_has_it_does_not_get_it_again_and_who_is_refused_for_good_is_recorded(post):
    office, mails = post
    mails.inbox.answers = {ANNA: "550 5.1.1 no such user", "later@example.com": "450 4.2.1 mailbox busy"}
    office.put("first", ANNA, CARLO, "later@example.com")
    assert office.deliver() == 0
    (entry,) = office.outbox.waiting()
    assert (entry.delivered, entry.refused) == ((CARLO,), {ANNA: "550 5.1.1 no such user"})
    del mails.inbox.answers["later@example.com"]
    assert office.deliver(timedelta(minutes=1)) == 1
    assert mails.inbox.recipients == [[CARLO], ["later@example.com"]]
    first, second = mails.inbox.mails
    assert first["Message-ID"] == second["Message-ID"]
    (sent,) = office.outbox.newest()
    assert (sent.state, sent.delivered) == ("sent", (CARLO, "later@example.com"))


def test_when_every_recipient_bounces_it_is_given_up_at_once(post):
    office, mails = post
    mails.inbox.answers = {ANNA: "550 5.1.1 no such user"}
    office.put("first")
    assert office.deliver() == 0
    (entry,) = office.outbox.newest()
    assert (entry.state, entry.refused) == ("given_up", {ANNA: "550 5.1.1 no such user"})


def test_a_mail_refused_for_its_content_does_not_hold_back_the_next(post):
    office, mails = post
    mails.inbox.data_answer = "554 5.7.1 this looks like spam"
    office.put("first")
    office.deliver()
    mails.inbox.data_answer = ""
    office.put("second")
    assert office.deliver() == 1
    assert [entry.dedupe_key.split()[0] for entry in office.outbox.waiting()] == ["first"]


def test_mail_that_is_not_set_up_waits_and_says_what_to_set(tmp_path):
    with Outbox(tmp_path / "ledger.sqlite") as outbox:
        office = Post(outbox, None)
        office.put("first")
        office.deliver()
        (entry,) = outbox.waiting()
    assert entry.last_error == "no mail server is set up. set PSTT_SMTP_HOST and PSTT_MAIL_FROM"


def test_each_setting_reaches_the_server(tmp_path):
    (tmp_path / "ca.pem").write_text("x", encoding="utf-8")
    settings = Settings(
        PSTT_SMTP_HOST="mail.example.com",
        PSTT_SMTP_PORT=2525,
        PSTT_SMTP_SECURITY="tls",
        PSTT_SMTP_USERNAME="u",
        PSTT_SMTP_PASSWORD="env:MAIL_PASSWORD",
        PSTT_SMTP_CAFILE="ca.pem",
        PSTT_SMTP_TIMEOUT_S=7,
        PSTT_MAIL_FROM="from@example.com",
    )
    made = mail_server(settings, {"MAIL_PASSWORD": PASSWORD}, tmp_path)
    assert made == MailServer(
        "mail.example.com", 2525, "tls", "from@example.com", "u", Secret(PASSWORD), tmp_path / "ca.pem", 7
    )
    assert PASSWORD not in repr(made)


@pytest.mark.parametrize(("security", "port"), [("starttls", 587), ("tls", 465), ("none", 25)])
def test_the_port_is_the_usual_one_where_none_is_given(security, port, tmp_path):
    settings = Settings(PSTT_SMTP_HOST="h", PSTT_MAIL_FROM="a@b.it", PSTT_SMTP_SECURITY=security)
    assert mail_server(settings, {}, tmp_path).port == port


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({}, "PSTT_MAIL_FROM is missing"),
        ({"PSTT_MAIL_FROM": "a@b.it", "PSTT_SMTP_USERNAME": "u"}, "belong together"),
        (
            {
                "PSTT_MAIL_FROM": "a@b.it",
                "PSTT_SMTP_USERNAME": "u",
                "PSTT_SMTP_PASSWORD": PASSWORD,
                "PSTT_SMTP_SECURITY": "none",
            },
            "it would cross the network readable",
        ),
        ({"PSTT_MAIL_FROM": "a@b.it", "PSTT_SMTP_CAFILE": "missing.pem"}, "there is no file missing.pem"),
        (
            {"PSTT_MAIL_FROM": "a@b.it", "PSTT_SMTP_USERNAME": "u", "PSTT_SMTP_PASSWORD": "env:GONE"},
            "the variable of env:GONE is not set",
        ),
    ],
)
def test_settings_that_contradict_each_other_are_refused(values, words, tmp_path):
    with pytest.raises(ConfigError) as caught:
        mail_server(Settings(PSTT_SMTP_HOST="h", **values), {}, tmp_path)
    assert words in str(caught.value)
    assert PASSWORD not in str(caught.value)


def test_without_a_host_there_is_no_mail(tmp_path):
    assert mail_server(Settings(PSTT_MAIL_FROM="a@b.it"), {}, tmp_path) is None


def test_the_rig_itself_speaks_tls_only_where_it_should(rig):
    mails = rig()
    assert mails.port != free_port()
    with pytest.raises(ssl.SSLError):
        ssl.get_server_certificate(("127.0.0.1", mails.port), timeout=5)
