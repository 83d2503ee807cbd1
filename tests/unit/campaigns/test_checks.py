# SPDX-License-Identifier: Apache-2.0
"""All mistakes of a definition are found at once, before anything is sent, each with its place."""

from __future__ import annotations

from typing import Any

import pytest

from airflow_provider_lemlist.campaigns.checks import Document, Mistake, all_mistakes, checked, mistakes
from airflow_provider_lemlist.campaigns.definition import RESERVED_NAMES, UNKNOWN
from airflow_provider_lemlist.exceptions import LemlistValidationError
from airflow_provider_lemlist.templating import AirflowText

EMAIL: dict[str, Any] = {"type": "email", "subject": "s", "message": "m"}
MORNINGS: dict[str, Any] = {
    "name": "Mornings",
    "timezone": "Europe/Paris",
    "start": "08:00",
    "end": "11:00",
    "weekdays": [2, 3],
}
CONDITION: dict[str, Any] = {"type": "conditional", "conditionKey": "hasScore", "delayType": "waitUntil"}


def campaign(*steps: Any, **settings: Any) -> dict[str, Any]:
    return {"name": "Spring webinar", "steps": list(steps), **settings}


def found(definition: Any, parameters: Any = None) -> list[str]:
    return [str(mistake) for mistake in mistakes(definition, {} if parameters is None else parameters)]


def test_definition_without_mistakes_is_returned_with_its_parameters_filled_in() -> None:
    document = Document(campaign(EMAIL | {"delay": "[[ days ]]"}))
    assert checked(document, {"days": 2}, "The campaign") == campaign(EMAIL | {"delay": 2})


def test_error_lists_all_mistakes_at_once() -> None:
    document = Document(campaign({"type": "sms"}, timezone="Paris", stopOnReplied=True))
    with pytest.raises(LemlistValidationError) as error:
        checked(document, {}, "The campaign of task 'apply'")
    assert str(error.value) == (
        "The campaign of task 'apply' is wrong: timezone: must be an IANA time zone, such as Europe/Paris, "
        "not 'Paris'; stopOnReplied: a campaign has no such setting; step 1, message: 'sms' needs it. "
        "Nothing was sent."
    )


@pytest.mark.parametrize("definition", [[EMAIL], "Spring webinar", 3, None])
def test_definition_that_is_no_mapping_is_refused(definition: Any) -> None:
    [mistake] = found(definition)
    assert mistake == (
        f"must be a Campaign, a mapping, or the path of a YAML file, not {type(definition).__name__}"
    )


def test_schedule_needs_its_hours_and_days() -> None:
    needed = [
        f"schedules 1, {name}: 'schedules' needs it" for name in ("timezone", "start", "end", "weekdays")
    ]
    assert found(campaign(schedules=[{"name": "Mornings"}])) == needed


def test_name_and_steps_are_needed() -> None:
    assert found({}) == ["a campaign needs 'name'", "a campaign needs 'steps'"]


