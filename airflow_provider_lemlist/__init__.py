# SPDX-License-Identifier: Apache-2.0
"""Apache Airflow provider for lemlist: safe with real people's inboxes, as fast as the API allows."""

__version__ = "0.1.0"
