# SPDX-License-Identifier: Apache-2.0
"""
The requests of many waiting sensors: ``ActivityTrigger``, which shares them, beside a trigger that does not.

    python benchmarks/waiting_sensors.py --sensors 1000 --interval 10 --seconds 30

Every sensor waits for the reply of its own lead, all in one campaign of the sandbox, which has lemlist's
limit. Both sides run in one event loop, as in Airflow's triggerer, for the same time. The trigger written by
hand is the usual one: it requests its lead every interval, in a thread, and treats a 429 as "not yet".
"""

from __future__ import annotations

import argparse
import asyncio
import os
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import requests

from airflow_provider_lemlist.sandbox import Sandbox
from airflow_provider_lemlist.triggers.activity import ActivityTrigger


async def ours(campaign: str, lead: str, interval: float) -> None:
    since = (datetime.now(UTC) - timedelta(hours=1)).isoformat()
    trigger = ActivityTrigger(
        "emailsReplied", since=since, campaign_id=campaign, lead_id=lead, poke_interval=interval
    )
    async for _ in trigger.run():
        pass


async def by_hand(campaign: str, lead: str, interval: float, url: str, key: str) -> None:
    query = {"version": "v2", "type": "emailsReplied", "campaignId": campaign, "leadId": lead}
    while True:
        response = await asyncio.to_thread(
            requests.get, f"{url}/activities", params=query, auth=("", key), timeout=30
        )
        if response.ok and response.json():
            return
        await asyncio.sleep(interval)


async def wait(
    waiting: list[asyncio.Task[None]], seconds: float, sandbox: Sandbox
) -> tuple[Counter[int], int]:
    """Let all leads reply after some seconds, and count the triggers that have fired the same time later."""
    await asyncio.sleep(seconds)
    counts = Counter(request["status"] for request in sandbox.requests("GET /activities"))
    for lead in list(sandbox.service.world.leads):
        sandbox.activity(lead_id=lead, type="emailsReplied")
    await asyncio.sleep(seconds)
    fired = sum(task.done() for task in waiting)
    for task in waiting:
        task.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)
    return counts, fired


def measure(trigger: str, arguments: argparse.Namespace) -> tuple[Counter[int], int]:
    with Sandbox() as sandbox:
        os.environ["AIRFLOW_CONN_LEMLIST_DEFAULT"] = sandbox.airflow_connection()
        campaign = sandbox.campaign()["_id"]
        leads = [sandbox.lead(campaign, f"p{n}@example.com")["_id"] for n in range(arguments.sensors)]

        async def main() -> tuple[Counter[int], int]:
            asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(32))
            waiting = [
                asyncio.create_task(
                    ours(campaign, lead, arguments.interval)
                    if trigger == "ActivityTrigger"
                    else by_hand(campaign, lead, arguments.interval, sandbox.url, sandbox.api_key)
                )
                for lead in leads
            ]
            return await wait(waiting, arguments.seconds, sandbox)

        return asyncio.run(main())


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sensors", type=int, default=1000)
    parser.add_argument("--interval", type=float, default=10)
    parser.add_argument("--seconds", type=float, default=30, help="when the replies come")
    arguments = parser.parse_args()
    interval, seconds = arguments.interval, arguments.seconds
    print(f"{arguments.sensors} sensors, a read every {interval:g} s, replies after {seconds:g} s")
    print(f"{'':20} {'requests':>10} {'refused':>10} {'fired':>20}")
    requests_of = {}
    for trigger in ("ActivityTrigger", "own requests"):
        counts, fired = measure(trigger, arguments)
        requests_of[trigger] = counts.total()
        print(f"{trigger:20} {counts.total():>10} {counts[429]:>10} {f'{fired} of {arguments.sensors}':>20}")
    print(f"{'ratio':20} {requests_of['own requests'] / requests_of['ActivityTrigger']:>10.0f}")


if __name__ == "__main__":
    main()
