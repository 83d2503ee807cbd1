# SPDX-License-Identifier: Apache-2.0
"""Operators for campaigns: apply a definition; create, start, pause and guard one; launch its leads."""

from __future__ import annotations

from airflow_provider_lemlist.operators.campaign.apply import ApplyCampaignOperator
from airflow_provider_lemlist.operators.campaign.create import CreateCampaignOperator
from airflow_provider_lemlist.operators.campaign.guard import CampaignGuardOperator
from airflow_provider_lemlist.operators.campaign.launch import LaunchLeadsOperator
from airflow_provider_lemlist.operators.campaign.switch import PauseCampaignOperator, StartCampaignOperator

__all__ = [
    "ApplyCampaignOperator",
    "CampaignGuardOperator",
    "CreateCampaignOperator",
    "LaunchLeadsOperator",
    "PauseCampaignOperator",
    "StartCampaignOperator",
]
