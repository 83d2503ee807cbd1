# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import html
import re
import subprocess
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_lemlist.sandbox import Sandbox, page
from airflow_provider_lemlist.sandbox.faults import Fault
from airflow_provider_lemlist.sandbox.request_log import Exchange
from tests.unit.sandbox.conftest import Client

EVIL = "<script>document.title='owned'</script><img src=x onerror=\"document.title='owned'\">"


@pytest.fixture
def evil(lemlist: Sandbox, http: Client) -> str:
    """Return the id of a campaign in which every text is hostile."""
    campaign = lemlist.campaign(EVIL)
    sequence = campaign["sequenceId"]
    voice = lemlist.step(sequence, "linkedinVoiceNote")
    lemlist.step(sequence, "email", subject=EVIL, message=EVIL)
    lead = lemlist.lead(campaign["_id"], '"><script>x</script>@example.com', firstName=EVIL, **{EVIL: EVIL})
    lemlist.activity(lead_id=lead["_id"], type=EVIL)
    query = {"leadId": lead["_id"], "stepId": voice["_id"]}
    http.post("/leads/audio", params=query, files={"file": (f"{EVIL}.mp3", b"<script>", "audio/mpeg")})
    http.get("/team", params={EVIL: EVIL}, headers={"User-Agent": EVIL})
    http.get("/<script>alert(1)</script>")
    lemlist.statute(campaign["_id"], html.escape(EVIL), category=EVIL)
    lemlist.service.script.add(Fault(f"/{EVIL}".replace(" ", ""), "reset"))  # which fault() refuses
    return str(campaign["_id"])


def browse(url: str, folder: Path) -> str:
    """Return the document of a real browser after its scripts have run."""
    # --virtual-time-budget lets the page refresh itself a few times.
    command = [
        "chromium", "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
        "--disable-background-networking", "--disable-component-update", "--disable-sync",
        f"--user-data-dir={folder}", "--virtual-time-budget=3000", "--dump-dom", url,
    ]  # fmt: skip
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout


def test_the_pages_show_campaigns_leads_steps_and_requests(
    lemlist: Sandbox, http: Client, campaign: dict[str, Any]
) -> None:
    lemlist.step(campaign["sequenceId"], "email", subject="A question", message="b")
    lemlist.lead(campaign["_id"], "ana@example.com", firstName="Ana", plan="trial")
    http.get("/team", headers={"User-Agent": "mine/1.0"})
    overview = http.get(lemlist.origin).text
    for text in (
        "Spring webinar",
        "1 lead · 1 step",
        "mine/1.0",
        "/team",
        "no rate limit",
    ):
        assert text in overview
    shown = http.get(f"{lemlist.origin}/campaigns/{campaign['_id']}").text
    for text in ("A question", "Ana", "ana@example.com", "trial"):
        assert text in shown
    assert http.get(f"{lemlist.origin}/campaigns/cam_none").status_code == 404


def test_the_page_of_a_campaign_shows_senders_schedules_and_settings(
    lemlist: Sandbox, http: Client, campaign: dict[str, Any]
) -> None:
    path = f"/campaigns/{campaign['_id']}"
    mornings = {"name": EVIL, "end": "12:00", "weekdays": [1, 3]}
    http.post(f"{path}/schedules/{http.post('/schedules', json=mornings).json()['_id']}")
    http.patch(path, json={"tracking": {"trackOpens": False}, "stopOnLinkClickedFilter": EVIL})
    shown = http.get(lemlist.origin + path).text
    for text in (
        "ann@sandbox.example",
        "Default schedule, Mon Tue Wed Thu Fri, 09:00 to 18:00 Europe/Paris",
        ", Mon Wed, 09:00 to 12:00",
        "{&#34;trackOpens&#34;: false}",
    ):
        assert text in shown
    assert EVIL not in shown
    assert shown.count("&lt;script&gt;") == 2


def test_the_pages_show_statutes_and_the_number_of_unsubscribed_values(
    lemlist: Sandbox, http: Client, campaign: dict[str, Any]
) -> None:
    lemlist.unsubscribe(["ana@example.com", "@norte.example"])
    assert "<b>2</b>Unsubscribed" in http.get(lemlist.origin).text
    lemlist.statute(campaign["_id"], "Tom &amp; <b>Ann</b>", level=2, category="senders")
    shown = http.get(f"{lemlist.origin}/campaigns/{campaign['_id']}").text
    assert '<span class="pill bad">steps</span> Your campaign does not have any steps.' in shown
    assert '<span class="pill warm">senders</span> Tom &amp; Ann' in shown


def test_the_page_loads_nothing_from_other_hosts(
    lemlist: Sandbox, http: Client, campaign: dict[str, Any]
) -> None:
    response = http.get(lemlist.origin)
    files = re.findall(r'(?:src|href)="([^"]+)"', response.text)
    assert files
    assert all(each.startswith("/") for each in files)
    for each in files:
        assert http.get(lemlist.origin + each).status_code == 200
    assert "default-src 'none'; script-src 'self'" in response.headers["Content-Security-Policy"]


