# SPDX-License-Identifier: Apache-2.0
"""lemlist over HTTP in plain Python: what may be asked, when it may leave, and what an answer means."""
