# SPDX-License-Identifier: Apache-2.0
"""Operators for campaigns: apply a definition; create, guard, start and pause one."""

from __future__ import annotations

from airflow_provider_lemlist.operators.campaign.apply import ApplyCampaignOperator
from airflow_provider_lemlist.operators.campaign.create import CreateCampaignOperator
from airflow_provider_lemlist.operators.campaign.guard import CampaignGuardOperator
from airflow_provider_lemlist.operators.campaign.switch import PauseCampaignOperator, StartCampaignOperator

__all__ = [
    "ApplyCampaignOperator",
    "CampaignGuardOperator",
    "CreateCampaignOperator",
    "PauseCampaignOperator",
    "StartCampaignOperator",
]
