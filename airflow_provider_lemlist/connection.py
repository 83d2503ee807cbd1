# SPDX-License-Identifier: Apache-2.0
"""
Read the settings from an Airflow connection; every mistake is found here, before a request.

The fields, their types and defaults are those of the form (``get_provider_info.CONN_FIELDS``).
"""

from __future__ import annotations

import json
import logging
import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, quote, unquote, urlencode, urlsplit

from airflow_provider_lemlist.exceptions import LemlistConfigurationError
from airflow_provider_lemlist.get_provider_info import CONN_FIELDS, CONN_TYPE, REAL_HOST, UNLIMITED
from airflow_provider_lemlist.validation import hint

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Connection

log = logging.getLogger(__name__)

LOOPBACK = frozenset({"127.0.0.1", "::1", "localhost"})
_FLAGS = {
    **dict.fromkeys(("true", "yes", "on", "1"), True),
    **dict.fromkeys(("false", "no", "off", "0"), False),
}


@dataclass(frozen=True, slots=True)
class Settings:
    """One connection, checked. The key stays out of ``repr``."""

    conn_id: str  # empty while the connection is tested, because its id is random then
    api_key: str = field(repr=False)
    base_url: str
    timeout: float
    max_wait: float
    budget_store: str = field(repr=False)  # a Redis URL may hold a password
    budget_share: float
    #: Whether every request that changes something is refused.
    stop_writes: bool = False

    @property
    def is_local(self) -> bool:
        """Whether the Base URL is on this machine, so that no proxy is used."""
        return urlsplit(self.base_url).hostname in LOOPBACK

    @property
    def other_host(self) -> str:
        """The host and port of a Base URL that is not lemlist's, such as a sandbox; else empty."""
        place = urlsplit(self.base_url).netloc
        return "" if place == urlsplit(REAL_HOST).netloc else place

    @property
    def of_connection(self) -> str:
        """The connection as a part of a sentence, after the name of a field."""
        return _of(self.conn_id)

    @property
    def base_url_problem(self) -> str:
        """Why a response may not come from lemlist's API; empty if the Base URL has a path."""
        return (
            "" if urlsplit(self.base_url).path else f"The Base URL{self.of_connection} does not end in /api."
        )


def read_settings(conn: Connection, *, named: bool = True) -> Settings:
    """
    Check a connection and return its settings.

    :param named: Whether messages name the connection; it has a random id while it is tested.
    :raises LemlistConfigurationError: The first field that cannot work.
    """
    conn_id = (conn.conn_id or "?") if named else ""
    of_connection = _of(conn_id)
    if (conn.conn_type or CONN_TYPE).replace("-", "_") != CONN_TYPE:
        raise LemlistConfigurationError(
            f"Connection {conn.conn_id!r} is of type {conn.conn_type!r}; change it to type {CONN_TYPE!r}."
        )
    api_key = _api_key(conn, of_connection)
    base_url = _base_url(conn, of_connection)
    extra = _extra(conn, of_connection)
    for name in ("port", "schema"):
        if getattr(conn, name, None):
            log.warning("%s of connection %r is not used; the Base URL holds it.", name.title(), conn.conn_id)
    values = {name: _value(extra, name, of_connection) for name in CONN_FIELDS}
    settings = Settings(conn_id=conn_id, api_key=api_key, base_url=base_url, **values)
    if settings.budget_store == UNLIMITED and not settings.is_local:
        why = f"is {UNLIMITED}, which is allowed only for a sandbox on this machine; leave it empty."
        raise _wrong("Extra field 'budget_store'", of_connection, why)
    return settings


def read_stop_writes(conn: Connection) -> bool:
    """Return ``stop_writes`` of a connection, without a look at its other fields."""
    of_connection = _of(conn.conn_id or "?")
    return bool(_value(_extra(conn, of_connection, warn=False), "stop_writes", of_connection))


def redis_url(conn: Connection, of_connection: str) -> str:
    """
    Return the URL of an Airflow Redis connection, as the budget takes it.

    The extra may hold what Airflow's own hook reads, ``db``, the ``ssl…`` settings, ``cluster`` and
    ``startup_nodes``; and for Sentinels ``master_name``, ``sentinels`` and ``sentinel_password``, which that
    hook does not know.

    :param conn: An Airflow connection of type ``redis``.
    :param of_connection: The lemlist connection that names it, see ``Settings.of_connection``.
    """
    if conn.conn_type != "redis" or not conn.host:
        raise LemlistConfigurationError(
            f"Extra field 'budget_store'{of_connection} names {conn.conn_id!r}, "
            "which must be of type 'redis' and have a host."
        )
    # Airflow's form saves empty fields, and those of TLS without TLS too.
    extra = {name: value for name, value in conn.extra_dejson.items() if value not in (None, "")}
    tls = _is_on(extra, "ssl")
    scheme = "rediss" if tls else "redis"
    port, others, path, options = 6379, "", str(extra.get("db", 0)), ("ssl_",) * tls
    if _is_on(extra, "cluster"):
        scheme, others = f"{scheme}+cluster", str(extra.get("startup_nodes", ""))
    elif master := str(extra.get("master_name", "")):
        scheme, others = f"{scheme}+sentinel", str(extra.get("sentinels", ""))
        port, path, options = 26379, f"{quote(master, safe='')}/{path}", (*options, "sentinel_")
    login = quote(conn.login or "", safe="")
    secret = f":{quote(conn.password, safe='')}" if conn.password else ""
    user = f"{login}{secret}@" if login or secret else ""
    host = f"[{conn.host}]" if ":" in conn.host else conn.host
    hosts = ",".join([f"{host}:{conn.port or port}", *filter(None, map(str.strip, others.split(",")))])
    query = {name: value for name, value in extra.items() if options and name.startswith(options)}
    return f"{scheme}://{user}{hosts}/{path}{'?' * bool(query)}{urlencode(query)}"


