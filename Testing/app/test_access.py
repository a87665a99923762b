"""Who is let in, what may be sent, and what stays behind: nothing. Without a browser, over plain HTTP."""

import http.client
import signal
import socket
import time
from pathlib import Path
from types import SimpleNamespace
from urllib.parse import urlsplit

import pytest
from serving import SECONDS, Site

LIMIT_MB = 1


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    one = Site(tmp_path_factory.mktemp("access"), "--upload-limit", str(LIMIT_MB))
    yield one
    assert one.stop() == 0, one.log()
    assert not list(one.folder.iterdir()), "the page left files behind"
    assert "Traceback" not in one.log()


def ask(site, method, path, cookie=None, headers=(), body=None):
    parts = urlsplit(site.address)
    connection = http.client.HTTPConnection(parts.hostname, parts.port, timeout=SECONDS)
    try:
        connection.request(method, path, body, {**dict(headers), **({"Cookie": cookie} if cookie else {})})
        response = connection.getresponse()
        return SimpleNamespace(status=response.status, headers=response.headers, text=response.read().decode())
    finally:
        connection.close()


@pytest.fixture
def cookie(site):
    answer = ask(site, "GET", "/?" + urlsplit(site.address).query)
    assert answer.status == 302 and answer.headers["Location"] == "index.html"
    assert "HttpOnly" in answer.headers["Set-Cookie"] and "SameSite=Strict" in answer.headers["Set-Cookie"]
    return answer.headers["Set-Cookie"].partition(";")[0]


UPGRADE = {"Upgrade": "websocket", "Connection": "Upgrade", "Sec-WebSocket-Version": "13",
           "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ=="}  # fmt: skip


@pytest.mark.parametrize(("method", "path", "headers"), [
    ("GET", "/", {}), ("GET", "/index.html", {}), ("GET", "/?token=wrong", {}), ("GET", "/ws", UPGRADE),
    ("GET", "/download/scene", {}), ("POST", "/upload/a/x.nii", {}), ("GET", "/neuralreg/upload.js", {}),
])  # fmt: skip
def test_nothing_is_given_away_without_the_token(site, method, path, headers):
    answer = ask(site, method, path, headers=headers)
    assert answer.status == 403 and "token" in answer.text
    assert ask(site, method, path, cookie="neuralreg-0=guess", headers=headers).status == 403


def test_the_token_opens_the_page_and_stays_out_of_later_addresses(site, cookie):
    assert urlsplit(site.address).hostname == "127.0.0.1" and len(urlsplit(site.address).query) > 30
    answer = ask(site, "GET", "/index.html", cookie)
    assert answer.status == 200 and answer.headers["Referrer-Policy"] == "no-referrer"


def test_only_this_computer_is_listened_to(site):
    port = urlsplit(site.address).port
    with socket.create_connection(("127.0.0.1", port), SECONDS):
        pass
    with pytest.raises(OSError):  # an address of this computer too, as those in its networks are
        socket.create_connection(("127.0.0.2", port), SECONDS).close()


def test_another_page_in_the_same_browser_is_refused(site, cookie):
    foreign = {"Origin": "http://127.0.0.1:1"}
    assert ask(site, "POST", "/upload/a/x.nii", cookie, foreign, b"x").status == 403
    assert ask(site, "GET", "/ws", cookie, {**UPGRADE, **foreign}).status == 403


def test_uploads_are_limited_and_removed(site, cookie):
    answer = ask(site, "POST", "/upload/big/big.nii", cookie, body=bytes((LIMIT_MB << 20) + 1))
    assert answer.status == 400 and f"limited to {LIMIT_MB} MB" in answer.text
    assert not list(site.folder.rglob("big*"))
    assert ask(site, "POST", "/upload/big", cookie).status == 404
    assert ask(site, "POST", "/upload/small/small.nii", cookie, body=b"x" * 1000).status == 200
    assert ask(site, "POST", "/upload/small", cookie).status == 200
    assert not list(site.folder.rglob("small*"))


def test_the_private_folder_is_private(site):
    (folder,) = site.folder.iterdir()
    assert folder.stat().st_mode & 0o077 == 0


@pytest.mark.parametrize("name", ["..%2F..%2Fescaped.nii", "%2Fetc%2Fescaped.nii", "..%5Cescaped.nii"])
def test_an_upload_cannot_leave_its_folder(site, cookie, name):
    ask(site, "POST", f"/upload/escape/{name}", cookie, body=b"x")
    found = list(site.folder.rglob("escaped.nii"))
    assert all(path.parent.name == "escape" for path in found)
    ask(site, "POST", "/upload/escape", cookie)


@pytest.mark.parametrize("what", ["transform", "warped", "report", "passwd"])
def test_there_is_nothing_to_download_before_a_run(site, cookie, what):
    answer = ask(site, "GET", f"/download/{what}", cookie)
    assert answer.status == 404 and "register a pair first" in answer.text


@pytest.mark.parametrize("name", ["SIGTERM", "SIGHUP"])
def test_the_page_ends_at_once_while_it_still_opens_files(tmp_path, pair, name):
    """A signal right after the address: no traceback, no process, no file."""
    one = Site(tmp_path, *map(str, pair))
    assert one.stop(signal.Signals[name]) == 0, one.log()
    assert not list(one.folder.iterdir()) and "Traceback" not in one.log()
    with pytest.raises(OSError):
        ask(one, "GET", "/")


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP"])
def test_a_signal_while_the_page_is_being_made_leaves_nothing(tmp_path, name):
    one = Site(tmp_path, wait=False)
    end = time.monotonic() + SECONDS
    while not list(one.folder.iterdir()):  # the private folder comes first
        assert time.monotonic() < end, one.log()
        time.sleep(0.01)
    assert one.stop(signal.Signals[name]) == 0, one.log()
    assert not list(one.folder.iterdir()) and "Traceback" not in one.log()


def test_names_of_uploads():
    from NeuralRegistrationApp.transfer import plain_name

    assert plain_name("../../a b.nii.gz") == "a b.nii.gz" and plain_name("C:\\data\\x.nrrd") == "x.nrrd"
    for name in ("", "..", "a/", "a\nb", "x" * 300):
        with pytest.raises(Exception, match="usable name"):
            plain_name(name)


def test_what_is_read_of_an_upload(tmp_path: Path):
    from NeuralRegistrationApp.transfer import sources

    def batch(*names):
        folder = tmp_path / "-".join(names)
        folder.mkdir()
        for name in names:
            (folder / name).touch()
        return [path.name for path in sources(folder)]

    assert batch("IM0001") == ["IM0001"]
    assert batch("a.nii", "b.NRRD") == ["a.nii", "b.NRRD"]
    assert batch("a.mhd", "a.raw") == ["a.mhd"]
    assert batch("start.h5", "readme") == ["start.h5"]
    assert batch("1.dcm", "2.dcm") == ["DICOM series"], "slices are read as one folder"
    assert {path.name for path in (tmp_path / "1.dcm-2.dcm" / "DICOM series").iterdir()} == {"1.dcm", "2.dcm"}


def test_a_window_that_was_closed_is_no_error_but_anything_else_is():
    import logging

    from NeuralRegistrationApp.windows import Closed

    def told(text):
        return Closed().filter(logging.makeLogRecord({"msg": text}))

    assert not told("Exception raised") and not told("ClientConnectionResetError('Cannot write to closing transport')")
    assert told("ValueError('wrong')")
