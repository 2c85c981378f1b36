"""Page and REST as the process that users start: one port, refused requests, and what a browser shows."""

from __future__ import annotations

import json
import re
import shutil
import socket
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

import httpx2
import pytest

from core.admin.demo import SLUG, make_demo
from tests.rigs.waiting import until
from tests.rigs.workspace import ROOT, environment, log_text, run_command
from tests.ui.conftest import Place
from tests.ui.rest import PASSWORD, add_user, token

JOBS = "/api/scheduler/scheduling"


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Place:
    folder = tmp_path_factory.mktemp("app") / "demo"
    make_demo(folder, 300, now=datetime.now(UTC))
    assert run_command("run", SLUG, "--workspace", folder, env=environment(), cwd=ROOT).returncode == 4
    return Place(folder)


@pytest.fixture(scope="module")
def address(place, serve) -> str:
    return serve(place)


@pytest.fixture(scope="module")
def with_users(place, tmp_path_factory) -> Path:
    """A copy of the same with a user for each role."""
    folder = tmp_path_factory.mktemp("guarded") / "demo"
    shutil.copytree(place.folder, folder)
    for name, role in (("root", "admin"), ("vera", "viewer")):
        add_user(folder, name, role)
    return folder


@pytest.fixture(scope="module")
def guarded(with_users, serve) -> str:
    """The page over it."""
    return serve(Place(with_users))


def start(folder: Path, *options: str, cwd: Path = ROOT) -> subprocess.Popen[str]:
    words = [
        sys.executable,
        "-m",
        "streamlit",
        "run",
        str(ROOT / "ui" / "app.py"),
        "--server.headless",
        "true",
        *options,
    ]
    return subprocess.Popen(
        words, cwd=cwd, env=environment(PSTT_WORKSPACE=str(folder)), stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        text=True, encoding="utf-8",
    )  # fmt: skip


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_page_and_rest_answer_on_one_port(address):
    page = httpx2.get(f"{address}/", headers={"Accept": "text/html"})
    assert page.status_code == 200
    assert "<title>Streamlit</title>" in page.text
    jobs = httpx2.get(f"{address}{JOBS}").json()
    assert [row["id"] for row in jobs["items"]] == [SLUG]
    assert httpx2.get(f"{address}/api/kafka/metrics/summary").json()["last_7_days"]["messages"] > 200
    assert httpx2.get(f"{address}/api/docs/static/swagger-ui.css").status_code == 200
    for path in ("/", "/api/docs", "/_stcore/health"):
        headers = httpx2.get(f"{address}{path}").headers
        assert headers["x-content-type-options"] == "nosniff"
        assert "frame-ancestors" in headers["content-security-policy"]


@pytest.mark.parametrize("path", ["/api/../connections.json", "/api/%2e%2e/connections.json", "/../connections.json",
                                  f"{JOBS}/..%2f..%2fconnections", f"{JOBS}/%2e%2e%2f%2e%2e%2fconnections.json",
                                  "/api/docs/static/..%2f..%2f__init__.py", "/api/docs/static/%2e%2e/__init__.py",
                                  "//etc/passwd", "/api//etc/passwd", "/api/docs/static/%5c%5chost%5cshare"])  # fmt: skip
def test_no_path_as_it_comes_over_the_wire_gives_a_file(address, place, path):
    host, port = address.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=10) as wire:
        wire.sendall(f"GET {path} HTTP/1.1\r\nHost: {host}:{port}\r\nConnection: close\r\n\r\n".encode())
        answer = b""
        while chunk := wire.recv(65_536):
            answer += chunk
    status = int(answer.split()[1])
    assert status in (200, 307, 400, 404)
    for file in (place.folder / "connections.json", ROOT / "ui" / "__init__.py"):
        assert file.read_bytes()[:40] not in answer
    if status == 200:
        assert b"<title>Streamlit</title>" in answer


def test_a_caller_who_goes_in_the_middle_leaves_no_defect(address, place):
    host, port = address.removeprefix("http://").split(":")
    for head in ("Content-Length: 5000", "Transfer-Encoding: chunked"):
        for _ in range(5):
            with socket.create_connection((host, int(port)), timeout=10) as wire:
                wire.sendall(
                    f"POST {JOBS} HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\n{head}\r\n\r\n10".encode()
                )
    until(lambda: httpx2.get(f"{address}/api/monitoring/health").status_code == 200, "the page answers")
    assert httpx2.get(f"{address}{JOBS}").json()["total"] == 1
    log = log_text(place.folder)
    assert "/api/scheduler/scheduling failed" not in log
    assert "ClientDisconnect" not in log


