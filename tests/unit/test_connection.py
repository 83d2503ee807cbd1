# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
import logging
from typing import Any
from urllib.parse import quote

import pytest
from airflow.providers.common.compat.sdk import Connection
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_lemlist.connection import read_settings, redis_url, secrets_in
from airflow_provider_lemlist.exceptions import LemlistConfigurationError
from airflow_provider_lemlist.get_provider_info import CONN_FIELDS, REAL_HOST
from airflow_provider_lemlist.hooks.lemlist import LemlistHook


def connection(**fields: Any) -> Connection:
    if isinstance(fields.get("extra"), dict):
        fields["extra"] = json.dumps(fields["extra"])
    return Connection(conn_id="mine", conn_type="lemlist", **{"password": "k3y", **fields})


def test_an_empty_field_means_its_default() -> None:
    settings = read_settings(connection(extra={"timeout": None, "max_wait": "", "budget_store": None}))
    assert settings.base_url == REAL_HOST
    assert (settings.timeout, settings.max_wait, settings.budget_store, settings.budget_share) == (
        30,
        300,
        "",
        1,
    )
    assert {name: field["schema"]["default"] for name, field in CONN_FIELDS.items()} == {
        "timeout": 30, "max_wait": 300, "budget_store": "", "budget_share": 1,
        "stop_writes": False,
    }  # fmt: skip


@pytest.mark.parametrize("key", ["abc/def", "a+b", "50%off", "a:b", "%2F", "=?&#@", "e9f0" * 8])
@pytest.mark.parametrize("how", ["json", "uri"])
def test_any_key_is_read_from_json_and_from_a_uri(
    key: str, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from urllib.parse import quote

    text = (
        json.dumps({"conn_type": "lemlist", "password": key, "extra": {"timeout": 45}})
        if how == "json"
        else f"lemlist://:{quote(key, safe='')}@/?timeout=45"
    )
    monkeypatch.setenv("AIRFLOW_CONN_MINE", text)
    settings = LemlistHook("mine").settings
    assert settings.api_key == key
    assert settings.timeout == 45
    assert settings.base_url == REAL_HOST


def test_a_uri_can_name_the_sandbox(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_MINE", "lemlist://:k3y@http%3A%2F%2F127.0.0.1%3A8765%2Fapi")
    settings = LemlistHook("mine").settings
    assert settings.base_url == "http://127.0.0.1:8765/api"
    assert settings.is_local


def test_the_newline_of_a_mounted_secret_is_not_part_of_the_key() -> None:
    assert read_settings(connection(password="k3y\n")).api_key == "k3y"


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"password": None}, "Password .API key. of connection 'mine' is empty"),
        ({"password": "  "}, "is empty"),
        ({"password": None, "login": "k3y"}, "Login of connection 'mine' must stay empty"),
        ({"password": "k3y with spaces"}, "characters"),
        ({"password": "k3\u00e9"}, "characters"),
        ({"host": "api.lemlist.com"}, "Host .Base URL. of connection 'mine' is not a URL"),
        ({"host": "ftp://api.lemlist.com"}, "not a URL"),
        ({"host": "http://[::1"}, "not a URL"),
        ({"host": "http://127.0.0.1:99999/api"}, "not a URL"),
        ({"host": "https://user:secret@api.lemlist.com"}, "the key goes into Password"),
        ({"host": "https://api.lemlist.com/api?access_token=1"}, "path only"),
        ({"extra": "[1]"}, "Extra of connection 'mine' must be a JSON object"),
        ({"extra": {"timeout": "soon"}}, "'timeout' of connection 'mine' must be a number from 1 to 600"),
        ({"extra": {"timeout": 0}}, "'timeout'"),
        ({"extra": {"timeout": True}}, "'timeout'"),
        ({"extra": {"timeout": [5]}}, "'timeout'"),
        ({"extra": {"max_wait": -1}}, "'max_wait'"),
        ({"extra": {"max_wait": "nan"}}, "'max_wait'"),
        ({"extra": {"budget_share": 0}}, "'budget_share'"),
        ({"extra": {"budget_share": 1.5}}, "'budget_share'"),
        ({"extra": {"stop_writes": "maybe"}}, "'stop_writes' of connection 'mine' must be true or false"),
        ({"extra": {"stop_writes": [True]}}, "'stop_writes'"),
        ({"extra": {"budget_store": {"host": "x"}}}, "'budget_store' of connection 'mine' must be text"),
        ({"extra": {"budget_store": "unlimited://"}}, "'budget_store' of connection 'mine' is unlimited"),
        (
            {"host": "https://10.0.0.1/api", "extra": {"budget_store": " unlimited:// "}},
            "only for a sandbox on this machine",
        ),
    ],
)
def test_a_mistake_is_named_with_its_connection_and_field(fields: dict[str, Any], says: str) -> None:
    with pytest.raises(LemlistConfigurationError, match=says) as caught:
        read_settings(connection(**fields))
    assert isinstance(caught.value, ValueError)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("host", "named", "problem"),
    [
        ("https://lemlist.example", True, "The Base URL of connection 'mine' does not end in /api."),
        ("https://lemlist.example/", False, "The Base URL does not end in /api."),
        ("https://lemlist.example/api/", True, ""),
        ("https://lemlist.example/proxy", True, ""),
        (None, True, ""),
    ],
)
def test_a_base_url_without_a_path_is_suspect(host: str | None, named: bool, problem: str) -> None:
    assert read_settings(connection(host=host), named=named).base_url_problem == problem