# --- Settings ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("setting", "mistake"),
    [
        ({"autoRevew": True}, "autoRevew: a campaign has no such setting (did you mean 'autoReview'?)"),
        ({"auto_review": True}, "auto_review: a campaign has no such setting (did you mean 'autoReview'?)"),
        ({5: True}, "5: a campaign has no such setting"),
        ({"autoReview": "yes"}, "autoReview: must be true or false, not 'yes'"),
        ({"autoReview": 1}, "autoReview: must be true or false, not 1"),
        ({"name": 2026}, "name: must be text, not 2026"),
        ({"name": " "}, "name: must be text and not empty"),
        ({"timezone": "Paris"}, "timezone: must be an IANA time zone, such as Europe/Paris, not 'Paris'"),
        ({"sendUserIds": "usr_1"}, "sendUserIds: must be a list, not 'usr_1'"),
        ({"schedules": [{**MORNINGS, "day": 1}]}, "schedules 1, day: schedules has no such field"),
        (
            {"schedules": [{**MORNINGS, "start": "8:00"}]},
            "schedules 1, start: must be a time such as 09:00, not '8:00'",
        ),
        ({"schedules": [{**MORNINGS, "weekdays": [0]}]}, "schedules 1, weekdays 1: must be 1 to 7, not 0"),
        (
            {"schedules": [{**MORNINGS, "timezone": "Mars"}]},
            "schedules 1, timezone: must be an IANA time zone, such as Europe/Paris, not 'Mars'",
        ),
        (
            {"schedules": [{**MORNINGS, "secondsToWait": True}]},
            "schedules 1, secondsToWait: must be a whole number, not True",
        ),
        ({"schedules": [MORNINGS, MORNINGS]}, "schedules 2, name: 'Mornings' is there twice"),
        ({"sendUserIds": ["usr_1", 5]}, "sendUserIds 2: must be text, not 5"),
        (
            {"autoReviewConditions": ["deliverabel"]},
            (
                "autoReviewConditions 1: 'deliverabel' is not one of deliverable, risky, undeliverable, "
                "unverified (did you mean 'deliverable'?)"
            ),
        ),
        ({"tracking": True}, "tracking: must be a mapping, not True"),
        ({"tracking": {"trackOpens": 1}}, "tracking, trackOpens: must be true or false, not 1"),
        (
            {"tracking": {"trackOpen": True}},
            "tracking, trackOpen: tracking has no such field (did you mean 'trackOpens'?)",
        ),
        (
            {"onReplied": {"campaignProgress": "paus"}},
            "onReplied, campaignProgress: 'paus' is not one of continue, pause, stop (did you mean 'pause'?)",
        ),
        (
            {"aiFeatures": {"onInterestedReply": {"enabled": "on"}}},
            "aiFeatures, onInterestedReply, enabled: must be true or false, not 'on'",
        ),
    ],
)
def test_wrong_setting_is_named(setting: dict[Any, Any], mistake: str) -> None:
    assert found(campaign() | setting) == [mistake]


@pytest.mark.parametrize(
    ("definition", "place"),
    [
        (campaign(autoReview=None), "autoReview"),
        (campaign(tracking={"trackOpens": None}), "tracking, trackOpens"),
        (campaign(labels=[None]), "labels 1"),
        ({"name": None, "steps": []}, "name"),
        ({"name": "a", "steps": None}, "steps"),
        (campaign(None), "step 1"),
        (campaign(EMAIL | {"subject": None}), "step 1, subject"),
        (campaign(EMAIL | {"delay": None}), "step 1, delay"),
        (campaign({"type": None}), "step 1, type"),
        (campaign(CONDITION | {"yes": None}), "step 1, yes"),
        (campaign(CONDITION | {"yes": [None]}), "step 1, yes 1"),
        (campaign({"type": "linkedinSend", "message": "m", "images": [None]}), "step 1, images 1"),
    ],
)
def test_value_that_is_none_is_named_once(definition: dict[str, Any], place: str) -> None:
    assert found(definition) == [
        f"{place}: has no value; leave it out, or check its template or upstream task"
    ]


# --- Steps ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("step", "mistake"),
    [
        (5, "step 1: must be a typed step or a mapping with 'type', not int"),
        ({"type": "sms"}, "step 1, message: 'sms' needs it"),
        ({"type": "sms", "message": 5}, "step 1, message: must be text, not int"),
        (EMAIL | {"delay": "3"}, "step 1, delay: must be a whole number, not '3'"),
        (EMAIL | {"delay": 2000}, "step 1, delay: must be 0 to 1500, not 2000"),
        (EMAIL | {"index": 2}, "step 1, index: the place of a step is its place in the list"),
        (EMAIL | {"index": "first"}, "step 1, index: the place of a step is its place in the list"),
        (EMAIL | {"message": {"file": 5}}, "step 1, message: must be text, not dict"),
        (EMAIL | {"yes": []}, "step 1, yes: only a step of type 'conditional' has branches"),
        (EMAIL | {"otherwise": []}, "step 1, otherwise: only a step of type 'conditional' has branches"),
        (CONDITION | {"yes": EMAIL}, "step 1, yes: must be a list of steps, not dict"),
        (CONDITION | {"yes": [5]}, "step 1, yes 1: must be a typed step or a mapping with 'type', not int"),
        (
            CONDITION | {"otherwise": [EMAIL, CONDITION | {"yes": [{"type": "sms"}]}]},
            "step 1, otherwise 2, yes 1, message: 'sms' needs it",
        ),
    ],
)
def test_wrong_step_is_named_by_its_place(step: Any, mistake: str) -> None:
    assert found(campaign(step)) == [mistake]


