# SPDX-License-Identifier: Apache-2.0
"""The link opens the campaign if its id is known; otherwise there is no link."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import XCom

from airflow_provider_lemlist.links import CampaignLink
from airflow_provider_lemlist.operators import campaign as operators
from airflow_provider_lemlist.operators.campaign import CreateCampaignOperator
from airflow_provider_lemlist.operators.lead import CreateLeadOperator, UploadVoiceAudioOperator
from airflow_provider_lemlist.operators.sequence import AddStepOperator

KEY: Any = SimpleNamespace(dag_id="d", task_id="t", run_id="r", map_index=-1)


@pytest.fixture
def pushed(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    values: dict[str, Any] = {}
    monkeypatch.setattr(XCom, "get_value", lambda *, key, ti_key: values.get(key))
    return values


def link(operator: Any) -> str:
    return CampaignLink().get_link(operator, ti_key=KEY)


def test_link_opens_the_campaign_of_the_operator(pushed: dict[str, Any]) -> None:
    lead = CreateLeadOperator(task_id="t", campaign_id="cam_1", lead={"email": "ana@example.com"})
    assert link(lead) == "https://app.lemlist.com/campaigns/cam_1"


def test_every_operator_for_a_campaign_has_the_link() -> None:
    for name in operators.__all__:
        links = getattr(operators, name).operator_extra_links
        assert [each.name for each in links] == ["lemlist campaign"], name


def test_id_is_quoted_in_the_url(pushed: dict[str, Any]) -> None:
    assert link(SimpleNamespace(campaign_id="a/../b?c")) == "https://app.lemlist.com/campaigns/a%2F..%2Fb%3Fc"


def test_unrendered_id_is_read_from_xcom(pushed: dict[str, Any]) -> None:
    lead = CreateLeadOperator(task_id="t", campaign_id="{{ params.c }}", lead={"email": "ana@example.com"})
    assert link(lead) == ""
    pushed["lead"] = {"campaignId": "cam_2"}
    assert link(lead).endswith("/cam_2")


def test_mapped_task_uses_its_partial_arguments_or_xcom(pushed: dict[str, Any]) -> None:
    assert link(SimpleNamespace(partial_kwargs={"campaign_id": "cam_1"})).endswith("/cam_1")
    assert link(SimpleNamespace(partial_kwargs={})) == ""
    pushed["campaign_id"] = "cam_3"
    assert link(SimpleNamespace(partial_kwargs={})).endswith("/cam_3")


def test_upload_has_a_link_once_lemlist_has_responded(pushed: dict[str, Any]) -> None:
    upload = UploadVoiceAudioOperator(task_id="t", lead_id="lea_1", step_id="stp_1", audio="a.m4a")
    assert link(upload) == ""
    upload.campaign_id = "cam_4"
    assert link(upload).endswith("/cam_4")
    # The webserver of Airflow 2 does not have the attributes that the run has set.
    pushed["upload"] = {"status": {"campaignId": "cam_5"}}
    assert link(SimpleNamespace()).endswith("/cam_5")


def test_created_campaign_has_a_link_once_its_id_is_known(pushed: dict[str, Any]) -> None:
    create = CreateCampaignOperator(task_id="t", name="Spring webinar")
    assert link(create) == ""
    create.campaign_id = "cam_6"
    assert link(create).endswith("/cam_6")


def test_task_without_a_campaign_does_not_read_xcom(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(**_: Any) -> None:
        raise AssertionError("XCom was read")

    monkeypatch.setattr(XCom, "get_value", refuse)
    assert link(AddStepOperator(task_id="t", step={"type": "phone"}, sequence_id="seq_1")) == ""


@pytest.mark.parametrize("value", [None, {}, "text", {"campaignId": None}, {"campaignId": 5}, [1]])
def test_no_link_for_an_unexpected_xcom_value(pushed: dict[str, Any], value: Any) -> None:
    pushed["lead"] = value
    assert link(SimpleNamespace(partial_kwargs={})) == ""
