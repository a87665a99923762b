"""The contract between panel, command line, Python and batch: a job in, progress lines and a result out, all JSON.

Only the standard library is imported here, so that Slicer's process can speak the language of the core without torch.
"""

from __future__ import annotations

import dataclasses
import difflib
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ACROSS_CONTRASTS = ("mi", "nmi", "mind", "local_gradient")
SIMILARITIES = ("auto", "lncc", "ncc", "mse", *ACROSS_CONTRASTS)
PRESETS = ("fast", "balanced", "best")
AFFINE_STAGES = ("none", "rigid", "affine")
DEVICES = ("auto", "cpu", "cuda", "mps")
FEW = 4  # choices that are all named when a wrong one was made: "gpu" is spelt more like cpu than like cuda

# The files of a run directory. `cancel` and `stop` are the two files by which another process talks to a run.
TRANSFORM, INVERSE, WARPED, JACOBIAN = "transform.h5", "inverse.h5", "warped.nii.gz", "jacobian.nii.gz"
RESULT, JOB, PREVIEW, CANCEL, STOP = "result.json", "job.json", "preview.nii.gz", "cancel", "stop"
EVALUATION, REPORT = "evaluation.json", "report.html"  # written later about a finished run

# The fields of a job that are paths.
OPTIONAL_PATHS = ("initial_transform", "fixed_mask", "moving_mask", "fixed_landmarks", "moving_landmarks")
PATHS = ("fixed", "moving", "output", *OPTIONAL_PATHS)

EXIT_USER_ERROR, EXIT_CANCELLED = 2, 130  # exit codes of the command line; 2 comes with one sentence


class RegistrationError(Exception):
    """Something the user can put right; the message is one sentence that says what to do."""


class Cancelled(Exception):
    """The user cancelled the run; nothing is written."""


def nearest_name(name: str, valid: tuple[str, ...] | list[str]) -> str:
    """`did you mean "x"?` with the valid name closest to `name`, or `choose one of …`, the end of a sentence."""
    if not valid:
        return "there are none; leave it away."
    close = difflib.get_close_matches(name.lower(), [v.lower() for v in valid], n=1, cutoff=0.5)
    original = next((v for v in valid if close and v.lower() == close[0]), None)
    if original is None:
        return f"choose one of {', '.join(valid)}."
    others = f" The choices are {', '.join(valid)}." if len(valid) <= FEW else ""
    return f'did you mean "{original}"?{others}'


#: what a user is told that a value must be
KINDS = {bool: "true or false", int: "a whole number", float: "a number", str: "text"}


def choose(what: str, name: Any, valid: tuple[str, ...] | list[str]) -> str:
    """`name` if it is valid (case-insensitive), else a RegistrationError that names the nearest valid one."""
    for candidate in valid:
        if isinstance(name, str) and candidate.lower() == name.lower():
            return candidate
    raise RegistrationError(f'Unknown {what} "{name}": {nearest_name(str(name), valid)}')


def whole_number(name: str, value: Any) -> None:
    """Raise RegistrationError for what is no seed and no number of threads."""
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 2**63:
        raise RegistrationError(f'"{name}" must be a whole number, 0 or larger; got {value!r}.')


