# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""Ctrl-C as a request instead of an exception."""

import signal
import threading
from types import FrameType, TracebackType


class Interrupt:
    """Within the block the first Ctrl-C sets `requested`; the second raises KeyboardInterrupt.

    Signals reach the main thread only. In another thread the block changes nothing, and Ctrl-C
    raises in the main thread as it always does.
    """

    def __init__(self) -> None:
        self.requested = False
        self._installed = False
        self._previous: object = None

    def _handle(self, signum: int, frame: FrameType | None) -> None:
        if self.requested:
            raise KeyboardInterrupt
        self.requested = True

    def __enter__(self) -> "Interrupt":
        """Install the handler, where that is possible."""
        in_main_thread = threading.current_thread() is threading.main_thread()
        # None: a handler that was not set from Python, and which Python cannot put back.
        if in_main_thread and signal.getsignal(signal.SIGINT) is not None:
            self._previous = signal.signal(signal.SIGINT, self._handle)
            self._installed = True
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Put the previous handler back."""
        if self._installed:
            signal.signal(signal.SIGINT, self._previous)  # type: ignore[arg-type]
            self._installed = False