def secrets_in(url: str) -> set[str]:
    """Return what must not be read in a log: a URL that holds a password, and the password as it is."""
    address, _, query = url.partition("://")[2].partition("?")
    secret = address.rpartition("@")[0].partition(":")[2]
    options = [value for name, value in parse_qsl(query) if name.endswith("password")]
    found = {secret, unquote(secret), *options} - {""}
    return {url, *found} if found else set()


def _is_on(extra: dict[str, Any], name: str) -> bool:
    return extra.get(name) in (True, "true", "True")


def _of(conn_id: str) -> str:
    return f" of connection {conn_id!r}" if conn_id else ""


def not_a_url(of_connection: str) -> LemlistConfigurationError:
    """Return the error for a Base URL that is none."""
    why = f"is not a URL; leave it empty for {REAL_HOST}, or write http(s)://…/api."
    return _wrong("Host (Base URL)", of_connection, why)


def _wrong(field_name: str, of_connection: str, why: str) -> LemlistConfigurationError:
    return LemlistConfigurationError(f"{field_name}{of_connection} {why}")


def _api_key(conn: Connection, of_connection: str) -> str:
    # A secret read from a mounted file often ends in a newline.
    api_key = (conn.password or "").strip()
    login = (conn.login or "").strip()
    if not api_key and login:
        raise _wrong(
            "Login", of_connection, "must stay empty; put the lemlist API key into Password (API key)."
        )
    if not api_key:
        why = "is empty; create a key in lemlist under Settings > Integrations and put it there."
        raise _wrong("Password (API key)", of_connection, why)
    if login:
        log.warning("Login of connection %r is not used: lemlist's login is always empty.", conn.conn_id)
    if not api_key.isascii() or not api_key.isprintable() or " " in api_key:
        why = "holds characters that no lemlist key has; copy the key again."
        raise _wrong("Password (API key)", of_connection, why)
    return api_key


def _base_url(conn: Connection, of_connection: str) -> str:
    host = (conn.host or "").strip()
    if not host:
        return REAL_HOST
    try:
        url = urlsplit(host)
        usable = url.scheme in ("http", "https") and bool(url.hostname) and (url.port or 1) > 0
    except ValueError:
        usable = False
    if not usable:
        raise not_a_url(of_connection)
    if "@" in url.netloc or url.query or url.fragment:
        why = "may hold scheme, host, port and path only; the key goes into Password."
        raise _wrong("Host (Base URL)", of_connection, why)
    if url.scheme == "http" and url.hostname not in LOOPBACK:
        log.warning("Host of connection %r is http: the API key travels unencrypted.", conn.conn_id)
    return host.rstrip("/")


def _extra(conn: Connection, of_connection: str, *, warn: bool = True) -> dict[str, Any]:
    # ``extra_dejson`` turns broken JSON into {} with a log line only.
    try:
        extra = json.loads(conn.extra) if conn.extra and conn.extra.strip() else {}
    except ValueError:
        raise _wrong("Extra", of_connection, "is not JSON.") from None
    if not isinstance(extra, dict):
        raise _wrong("Extra", of_connection, f"must be a JSON object, not {type(extra).__name__}.")
    for name in extra.keys() - CONN_FIELDS.keys() if warn else ():
        known = hint(str(name), tuple(CONN_FIELDS)) or f"; known are {', '.join(CONN_FIELDS)}"
        log.warning("Extra of connection %r has an unknown field %r%s.", conn.conn_id, name, known)
    return extra


def _value(extra: dict[str, Any], name: str, of_connection: str) -> Any:
    schema, value = CONN_FIELDS[name]["schema"], extra.get(name)
    if value is None or value == "":
        return schema["default"]
    if "string" in schema["type"]:
        if not isinstance(value, str):
            raise _wrong(f"Extra field {name!r}", of_connection, f"must be text, not {type(value).__name__}.")
        return value.strip()
    if "boolean" in schema["type"]:
        # As text from the form before Airflow 3.2, and from a connection written as URI.
        flag = _FLAGS.get(str(value).strip().lower())
        if flag is None:
            raise _wrong(f"Extra field {name!r}", of_connection, f"must be true or false, not {value!r}.")
        return flag
    # The form of Airflow 2 and connections written as URI hold numbers as text.
    try:
        number = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError):
        number = math.nan
    if not schema["minimum"] <= number <= schema["maximum"]:
        why = f"must be a number from {schema['minimum']} to {schema['maximum']}, not {value!r}."
        raise _wrong(f"Extra field {name!r}", of_connection, why)
    return number
