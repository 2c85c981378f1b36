"""Lines of output in Italian: columns stay in place, data stays as it is, and English loads nothing."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
from loguru import logger

from core.admin.logs import start_logging
from core.cli import output
from core.cli.render import (
    check_result_lines,
    preview_lines,
    reject_lines,
    run_lines,
    runs_table,
    send_lines,
    table_lines,
    whole_run_lines,
)
from core.errors import PsttError
from core.kafka.diagnosis import Cause, Diagnosis
from core.language import Data, chosen_language, label, translated, translated_line
from core.model.check_result import CheckResult
from core.model.connection import Cluster
from core.model.window import RunWindow
from core.notify.alert_messages import alert_notification, failure_notification
from core.notify.daily_report import DailyReport, JobReport, daily_report_notification
from core.notify.incidents import Incident
from core.notify.notification import NotificationTable
from core.notify.rules import default_alerts
from core.notify.situation import Recipients, Situation
from core.records.outcomes import ScheduledOutcome
from tests.unit.test_logs import entries, quiet  # noqa: F401 - a fixture
from tests.unit.test_render import AT, AWAY, NAN, RUN


@pytest.fixture
def in_italian(monkeypatch):
    monkeypatch.setattr(output, "_language", "it")


def english(lines: list[str]) -> list[str]:
    return [translated_line(line, "en") for line in lines]


def italian(lines: list[str]) -> list[str]:
    return [translated_line(line, "it") for line in lines]


def test_the_columns_of_a_run_stay_where_they_are(in_italian):
    lines = run_lines(RUN, [NAN, NAN])
    verdict, latency, rejected, command = italian(lines)
    assert verdict == "◐ completa con scarti 18.545 lette = 18.543 confermate + 2 scartate   esecuzione 7f3c2"
    assert latency.startswith("  latenza    media 12 ms · p50 9,0 · p90 22 · p99 36")
    assert latency.endswith("1,9 MB in 0,9 s (21.316 righe/s), 6 partizioni")
    assert rejected == "  scartate   2 × IMPORTO: NaN non ha una forma JSON"
    assert command == lines[-1]
    assert {line.index(word) for line, word in ((latency, "media"), (rejected, "2 ×"), (command, "python"))} == {13}


def test_a_table_has_its_figures_under_its_names(in_italian):
    names, row = italian(runs_table([RUN], "Europe/Rome"))
    for name, figure in (("lette", "18.545"), ("confermate", "18.543"), ("scartate", "2")):
        assert names.index(name) + len(name) == row.rindex(f" {figure} ") + 1 + len(figure)
    assert row.startswith("7f3c2       17 gen 2026 02:00  ◐ completa con scarti ")


def test_a_word_that_is_longer_than_its_column_takes_the_gap():
    assert italian(["  next   python -m core doctor", "  why    no answer in time"]) == [
        "  cosa fare  python -m core doctor",
        "  perché nessuna risposta in tempo",
    ]


@pytest.mark.parametrize(
    "text",
    [
        "no answer in time",
        "1,204   rows read   17 Jan 2026 02:00",
        '{"why": "no answer in time"}',
        "two\nlines: failed",
        "running",
        "",
    ],
)
@pytest.mark.parametrize(
    "line", ["{}", "   {}", "failed: {}", "  value  {}", "{}: failed", "{}   failed", "✘ {} will fail: failed"]
)
def test_data_stays_as_it_is_whatever_it_says(text, line):
    assert translated_line(line.format(Data(text)), "en") == line.format(text)
    assert text in translated_line(line.format(Data(text)), "it")


def test_only_what_is_around_data_is_translated():
    assert translated_line(f"  value  {Data('no answer in time')}", "it") == "  valore no answer in time"
    assert translated_line(f"failed   {Data('failed')}   failed", "it") == "fallita   failed   fallita"
    assert translated_line(f"{Data('failed'):<9}  failed", "it") == "failed     fallita"
    assert translated_line(f"{Data('failed'):>9}  failed", "it") == "   failed  fallita"


def test_every_word_of_ours_can_be_a_name():
    from core.language.catalogue import translations

    known = translations("it").sentences
    for word in [*known._words, *known._labels, *known._plurals]:
        assert translated_line(f"  {Data(word)}   {Data(word)}: {Data(word):<20}  x", "it").split() == [
            *f"{word} {word}: {word} x".split()
        ]


@pytest.mark.parametrize(
    ("english", "expected"),
    [
        ("3 messages", "3 messaggi"),
        ("1 message", "1 messaggio"),
        ("48 complete, 10 complete with rejects, 1 failed", "48 complete, 10 complete con scarti, 1 fallita"),
        ("Sun 29 Nov 2026 02:00:00 +0100", "dom 29 nov 2026 02:00:00 +0100"),
        ("2026-01-10 to 2026-01-16", "2026-01-10 – 2026-01-16"),
        ("21 Nov 2026 02:57 to 28 Nov 2026 02:57 Europe/Rome", "21 nov 2026 02:57 – 28 nov 2026 02:57 Europe/Rome"),
        ("succeeded for 28 Nov 2026 02:00 Europe/Rome", "riuscito per il 28 nov 2026 02:00 Europe/Rome"),
        ("set KAFKA_CLIENT", "impostare KAFKA_CLIENT"),
        ("p99 latency > 5,000 ms", "latenza p99 > 5.000 ms"),
        ("disk: 70.3 GB free", "disk: 70,3 GB liberi"),
        ("avg 3.4 ms · p50 3.1 · p90 8.25 · p99 1,204", "media 3,4 ms · p50 3,1 · p90 8,25 · p99 1.204"),
        ("no scheduled time in the next 2.5 days", "nessun orario previsto nei prossimi 2,5 giorni"),
        ("and 1,204 more in 0.5 days; --json lists them all", "e altri 1.204 in 0,5 giorni; --json li elenca tutti"),
        ("latency avg 1,234.5 ms", "latenza media 1.234,5 ms"),
        ("it uses 81.5 % of the machine's memory (1,240 MB)", "memoria della macchina in uso: 81,5 % (1.240 MB)"),
        ("1,234.5", "1.234,5"),
        ("9.0", "9,0"),
        ("1.0.4", "1.0.4"),
        ('"timeout_s" = 2.5', '"timeout_s" = 2.5'),
        ("set the table that the user wants", "set the table that the user wants"),
        ("unexpected end of the file", "unexpected end of the file"),
        ("failed: no answer in time", "fallita: nessuna risposta in tempo"),
        ("key: no answer in time", "key: nessuna risposta in tempo"),
    ],
)
def test_a_sentence_with_one_word_is_known_by_its_values(english, expected):
    assert translated(english, "it") == expected


def test_an_error_has_where_what_why_and_what_to_do(in_italian, capsys):
    error = PsttError(
        'the query failed on "A00"', why="ORA-00942: table or view does not exist", remedy="fix that file first"
    )
    assert output.report_error(error, as_json=False) == 1
    assert capsys.readouterr().err == (
        '✘ la query è fallita su "A00": ORA-00942: table or view does not exist\n  cosa fare  correggere prima quel file\n'
    )
    output.report_error(error, as_json=True)
    assert json.loads(capsys.readouterr().out)["error"]["text"] == error.text


def test_an_answer_of_yes_may_be_italian(in_italian, monkeypatch, capsys):
    from io import StringIO

    from core.cli import groups

    for given, wanted in (("s", True), ("sì", True), ("y", True), ("n", False), ("", False)):
        monkeypatch.setattr(sys, "stdin", StringIO(f"{given}\n"))
        assert groups._is_wanted() is wanted
    assert capsys.readouterr().err == "Reimpostare questi offset? [s/N] " * 5


@pytest.mark.parametrize(
    ("text", "environ", "language"),
    [
        ("PSTT_LANGUAGE=it\n", {}, "it"),
        ("# PSTT_LANGUAGE=it\n", {}, "en"),
        ("export PSTT_LANGUAGE = 'it'\n", {}, "it"),
        ("PSTT_LANGUAGE=en\nPSTT_LANGUAGE=it\n", {}, "it"),
        ("\ufeffPSTT_LANGUAGE=it\n", {}, "it"),
        ("PSTT_LANGUAGE=it\n", {"PSTT_LANGUAGE": "en"}, "en"),
        ("", {"PSTT_LANGUAGE": "it"}, "it"),
        ("PSTT_LANGUAGE=italian\n", {}, "en"),
        (None, {}, "en"),
    ],
)
def test_the_language_is_known_before_the_settings_are_read(tmp_path, text, environ, language):
    if text is not None:
        (tmp_path / ".env").write_text(text, encoding="utf-8")
    assert chosen_language(environ, tmp_path / ".env") == language


def test_only_our_messages_in_the_log_are_italian_and_every_field_keeps_its_name(tmp_path, capsys):
    import logging

    start_logging(tmp_path, level="INFO", language="it")
    log_of_ours = compile('logger.warning("no answer in time")', "runner.py", "exec")
    exec(log_of_ours, {"logger": logger, "__name__": "core.scheduler.runner"})
    logging.getLogger("asyncio").warning("no answer in time")
    ours, foreign = entries(tmp_path)
    assert (ours["message"], foreign["message"]) == ("nessuna risposta in tempo", "no answer in time")
    assert [*ours] == ["time", "level", "message", "logger", "job", "run", "batch"]
    assert [*foreign] == [*ours, "of_client"]
    assert ours["level"] == "WARNING"
    assert "nessuna risposta in tempo" in capsys.readouterr().err
    start_logging(tmp_path, level="INFO")
    exec(log_of_ours, {"logger": logger, "__name__": "core.scheduler.runner"})
    assert entries(tmp_path)[-1]["message"] == "no answer in time"


def test_a_mail_about_a_failed_run_is_italian_from_its_subject_to_its_footer():
    at = Situation(default_alerts(), {}, (), Recipients(page_url="https://pstt.example.com", language="it"), AT)
    run = replace(
        AWAY, error_text='no broker of "Kafka" answers', error_remedy="python -m core doctor says what can be reached"
    )
    mail = failure_notification(run, None, at).in_language("it")
    assert mail.subject == '✘ Export CDG Tracce to Kafka fallita: nessun broker di "Kafka" risponde'
    text = mail.text.splitlines()
    assert text[0].startswith(
        "Export CDG Tracce to Kafka · prevista per il 17 gen 2026 02:00 Europe/Rome · DATA = 2026-01-16"
    )
    assert text[0].endswith('0 di 18.545 righe lette sono confermate: nessun broker di "Kafka" risponde.')
    labels = {"Che cosa": "esecuzione 7f3c2 fallita", "Dove": "A00-CDG-Collaudo → topic pstt-traces (Kafka Collaudo)",
              "Perché": 'nessun broker di "Kafka" risponde', "Che cosa fare": "python -m core doctor dice che cosa è raggiungibile"}  # fmt: skip
    assert text[2:6] == [f"{name:<13}  {value}" for name, value in labels.items()]
    for line in (
        "Cifre",
        "Sulla pagina",
        "Comandi",
        "  cifra                     valore",
        "  durata                    0,9 s",
    ):
        assert line in text
    assert text[-1] == 'Inviato da PSTT Kafka, come dice "email_notification" di export-cdg-tracce.job.json.'
    assert '<html lang="it">' in mail.html
    assert "Che cosa fare" in mail.html


def test_the_daily_report_names_days_as_the_language_does():
    outcome = ScheduledOutcome("export-cdg-tracce", RUN.job_name, "Europe/Rome", AT, True, RUN, "complete_with_rejects")
    job = JobReport("export-cdg-tracce", RUN.job_name, "Europe/Rome", (outcome,))
    day = AT.date()
    report = DailyReport(
        day, datetime(2026, 1, 16, 23, tzinfo=UTC), datetime(2026, 1, 17, 23, tzinfo=UTC), "Europe/Rome", (job,), ()
    )
    mail = daily_report_notification(report).in_language("it")
    assert "17 gen 2026: i conti quadrano" in mail.subject
    assert "18.545 lette = 18.543 confermate + 2 scartate" in mail.text


def test_a_name_that_is_a_word_of_ours_stays_a_name():
    assert label("next", "it") == "cosa fare"
    assert translated('job "next" is running already', "it") == 'il job "next" è già in corso'


def test_english_reads_no_catalogue(tmp_path):
    from tests.unit.test_imports import imported

    modules = imported(tmp_path, "core.__main__")["modules"]
    assert "core.language" in modules  # type: ignore[operator]
    assert {"core.language.catalogue", "core.language.sentences"}.isdisjoint(modules)  # type: ignore[arg-type]


def test_the_runtime_catalogue_is_what_babel_reads():
    from core.language.catalogue import translations
    from ui.language.update import read

    texts = translations("it").texts
    for message in read("it"):
        if message.id and not message.context:
            if isinstance(message.id, str):
                assert texts.gettext(message.id) == message.string
            else:
                assert (texts.ngettext(*message.id, 1), texts.ngettext(*message.id, 0), texts.ngettext(*message.id, 2)) == (
                    message.string[0], message.string[1], message.string[1],
                )  # fmt: skip


WORD = "failed"
"""A name that is a word of ours."""


def test_names_of_a_table_are_not_translated():
    run = replace(
        RUN, job=WORD, job_name=WORD, topic=WORD, connection=WORD, cluster=WORD, asked_by=WORD, parameters={WORD: WORD}
    )
    assert italian(runs_table([run], run.timezone))[1].split()[-1] == WORD
    first, route, *_ = italian(whole_run_lines(run, []))
    assert first.startswith("failed · prevista per il ")
    assert first.endswith(" · failed = failed")
    assert route == "failed → failed (failed)   tentativo 1   chiesto da failed"
    rejects = [replace(NAN, column=WORD, key=WORD, reason="no answer in time")]
    assert italian(reject_lines("r", rejects))[0].endswith(
        "chiave failed   failed (number): nessuna risposta in tempo".replace("number", NAN.database_type)
    )
    assert "1 × failed: nessuna risposta in tempo" in "\n".join(italian(run_lines(run, rejects)))


def test_names_of_alerts_topics_groups_backfills_and_accounts_are_not_translated():
    from core.cli.account_lines import token_lines, user_lines
    from core.cli.message_lines import topic_lines
    from core.kafka.topic_list import TopicSummary
    from core.records.accounts import User

    (line,) = italian(topic_lines([TopicSummary(WORD, 1, 1, 3)], 1, ""))
    assert line.startswith("failed  ")
    user = User(
        name=WORD, role="viewer", email="", has_password=True, last_sign_in_at=None, created_at=AT, created_by="x"
    )
    assert italian(user_lines([user]))[1].split()[0] == WORD
    assert token_lines([], AT)
    assert italian(send_lines(WORD, [], "UTC"))[0].startswith("failed   ")
    assert italian(table_lines([Data("failed"), "failed"], [[Data("running"), "running"]])) == [
        "failed   fallita",
        "running  in corso",
    ]


@pytest.mark.parametrize(
    ("subject", "shown"),
    [
        ("job failed", "job failed"),
        ("database failed", "database failed"),
        ("cluster running, registry", "cluster running, registry"),
        ("job file", "file di job"),
        ("odbc driver", "driver odbc"),
    ],
)
def test_names_in_checks_are_not_translated(subject, shown):
    (line,) = italian(check_result_lines(CheckResult("fail", subject, "no answer in time")))
    assert line == f"✘ {shown}: nessuna risposta in tempo"


def test_names_in_tables_of_mails_are_not_translated():
    table = NotificationTable(
        "Each", [("topic", "verdict"), ("failed", "failed"), ("running", "9.0")], data_columns=frozenset({0})
    )
    assert table.in_language("it").rows[1:] == [["failed", "fallita"], ["running", "9,0"]]
    assert table.in_language("it").data_columns == frozenset({0})


def test_the_names_in_a_mail_about_several_alerts_are_not_translated():
    at = Situation(default_alerts(), {}, (), Recipients(page_url="", language="it"), AT)
    rule = at.alerts.rules["success_rate"]
    group = [
        (
            Incident(number, rule.name, name, "open", AT, AT, AT, None, None, None, "no answer in time"),
            "no answer in time",
        )
        for number, name in enumerate(("failed", "running"))
    ]
    (table,) = alert_notification(rule, group, at).in_language("it").tables
    assert table.rows[1:] == [[name, "nessuna risposta in tempo"] for name in ("failed", "running")]


def test_no_mark_of_data_is_printed(capsys):
    output.print_lines([f"{Data('x')} y"])
    output.print_note(f"{Data('x')} y")
    assert capsys.readouterr() == ("x y\n", "x y\n")


def test_a_preview_shows_the_message_byte_for_byte(in_italian):
    from types import SimpleNamespace as Made

    message = Made(row_number=1, size_bytes=1204, key="next", headers={"why": "no answer in time"}, timestamp=None,
                   is_tombstone=False, value='{"why": "no answer in time"}', value_base64=None)  # fmt: skip
    plan = Made(job=Made(name="no answer in time", timezone="UTC"), scheduled_at=AT, output=None, topic="t",
                query=Made(values={}))  # fmt: skip
    lines = italian(preview_lines(plan, Made(messages=[message], warnings=[])))  # type: ignore[arg-type]
    assert "riga 1 · 1.204 byte" in lines
    assert "  chiave next" in lines
    assert "  header why = no answer in time" in lines
    assert '  valore {"why": "no answer in time"}' in lines


def test_the_folder_of_the_workspace_is_found_before_the_command_line_is_read():
    from core.cli.main import _folder

    assert _folder(["core", "runs", "--workspace", "a"], {}) == Path("a")
    assert _folder(["core", "runs", "--workspace=b"], {"PSTT_WORKSPACE": "c"}) == Path("b")
    assert _folder(["core", "runs", "--workspace"], {"PSTT_WORKSPACE": "c"}) == Path("c")
    assert _folder(["core"], {}) == Path()


def test_how_long_a_cluster_was_tried_is_translated_beside_any_cause():
    diagnosis = Diagnosis(Cluster("rig", "a:1"), look=lambda _: None)
    error = diagnosis.of_cause(Cause("unreachable", "a:1: connection refused"), 2.5)
    assert error.text == 'no broker of cluster "rig" (a:1) answers: a:1: connection refused, tried for 2.5 s'
    assert translated(error.text, "it").endswith(" risponde: a:1: connessione rifiutata, provato per 2,5 s")
    silent = diagnosis.no_contact(10.2)
    assert silent.text.endswith(": the connection works, but no answer came, tried for 10 s")
    assert translated(silent.text, "it").endswith("non è arrivata risposta, provato per 10 s")


@pytest.mark.parametrize(
    ("low", "high", "says"),
    [
        ("", "60000", "ID dalla prima riga fino a 60000"),
        ("", "", "ID dalla prima riga: niente di nuovo"),
        ("5", "", "ID dopo 5: niente di nuovo"),
        ("5", "7", "ID dopo 5 fino a 7"),
    ],
)
def test_the_rows_of_an_incremental_run_are_translated(low, high, says):
    window = RunWindow("r", "j", "ID", "integer", "", 1, low, "", "", high, "", None, True)
    assert translated(window.text, "it") == says
