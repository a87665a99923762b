"""The steps of one registration: files out, worker, files in. No dialog and no widget; callable from Python.

logic = NeuralRegistrationLogic()
run = logic.register(fixedNode, movingNode, preset="fast")     # waits, the window stays alive
logic.register(fixedNode, movingNode, wait=False, onFinished=lambda outcome: print(outcome.message))
"""

from __future__ import annotations

import atexit
import contextlib
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import qt
import slicer
import vtk
from neuralreg.job import CANCEL, EXIT_CANCELLED, RESULT, STOP, Progress, RegistrationError, Result
from slicer.i18n import tr as _
from slicer.ScriptedLoadableModule import ScriptedLoadableModuleLogic
from slicer.util import VTKObservationMixin

from .moved import FIXED, MOVING, Place, changed_meanwhile, place
from .parameters import NeuralRegistrationParameterNode, forget_unknown
from .request import Request, in_words, write_job
from .results import Run, run_of, write_measurements, write_notes
from .run_folders import RunFolders
from .scene_load import load_steps
from .worker import Ending, Worker

POLL_MS = 40
LOAD_SECONDS = 0.03  # of loading after which the window has its turn; one step may take longer
DONE, STOPPED, FAILED = "done", "cancelled", "failed"


@dataclass(frozen=True)
class Outcome:
    """How a registration ended: `status` is "done", "cancelled" or "failed"; `message` is one sentence."""

    status: str
    message: str
    run: Run | None = None
    stopped_early: bool = False


