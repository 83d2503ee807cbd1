# SPDX-License-Identifier: Apache-2.0
"""A real HTTP server on loopback that lists activities as lemlist does, and records the requests."""

from __future__ import annotations

import json
import threading
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl

NOW = datetime.now(UTC)


def ago(**how_long: float) -> datetime:
    return NOW - timedelta(**how_long)


class Listing:
    """``GET /activities`` over the rows that a test adds. Leads and types listed as unknown get a 400."""

    def __init__(self) -> None:
        self.rows: list[dict[str, Any]] = []
        self.queries: list[dict[str, str]] = []
        self.unknown: set[str] = set()
        #: Cleared, every answer waits until it is set again.
        self.answering = threading.Event()
        self.answering.set()
        listing = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            def log_message(self, *args: object) -> None:
                pass

            def do_GET(self) -> None:
                query = dict(parse_qsl(self.path.partition("?")[2]))
                listing.queries.append(query)
                listing.answering.wait()
                refused = listing.unknown & set(query.values())
                body = b"Bad value" if refused else json.dumps(listing.page(query)).encode()
                self.send_response(400 if refused else 200)
                self.send_header("Content-Type", "text/plain" if refused else "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)
        self._thread.start()

    @property
    def connection(self) -> str:
        port = self._server.server_address[1]
        return json.dumps(
            {
                "conn_type": "lemlist",
                "host": f"http://127.0.0.1:{port}/api",
                "password": f"key-{port}",  # a budget of its own for each test
                "extra": {"budget_store": "memory://"},
            }
        )

    @property
    def reads(self) -> list[dict[str, str]]:
        """The first page of each listing that was read."""
        return [query for query in self.queries if query["offset"] == "0"]

    def add(self, activity_type: str = "emailsReplied", lead_id: str = "lea_1", **fields: Any) -> str:
        at: datetime = fields.pop("at", None) or datetime.now(UTC)
        activity_id = f"act_{len(self.rows)}"
        self.rows.append(
            {
                "_id": activity_id,
                "type": activity_type,
                "createdAt": at.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
                "isFirst": True,
                "campaignId": "cam_1",
                "leadId": lead_id,
                "leadEmail": "ana.ruiz@example.com",
                "leadFirstName": "Ana",
                "metaData": {"leadId": lead_id},
                "lead": {"_id": lead_id, "variables": {"email": "ana.ruiz@example.com", "plan": "trial"}},
                **fields,
            }
        )
        return activity_id

    def page(self, query: dict[str, str]) -> list[dict[str, Any]]:
        def is_listed(row: dict[str, Any]) -> bool:
            return (
                query["version"] == "v2"
                and row["type"] == query.get("type", row["type"])
                and row["campaignId"] == query.get("campaignId", row["campaignId"])
                and row["leadId"] == query.get("leadId", row["leadId"])
                and str(row["isFirst"]).lower() == query.get("isFirst", str(row["isFirst"]).lower())
                and query["minDate"] <= row["createdAt"] <= query["maxDate"]
            )

        listed = sorted(filter(is_listed, list(self.rows)), key=lambda row: row["createdAt"], reverse=True)
        offset, limit = int(query["offset"]), int(query["limit"])
        return listed[offset : offset + limit]

    def close(self) -> None:
        self.answering.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