@pytest.mark.parametrize("wrong", ["conditionnal", 5, ["email"]])
def test_of_a_step_with_a_wrong_type_only_the_type_is_wrong(wrong: Any) -> None:
    [mistake] = found(campaign({"type": wrong, "yes": [], "subject": "s"}))
    assert mistake.startswith(f"step 1, type: {wrong!r} is not a step type")


def test_misspelled_field_is_named_with_the_near_one() -> None:
    [mistake] = found(campaign(EMAIL | {"delya": 3}))
    assert mistake.startswith("step 1, delya: 'email' has no such field (did you mean 'delay'?)")


def test_steps_must_be_a_list() -> None:
    assert found(campaign() | {"steps": EMAIL}) == ["steps: must be a list of steps, not dict"]


@pytest.mark.parametrize("name", ["1st", "call-back", "opening mail", "", "é", 5, ["a"], "_a"])
def test_name_that_is_no_xcom_key_is_refused(name: Any) -> None:
    assert found(campaign(EMAIL | {"name": name})) == [
        f"step 1, name: must begin with a letter and hold only letters, digits and underscores, not {name!r}"
    ]


@pytest.mark.parametrize("name", RESERVED_NAMES)
def test_name_that_the_operator_uses_is_refused(name: str) -> None:
    assert found(campaign(EMAIL | {"name": name})) == [
        f"step 1, name: {name!r} is an XCom key of the operator; choose another name"
    ]


def test_name_that_is_there_twice_is_refused_also_across_branches() -> None:
    voice = {"type": "linkedinVoiceNote", "name": "voice"}
    assert found(campaign(voice, CONDITION | {"yes": [EMAIL, voice]})) == [
        "step 2, yes 2, name: 'voice' is already the name of step 1"
    ]


# --- Parameters and templates -----------------------------------------------------------------------------


def test_parameter_that_is_missing_is_named_where_it_is_used_first() -> None:
    definition = campaign(EMAIL | {"subject": "[[ webinar ]]"}, EMAIL | {"subject": "[[ webinar ]]"})
    assert found(definition) == ["step 1, subject: parameters has no value for [[ webinar ]]"]


def test_parameter_that_no_text_uses_is_named() -> None:
    assert found(campaign(EMAIL), {"place": "Graz"}) == ["no text uses the parameter 'place'"]
    assert found(campaign(EMAIL | {"subject": "[[ place ]]"}), {"place": "Graz", "palce": "Graz"}) == [
        "no text uses the parameter 'palce' (did you mean 'place'?)"
    ]


@pytest.mark.parametrize(
    ("step", "value", "mistake"),
    [
        ({"delay": "[[ x ]]"}, "soon", "delay: must be a whole number, not 'soon'"),
        ({"delay": "[[ x ]]"}, 2000, "delay: must be 0 to 1500, not 2000"),
        ({"delay": "in [[ x ]] days"}, 3, "delay: must be a whole number, not 'in 3 days'"),
        ({"subject": "[[ x ]]"}, ["a"], "subject: must be text, not list"),
        ({"subject": "on [[ x ]]"}, {"a": 1}, "subject: must be text, not dict"),
        (
            {"subject": "on [[ x ]]"},
            None,
            "subject: has no value; leave it out, or check its template or upstream task",
        ),
        ({"subject": "[[ x ]]"}, "", "subject: must not be empty"),
    ],
)
def test_parameter_of_the_wrong_type_is_named_where_it_is_used(
    step: dict[str, Any], value: Any, mistake: str
) -> None:
    assert found(campaign(EMAIL | step), {"x": value}) == [f"step 1, {mistake}"]


