# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest
import requests

from airflow_provider_lemlist.sandbox import Sandbox
from tests.unit.sandbox.conftest import Client

KEYS = [
    ("", 400, "No API key provided"),
    ("unknown-key", 401, "The authentication you supplied is incorrect"),
    ("low-plan-key", 402, "route is available starting emailPro plan"),
    ("blocked-key", 403, "User linked to this API key is blocked"),
    ("no-user-key", 404, "No user found for this API key"),
    ("bad-team-key", 400, "Bad team"),
]


@pytest.mark.parametrize(("key", "status", "text"), KEYS)
def test_each_state_of_a_key_has_its_error(http: Client, key: str, status: int, text: str) -> None:
    response = http.get("/team", auth=("", key))
    assert response.status_code == status
    assert text in response.text


def test_each_sandbox_has_another_key_unless_it_is_given_one() -> None:
    keys = {Sandbox(seed=1).api_key, Sandbox(seed=1).api_key, Sandbox(api_key="mine").api_key}
    assert len(keys) == 3
    assert "mine" in keys
    with Sandbox(limit="none") as one, Sandbox(limit="none") as other, Client(one) as http:
        assert http.get("/team").json()["name"] == "Sandbox team"
        assert http.get(f"{other.url}/team").status_code == 401


@pytest.mark.parametrize(
    "authorization",
    ["Bearer sandbox-key", "Basic sandbox-key", "Basic c2FuZGJveC1rZXk=", "Basic bG9naW46c2FuZGJveC1rZXk="],
    ids=["bearer", "not base64", "no colon", "a login"],
)
def test_only_basic_with_an_empty_login_is_accepted(lemlist: Sandbox, authorization: str) -> None:
    lemlist.accept_key("sandbox-key")
    response = requests.get(f"{lemlist.url}/team", headers={"Authorization": authorization}, timeout=5)
    assert (response.status_code, response.text) == (401, "The authentication you supplied is incorrect")


def test_a_request_without_authorization_provides_no_key(lemlist: Sandbox) -> None:
    response = requests.get(f"{lemlist.url}/team", timeout=5)
    assert (response.status_code, response.text) == (400, "No API key provided")


def test_a_key_can_contain_any_character(lemlist: Sandbox, http: Client) -> None:
    lemlist.accept_key("a:b/c+d é")
    assert http.get("/team", auth=("", "a:b/c+d é".encode())).status_code == 200
    with pytest.raises(ValueError, match="state must be one of"):
        lemlist.accept_key("x", "sleepy")


def test_the_cdn_can_refuse_default_user_agents() -> None:
    with Sandbox(strict_user_agent=True) as lemlist, Client(lemlist) as http:
        response = http.get("/team")
        assert (response.status_code, response.text) == (403, "error code: 1010")
        assert http.get("/team", headers={"User-Agent": "mine/1.0"}).status_code == 200


def test_no_response_and_no_log_contains_a_key(lemlist: Sandbox, http: Client) -> None:
    for path in ("/team", "/campaigns?version=v2", "/nowhere"):
        http.get(path)
    seen = [http.get(f"{lemlist.origin}/_sandbox/{each}").text for each in ("state", "requests")]
    seen.append(http.get(lemlist.origin).text)
    assert not any(lemlist.api_key in each or "c2FuZGJveC1rZXk" in each for each in seen)