@pytest.mark.parametrize("path", ["/", "/?live", "/campaigns/{}", "/campaigns/{}?live&find=<script>"])
def test_hostile_texts_are_shown_as_text(lemlist: Sandbox, http: Client, evil: str, path: str) -> None:
    shown = http.get(lemlist.origin + path.format(evil)).text
    assert "&lt;script&gt;" in shown
    assert not re.search(r"<script(?! src=\"/static/page.js\" defer>)", shown)
    assert "<img src=x" not in shown


def test_an_audio_file_that_is_html_is_never_served_as_html(
    lemlist: Sandbox, http: Client, campaign: dict[str, Any]
) -> None:
    step = lemlist.step(campaign["sequenceId"], "linkedinVoiceNote")
    lead = lemlist.lead(campaign["_id"], "ana@example.com")
    query = {"leadId": lead["_id"], "stepId": step["_id"]}
    files = {"file": ("x.mp3", b"<script>1</script>", "text/html")}
    url = http.post("/leads/audio", params=query, files=files).json()["status"]["url"]
    response = http.get(url)
    assert response.headers["Content-Type"] == "audio/mp4"
    assert response.headers["X-Content-Type-Options"] == "nosniff"


@pytest.mark.parametrize("name", ["note.{x}", "note.{}", "note.a b?c#d", "note.*", "note", "note.m4a"])
def test_the_url_of_an_audio_file_works_for_any_file_name(
    lemlist: Sandbox, http: Client, campaign: dict[str, Any], name: str
) -> None:
    step = lemlist.step(campaign["sequenceId"], "linkedinVoiceNote")
    lead = lemlist.lead(campaign["_id"], "ana@example.com")
    query = {"leadId": lead["_id"], "stepId": step["_id"]}
    response = http.post("/leads/audio", params=query, files={"file": (name, b"sound", "audio/mpeg")})
    url = response.json()["status"]["url"]
    assert re.fullmatch(r"[\w:/.]+", url)
    assert http.get(url).content == b"sound"


@pytest.mark.chromium
@pytest.mark.parametrize(("path", "view"), [("/", "overview_view"), ("/campaigns/{}", "campaign_view")])
def test_a_browser_does_not_run_a_script_in_a_lead(
    lemlist: Sandbox, evil: str, path: str, view: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rendered: list[str] = []
    render = getattr(page, view)
    monkeypatch.setattr(page, view, lambda *args: rendered.append(view) or render(*args))
    document = browse(lemlist.origin + path.format(evil), tmp_path)
    assert len(rendered) > 1, "the page's own script refreshed the page"
    assert "&lt;script&gt;" in document
    title = re.search(r"<title>(.*?)</title>", document)
    assert title
    assert title[1] != "owned"


def test_a_name_with_a_text_direction_mark_is_isolated(
    lemlist: Sandbox, http: Client, campaign: dict[str, Any]
) -> None:
    name = "\u202eevil"
    lead = lemlist.lead(campaign["_id"], "ana@example.com", firstName=name, plan=name)
    lemlist.activity(lead_id=lead["_id"], type="emailsOpened")
    for path in ("/", f"/campaigns/{campaign['_id']}"):
        shown = http.get(lemlist.origin + path).text
        assert shown.count(name) == shown.count(f"<bdi>{name}</bdi>") > 0


def test_leads_are_found_and_paged(lemlist: Sandbox, http: Client, campaign: dict[str, Any]) -> None:
    for number in range(page.LEADS_PER_PAGE + 5):
        lemlist.lead(campaign["_id"], f"p{number:03}@example.com")
    path = f"{lemlist.origin}/campaigns/{campaign['_id']}"
    assert "page 1 of 2" in http.get(path).text
    assert "p000@example.com" in http.get(f"{path}?page=2").text
    found = http.get(f"{path}?find=P004").text
    assert "p004@example.com" in found
    assert "p003@example.com" not in found


def test_the_chart_counts_requests_per_second() -> None:
    now = 1_000_000.9

    def exchange(ago: float, status: int) -> Exchange:
        return Exchange(1, now - ago, 0.0, "GET", "/", "", None, "", 1, {}, status=status)

    seen = [exchange(0, 200), exchange(0.5, 429), exchange(1, 200), exchange(1, 200), exchange(70, 200)]
    drawn = page.chart(seen, 10.0, now)
    assert [tuple(bar) for bar in drawn.bars if bar.admitted or bar.refused] == [(1, 2, 0), (0, 1, 1)]
    assert (len(drawn.bars), drawn.allowed, drawn.top) == (60, 10.0, 20.0)


def test_a_step_counts_its_activities_in_order(lemlist: Sandbox, campaign: dict[str, Any]) -> None:
    step = lemlist.step(campaign["sequenceId"], "email", subject="a", message="b")
    lead = lemlist.lead(campaign["_id"], "ana@example.com")
    for type in ("emailsSent", "emailsOpened", "emailsOpened"):
        lemlist.activity(lead_id=lead["_id"], type=type, step_id=step["_id"])
    view = page.campaign_view(lemlist.service, campaign["_id"], "", 1)
    assert view["tree"][0]["counts"] == [("emailsSent", 1), ("emailsOpened", 2)]
    assert page.violation_count(Counter({"violations rate": 2, "violations body": 1, "requests": 9})) == 3
