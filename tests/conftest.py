"""What holds for all tests."""

from __future__ import annotations

import signal

# A shell without job control starts what runs in its background with SIGINT ignored, and every process below inherits
# that: the tests of Ctrl-C would wait for ever. A handled signal is at its default again in the programs we start.
signal.signal(signal.SIGINT, signal.default_int_handler)
