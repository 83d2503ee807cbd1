# SPDX-License-Identifier: Apache-2.0
"""Operators that bring what happened in lemlist into files and tables."""