@dataclass(frozen=True)
class RegistrationJob:
    """Everything that a run needs; two runs of one job on one CPU write the same bytes.

    Paths are strings as the user gave them. `options` holds fields of the method (see `neuralreg methods`).
    `threads` 0 means all cores; Slicer leaves one free. `names`: what the report shall call inputs (by field, such as
    "fixed") whose paths say nothing, as those of Slicer's nodes.
    """

    fixed: str
    moving: str
    output: str
    method: str = "DNVF"
    preset: str = "balanced"
    similarity: str = "auto"
    affine: str = "affine"
    initial_transform: str | None = None
    fixed_mask: str | None = None
    moving_mask: str | None = None
    fixed_landmarks: str | None = None
    moving_landmarks: str | None = None
    device: str = "auto"
    seed: int = 0
    threads: int = 0
    options: dict[str, Any] = field(default_factory=dict)
    names: dict[str, str] = field(default_factory=dict)

    def __post_init__(self):
        for name in ("fixed", "moving", "output", "method"):
            if not isinstance(getattr(self, name), str) or not getattr(self, name):
                raise RegistrationError(f'The job needs a text for "{name}"; got {getattr(self, name)!r}.')
        for name in OPTIONAL_PATHS:
            if getattr(self, name) is not None and not isinstance(getattr(self, name), str):
                raise RegistrationError(f'The job needs a path or nothing for "{name}"; got {getattr(self, name)!r}.')
        if (self.fixed_landmarks is None) != (self.moving_landmarks is None):
            raise RegistrationError(
                "Landmarks are pairs: give both files, fixed_landmarks and moving_landmarks, or none."
            )
        for name, valid in (
            ("preset", PRESETS),
            ("similarity", SIMILARITIES),
            ("affine", AFFINE_STAGES),
            ("device", DEVICES),
        ):
            object.__setattr__(self, name, choose(name, getattr(self, name), valid))
        for name in ("seed", "threads"):
            whole_number(name, getattr(self, name))
        if "\0" in self.output or not _encodable(self.output):
            raise RegistrationError(
                f'"output" is a name that not all programs can read; choose another one for {self.output!r}.'
            )
        for name in ("options", "names"):
            if not isinstance(getattr(self, name), dict):
                raise RegistrationError(f'"{name}" must be a table of names and values; got {getattr(self, name)!r}.')
        if not all(isinstance(called, str) for called in self.names.values()):
            raise RegistrationError(f'"names" must hold texts; got {self.names!r}.')

    def save(self, path: Path) -> None:
        """Write it as JSON. Raises OSError."""
        write_json(dataclasses.asdict(self), path)

    @classmethod
    def load(cls, path: Path) -> RegistrationJob:
        """Read a job file. Raises RegistrationError when it is missing, not JSON, or has unknown or wrong entries."""
        values = read_json(path, "job")
        known = [f.name for f in dataclasses.fields(cls)]
        values = {choose("entry in the job file", name, known): value for name, value in values.items()}
        missing = [name for name in ("fixed", "moving", "output") if name not in values]
        if missing:
            raise RegistrationError(f'The job file {path} lacks "{missing[0]}"; add it.')
        return cls(**values)


def _encodable(path: str) -> bool:
    """Whether a text can be a path: JSON may hold halves of characters, and folders of old archives are no UTF-8."""
    try:
        return bool(path.encode())
    except UnicodeEncodeError:
        return False


@dataclass(frozen=True)
class Progress:
    """One line of progress. `fraction` is of the whole run; `loss` is None outside iterations; `seconds_left` may be
    None. `calibration` comes with the stage "ready": how long this computer takes for a standard piece of work.
    """

    stage: str
    fraction: float
    message: str = ""
    loss: float | None = None
    seconds_left: float | None = None
    preview: str | None = None
    calibration: float | None = None

    def to_line(self) -> str:
        return json.dumps({k: v for k, v in dataclasses.asdict(self).items() if v not in (None, "")})

    @classmethod
    def from_line(cls, line: str) -> Progress | None:
        """The progress in a line of output, or None where the line is something else (a log message)."""
        try:
            values = json.loads(line)
            return cls(**values) if isinstance(values, dict) else None
        except (ValueError, TypeError):
            return None


