# SPDX-License-Identifier: Apache-2.0
"""The controls below ``/_sandbox``: the methods of ``Sandbox`` over HTTP, for other processes."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from airflow_provider_lemlist.sandbox import checks
from airflow_provider_lemlist.sandbox.errors import ApiError
from airflow_provider_lemlist.sandbox.faults import Fault
from airflow_provider_lemlist.sandbox.prospects import SimulationOptions
from airflow_provider_lemlist.sandbox.traffic import Churn

if TYPE_CHECKING:
    from starlette.requests import Request

    from airflow_provider_lemlist.sandbox.service import Service


def routes(service: Service) -> list[Route]:
    """Return the routes of the controls. Reading runs in threads because it can be slow."""
    world = service.world

    def state(request: Request) -> Response:
        return JSONResponse(service.state())

    def requests(request: Request) -> Response:
        try:
            return JSONResponse(service.requests(request.query_params.get("route", "*")))
        except ValueError as error:
            return JSONResponse({"error": str(error)}, 400)

    def file(request: Request) -> Response:
        wanted = request.path_params["name"].partition(".")[0]
        with world.lock:
            for audio in world.audio.values():
                if audio.id == wanted:
                    # A file uploaded as HTML must not be served as HTML.
                    kind = audio.content_type if audio.content_type.startswith("audio/") else "audio/mp4"
                    return Response(audio.content, media_type=kind, headers=HARMLESS)
        return Response("File not found", 404, media_type="text/plain")

    def list_faults(request: Request) -> Response:
        with world.lock:
            return JSONResponse([fault.as_json() for fault in service.script])

    def add_fault(body: Any) -> Any:
        fault = Fault.from_json(body)
        service.add_fault(fault)
        return fault.as_json()

    def clear_faults(body: Any) -> Any:
        service.script.clear()
        return []

    def simulate(body: Any) -> Any:
        service.prospects.start(SimulationOptions(**(body or {})))
        return {"ok": True}

    def stop_simulation(body: Any) -> Any:
        service.prospects.stop()
        return {"ok": True}

    def activity_history(request: Request) -> Response:
        return JSONResponse(service.activity_history())

    def add_activity(body: Any) -> Any:
        known = {"leadId": "lead_id", "stepId": "step_id", "createdAt": "created_at", "listedAt": "listed_at"}
        known |= {"type": "type", "bot": "bot"}
        if not isinstance(body, dict) or not {"leadId", "type"} <= body.keys() <= known.keys():
            raise ValueError(
                "an activity is an object with leadId, type and any of stepId, createdAt, listedAt, bot"
            )
        body = _with_moments(body, "createdAt", "listedAt")
        return service.add_activity(**{known[name]: value for name, value in body.items()})

    def complete_activity(body: Any, id: str) -> Any:
        return service.complete_activity(id, body["stepId"])

    def remove_activity(body: Any, id: str) -> Any:
        service.remove_activity(id)
        return {"ok": True}

    def fill_activities(body: Any) -> Any:
        service.traffic.fill(**_with_moments(body, "since", "until"))
        return {"ok": True}

    def churn(body: Any) -> Any:
        service.traffic.start(Churn(**_with_moments(body, "since", "until")))
        return {"ok": True}

    def stop_churn(body: Any) -> Any:
        service.traffic.stop()
        return {"ok": True}

    def endpoint_of(action: Callable[..., Any]) -> Callable[[Request], Any]:
        async def endpoint(request: Request) -> Response:
            body = await request.body()
            try:
                with world.lock:
                    return JSONResponse(action(json.loads(body) if body else None, **request.path_params))
            except ApiError as error:
                return JSONResponse({"error": error.body}, error.status)
            except (ValueError, TypeError, KeyError, AttributeError, ArithmeticError, OSError) as error:
                return JSONResponse({"error": str(error)}, 400)

        return endpoint

    return [
        Route("/_sandbox/state", state),
        Route("/_sandbox/requests", requests),
        Route("/_sandbox/files/{name}", file),
        Route("/_sandbox/faults", list_faults),
        Route("/_sandbox/faults", endpoint_of(add_fault), methods=["POST"]),
        Route("/_sandbox/faults", endpoint_of(clear_faults), methods=["DELETE"]),
        Route("/_sandbox/simulate", endpoint_of(simulate), methods=["POST"]),
        Route("/_sandbox/simulate", endpoint_of(stop_simulation), methods=["DELETE"]),
        Route("/_sandbox/activities", activity_history),
        Route("/_sandbox/activities", endpoint_of(add_activity), methods=["POST"]),
        Route("/_sandbox/activities/fill", endpoint_of(fill_activities), methods=["POST"]),
        Route("/_sandbox/activities/{id}", endpoint_of(complete_activity), methods=["PATCH"]),
        Route("/_sandbox/activities/{id}", endpoint_of(remove_activity), methods=["DELETE"]),
        Route("/_sandbox/churn", endpoint_of(churn), methods=["POST"]),
        Route("/_sandbox/churn", endpoint_of(stop_churn), methods=["DELETE"]),
    ]


def _with_moments(body: dict[str, Any], *names: str) -> dict[str, Any]:
    """Return a body with the moments of these names in epoch seconds."""
    moments = {name: checks.parse_moment(str(body[name]), name) for name in names if name in body}
    return {**body, **moments}


#: Headers that keep a browser from interpreting an uploaded file.
HARMLESS = {
    "X-Content-Type-Options": "nosniff",
    "Content-Security-Policy": "default-src 'none'",
}
