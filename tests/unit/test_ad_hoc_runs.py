"""A run with other parameters than the job's own reads other rows, so that its scheduled time is still to be sent."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from core.admin.demo import SLUG, make_demo
from core.app import App
from core.errors import AlreadySent
from core.model.run import Run
from core.records.rights import local_caller
from core.run.cancellation import Stop
from core.run.planning import AD_HOC
from core.run.replay import replay_plan
from core.scheduler.commands import audit_run

NOW = datetime.now(UTC)


@pytest.fixture
def app(tmp_path: Path) -> Iterator[App]:
    make_demo(tmp_path, 40, now=NOW)
    with App.open(tmp_path, {}, log=False) as opened:
        yield opened


def run(app: App, data: str = "", *, again: bool = False) -> Run:
    plan = app.plan(app.job(SLUG), now=NOW, params={"DATA": data} if data else {})
    audit_run(app.ledger, plan, caller=local_caller(), now=NOW, again=again, dry_run=False)
    return app.execute(plan, stop=Stop(), now=lambda: datetime.now(UTC))


def test_a_run_of_another_day_does_not_count_for_its_scheduled_time(app: App) -> None:
    own = app.plan(app.job(SLUG), now=NOW).query.values["DATA"]
    before = (datetime.fromisoformat(str(own)) - timedelta(days=3)).date().isoformat()
    other = run(app, before)
    assert (other.is_ad_hoc, other.warnings) == (True, (AD_HOC,))
    due = run(app)
    assert (due.is_ad_hoc, due.scheduled_at, due.acknowledged > 0) == (False, other.scheduled_at, True)
    with pytest.raises(AlreadySent):
        run(app, before)
    with pytest.raises(AlreadySent):
        run(app)


def test_the_jobs_own_value_given_by_hand_is_no_other_one(app: App) -> None:
    own = str(app.plan(app.job(SLUG), now=NOW).query.values["DATA"])
    assert not app.plan(app.job(SLUG), now=NOW, params={"data": own}).is_ad_hoc
    given = run(app, own)
    assert (given.is_ad_hoc, given.warnings) == (False, ())
    with pytest.raises(AlreadySent):
        run(app)


def test_a_replay_of_such_a_run_is_one_too(app: App) -> None:
    own = datetime.fromisoformat(str(app.plan(app.job(SLUG), now=NOW).query.values["DATA"]))
    other = run(app, (own - timedelta(days=3)).date().isoformat())
    assert replay_plan(app, other.run_id, rejects_only=False, asked_by="anna").is_ad_hoc
