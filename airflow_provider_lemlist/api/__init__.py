# SPDX-License-Identifier: Apache-2.0
"""lemlist over HTTP in plain Python: which operations there are, when they are sent, what a response means."""
