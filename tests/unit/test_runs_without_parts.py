"""A job with `partitions` on a mock broker, which exists only in the process of the run, is sent by that process alone."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

from core.admin.demo import SLUG, make_demo
from core.app import App
from core.run.cancellation import Stop
from core.run.planning import WITHOUT_PARTS
from core.workspace.jobs import read_job_file
from core.workspace.paths import Workspace


def test_a_job_in_parts_on_the_demos_broker_runs_without_them_and_says_so(tmp_path: Path) -> None:
    now = datetime.now(UTC)
    make_demo(tmp_path, 40, now=now)
    file = Workspace(tmp_path).queries_dir / f"{SLUG}.job.json"
    document = json.loads(file.read_text(encoding="utf-8"))
    for partitions, warnings in (({"column": "barcode", "count": 3, "by": "hash"}, (WITHOUT_PARTS,)), (None, ())):
        file.write_text(json.dumps({**document, "partitions": partitions, "order": "none"}), encoding="utf-8")
        assert read_job_file(Workspace(tmp_path), SLUG).job
        with App.open(tmp_path, {}, log=False) as app:
            run = app.execute(app.plan(app.job(SLUG), now=now), stop=Stop(), now=lambda: datetime.now(UTC))
            assert not app.ledger.run(run.run_id).parts
        assert run.rows_read == run.acknowledged + run.rejected > 0
        assert run.warnings == warnings
