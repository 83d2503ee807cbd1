# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest

from airflow_provider_lemlist.sandbox import Sandbox
from airflow_provider_lemlist.sandbox.__main__ import parser
from airflow_provider_lemlist.sandbox.tidy_html import tidy_html
from tests.unit.sandbox.conftest import Client


@pytest.mark.parametrize(
    ("html", "tidied"),
    [
        ("Hi {{firstName}}", "<p>Hi {{firstName}}</p>"),
        ("Hi <b>Ana</b>", "<p>Hi <b>Ana</b></p>"),
        ("<p>one<br/>two", "<p>one<br>two</p>"),
        ("<P>one</P><p>two</p>", "<p>one</p>\n<p>two</p>"),
        ("<a href='https://x.org?a=1&b=2'>x</a>", '<p><a href="https://x.org?a=1&amp;b=2">x</a></p>'),
        ("<p>R&D,&nbsp;&eacute;t&eacute;  it's</p>", "<p>R&amp;D, été it's</p>"),
        ("<div><b>one</div>two</i>", "<div><b>one</b></div>\n<p>two</p>"),
        ("", ""),
    ],
)
def test_html_is_tidied(html: str, tidied: str) -> None:
    assert tidy_html(html) == tidied
    assert tidy_html(tidied) == tidied


def test_a_stored_email_differs_from_the_sent_one_only_if_requested() -> None:
    email = {"type": "email", "subject": "A & B", "message": "Hi<br>Ana & Bo"}
    task = {"type": "manual", "title": "Call", "message": "A & B"}
    stored = {False: "Hi<br>Ana & Bo", True: "<p>Hi<br>Ana &amp; Bo</p>"}
    for option, message in stored.items():
        with Sandbox(limit="none", tidy_html=option) as lemlist, Client(lemlist) as http:
            campaign = lemlist.campaign()
            steps = f"/sequences/{campaign['sequenceId']}/steps"
            added = http.post(steps, json=email).json()
            http.post(steps, json=task)
            lemlist.step(campaign["sequenceId"], **email)
            (sequence,) = http.get(f"/campaigns/{campaign['_id']}/sequences").json().values()
            assert [each["message"] for each in sequence["steps"]] == [message, "A & B", message]
            assert (sequence["steps"][0]["subject"], added["message"]) == ("A & B", message)
            updated = http.patch(f"{steps}/{added['_id']}", json={"type": "email", "message": "Bye<br>"})
            assert updated.json()["message"] == ("<p>Bye<br></p>" if option else "Bye<br>")


def test_the_command_line_has_the_option() -> None:
    assert [parser().parse_args(each).tidy_html for each in ([], ["--tidy-html"])] == [False, True]
