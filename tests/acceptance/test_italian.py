"""A workspace whose settings say `it`: what people read is Italian, what programs read stays as it is."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path

import pytest

from core.admin.demo import SLUG
from tests.rigs.workspace import ROOT, environment, log_text, run_command


@pytest.fixture(scope="module")
def demo(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("italian") / "demo"
    made = run_command("demo", "--workspace", folder, "--days", "3", env=environment(PSTT_LANGUAGE="it"), cwd=ROOT)
    assert "i 3 giorni precedenti sono simulati: " in made.stdout, made.stdout + made.stderr
    assert "Che cosa fare:" in made.stdout
    with (folder / ".env").open("a", encoding="utf-8") as file:
        file.write("\nPSTT_LANGUAGE=it\n")
    return folder


def both(folder: Path, *words: str) -> tuple[str, str]:
    """What a command prints in the language of `.env`, and in English."""
    outputs = []
    for env in (environment(), environment(PSTT_LANGUAGE="en")):
        done = run_command(*words, "--workspace", folder, env=env, cwd=ROOT)
        outputs.append(done.stdout + done.stderr)
        assert "\ufdd0" not in outputs[-1]  # the mark around data
    return outputs[0], outputs[1]


def test_a_command_that_fails_says_what_why_and_what_to_do_in_italian(demo):
    done = run_command("run", "nope", "--workspace", demo, env=environment(), cwd=ROOT)
    assert (done.returncode, done.stdout) == (2, "")
    first, second = done.stderr.splitlines()
    assert first == '✘ non esiste il job "nope" in queries/'
    assert second.startswith(f"  cosa fare  validi: {SLUG}")


def test_a_wrong_setting_is_told_in_italian_although_no_setting_is_read_yet(demo, tmp_path):
    (tmp_path / ".env").write_text("PSTT_LANGUAGE=it\nPSTT_TIMEZONE=Europe/Roma\n", encoding="utf-8")
    done = run_command("runs", "--workspace", tmp_path, env=environment(PSTT_TIMEZONE=""), cwd=ROOT)
    assert done.returncode == 2
    assert "✘ .env, riga 2: PSTT_TIMEZONE non è valido: fuso orario inesistente" in done.stderr


def test_a_language_that_there_is_not_is_refused(tmp_path):
    done = run_command("runs", "--workspace", tmp_path, env=environment(PSTT_LANGUAGE="italiano"), cwd=ROOT)
    assert (done.returncode, "PSTT_LANGUAGE is not valid" in done.stderr) == (2, True)


def test_verdict_table_and_help_are_italian(demo):
    done = run_command("run", SLUG, "--again", "--workspace", demo, env=environment(), cwd=ROOT)
    lines = done.stdout.splitlines()
    assert done.returncode == 4, done.stderr
    assert lines[0].startswith("Export CDG Tracce to Kafka · prevista per il ")
    assert any("lette = " in line and "confermate + 5 scartate   esecuzione " in line for line in lines)
    assert any(line.startswith("  scartate   1 × BARCODE: la chiave è nulla") for line in lines)
    names, row = run_command("runs", "--workspace", demo, env=environment(), cwd=ROOT).stdout.splitlines()[:2]
    assert names.split() == ["esecuzione", "prevista", "verdetto", "lette", "confermate", "scartate", "job"]
    assert names.index("job") == row.index(SLUG)
    assert "◐ completa con scarti" in row
    help_ = run_command("run", "--help", env=environment(PSTT_LANGUAGE="it"), cwd=ROOT).stdout
    assert help_.startswith("Uso: python -m core run")
    for text in ("Esegue un job una volta, adesso", "Opzioni:", "[obbligatorio]", "Mostra questo messaggio ed esce."):
        assert text in help_
    assert (
        "Trasforma file SQL in messaggi JSON"
        in run_command("--help", env=environment(PSTT_LANGUAGE="it"), cwd=ROOT).stdout
    )


def test_a_wrong_option_is_told_in_italian():
    done = run_command("run", env=environment(PSTT_LANGUAGE="it"), cwd=ROOT)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("Uso: python -m core run")
    assert done.stderr.splitlines()[-3:] == ["Aiuto: python -m core run --help", "", "Errore: Manca l'argomento 'JOB'."]


def test_the_log_has_italian_messages_under_the_same_names(demo):
    entries = [json.loads(line) for line in log_text(demo).splitlines()]
    ours = [entry for entry in entries if " lette, " in entry["message"]]
    assert ours
    assert all("confermate" in entry["message"] and "scartate" in entry["message"] for entry in ours)
    assert {"time", "level", "message", "logger", "job", "run"} <= set(ours[0])
    assert ours[0]["level"] == "INFO"


@pytest.mark.parametrize(
    "words",
    [
        ("runs", "--json"),
        ("scheduled", "--json"),
        ("next", "--json"),
        ("check", "--json"),
        ("alerts", "--json"),
        ("run", "nope", "--json"),
        ("preview", SLUG, "--rows", "2", "--json"),
        ("sql", "nope.sql", "--json"),
        ("versions", "job", SLUG, "--json"),
        ("user", "list", "--json"),
    ],
    ids=lambda words: " ".join(words),
)
def test_a_json_document_is_the_same_in_every_language(demo, words):
    italian, english = both(demo, *words)
    left, right = json.loads(italian), json.loads(english)
    if words[0] == "preview":  # the time of sending, and so the size, differs from run to run
        left, right = ([(one["row_number"], one["key"]) for one in each["messages"]] for each in (left, right))
    assert left == right


def test_what_is_data_is_printed_as_it_is(demo):
    italian, english = both(demo, "show", _run(demo))
    marks = ("SELECT BARCODE", "sha256 ", "WHERE DATE(TRKDATE)")
    for mark in marks:
        (line,) = (line for line in english.splitlines() if mark in line)
        assert line in italian
    italian, english = both(demo, "rejects", _run(demo))
    keys = [line.split("   ")[1].split()[-1] for line in english.splitlines()[:-1]]
    assert keys == [line.split("   ")[1].split()[-1] for line in italian.splitlines()[:-1]]
    assert "la chiave è nulla" in italian


def test_names_that_are_words_of_ours_are_printed_as_they_are(tmp_path):
    queries = tmp_path / "queries"
    queries.mkdir()
    sqlite3.connect(tmp_path / "failed.db").close()
    connection = {"name": "failed", "environment": "failed", "db_type": "sqlite", "database": "failed.db"}
    cluster = {"name": "failed", "bootstrap_servers": "localhost:9"}
    document = {"connections": [connection], "kafka_connections": {"failed": cluster}}
    (tmp_path / "connections.json").write_text(json.dumps(document), encoding="utf-8")
    (tmp_path / ".env").write_text("PSTT_LANGUAGE=it\n", encoding="utf-8")
    (queries / "failed.sql").write_text(
        "define running='succeeded' --Opzionale: x\nSELECT '&running' AS failed", encoding="utf-8"
    )
    job = {"name": "failed", "query": "failed.sql", "connection": "failed", "scheduling_mode": "cron", "cron": "0 2 * * *",
           "enabled": True, "export_format": "csv", "parameters": {"running": "succeeded"}}  # fmt: skip
    (queries / "failed.job.json").write_text(json.dumps(job), encoding="utf-8")

    def lines(*words: str) -> list[str]:
        done = run_command(*words, "--workspace", tmp_path, env=environment(), cwd=ROOT)
        return done.stdout.splitlines()

    heading, verdict, *_ = lines("run", "failed")
    assert heading.startswith("failed · prevista per il ")
    assert heading.endswith(" · RUNNING = succeeded")
    assert "completa" in verdict
    assert lines("runs")[1].endswith("  failed (Europe/Rome)")
    assert "failed → file   tentativo 1" in lines("show", lines("runs")[1].split()[0])[1]
    preview = lines("preview", "failed")
    assert preview[2:4] == ["failed", "succeeded"]
    assert preview[0].startswith("failed · ")
    calendar = lines("next")
    assert calendar[0].startswith("failed  ")
    assert all(line.endswith("  failed") for line in calendar[2:5])
    note = lines("note", "failed", "2026-01-17", "--text", "failed")
    assert note[0] == "2026-01-17  failed: failed"
    assert any(line.startswith("connessione failed: ") and "environment = failed" in line for line in lines("config"))


def _run(folder: Path) -> str:
    done = run_command("runs", "--json", "--workspace", folder, env=environment(), cwd=ROOT)
    return str(json.loads(done.stdout)["runs"][0]["run_id"])