@pytest.mark.parametrize(
    "options", [("--server.address", "0.0.0.0"), ("--server.address", "::"), ("--server.address", "")]
)
def test_it_does_not_listen_elsewhere_while_nobody_has_to_sign_in(place, options):
    process = start(place.folder, *options, "--server.port", str(free_port()))
    try:
        said, _ = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 2
    assert "while nobody has to sign in" in said
    assert "python -m core user add" in said
    assert "Traceback" not in said


def test_with_a_user_it_listens_elsewhere(place, tmp_path):
    shutil.copytree(place.folder, tmp_path / "ws")
    add_user(tmp_path / "ws", "root", "admin")
    port = free_port()
    process = start(tmp_path / "ws", "--server.address", "0.0.0.0", "--server.port", str(port))
    try:
        deadline = time.monotonic() + 60
        answer = None
        while answer is None and time.monotonic() < deadline and process.poll() is None:
            try:
                answer = httpx2.get(f"http://127.0.0.1:{port}{JOBS}", headers={"Host": "pstt.example.com"})
            except httpx2.TransportError:
                time.sleep(0.2)
        assert answer is not None
        assert answer.status_code == 401
    finally:
        process.kill()
        process.communicate()


def test_the_page_sends_a_browser_to_the_form_and_lets_it_in_after_it(guarded, visit):
    seen = visit(guarded)
    seen.page.wait_for_url("**/api/signin")
    seen.page.get_by_label("Name").fill("vera")
    seen.page.get_by_label("Password").fill(PASSWORD)
    seen.page.get_by_role("button", name="Sign in").click()
    seen.heading("Overview")
    seen.has("vera · viewer")
    seen.page.reload()
    seen.has("vera · viewer")
    seen.page.goto(f"{guarded}/api/signout")
    seen.page.get_by_role("button", name="Sign out").click()
    seen.page.wait_for_url("**/api/signin")
    seen.page.goto(guarded)
    seen.page.wait_for_url("**/api/signin")
    assert seen.troubles == []


def test_a_visitor_without_a_session_sees_no_figure_even_past_the_form(guarded, visit):
    seen = visit(f"{guarded}/api/signin")
    seen.page.set_extra_http_headers({"Accept": "*/*"})  # the way to the form is for browsers that say so
    seen.page.goto(guarded)
    seen.heading("Sign in")
    seen.page.wait_for_timeout(1500)
    assert SLUG not in seen.page.content()
    assert "pstt-traces" not in seen.page.content()


def test_page_and_document_work_under_their_own_policy(address, visit):
    seen = visit("about:blank")
    complaints = []
    seen.page.on(
        "console", lambda said: complaints.append(said.text) if "Content Security Policy" in said.text else None
    )
    seen.page.goto(address)
    seen.heading("Overview")
    seen.page.locator(".js-plotly-plot").first.wait_for()
    seen.page.goto(f"{address}/api/docs")
    seen.page.get_by_text("/scheduler/scheduling/{id}/run").first.wait_for()
    assert complaints == []
    assert seen.troubles == []
    assert {host.split(":")[0] for host in seen.hosts} <= {"127.0.0.1", ""}


@pytest.mark.skipif(
    not shutil.which("curl") or not shutil.which("bash"), reason="the examples are for curl and a shell"
)
def test_the_examples_of_the_document_for_programs_work_as_they_stand(with_users, guarded):
    env = environment(PSTT_URL=guarded, TOKEN=token(with_users, "send"))
    text = (ROOT / "docs" / "REST.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"<!-- curl examples.*?-->\n```sh\n(.*?)```", text, re.DOTALL)
    examples = block.replace("\\\n", " ").splitlines()
    assert len(examples) == 6
    for example in examples:
        line = example.replace("curl -s", "curl -s -w '\\n%{http_code}'")
        done = subprocess.run(
            ["bash", "-c", line], env=env, capture_output=True, text=True, encoding="utf-8", timeout=60
        )
        body, _, status = done.stdout.rpartition("\n")
        assert status in ("200", "202"), (example, done.stdout)
        assert isinstance(json.loads(body), dict)
