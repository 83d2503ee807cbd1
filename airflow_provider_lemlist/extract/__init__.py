# SPDX-License-Identifier: Apache-2.0
"""
Reading back what happened in lemlist: complete or failed, each row once, as fast as the key allows.

    datasets (what there is) -> plans (pure: what to request next, what a page proves)
        -> reader (threads, and rows in order) -> files (parts and a manifest) | tables (one transaction)

``LemlistHook.read`` gives the rows to a task; the operators are in ``transfers/``.
"""