@pytest.mark.parametrize("text", ["[[ day-1 ]]", "[[first name]]", "[[ x.y ]]", "[[ x | upper ]]"])
def test_what_looks_like_a_parameter_and_is_none_is_refused(text: str) -> None:
    assert found(campaign(EMAIL | {"message": f"On {text}"})) == [
        f"step 1, message: {text} is no parameter: a name has only letters, digits and underscores"
    ]


def test_airflow_template_that_airflow_does_not_render_is_refused() -> None:
    definition = campaign(EMAIL | {"message": "Hi {{firstName}}, {{ ds }}"}, name="Spring {{ ds }}")
    assert found(definition) == [
        f"{place}: contains an Airflow template ('ds'), which lemlist would send as it is; use a parameter, "
        "[[ name ]], or AirflowText in Python"
        for place in ("name", "step 1, message")
    ]


# --- What is not known yet --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "definition",
    [
        UNKNOWN,
        {"name": UNKNOWN, "steps": UNKNOWN},
        campaign(UNKNOWN),
        campaign({"type": UNKNOWN, "colour": "red"}),
        campaign(EMAIL | {"subject": UNKNOWN, "delay": UNKNOWN, "name": UNKNOWN}),
        campaign({"type": "linkedinSend", "message": "m", "images": [UNKNOWN, "https://example.com/a.png"]}),
        campaign({"type": "linkedinSend", "message": "m", "images": UNKNOWN}),
        campaign(CONDITION | {"yes": UNKNOWN, "otherwise": [UNKNOWN]}),
        campaign(
            timezone=UNKNOWN, sendUserIds=[UNKNOWN], tracking={"trackOpens": UNKNOWN}, onReplied=UNKNOWN
        ),
    ],
)
def test_nothing_is_said_about_what_is_not_known(definition: Any) -> None:
    assert found(definition) == []


def test_what_is_known_beside_it_is_checked() -> None:
    assert found(campaign({"type": UNKNOWN, "yes": 5}, EMAIL | {"subject": UNKNOWN, "delay": -1})) == [
        "step 1, yes: must be a list of steps, not int",
        "step 2, delay: must be 0 to 1500, not -1",
    ]


@pytest.mark.parametrize("parameters", [UNKNOWN, {"days": UNKNOWN}])
def test_parameters_may_be_unknown_too(parameters: Any) -> None:
    assert found(campaign(EMAIL | {"delay": "[[ days ]]"}), parameters) == []


# --- Places -----------------------------------------------------------------------------------------------


def test_mistakes_of_a_file_are_in_the_order_of_its_lines() -> None:
    lines = {(): 1, ("steps",): 2, ("steps", 0): 3, ("steps", 0, "subject"): 4, ("name",): 9}
    unread = (Mistake(("steps", 0, "message"), "the file 'a.html' cannot be read: No such file"),)
    definition = {"name": 5, "steps": [{"type": "email", "subject": 5, "message": UNKNOWN}]}
    assert all_mistakes(Document(definition, "spring.yaml", lines, unread), {}) == [
        "spring.yaml, line 3: step 1, message: the file 'a.html' cannot be read: No such file",
        "spring.yaml, line 4: step 1, subject: must be text, not int",
        "spring.yaml, line 9: name: must be text, not 5",
    ]


def test_airflow_text_must_be_rendered_before() -> None:
    assert found(campaign(EMAIL | {"subject": AirflowText("[[ ds ]]")}))
