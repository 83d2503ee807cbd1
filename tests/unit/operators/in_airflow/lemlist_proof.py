# SPDX-License-Identifier: Apache-2.0
"""Pass steps and leads to the operators in every supported form, and interrupt workers, in real Airflow."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from airflow.providers.common.compat.sdk import DAG, Asset, literal, task

from airflow_provider_lemlist.operators.lead import CreateLeadOperator
from airflow_provider_lemlist.operators.sequence import AddStepOperator
from airflow_provider_lemlist.steps import Api, Conditional, Email, LinkedinSend
from airflow_provider_lemlist.templating import AirflowText


def interrupt(task: Any, method: str) -> None:
    """Let the first attempt end between the effect and the response."""
    real = getattr(task.hook, method)

    def die(*args: Any, **kwargs: Any) -> None:
        real(*args, **kwargs)
        raise RuntimeError("interrupted")

    setattr(task.hook, method, die)


class InterruptedAddStepOperator(AddStepOperator):
    """Fail once after the effect, as an interrupted worker does."""

    def execute(self, context: Any) -> str:
        if context["ti"].try_number == 1:
            interrupt(self, "add_step")
        return super().execute(context)


class InterruptedCreateLeadOperator(CreateLeadOperator):
    """Fail once after the effect, as an interrupted worker does."""

    def execute(self, context: Any) -> str:
        if context["ti"].try_number == 1:
            interrupt(self, "create_lead")
        return super().execute(context)


AGAIN = {"retries": 1, "retry_delay": timedelta(0)}

with DAG(
    "lemlist_proof",
    start_date=datetime(2026, 1, 1),
    schedule=None,
    params={"campaign": "", "sequence": "", "delay": 3, "yes": True},
) as dag:
    SEQUENCE = "{{ params.sequence }}"
    CAMPAIGN = "{{ params.campaign }}"

    @task
    def a_text() -> str:
        return "from upstream {{firstName}}"

    @task
    def a_step() -> dict[str, Any]:
        return {"type": "email", "subject": "{{firstName}}, upstream", "message": "<p>{{icebreaker}}</p>"}

    @task
    def steps() -> list[dict[str, Any]]:
        return [Email(subject="{{firstName}} 1", message="m"), {"type": "sms", "message": "{{firstName}} 2"}]

    @task
    def arguments(sequence_id: str) -> list[dict[str, Any]]:
        return [{"step": {"type": "sms", "message": "{{firstName}} kwargs"}, "sequence_id": sequence_id}]

    @task
    def people() -> list[dict[str, Any]]:
        return [{"email": f"{name}@example.com", "icebreaker": "{{firstName}}!"} for name in ("a", "b")]

    AddStepOperator(
        task_id="as_dict",
        campaign_id=CAMPAIGN,
        step={
            "type": "email",
            "subject": "{{firstName}}, dict",
            "message": "m",
            "delay": "{{ params.delay }}",
        },
    )
    AddStepOperator(
        task_id="typed",
        sequence_id=SEQUENCE,
        step=Email(
            subject="{{firstName}}, typed",
            message=AirflowText("Hi {{firstName}}, [[ params.delay ]] days[% if True %]!\n[% endif %]"),
            delay="{{ params.delay }}",
        ),
    )
    AddStepOperator.partial(task_id="expanded", sequence_id=SEQUENCE).expand(
        step=[
            Email(
                subject="{{firstName}} e",
                message=AirflowText("[[ params.delay ]]"),
                delay="{{ params.delay }}",
            ),
            {"type": "sms", "message": "{{firstName}} e"},
        ]
    )
    AddStepOperator(task_id="upstream", sequence_id=SEQUENCE, step=a_step())
    AddStepOperator.partial(task_id="upstream_expanded", sequence_id=SEQUENCE).expand(step=steps())
    AddStepOperator.partial(task_id="upstream_kwargs").expand_kwargs(arguments(SEQUENCE))
    AddStepOperator(
        task_id="inside",
        sequence_id=SEQUENCE,
        step=LinkedinSend(
            message=a_text(),
            alt_message="{{firstName}}",
            images=["https://cdn.example.com/{{ params.delay }}.png"],
        ),
    )
    AddStepOperator(
        task_id="in_url",
        sequence_id=SEQUENCE,
        step=Api(method="POST", url=AirflowText("https://x.example.com/[[ params.delay ]]?n={{firstName}}")),
    )
    AddStepOperator(
        task_id="as_literal",
        sequence_id=SEQUENCE,
        step=Api(method="POST", url=literal("https://x.example.com/?n={{firstName}}")),
    )
    condition = AddStepOperator(
        task_id="condition",
        campaign_id=CAMPAIGN,
        step=Conditional(condition_key="linkedinInviteAccepted", delay_type="within", delay=2),
    )
    for key in ("linkedinInviteAccepted", "fallback"):
        AddStepOperator(
            task_id=key,
            sequence_id=condition.output[key],
            campaign_id=CAMPAIGN,
            step={"type": "phone", "message": key},
        )

    lead = CreateLeadOperator(
        task_id="lead",
        campaign_id=CAMPAIGN,
        deduplicate="{{ params.yes }}",
        lead={
            "email": "ana+x@example.com",
            "icebreaker": "{{firstName}}, hello",
            "note": AirflowText("[[ params.delay ]] {{x}}"),
            "upstream": a_text(),
            "score": 3,
        },
        outlets=[Asset("lemlist://leads/all")],
    )
    CreateLeadOperator.partial(task_id="leads", campaign_id=CAMPAIGN).expand(lead=people())

    InterruptedAddStepOperator.partial(task_id="interrupted_steps", campaign_id=CAMPAIGN, **AGAIN).expand(
        step=[{"type": "phone", "message": "interrupted 1"}, {"type": "phone", "message": "interrupted 2"}]
    )
    # An equal step of another, mapped task is in the same sequence.
    AddStepOperator.partial(task_id="equal", sequence_id=SEQUENCE).expand(
        step=[{"type": "phone", "message": "equal"}]
    ) >> InterruptedAddStepOperator(
        task_id="interrupted_sequence",
        sequence_id=SEQUENCE,
        step={"type": "phone", "message": "equal"},
        **AGAIN,
    )
    InterruptedCreateLeadOperator(
        task_id="interrupted_lead",
        campaign_id=CAMPAIGN,
        lead={"email": "cut@example.com"},
        if_exists="fail",
        **AGAIN,
    )
