# SPDX-License-Identifier: Apache-2.0
"""The link opens the campaign if its id and the connection are known; otherwise there is no link."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any
from urllib.request import urlopen

import pytest
from airflow.providers.common.compat.sdk import XCom

from airflow_provider_lemlist.links import CampaignLink
from airflow_provider_lemlist.operators import campaign as operators
from airflow_provider_lemlist.operators.campaign import CreateCampaignOperator
from airflow_provider_lemlist.operators.lead import CreateLeadOperator, UploadVoiceAudioOperator
from airflow_provider_lemlist.operators.sequence import AddStepOperator
from airflow_provider_lemlist.sandbox import Sandbox
from tests.unit.worker import Worker

KEY: Any = SimpleNamespace(dag_id="d", task_id="t", run_id="r", map_index=-1)


@pytest.fixture
def pushed(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    values: dict[str, Any] = {}
    monkeypatch.setattr(XCom, "get_value", lambda *, key, ti_key: values.get(key))
    return values


@pytest.fixture(autouse=True)
def connection(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Define the default connection, by default one to lemlist itself."""

    def define(host: str = "", name: str = "LEMLIST_DEFAULT") -> None:
        monkeypatch.setenv(
            f"AIRFLOW_CONN_{name}", json.dumps({"conn_type": "lemlist", "host": host, "password": "key"})
        )

    define()
    return define


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


# --- Other hosts than lemlist's ---------------------------------------------------------------------------


def test_campaign_of_a_sandbox_is_linked_to_its_page(quick_lemlist: Sandbox, pushed: dict[str, Any]) -> None:
    worker = Worker(has_store=True)
    create = CreateCampaignOperator(task_id="create", name="Spring webinar")
    campaign_id = worker.run(create)
    assert link(create) == f"{quick_lemlist.origin}/campaigns/{campaign_id}"
    with urlopen(link(create), timeout=10) as page:
        assert "Spring webinar" in page.read().decode()
    # The webserver of Airflow 2 has neither the attributes nor the hook of the run.
    pushed.update(worker.xcoms["create"])
    assert link(SimpleNamespace(name="Spring webinar")) == link(create)


@pytest.mark.parametrize("host", ["https://lemlist.internal.example/api", "http://sandbox:8765/api"])
def test_no_link_where_it_is_not_known_what_shows_the_campaign(
    pushed: dict[str, Any], connection: Any, host: str
) -> None:
    connection(host)
    assert link(SimpleNamespace(campaign_id="cam_1")) == ""


@pytest.mark.parametrize("conn_id", ["not_defined", "{{ params.connection }}"])
def test_no_link_without_a_known_connection(pushed: dict[str, Any], conn_id: str) -> None:
    assert link(SimpleNamespace(campaign_id="cam_1", lemlist_conn_id=conn_id)) == ""


def test_mapped_task_is_linked_by_the_connection_of_its_partial(
    pushed: dict[str, Any], connection: Any
) -> None:
    connection("http://127.0.0.1:8765/api", "SANDBOX")
    mapped = CreateLeadOperator.partial(task_id="t", campaign_id="cam_1", lemlist_conn_id="sandbox").expand(
        lead=[{"email": "ana@example.com"}]
    )
    assert link(mapped) == "http://127.0.0.1:8765/campaigns/cam_1"
