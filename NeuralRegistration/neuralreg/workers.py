"""Many runs of `neuralreg` at once, each in a process of its own: on this computer, or on a cluster through Dask.

A run that crashes or eats all memory takes nothing else down. Nothing here knows what the commands do.
"""

from __future__ import annotations

import os
import queue
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from .job import RegistrationError

PATIENCE = 0.2  # seconds between two looks, so that Ctrl-C is heard on Windows too
LAST_WORDS = 300  # characters of a failed command


@dataclass(frozen=True)
class Task:
    """Commands of `neuralreg`, one after the other; the first that fails is the last."""

    name: str
    commands: tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class Event:
    """A line that a task printed, or (`finished`) its end, with the reason where it failed."""

    name: str
    line: str = ""
    finished: bool = False
    error: str = ""


def on_this_computer(tasks: Sequence[Task], slots: Sequence[dict[str, str]], note: Callable[[Event], None]) -> None:
    """Run the tasks, as many at a time as there are slots; a slot is what it adds to the environment of its processes.

    `note` is called in the calling thread. When that is interrupted, the running tasks are ended and leave nothing.
    """
    waiting: queue.SimpleQueue[Task] = queue.SimpleQueue()
    events: queue.SimpleQueue[Event] = queue.SimpleQueue()
    for task in tasks:
        waiting.put(task)
    pool = [_Slot(environment, waiting, events) for environment in slots[: len(tasks)]]
    left = len(tasks)
    try:
        for slot in pool:
            slot.start()
        while left:
            try:
                event = events.get(timeout=PATIENCE)
            except queue.Empty:
                if not any(slot.is_alive() for slot in pool):
                    raise RuntimeError("The threads that run the tasks have ended before the tasks.") from None
                continue
            left -= event.finished
            note(event)
    finally:
        for slot in pool:
            slot.stop()
        for slot in pool:
            slot.join()


def on_cluster(tasks: Sequence[Task], address: str, note: Callable[[Event], None]) -> None:
    """Run the tasks on the workers of a Dask scheduler; they must see the same files and have neuralreg installed."""
    try:
        from dask.distributed import Client, as_completed
    except ImportError as error:
        raise RegistrationError("Dask is not installed; install it with `pip install neuralreg[cluster]`.") from error
    try:
        client = Client(address, timeout=10, set_as_default=False)
    except (OSError, ValueError) as error:
        raise RegistrationError(f"No Dask scheduler answers at {address}; check the address.") from error
    with client:
        names = {client.submit(perform, task, pure=False): task.name for task in tasks}
        try:
            for future in as_completed(names, loop=client.loop):
                failure = future.exception()
                note(Event(names[future], finished=True, error=str(failure) if failure else future.result()))
        finally:
            client.cancel([future for future in names if not future.done()])


def perform(
    task: Task,
    environment: dict[str, str] | None = None,
    say: Callable[[str], object] = lambda line: None,
    started: Callable[[subprocess.Popen], object] = lambda process: None,
) -> str:
    """Run the commands of a task. Returns "" or the reason of a failure; `say` gets every line that they print."""
    paths = [str(Path(__file__).parents[1]), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths), **(environment or {})}
    for command in task.commands:
        words: deque[str] = deque(maxlen=5)
        with subprocess.Popen(
            [sys.executable, "-m", "neuralreg", *command], env=environment, text=True, encoding="utf-8",
            errors="replace", stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        ) as process:  # fmt: skip
            started(process)
            for line in process.stdout:
                words.append(line.strip())
                say(line.strip())
        if process.returncode:
            return _reason(process.returncode, list(filter(None, words)))
    return ""


def _reason(code: int, words: list[str]) -> str:
    if code < 0:
        return f"The process was ended by signal {-code}; often that is a lack of memory."
    last = words[-1] if words and not words[-1].startswith("{") else f"The process ended with exit code {code}."
    return last.removeprefix("neuralreg: ")[-LAST_WORDS:]


class _Slot(threading.Thread):
    """Takes one task after the other from `waiting`, until there is none or it is stopped."""

    def __init__(self, environment: dict[str, str], waiting: queue.SimpleQueue, events: queue.SimpleQueue):
        super().__init__(daemon=True)
        self.environment, self.waiting, self.events = environment, waiting, events
        self.lock = threading.Lock()  # or a process could start between the last look and `stop`
        self.process: subprocess.Popen | None = None
        self.stopped = False

    def run(self) -> None:
        while not self.stopped:
            try:
                task = self.waiting.get_nowait()
            except queue.Empty:
                return
            try:
                error = perform(task, self.environment, lambda line, task=task: self._tell(task, line), self._hold)
            except OSError as failure:  # the process could not be started
                error = str(failure)
            if not self.stopped:
                self.events.put(Event(task.name, finished=True, error=error))

    def stop(self) -> None:
        with self.lock:
            self.stopped = True
            if self.process is not None:
                self.process.terminate()  # a run that is ended so removes what it had begun

    def _tell(self, task: Task, line: str) -> None:
        self.events.put(Event(task.name, line))

    def _hold(self, process: subprocess.Popen) -> None:
        with self.lock:
            self.process = process
            if self.stopped:
                process.terminate()
