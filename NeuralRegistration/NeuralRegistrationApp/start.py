"""The life of the page: a private folder, the server, the address, and everything taken away at the end."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import sys
import tempfile
import webbrowser
from dataclasses import dataclass
from pathlib import Path

import trame_slicer.core  # noqa: F401  (here, so that whoever imports this file hears what is not installed)
from neuralreg.job import RegistrationError

PACKAGE = Path(__file__).resolve().parent
MEGABYTE = 1 << 20
FOUR_UP = "Four-Up"  # as in Slicer
SCRIPTS = ("neuralreg/upload.js", "neuralreg/connection.js")
SIGNALS = ("SIGINT", "SIGTERM", "SIGHUP")  # not all of them exist on Windows


@dataclass(frozen=True)
class Settings:
    """What the command line says. `port` 0: any free one."""

    files: tuple[Path, ...] = ()
    host: str = "127.0.0.1"
    port: int = 0
    upload_limit_mb: int = 2048
    open_browser: bool = True

    @property
    def is_private(self) -> bool:
        """Whether only this computer can reach the page."""
        return self.host in ("127.0.0.1", "::1", "localhost")


def serve(settings: Settings) -> None:
    """Serve the page until it is interrupted. Raises RegistrationError when it cannot be served here."""
    with End() as end:
        folder = Path(tempfile.mkdtemp(prefix="neuralreg-app-"))  # for this user only
        tempfile.tempdir = str(folder)  # whatever the libraries put aside is removed with it
        try:
            _draw_without_a_screen()
            sys.argv = sys.argv[:1]  # trame would read our arguments as its own
            os.environ["WSLINK_READY_MSG"] = ""
            asyncio.run(_serve(settings, folder, end))
        finally:
            shutil.rmtree(folder, ignore_errors=True)


class End:
    """Hears that the page shall end: Ctrl-C, SIGTERM, a closed terminal. Until it is left, nothing dies of them.

    Of a KeyboardInterrupt within a callback VTK would end the process at once, with the files of patients left behind.
    """

    def __init__(self):
        self._asked, self._tell = False, lambda: None

    def __enter__(self) -> End:
        names = [getattr(signal, name) for name in SIGNALS if hasattr(signal, name)]
        heard = [name for name in names if signal.getsignal(name) != signal.SIG_IGN]  # nohup ignores SIGHUP
        self._before = {name: signal.signal(name, self._hear) for name in heard}
        return self

    def __exit__(self, *error: object) -> None:
        for name, handler in self._before.items():
            signal.signal(name, handler)

    def _hear(self, *_: object) -> None:
        self._asked = True
        self._tell()

    async def wait(self) -> None:
        loop, asked = asyncio.get_running_loop(), asyncio.Event()
        self._tell = lambda: loop.call_soon_threadsafe(asked.set)
        try:
            if not self._asked:
                await asked.wait()
        finally:
            self._tell = lambda: None


def _draw_without_a_screen() -> None:
    """Choose a way to draw that needs no screen. Raises RegistrationError where there is none."""
    from vtkmodules import vtkRenderingOpenGL2  # noqa: F401  (what makes vtkRenderWindow a real one)
    from vtkmodules.vtkRenderingCore import vtkRenderWindow

    if sys.platform != "linux":
        return
    for kind in ("vtkEGLRenderWindow", "vtkOSOpenGLRenderWindow"):
        os.environ["VTK_DEFAULT_OPENGL_WINDOW"] = kind
        if vtkRenderWindow().SupportsOpenGL():
            return
    raise RegistrationError(
        "The views cannot be drawn, as OpenGL is missing; install libegl1, libegl-mesa0 and libgl1-mesa-dri "
        "(Debian's names)."
    )


async def _serve(settings: Settings, folder: Path, end: End) -> None:
    from .guard import Guard
    from .host import boot

    app = boot(folder)
    from trame.app import get_server
    from trame_slicer import module as trame_slicer_module

    from . import document
    from .page import Page
    from .transfer import Transfer
    from .windows import Windows

    server, guard = get_server(client_type="vue3"), Guard()
    server.enable_module(trame_slicer_module)
    server.enable_module({"serve": {"neuralreg": str(PACKAGE / "serve")}, "scripts": list(SCRIPTS)})
    server.state.trame__template_error = f'<trame-loading message="{document.LOST}"/>'
    page = Page(server.state, app.view_manager, folder, paths=settings.is_private)
    windows = Windows(server.state)
    transfer = Transfer(page, folder / "uploads", settings.upload_limit_mb * MEGABYTE)
    _draw(server, app, page)

    @server.controller.add("on_server_bind")
    def bind(site) -> None:
        site.app.middlewares.extend((guard.middleware(), windows.middleware()))
        site.app.add_routes([*document.routes(), *transfer.routes()])

    try:
        await _until_interrupted(server, settings, guard.token, page, end)
    finally:
        page.close()


def _draw(server, app, page) -> None:
    import slicer
    from trame_slicer.core import LayoutManager
    from trame_slicer.rca_view import register_rca_factories
    from trame_slicer.views import Layout, LayoutDirection, ViewLayoutDefinition

    from .field_of_view import follow_size
    from .layout import build

    register_rca_factories(app.view_manager, server, rca_encoder="jpeg")
    view, columns = ViewLayoutDefinition, LayoutDirection.Vertical
    left = Layout(columns, [view.axial_view(), view.coronal_view()])
    right = Layout(columns, [view.threed_view(), view.sagittal_view()])
    layouts = LayoutManager(app.scene, app.view_manager, server)
    layouts.register_layout(FOUR_UP, Layout(LayoutDirection.Horizontal, [left, right]))
    layouts.set_layout(FOUR_UP)
    follow_size(app)
    for shown in app.view_manager.get_views():
        shown.set_orientation_marker(slicer.vtkMRMLAbstractViewNode.OrientationMarkerTypeAxes)
    build(server, page.running.actions(), layouts.initialize_layout_grid)


async def _until_interrupted(server, settings: Settings, token: str, page, end: End) -> None:
    """Raises RegistrationError when the address is taken."""
    asyncio.get_running_loop().set_exception_handler(_not_what_is_usual)
    serving = server.start(
        port=settings.port, host=settings.host, open_browser=False, show_connection_info=False, thread=True,
        exec_mode="task",
    )  # fmt: skip
    await asyncio.wait([serving, asyncio.ensure_future(server.ready)], return_when=asyncio.FIRST_COMPLETED)
    if serving.done():
        raise RegistrationError(
            f"{settings.host}:{settings.port} cannot be used ({serving.exception()}); choose another --port."
        )
    _announce(settings, server.port, token)
    opening = asyncio.ensure_future(page.open(list(settings.files)))  # Ctrl-C counts meanwhile, too
    await end.wait()
    opening.cancel()
    await server.stop()


def _not_what_is_usual(loop: asyncio.AbstractEventLoop, context: dict) -> None:
    """Report what no one has caught, but not that a browser was closed while something was sent to it."""
    if not isinstance(context.get("exception"), ConnectionError):
        loop.default_exception_handler(context)


def _announce(settings: Settings, port: int, token: str) -> None:
    name = f"[{settings.host}]" if ":" in settings.host else settings.host
    address = f"http://{name}:{port}/?token={token}"
    if not settings.is_private:
        print("Others on the network can reach this page with its address, and what is sent is not encrypted.")
    print(f"The page is open until Ctrl-C:\n{address}", flush=True)
    if settings.open_browser:
        webbrowser.open(address)
