"""Watch each backend's target daemon; bring it and its exports back when it dies or hangs."""

from __future__ import annotations

import logging
import threading

from lunport.core.errors import LunportError
from lunport.host.clock import Deadline
from lunport.host.tasks import Stop
from lunport.volume.reconcile import restore_exports
from lunport.volume.service import Backend, Service

_LOG = logging.getLogger(__name__)
_LOOK_S = 5.0
_RETRY_FIRST_S = 0.25
_RETRY_LAST_S = 10.0


class Supervisor:
    """A thread for each backend, until it is stopped."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._stop = Stop()
        self._pause = threading.Event()
        self._threads = [
            threading.Thread(
                target=self._watch, args=(backend,), name=f"watch-{backend.name}", daemon=True
            )
            for backend in service.backends.values()
        ]

    def start(self) -> None:
        """Start watching; the first look restores the exports."""
        for thread in self._threads:
            thread.start()

    def stop(self, within_s: float) -> None:
        """Stop watching; returns as soon as the threads have ended."""
        self._stop.set()
        self._pause.set()
        for thread in self._threads:
            thread.join(within_s)

    def _watch(self, backend: Backend) -> None:
        pause_s = _RETRY_FIRST_S
        whole = False
        is_steady = True  # It lived through a look since it was last restored.
        while not self._stop.is_set():
            try:
                if not whole:
                    backend.helper.start()
                    whole = not restore_exports(self._service, backend)
                if whole:
                    if backend.helper.wait_for_exit(Deadline.after(_LOOK_S), self._stop):
                        _LOG.error("target_daemon_died backend=%s", backend.name)
                        whole = False
                    elif not self._stop.is_set() and not backend.helper.is_alive():
                        _LOG.error("target_daemon_silent backend=%s", backend.name)
                        whole = False
                    else:
                        self._bind_missing(backend)
                        is_steady, pause_s = True, _RETRY_FIRST_S
                    if whole or is_steady:
                        # One that dies at once, again and again, is brought back with pauses.
                        is_steady = whole
                        continue
            except LunportError as error:
                _LOG.error("target_daemon_not_restored backend=%s error=%s", backend.name, error)
                whole = False
            except Exception:
                # The thread's top: a daemon that nobody watches would stay down for ever.
                _LOG.exception("target_daemon_not_restored backend=%s", backend.name)
                whole = False
            self._pause.wait(pause_s)
            pause_s = min(2 * pause_s, _RETRY_LAST_S)

    def _bind_missing(self, backend: Backend) -> None:
        """Try again to bind the portals whose addresses were not there. Raises: LunportError."""
        before = backend.helper.missing_portals
        if before and not self._stop.is_set():
            backend.helper.start()
            for portal in before:
                if portal not in backend.helper.missing_portals:
                    _LOG.info("portal_bound backend=%s portal=%s", backend.name, portal)