class NeuralRegistrationLogic(ScriptedLoadableModuleLogic, VTKObservationMixin):
    """Runs one registration at a time; several instances do not disturb each other."""

    def __init__(self, parent=None, worker: Worker | None = None):
        ScriptedLoadableModuleLogic.__init__(self, parent)
        VTKObservationMixin.__init__(self)
        self.worker = worker or Worker()
        self.folders = RunFolders()
        self._request: Request | None = None
        self._places: dict[str, Place] = {}  # of its volumes, when it was handed over
        self._onProgress = self._onFinished = self._onReady = None
        self._events: list[Progress | Ending] = []  # heard from the worker, not told yet
        self._loading = None  # the step after the worker has ended
        self._cancelled = ""  # the reason, when a loading step could not be interrupted by it
        self._closed = False
        self._timer = qt.QTimer()
        self._timer.setInterval(POLL_MS)
        self._timer.connect("timeout()", self.poll)
        atexit.register(self.close)
        slicer.app.connect("aboutToQuit()", self.close)

    def getParameterNode(self) -> NeuralRegistrationParameterNode:
        node = super().getParameterNode()
        forget_unknown(node)
        return NeuralRegistrationParameterNode(node)

    @property
    def running(self) -> bool:
        return self._request is not None

    @property
    def _stepping(self) -> bool:
        """Whether a step of loading is being done, further up in the calls."""
        return self._loading is not None and self._loading.gi_running

    def warm(self, onReady: Callable[[], None] | None = None) -> None:
        """Start the worker ahead of time; `onReady` is called once it has imported torch and knows its device, or
        cannot import it.

        Failing is no harm yet: the run will say so.
        """
        if self.worker.alive:
            return
        try:
            self.worker.warm()
        except OSError:
            return
        self._onReady = onReady
        self._timer.start()

    def register(self, fixed, moving, wait: bool = True, onProgress=None, onFinished=None, **settings):
        """Register two volume nodes; settings are the fields of `Request`.

        With wait the loaded run is returned, and RegistrationError raised when there is none; without it `onFinished`
        gets an Outcome.
        """
        outcomes = []

        def finished(outcome: Outcome) -> None:
            outcomes.append(outcome)
            if onFinished is not None:
                onFinished(outcome)

        self.start(Request(fixed, moving, **settings), onProgress, finished)
        if not wait:
            return None
        try:
            while not outcomes:
                slicer.app.processEvents()
                self.poll()
                time.sleep(0.01)
        except BaseException:  # of a callback, or Ctrl+C: nobody waits for the run any more
            self.cancel()
            raise
        if outcomes[0].status != DONE:
            raise RegistrationError(outcomes[0].message)
        return outcomes[0].run

    def start(
        self,
        request: Request,
        onProgress: Callable[[Progress], None] | None = None,
        onFinished: Callable[[Outcome], None] | None = None,
    ) -> None:
        """Export and hand over to the worker; everything after that comes through the two callbacks.

        Raises RegistrationError when the request cannot be run; the scene and the disk are then as before.
        """
        if self.running:
            raise RegistrationError(_("A registration is running; wait for it or cancel it."))
        try:
            places = {FIXED: place(request.fixed), MOVING: place(request.moving)}
            self.worker.start(write_job(request, self.folders.begin()))
        except RegistrationError:
            self.folders.end(None)
            raise
        except OSError as error:
            self.folders.end(None)
            raise RegistrationError(
                _(
                    "The registration cannot be started ({reason}); check the free space of the temporary folder."
                ).format(reason=error.strerror or error)
            ) from error
        self._request, self._places = request, places
        self._onProgress, self._onFinished, self._events = onProgress, onFinished, []
        self._observe()
        self._timer.start()

    def cancel(self, reason: str = "") -> None:
        """End the run at once; the scene stays untouched."""
        if not self.running:
            return
        reason = reason or _("Cancelled; the scene is unchanged.")
        with contextlib.suppress(OSError):  # on a full disk the kill must do
            (self.folders.current / "run" / CANCEL).touch()  # for a child that the kill cannot reach
        self.worker.kill()
        if self._stepping:
            self._cancelled = reason  # by somebody who heard of a new node; the step ends first
        else:
            self._finish(Outcome(STOPPED, reason))

    def stopAndKeep(self) -> None:
        """Let the optimisation end now; its best field so far becomes the result.

        Raises RegistrationError when the wish cannot be written down.
        """
        if not self.running or self._loading is not None:
            return
        try:
            (self.folders.current / "run" / STOP).touch()
        except OSError as error:
            raise RegistrationError(
                _("The process cannot be told to stop ({reason}); make room on the disk, or cancel.").format(
                    reason=error.strerror
                )
            ) from error

    def poll(self) -> None:
        """Take note of what the worker has said; the timer calls this."""
        self._events += self.worker.poll()
        while self._events and self.running:
            event = self._events.pop(0)  # first: when a callback raises, those behind it are not lost
            if isinstance(event, Ending):
                self._ended(event)
            elif self._onProgress is not None:
                self._onProgress(event)
        if self._loading is not None:
            self._load()
        if (self.worker.ready or self.worker.trouble) and self._onReady is not None:
            tell, self._onReady = self._onReady, None
            tell()
        if not self.running and (self.worker.ready or not self.worker.alive):
            self._timer.stop()  # a worker that waits has nothing to say

    def _ended(self, ending: Ending) -> None:
        if ending.code != 0:
            status = STOPPED if ending.code == EXIT_CANCELLED else FAILED
            self._finish(Outcome(status, ending.message))
        else:
            request, folder = self._request, self.folders.current / "run"
            self._loading = load_steps(
                folder, request.fixed, request.moving, request.title(), request.outputs, self._places
            )

    def _load(self) -> None:
        """Load the result for a moment; the last step gives the run."""
        if self._stepping:
            return  # somebody who heard of a new node lets the timers fire
        loading, end = self._loading, time.monotonic() + LOAD_SECONDS
        try:
            run = next(loading)
            while run is None and not self._cancelled and time.monotonic() < end:
                run = next(loading)
        except Exception as error:  # whatever it is: a run that cannot be loaded must end, with its reason
            if not isinstance(error, RegistrationError):
                logging.exception("The result of a registration could not be loaded")
            self._finish(Outcome(FAILED, str(error)))
            return
        if self._closed:  # within the step
            self._giveUpLoading()
        elif run is not None:  # the last step cannot be taken back
            self._loaded(run)
        elif self._cancelled:
            self._finish(Outcome(STOPPED, self._cancelled))

    def _loaded(self, run: Run) -> None:
        result = Result.load(self.folders.current / "run" / RESULT)
        kept = _(" (stopped early)") if result.stopped_early else ""
        said = [in_words(warning, self._request, self.folders.current) for warning in result.warnings]
        said += changed_meanwhile(run, self._places)
        notes = "".join(f" {one}" for one in said)
        if result.stopped_early:
            said.append(_("The optimisation was stopped by the user; the result is the best one until then."))
        write_notes(run.table, said)
        write_measurements(run.table, {**run.measurements, "settings": self._request.settings()})
        seconds = result.timings.get("total", 0.0)
        self._finish(
            Outcome(
                DONE,
                _("Done in {seconds:.0f} s{kept}.").format(seconds=seconds, kept=kept) + notes,
                run_of(run.table),
                result.stopped_early,
            )
        )

    def _finish(self, outcome: Outcome) -> None:
        outcome = replace(outcome, message=in_words(outcome.message, self._request, self.folders.current))
        tell, self._request, self._onProgress, self._onFinished = self._onFinished, None, None, None
        self._events = []
        self._giveUpLoading()
        self.removeObservers()
        self.folders.end(outcome.run)
        if tell is not None:
            tell(outcome)

    def _observe(self) -> None:
        scene = slicer.mrmlScene
        self.addObserver(scene, scene.StartCloseEvent, self._onSceneClosed)
        self.addObserver(scene, scene.NodeAboutToBeRemovedEvent, self._onNodeRemoved)

    def _onSceneClosed(self, caller, event) -> None:
        self.cancel(_("The scene was closed; the registration was cancelled."))

    @vtk.calldata_type(vtk.VTK_OBJECT)
    def _onNodeRemoved(self, caller, event, node) -> None:
        if self.running and node in (self._request.fixed, self._request.moving):
            self.cancel(_('"{name}" was deleted; the registration was cancelled.').format(name=node.GetName()))

    def _giveUpLoading(self) -> None:
        """Stop where loading stands: what is not whole takes its nodes away again."""
        loading, self._loading, self._cancelled = self._loading, None, ""
        if loading is not None:
            loading.close()

    def close(self) -> None:
        """End everything without a word: no process, no file and no connection stays behind.

        Called when Slicer ends or the panel is destroyed; a closed logic is not used again.
        """
        if self._closed:
            return
        self._closed = True
        self._timer.stop()
        self._timer.disconnect("timeout()", self.poll)
        slicer.app.disconnect("aboutToQuit()", self.close)
        atexit.unregister(self.close)
        self.removeObservers()
        self.worker.kill()
        self._request = self._onProgress = self._onFinished = self._onReady = None
        if self._stepping:
            self._cancelled = "closed"
        else:
            self._giveUpLoading()
        self.folders.end(None)
        self.folders.drop()
