# SPDX-License-Identifier: Apache-2.0
"""What is checked before a campaign contacts people, and the launch of leads that wait for review."""
