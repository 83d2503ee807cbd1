# SPDX-License-Identifier: Apache-2.0
"""lemlist over HTTP in plain Python: the operations, when they are sent, and what a response means."""