@dataclass(frozen=True)
class Result:
    """What a finished run says of itself; files are names within the run directory."""

    files: dict[str, str]
    metrics: dict[str, Any]
    timings: dict[str, float]
    peak_memory_mb: float
    device: str
    device_reason: str
    method: str
    options: dict[str, Any]
    similarity: str
    seed: int
    versions: dict[str, str]
    warnings: list[str] = field(default_factory=list)
    loss: list[list[float]] = field(default_factory=list)  # [stage index, iteration, loss]
    stopped_early: bool = False
    peak_gpu_memory_mb: float | None = None
    similarity_reason: str = ""
    inputs: dict[str, str] = field(default_factory=dict)  # checksums of the files, by the job's fields

    def save(self, path: Path) -> None:
        """Write it as JSON. Raises OSError."""
        write_json(dataclasses.asdict(self), path)

    @classmethod
    def load(cls, path: Path) -> Result:
        """Read a result. Raises RegistrationError when it is missing, or holds what no run writes."""
        values = read_json(path, "result")
        try:
            return cls(**values)._checked()
        except TypeError as error:
            raise RegistrationError(
                f"{path} is not the result of a registration ({error}); choose a run directory."
            ) from error

    def _checked(self) -> Result:
        """Itself. Raises TypeError for a value that no run writes: what reads a result relies on it."""
        number = lambda value: isinstance(value, int | float)  # noqa: E731
        for name in ("files", "metrics", "timings", "options", "versions", "inputs"):
            if not isinstance(getattr(self, name), dict):
                raise TypeError(f'"{name}" is no table')
        if not number(self.peak_memory_mb) or not all(number(seconds) for seconds in self.timings.values()):
            raise TypeError('"peak_memory_mb" and "timings" are numbers')
        if any(isinstance(value, str) for value in self.metrics.values()):
            raise TypeError('"metrics" holds a text')
        if not isinstance(self.warnings, list) or not all(isinstance(warning, str) for warning in self.warnings):
            raise TypeError('"warnings" is no list of texts')
        rows = self.loss if isinstance(self.loss, list) else [None]
        if not all(isinstance(row, list) and len(row) == 3 and all(map(number, row)) for row in rows):
            raise TypeError('"loss" is no list of rows [stage, iteration, loss]')
        return self


def write_json(values: dict[str, Any], path: Path) -> None:
    """Write an object to a JSON file that people can read, too. Raises OSError."""
    Path(path).write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")


def read_json(path: Path, what: str) -> dict[str, Any]:
    """The object in a JSON file. Raises RegistrationError with the file's name when there is none."""
    try:
        values = json.loads(Path(path).read_text(encoding="utf-8-sig"))  # editors of Windows put a mark in front
    except (FileNotFoundError, NotADirectoryError) as error:
        raise RegistrationError(f"There is no {what} file at {path}; check the path.") from error
    except (OSError, ValueError, RecursionError) as error:
        raise RegistrationError(f"The {what} file {path} cannot be read ({error}); write it again.") from error
    if not isinstance(values, dict):
        raise RegistrationError(f"The {what} file {path} must hold one JSON object; write it again.")
    return values


class Monitor:
    """What a run asks of whoever started it. This one watches nothing; the command line and the panel override it."""

    def report(self, progress: Progress) -> None:
        """Take note of progress."""

    def cancelled(self) -> bool:
        """Whether the run shall end without a result."""
        return False

    def stop_and_keep(self) -> bool:
        """Whether the optimisation shall end now and the field that it has reached become the result."""
        return False

    def wants_preview(self) -> bool:
        """Whether `preview` would show anything now; a copy from the GPU is not made in vain."""
        return type(self).preview is not Monitor.preview

    def preview(self, warped: Any) -> None:
        """Take a look at the moving image as warped so far (an `Image` on a coarse grid), when it is wanted."""

    def check(self) -> None:
        """Raise Cancelled when the run has been cancelled."""
        if self.cancelled():
            raise Cancelled


class Part(Monitor):
    """A part of a run, from fraction `start` to `end`: what it reports as 0 to 1 becomes that."""

    def __init__(self, whole: Monitor, stage: str, start: float, end: float):
        self.whole, self.stage, self.start, self.end = whole, stage, start, end

    def report(self, progress: Progress) -> None:
        fraction = self.start + (self.end - self.start) * min(max(progress.fraction, 0.0), 1.0)
        self.whole.report(dataclasses.replace(progress, stage=self.stage, fraction=fraction))

    def step(self, share: float) -> None:
        """Report that `share` (0 to 1) of the part is done. Raises Cancelled when the run has been cancelled."""
        self.check()
        self.report(Progress(self.stage, share))

    def cancelled(self) -> bool:
        return self.whole.cancelled()

    def stop_and_keep(self) -> bool:
        return self.whole.stop_and_keep()

    def wants_preview(self) -> bool:
        return self.whole.wants_preview()

    def preview(self, warped: Any) -> None:
        self.whole.preview(warped)
