"""A finished sentence of core is found among its texts, whatever values it has; what is not ours stays as it was."""

from functools import cache

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.errors import ConfigError
from core.language.catalogue import translations
from core.language.sentences import FIELD, Sentences
from core.workspace.json_file import parse_json_file
from ui.language.core_texts import texts_of
from ui.language.update import read

MODULE = '''"""A docstring is no text of the product."""
def one(x, rows):
    raise Failed(f"topic {x!r} has {rows:,} row{'s' if rows > 1 else ''}", remedy="read it " + (f"up to {x}" if x else "again"))
def two(x):
    log.info("run {} begins", x)
    connection.execute("SELECT a, b FROM t WHERE a = 1")
    return {"a b": f"with {{braces}} of {x}"}
'''


@cache
def of_core() -> Sentences:
    return translations("it").sentences


def test_the_texts_of_a_module_are_found_with_their_values_and_each_alternative():
    assert [text for text, _ in texts_of(MODULE)] == [
        "topic {0} has {1} rows",
        "topic {0} has {1} row",
        "read it up to {0}",
        "read it again",
        "up to {0}",
        "run {} begins",
        "with {{braces}} of {0}",
    ]


def _filled(text: str) -> str:
    """The text with a value in each field that no other text has: a number, as long as an offset."""
    if not any(match[0] not in ("{{", "}}") for match in FIELD.finditer(text)):
        return text
    unnamed = iter(range(100))

    def value(field) -> str:
        if field[0] in ("{{", "}}"):
            return field[0][0]
        return "7" + ((field[1] and "".join(str(ord(sign)) for sign in field[1])) or str(100 + next(unnamed)))

    return FIELD.sub(value, text)


def test_each_text_of_core_is_found_again_when_its_values_are_in_it():
    wrong = {}
    for message in read("it"):
        if not message.id or message.context or not isinstance(message.id, str):
            continue
        if not message.locations or any(file.startswith("core/") for file, _ in message.locations):
            sentence, expected = _filled(message.id), _filled(str(message.string))
            if of_core().translate(sentence) != expected:
                wrong[sentence] = of_core().translate(sentence)
    assert wrong == {}


@pytest.mark.parametrize(
    ("english", "italian"),
    [
        (
            'topic "test" of Kafka Test refuses a message: it has no key, and the topic is compacted (cleanup.policy=compact). correct the topic in the job\'s kafka_config',
            'il topic "test" di Kafka Test rifiuta un messaggio: non ha chiave, e il topic è compattato (cleanup.policy=compact). correggere il topic in kafka_config del job',
        ),
        ("18,545 read = 18,543 acknowledged + 2 rejected", "18.545 lette = 18.543 confermate + 2 scartate"),
        ("the run of 17 Jan 2026 02:00", "l'esecuzione del 17 gen 2026 02:00"),
        ("run 7f3c2 failed; it is tried again", "esecuzione 7f3c2 fallita; viene ritentata"),
        (
            "✔ dry run: 20,000 rows read in 1.2 s make 20,000 messages of 4.1 MB; nothing was sent",
            "✔ prova senza invio: 20.000 righe lette in 1,2 s danno 20.000 messaggi di 4,1 MB; nulla è stato inviato",
        ),
        (
            "✔ dry run: 1 row read in 0.1 s makes 1 message of 0.1 MB; nothing was sent",
            "✔ prova senza invio: 1 riga letta in 0,1 s dà 1 messaggio di 0,1 MB; nulla è stato inviato",
        ),
        ("1 row arrived, 1 row was rejected", "1 riga arrivata, 1 riga scartata"),
        (
            "2 rows were sent exactly once by an earlier attempt; nothing was sent again",
            "2 righe erano già state inviate esattamente una volta da un tentativo precedente; nulla è stato inviato di nuovo",
        ),
        (
            "1 message is on the topic twice, as at_least_once allows",
            "1 messaggio è due volte sul topic, come at_least_once permette",
        ),
        ("the run was cancelled: stopped after 1 row", "l'esecuzione è stata annullata: fermata dopo 1 riga"),
        ("1 row of 1 job, 2 rejected", "1 riga di 1 job, 2 scartate"),
        ("TRKDATE: NaN has no JSON form", "TRKDATE: NaN non ha una forma JSON"),
        ("The runner was stopped", "Il runner è stato fermato"),
        ("[Errno 28] No space left on device", "[Errno 28] spazio su disco esaurito"),
        ("ORA-00942: table or view does not exist", "ORA-00942: table or view does not exist"),
        (
            "export failed: 1,200 read, 12 acknowledged, 0 rejected, 3 failed in 0.9 s",
            "export fallita: 1.200 lette, 12 confermate, 0 scartate, 3 fallite in 0,9 s",
        ),
        ("version 3.10 is too old", "la versione 3.10 è troppo vecchia"),
        ("failed", "fallita"),
        ("", ""),
    ],
)
def test_sentences(english, italian):
    assert of_core().translate(english) == italian


def test_names_and_data_are_never_translated():
    for name in ("test", "run", "failed", "key", "the query", "17 Jan 2026", "1,234"):
        assert f'"{name}"' in of_core().translate(f'job "{name}" was stopped')
    assert of_core().translate("job failed has no changed columns") == "job failed has no changed columns"


def test_errors_and_verdicts_that_core_makes(tmp_path):
    file = tmp_path / "connections.json"
    with pytest.raises(ConfigError) as error:
        parse_json_file(file, "{'a': 1}")
    text = of_core().translate(str(error.value))
    assert (
        text
        == "connections.json, riga 1, colonna 2: questo non è JSON: manca il nome di una proprietà tra virgolette doppie. JSON non ha commenti né apici singoli"
    )


@given(st.text(st.characters(min_codepoint=0x80, exclude_categories=["Cs"]), max_size=200))
def test_what_is_not_ours_stays_as_it_is(text):
    assert of_core().translate(text) == text


@given(
    st.sampled_from(["topic ", "run ", "connections.json, line "]),
    st.text("abcXYZ019._-/é ", max_size=40),
    st.integers(),
)
def test_a_sentence_is_translated_whatever_its_values_are(begin, name, number):
    translated = of_core().translate(f'{begin}{name}{number}: topic "x" has no partition {number}')
    assert translated.endswith(f'il topic "x" non ha la partizione {number}')