def test_a_connection_of_another_type_is_refused() -> None:
    with pytest.raises(LemlistConfigurationError, match="of type 'http'"):
        read_settings(Connection(conn_id="mine", conn_type="http", password="k3y"))


def test_an_unknown_connection_is_an_error_that_says_how_to_create_it() -> None:
    with pytest.raises(LemlistConfigurationError, match="AIRFLOW_CONN_NOWHERE"):
        _ = LemlistHook("nowhere").settings


@pytest.mark.parametrize(
    ("name", "hint"),
    [("time_out", "did you mean 'timeout'"), ("maxwait", "did you mean 'max_wait'"), ("zzz", "known are")],
)
def test_an_unknown_extra_warns_with_the_near_match(
    name: str, hint: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        read_settings(connection(extra={name: "value-not-shown"}))
    assert hint in caplog.text
    assert "value-not-shown" not in caplog.text


@pytest.mark.parametrize(
    "fields", [{"host": "http://lemlist.internal/api"}, {"port": 443}, {"schema": "api"}, {"login": "me"}]
)
def test_an_ignored_or_risky_field_is_a_warning(
    fields: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        read_settings(connection(**fields))
    assert "'mine'" in caplog.text


@pytest.mark.parametrize("text", [True, "true", "True", " yes ", "on", 1, "1"])
def test_stop_writes_is_set_by_a_flag_or_a_text(text: object) -> None:
    assert read_settings(connection(extra={"stop_writes": text})).stop_writes is True


@pytest.mark.parametrize("text", [False, "false", "False", " no ", "off", 0, "0", "", None])
def test_stop_writes_is_unset_by_a_flag_or_a_text(text: object) -> None:
    assert read_settings(connection(extra={"stop_writes": text})).stop_writes is False


def test_settings_do_not_show_the_key() -> None:
    settings = read_settings(
        connection(password="t0p-s3cret", extra={"budget_store": "redis://:pw-s3cret@r/0"})
    )
    assert "s3cret" not in repr(settings)


@given(
    extra=st.dictionaries(
        st.sampled_from([*CONN_FIELDS, "other"]),
        st.none()
        | st.booleans()
        | st.integers()
        | st.floats()
        | st.text(max_size=10)
        | st.lists(st.integers()),
    )
)
def test_no_extra_is_ever_an_untyped_error(extra: dict[str, Any]) -> None:
    try:
        settings = read_settings(connection(extra=json.dumps(extra)))
    except LemlistConfigurationError:
        return
    assert 1 <= settings.timeout <= 600
    assert 0 < settings.budget_share <= 1


@pytest.mark.parametrize(
    ("fields", "url"),
    [
        ({"host": "r"}, "redis://r:6379/0"),
        ({"host": "r", "port": 6380, "password": "p@ss/w"}, "redis://:p%40ss%2Fw@r:6380/0"),
        ({"host": "r", "login": "u", "password": "p", "extra": '{"db": 3}'}, "redis://u:p@r:6379/3"),
        (
            {"host": "r", "extra": '{"ssl": true, "ssl_cert_reqs": "required"}'},
            "rediss://r:6379/0?ssl_cert_reqs=required",
        ),
        # What Airflow's form saves when nothing is filled in.
        (
            {"host": "r", "extra": '{"ssl": false, "ssl_cert_reqs": "", "ssl_check_hostname": false}'},
            "redis://r:6379/0",
        ),
        ({"host": "::1"}, "redis://[::1]:6379/0"),
        # As Airflow's own hook reads them.
        (
            {"host": "r", "password": "p", "extra": '{"cluster": true, "startup_nodes": "r2:7000, r3:6379"}'},
            "redis+cluster://:p@r:6379,r2:7000,r3:6379/0",
        ),
        (
            {
                "host": "s",
                "password": "p",
                "extra": '{"master_name": "the master", "sentinels": "s2:26379", "sentinel_password": "s@1", '
                '"db": 2}',
            },
            "redis+sentinel://:p@s:26379,s2:26379/the%20master/2?sentinel_password=s%401",
        ),
        (
            {"host": "s", "extra": '{"master_name": "m", "ssl": true, "ssl_ca_certs": "/ca.pem"}'},
            "rediss+sentinel://s:26379/m/0?ssl_ca_certs=%2Fca.pem",
        ),
    ],
)
def test_an_airflow_redis_connection_becomes_its_url(fields: dict[str, Any], url: str) -> None:
    assert redis_url(Connection(conn_id="fleet", conn_type="redis", **fields), " of connection 'mine'") == url


@pytest.mark.parametrize(
    ("url", "secrets"),
    [
        ("redis://r:6379/0", set()),
        ("redis://user@r:6379/0", set()),
        ("redis://:p%40ss@r/0", {"p%40ss", "p@ss"}),
        ("redis+sentinel://u:word@s,s2/m/0?sentinel_password=p%40ss", {"word", "p@ss"}),
        ("redis://r:6379/0?password=word", {"word"}),
        ("redis://:pass/word@[r", {"pass/word"}),
    ],
)
def test_what_must_not_be_logged_of_a_url_is_the_password_and_the_url_with_it(
    url: str, secrets: set[str]
) -> None:
    assert secrets_in(url) == (secrets and {url, *secrets})


def test_a_budget_store_that_names_no_redis_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(
        "AIRFLOW_CONN_MINE", '{"conn_type": "lemlist", "password": "k", "extra": {"budget_store": "fleet"}}'
    )
    with pytest.raises(
        LemlistConfigurationError, match="'budget_store' of connection 'mine' names the connection 'fleet'"
    ):
        _ = LemlistHook("mine").budget
    monkeypatch.setenv("AIRFLOW_CONN_FLEET", '{"conn_type": "http", "host": "r"}')
    with pytest.raises(LemlistConfigurationError, match="of type 'redis'"):
        _ = LemlistHook("mine").budget


@pytest.mark.parametrize("named_by", ["URL", "id"])
def test_the_password_of_the_budget_store_is_masked_in_logs(
    monkeypatch: pytest.MonkeyPatch, named_by: str
) -> None:
    from airflow.providers.common.compat.sdk import redact

    pytest.importorskip("redis")
    word = f"word/of-{named_by}"
    url = f"redis://:{quote(word, safe='')}@127.0.0.1:9/0"
    monkeypatch.setenv("AIRFLOW_CONN_FLEET", url)
    store = url if named_by == "URL" else "fleet"
    extra = {"budget_store": store}
    monkeypatch.setenv(
        "AIRFLOW_CONN_MINE", json.dumps({"conn_type": "lemlist", "password": "k", "extra": extra})
    )
    _ = LemlistHook("mine").budget
    assert word not in str(redact(f"a line with {word}"))
    assert quote(word, safe="") not in str(redact(f"a line with {url}"))
