"""`app`: the panel in a browser. The page is a package of its own with an extra of its own; this only starts it."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from ..job import RegistrationError
from .shared import add_command, has_display

LARGEST_PORT = 65535


def add_app(commands: Any) -> None:
    parser = add_command(
        commands,
        "app",
        _app,
        "open the panel in a browser: load, register, look, check, download",
        "Files are volumes (any format, a DICOM folder) or output folders of earlier runs. The page is served on this "
        "computer only, its address holds a token, and all its files are removed when it ends. Needs the extra "
        '"app": pip install ".[app]".',
        "  neuralreg app\n  neuralreg app fixed.nii.gz moving.nii.gz\n  neuralreg app result --no-browser\n",
    )
    parser.add_argument("files", nargs="*", metavar="FILE", help="volumes, or output folders of runs")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: 127.0.0.1)")
    parser.add_argument("--port", type=int, default=0, help="port to listen on (default: any free one)")
    parser.add_argument(
        "--upload-limit", type=int, default=2048, metavar="MB", help="what an upload may hold (default: 2048)"
    )
    parser.add_argument("--no-browser", action="store_true", help="print the address, do not open it")


def _app(options: argparse.Namespace) -> None:
    if not 0 <= options.port <= LARGEST_PORT:
        raise RegistrationError(f"A port is a number from 0 to {LARGEST_PORT}; got {options.port}.")
    if options.upload_limit < 1:
        raise RegistrationError(f"--upload-limit is a number of megabytes; got {options.upload_limit}.")
    files = tuple(Path(name).absolute() for name in options.files)
    for path in files:
        if not path.exists():
            raise RegistrationError(f"There is no file or folder {path}; check the path.")
    open_page(files, options.host, options.port, options.upload_limit, has_display() and not options.no_browser)


def open_page(
    files: tuple[Path, ...], host: str = "127.0.0.1", port: int = 0, upload_limit_mb: int = 2048, browser: bool = False
) -> None:
    """Serve the page until it is interrupted. Raises RegistrationError where it cannot be had."""
    try:
        from NeuralRegistrationApp.start import Settings, serve
    except ImportError as error:
        raise RegistrationError(
            f'The page needs the extra "app" ({error}); install it into a Python environment of its own: '
            'pip install ".[app]".'
        ) from error
    serve(Settings(files, host, port, upload_limit_mb, browser))
