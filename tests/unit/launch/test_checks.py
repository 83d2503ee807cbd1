# SPDX-License-Identifier: Apache-2.0
"""What lemlist says and lists is read without trusting its form."""

from __future__ import annotations

import html
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_lemlist.launch.checks import (
    LeadState,
    blank_variables,
    count_statuses,
    lead_state,
    plain_text,
    read_statutes,
    senders_of,
    statuses_of,
)

#: Texts that are short enough, and contain no address, which is left out.
texts = st.text(st.characters(exclude_categories=("Cs", "Cc"), exclude_characters="@<>&%"), max_size=60)


class TestPlainText:
    @pytest.mark.parametrize(
        ("written", "read"),
        [
            ('The campaign has no <a href="/c/1?a=1&b=2">sender</a>.', "The campaign has no sender."),
            ("The <b>mailbox</b> isn&#39;t connected.", "The mailbox isn't connected."),
            ("doesn&#39;t have any <b>leads</b>&nbsp;yet", "doesn't have any leads yet"),
            ("<p>One.</p><p>Two.<br/>Three</p>", "One. Two. Three"),
            ("<ul>\n <li>a</li>\n <li>b</li>\n</ul>", "a b"),
            ("3 &lt; 5 &amp;&amp; 5 > 3", "3 < 5 && 5 > 3"),
            ("a < b, c > d", "a < b, c > d"),
            ('<a title="a > b" href=\'x>y\'>link</a>', "link"),
            ("a<!-- <b>hidden</b> -->b", "a b"),
            ("<style>p { color: red }</style>Hi<script>alert('<b>')</script>", "Hi"),
            ("never <script>closed", "never"),
            ("cut <a href=\"/x", 'cut <a href="/x'),
            ("&lt;b&gt;", "<b>"),
            ("the mailbox ann.sender@example.com is gone", "the mailbox <address> is gone"),
            ('<a href="mailto:ann@example.com">ann&#64;example.com</a>', "<address>"),
            ("", ""),
        ],
    )  # fmt: skip
    def test_html_is_read_as_one_line_of_text(self, written: str, read: str) -> None:
        assert plain_text(written) == read

    @given(texts, st.sampled_from(["b", "a href='x>y'", 'span class="&lt;"', "i\n"]))
    def test_text_stays_as_it_is_whatever_the_markup(self, text: str, tag: str) -> None:
        wrapped = f"<div><{tag}>{html.escape(text)}</{tag.split()[0]}></div>"
        assert plain_text(wrapped) == " ".join(text.split())

    @given(st.text() | st.text("<>/ab\"'!-&;= @"))
    def test_no_text_is_an_error_and_every_result_is_short_and_one_line(self, text: str) -> None:
        read = plain_text(text)
        assert len(read) <= 200
        assert read == " ".join(read.split())

    @pytest.mark.parametrize("piece", ["<", "<a", '<a "', "<!--", "<script", "a" * 10, "&#", "<a '\""])
    def test_long_text_takes_no_time(self, piece: str) -> None:
        assert len(plain_text(f"<{piece * 100_000}")) <= 200


class TestStatutes:
    def test_statutes_are_sorted_by_level_and_told_once(self) -> None:
        rows = [
            {"level": 1, "message": "12 to <b>review</b>"},
            {"level": 3, "message": "no <i>sender</i>"},
            {"level": 2, "message": "no leads"},
            {"level": 3, "message": "no sender"},
            {"level": 3, "message": "no steps"},
        ]
        assert read_statutes(rows) == (("no sender", "no steps"), ("no leads",), ("12 to review",))

    @pytest.mark.parametrize(
        ("row", "text"),
        [
            ({"message": "x"}, "x"),
            ({"level": 4, "message": "x"}, "x"),
            ({"level": None, "message": "x"}, "x"),
            ({"level": "1", "message": "x"}, "x"),
            ({"level": [], "message": "x"}, "x"),
            ({"level": 3, "category": "senders"}, "senders"),
            ({"level": 3, "message": "<b></b>"}, "lemlist does not say why"),
            ({"level": 3, "message": 5}, "lemlist does not say why"),
            ("x", "x"),
            (None, "lemlist does not say why"),
        ],
        ids=str,
    )
    def test_what_is_not_known_to_be_harmless_blocks(self, row: Any, text: str) -> None:
        assert read_statutes([row]).blocking == (text,)


class TestCampaign:
    @pytest.mark.parametrize(
        ("status", "read"),
        [
            ("running", {"running"}),
            ("running, errors", {"running", "errors"}),
            (["paused", "errors"], {"paused", "errors"}),
            (None, set()),
            (5, set()),
        ],
        ids=str,
    )
    def test_a_campaign_may_have_several_statuses(self, status: Any, read: set[str]) -> None:
        assert statuses_of({"status": status}) == read
        assert statuses_of({"status": status, "archived": True}) == read | {"archived"}

    def test_senders_are_named_by_id_only(self) -> None:
        senders = [{"id": "usr_1", "email": "ann@example.com"}, {"email": "bob@example.com"}, "usr_2"]
        assert senders_of({"senders": senders}) == ("usr_1",)
        assert senders_of({"senders": "usr_1"}) == senders_of({}) == ()


class TestLeads:
    def test_only_leads_that_would_be_contacted_are_checked(self) -> None:
        def state(status: str) -> LeadState:
            row = {"_id": "lea_1", "status": status, "email": "ana@example.com", "plan": " "}
            return lead_state(row, ["plan", "hook", "email"], lambda row: row["email"] == "ana@example.com")

        assert state("review") == ("lea_1", "review", ("plan", "hook"), True)
        assert state("running") == ("lea_1", "running", ("plan", "hook"), False)
        for status in ("done", "paused", "scanning", "unsubscribed", "interested", ""):
            assert state(status) == ("lea_1", status, (), False)

    def test_leads_are_counted_by_status_and_blank_variable(self) -> None:
        leads = [
            LeadState("lea_1", "review", ("plan",)),
            LeadState("lea_2", "running", ("plan", "hook")),
            LeadState("lea_3", "review"),
            LeadState("lea_4", ""),
        ]
        assert list(count_statuses(leads).items()) == [("review", 2), ("running", 1), ("unknown", 1)]
        assert {name: str(finding) for name, finding in blank_variables(leads).items()} == {
            "plan": "2 leads (lea_1, lea_2)",
            "hook": "lead lea_2",
        }
