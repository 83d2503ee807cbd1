# SPDX-License-Identifier: Apache-2.0
"""Apache Airflow provider for lemlist."""

__version__ = "0.1.0"
