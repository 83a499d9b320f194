"""Images and captions over HTTP: what comes in, what is refused and why, what can be taken back."""

from __future__ import annotations

import io
import json
import os
import resource
import shutil
import struct
import subprocess
import sys
import threading
import time
import zipfile
import zlib

import pytest
from PIL import Image
from support import ROOT, SMALL, Program, good, picture, pictures, tree, wait_until

from musubitlx.captions import tag

MB = 1_000_000


def images_of(server: Program, name: str = "ball", **query) -> dict[str, dict]:
    """The images of a folder by name."""
    found = server.get(f"/api/projects/{name}", params=query)["images"]
    return {image["name"]: image for image in found}


@pytest.fixture
def ball(live_server):
    """The program in practice mode with a folder of three images."""
    live_server.post("/api/projects", {"name": "ball"})
    live_server.upload("ball", pictures(3))
    return live_server


# -- bad files -------------------------------------------------------------------------------------


def png_that_says(width: int, height: int, data: bytes) -> bytes:
    """A PNG whose frame is whole, with a size and compressed pixels as given."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        body = kind + data
        return struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    parts = chunk(b"IHDR", head), chunk(b"IDAT", zlib.compress(data)), chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def photo(seed: int, kind: str = "JPEG") -> bytes:
    return picture(seed, (320, 240), kind)


REFUSED = {  # name sent -> (content, a word of the reason)
    "notes.png": (b"hello, I am not a picture", "not an image"),
    "empty.jpg": (b"", "empty"),
    "cut.jpg": (photo(1)[:3000], "damaged"),
    "bomb.png": (png_that_says(40_000, 40_000, b"\0" * 99), "pixels"),
    "drawing.svg": (b'<?xml version="1.0"?><svg onload="alert(1)"/>', "SVG"),
    "page.png": (b"<!DOCTYPE html><html><script>alert(1)</script></html>", "web page"),
    "run.py": (b"import os\n", "not an image"),
    "speck.png": (picture(2, (8, 8), "PNG"), "too small"),
    "film.mp4": (b"\0\0\0\x18ftypisom" + b"\0" * 99, "video"),
    "lonely.txt": (b"no image has my name", "no image"),
}
RENAMED = {  # name sent -> name stored; all of them good pictures
    "../x.png": "x.jpg",
    "dataset_config.toml": "dataset_config.jpg",
    "CON.png": "_CON.jpg",
    "..": "image.jpg",
    "no extension": "no extension.jpg",
    "line\r\nbreak.png": None,  # HTTP itself can't say this name: see below
    "a.png": "a.jpg",
    "a.jpg": "a-2.jpg",
    "sample_prompts.png": "sample_prompts-2.jpg",
    "photo.JPEG": "photo.jpg",
    "x" * 300 + ".png": "x" * 80 + ".jpg",
}


def body_of(parts: list[tuple[bytes, bytes]]) -> tuple[bytes, dict]:
    """A multipart body with names just as given, as a hostile client would write it."""
    boundary = b"----border"
    body = b""
    for name, data in parts:
        head = b'Content-Disposition: form-data; name="files"; filename="' + name + b'"'
        body += b"--" + boundary + b"\r\n" + head + b"\r\n\r\n" + data + b"\r\n"
    kind = f"multipart/form-data; boundary={boundary.decode()}"
    return body + b"--" + boundary + b"--\r\n", {"Content-Type": kind}


def test_every_bad_file_has_its_reason_and_every_good_one_is_in(live_server):
    server, home = live_server, live_server.home
    server.post("/api/projects", {"name": "other"})
    server.upload("other", pictures(1))
    (home / "x.png").write_bytes(b"mine")
    before = tree(home)
    parts = [(name.encode(), data) for name, (data, _) in REFUSED.items()]
    for seed, name in enumerate(RENAMED):
        sent = name.replace("\r\n", "%0D%0A")  # as browsers send it
        parts.append((sent.encode(), photo(seed + 10)))
    parts += [("画像.png".encode(), photo(40)), ("画像.png".encode(), photo(41))]
    data, headers = body_of(parts)
    answer = server.call("POST", "/api/projects/new/images", data=data, headers=headers)
    assert answer.status_code == 201
    reasons = {row["name"]: row["reason"] for row in answer.json()["rejected"]}
    assert set(reasons) == set(REFUSED)
    for name, (_, word) in REFUSED.items():
        assert word in reasons[name], name
    wanted = {name for name in RENAMED.values() if name} | {"画像.jpg", "画像-2.jpg"}
    wanted |= {"line%0D%0Abreak.jpg"}
    stored = {image["name"] for image in answer.json()["added"]}
    assert stored == wanted == set(images_of(server, "new"))
    new = {name: data for name, data in tree(home).items() if name not in before}
    assert {**before, **new} == tree(home)
    assert set(new) == {f"output/new/{name}" for name in wanted}


def test_line_breaks_and_half_signs_in_a_name_do_no_harm(live_server):
    parts = [(b"a\nb.png", photo(1)), (b"c\rd.png", photo(2)), (b"\xff\xfe.png", photo(3))]
    for part in parts:
        data, headers = body_of([part])
        answer = live_server.call("POST", "/api/projects/new/images", data=data, headers=headers)
        assert answer.status_code in (201, 400, 422), answer.text
        assert answer.json().get("error") or len(answer.json()["added"]) == 1
    folder = live_server.home / "output/new"
    for path in folder.iterdir() if folder.exists() else ():
        assert not set(path.name) & set("\r\n")


def test_a_picture_is_only_ever_served_as_a_picture(ball):
    evil = picture(5, (64, 64)) + b"<script>alert(1)</script>"
    ball.upload("ball", {"evil.html": evil})
    answer = ball.call("GET", images_of(ball)["evil.jpg"]["url"])
    assert answer.headers["Content-Type"] == "image/jpeg"
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert "sandbox" in answer.headers["Content-Security-Policy"]


# -- what the trainer would get wrong --------------------------------------------------------------


def turned() -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 6
    file = io.BytesIO()
    Image.open(io.BytesIO(picture(1, (320, 200)))).save(file, "JPEG", exif=exif)
    return file.getvalue()


def test_a_lying_photo_in_the_folder_keeps_the_run_from_starting_until_it_is_mended(ball):
    folder = ball.home / "output/ball"
    (folder / "by hand.jpg").write_bytes(turned())
    checked = ball.post("/api/check", {"project": "ball", "settings": SMALL})
    errors = [row["error"] for row in checked["errors"] if row["field"] == "images"]
    assert len(errors) == 1 and "by hand.jpg" in errors[0]
    found = ball.get("/api/projects/ball/health")["findings"]
    finding = next(one for one in found if one["kind"] == "unfit")
    assert (finding["images"], finding["action"]) == (["by hand.jpg"], "mend")
    told = ball.post("/api/projects/ball/images/mend", {"names": finding["images"]})
    assert [image["height"] for image in told["mended"]] == [320]
    assert (folder / "originals/by hand.jpg").read_bytes() == turned()
    assert ball.post("/api/check", {"project": "ball", "settings": SMALL})["errors"] == []


def test_a_picture_whose_pixels_are_damaged_keeps_the_run_from_starting(ball):
    half = png_that_says(640, 480, b"\0" * 5000)
    assert ball.upload("ball", {"half.png": half}).status_code == 201  # its frame is whole
    answer = ball.call("POST", "/api/projects/ball/train", json={"settings": SMALL})
    assert answer.status_code == 422 and "half.png" in answer.json()["error"]
    errors = wait_until(
        lambda: [
            row["error"]
            for row in ball.post("/api/check", {"project": "ball", "settings": SMALL})["errors"]
        ],
        what="the damage to be found",
    )
    assert len(errors) == 1 and "half.png" in errors[0]
    finding = ball.get("/api/projects/ball/health")["findings"][0]
    assert (finding["kind"], finding["images"]) == ("unreadable", ["half.png"])


def test_captions_in_any_encoding_reach_the_trainer_as_utf8(ball):
    odd = {"ball 0.txt": "Bälle – €".encode("cp1252"), "ball 1.txt": "é".encode("utf-16")}
    ball.upload("ball", odd)
    (ball.home / "output/ball/ball 2.txt").write_bytes("\ufeffà la".encode())
    job = ball.post("/api/projects/ball/train", {"settings": SMALL})["id"]
    ball.wait_for(job)
    rows = (ball.home / "output/ball/dataset.jsonl").read_text(encoding="utf-8").splitlines()
    told = [json.loads(row)["caption"] for row in rows]
    assert told == ["ohwx, Bälle – €", "ohwx, é", "ohwx, à la"]


# -- archives and import ---------------------------------------------------------------------------


def zipped(files: dict[str, bytes]) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return file.getvalue()


def test_an_archive_is_unpacked_like_single_files(live_server):
    inside = {
        "set/a.png": photo(1, "PNG"),
        "set/a.txt": b"a ball",
        "other/a.png": photo(2, "PNG"),
        "../../evil.png": photo(3),
        "set/run.py": b"import os",
        "set/bad.png": b"nothing",
        "__MACOSX/set/._a.png": b"x",
    }
    body = good(live_server.upload("new", {"set.zip": zipped(inside)}))
    stored = {image["name"]: image["caption"] for image in body["added"]}
    assert stored == {"a.png": "a ball", "a-2.png": "", "evil.jpg": ""}
    assert {row["name"] for row in body["rejected"]} == {"set/run.py", "set/bad.png"}
    folder = live_server.home / "output/new"
    assert not [*(folder / ".musubitlx/incoming").iterdir()]
    assert {path.name for path in folder.iterdir() if path.is_file()} == {*stored, "a.txt"}
    again = good(live_server.upload("new", {"set.zip": zipped(inside)}))
    assert (again["added"], len(again["present"])) == ([], 3)


def test_what_is_no_archive_or_an_empty_one_is_told(live_server):
    for data in (b"PK not really", zipped({}), zipped({"a.txt": b"x"})):
        answer = live_server.upload("new", {"set.zip": data})
        assert answer.status_code == 422 and answer.json()["error"]
    assert not (live_server.home / "output/new").exists()


def test_images_are_imported_from_a_folder_of_the_server(ball):
    source = ball.home / "import/holiday"
    source.mkdir(parents=True)
    for name, data in pictures(2).items():
        (source / f"h {name}").write_bytes(data)
    (source / "h ball 0.txt").write_text("on the beach")
    (ball.home / "secret.png").write_bytes(photo(9))
    (source / "link.png").symlink_to(ball.home / "secret.png")
    root = ball.get("/api/import")["roots"][0]
    assert root["path"] == str(ball.home / "import")
    shown = ball.get("/api/import", params={"path": str(source)})
    names = [file["name"] for file in shown["files"]]
    assert {"h ball 0.jpg", "h ball 0.txt", "h ball 1.jpg"} <= set(names)
    asked = {"path": str(source), "names": [*names, "link.png"]}
    body = ball.post("/api/projects/ball/import", asked)
    assert {image["name"]: image["caption"] for image in body["added"]} == {
        "h ball 0.jpg": "on the beach",
        "h ball 1.jpg": "",
    }
    assert {row["name"] for row in body["rejected"]} == {"link.png"}
    assert (source / "h ball 0.jpg").exists()
    assert len(ball.post("/api/projects/ball/import", asked)["present"]) == 2


@pytest.mark.parametrize(
    "path", ["/etc", "/", "../..", "import/..", "\0", "x" * 5000, "/proc/self"]
)
def test_nothing_outside_the_named_folders_can_be_browsed_or_imported(ball, path):
    (ball.home / "import").mkdir()
    inside = str(ball.home / path) if path.startswith(("..", "import")) else path
    answer = ball.call("GET", "/api/import", params={"path": inside})
    assert answer.status_code in (404, 422) and answer.json()["error"]
    asked = {"path": inside, "names": ["passwd"]}
    answer = ball.call("POST", "/api/projects/ball/import", json=asked)
    assert answer.status_code in (404, 422) and answer.json()["error"]


# -- room on the disk ------------------------------------------------------------------------------


def test_a_disk_that_gets_full_leaves_no_half_file(tmp_path):
    """The size of a file is limited for the server: that is a full disk from its side."""

    class Limited(Program):
        def start(self):
            command = [sys.executable, str(ROOT / "webgui.py"), "--home", str(self.home)]
            command += ["--port", "0", "--host", "127.0.0.1", "--practice"]
            limit = lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (MB, MB))  # noqa: E731
            with self.said.open("ab") as out:
                self.process = subprocess.Popen(
                    command, stdout=out, stderr=out, env=self.env, preexec_fn=limit
                )
            self.record = wait_until(self._record, what="the start")
            self.url = f"http://127.0.0.1:{self.record['port']}"
            return self

    server = Limited(tmp_path / "home").start()
    try:
        server.post("/api/projects", {"name": "ball"})
        server.upload("ball", pictures(2))
        server.put("/api/projects/ball/images/ball 0.jpg/caption", {"text": "kept"})
        before = tree(server.home / "output/ball")
        rng = os.urandom(2000 * 700 * 3)
        file = io.BytesIO()
        Image.frombytes("RGB", (2000, 700), rng).save(file, "PNG")
        answer = server.upload("ball", {"small.jpg": photo(1), "large.png": file.getvalue()})
        assert answer.status_code == 507
        assert "disk" in answer.json()["error"] and answer.json()["hint"]
        scraps = [*(server.home / "output/ball/.musubitlx/incoming").iterdir()]
        assert scraps == []
        assert tree(server.home / "output/ball") == before
        packed = zipped({"a.png": file.getvalue()})[:900_000]
        assert server.upload("ball", {"half.zip": packed}).status_code == 422
        assert server.upload("ball", {"b.jpg": photo(2)}).status_code == 201
        image = Image.frombytes("RGB", (1200, 700), rng[: 1200 * 700 * 3])
        turned = io.BytesIO()
        image.save(turned, "GIF")  # comes in below the limit, is above it as PNG
        if len(turned.getvalue()) < MB:
            answer = server.upload("ball", {"grows.gif": turned.getvalue()})
            assert answer.status_code == 507, answer.text
        assert [*(server.home / "output/ball/.musubitlx/incoming").iterdir()] == []
    finally:
        server.stop()


@pytest.mark.skipif(os.geteuid() != 0 or not shutil.which("mount"), reason="needs to mount")
def test_a_small_disk_is_full_for_uploads_and_captions_alike(tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=300m", "tmpfs", str(disk)]
    if subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("mounting is not allowed here")
    server = Program(disk / "home", "--practice")
    server.said = tmp_path / "said.log"
    try:
        server.start()
        good(server.upload("ball", pictures(2)))
        answer = server.upload("ball", {"big.jpg": b"\xff" * 120 * MB})
        assert answer.status_code == 507 and "MB" in answer.json()["error"]
        filler = disk / "filler"
        with filler.open("wb") as file, pytest.raises(OSError):
            while True:
                file.write(b"\0" * MB)
        before = tree(server.home / "output/ball")
        path = "/api/projects/ball/images/ball 0.jpg/caption"
        answer = server.call("PUT", path, json={"text": "x" * 9000})
        assert answer.status_code == 507 and "disk is full" in answer.json()["error"]
        assert server.upload("ball", {"b.jpg": photo(1)}).status_code == 507
        assert tree(server.home / "output/ball") == before
        filler.unlink()
        assert server.call("PUT", path, json={"text": "now"}).status_code == 200
    finally:
        server.stop()
        subprocess.run(["umount", "-l", str(disk)], check=True)


def test_a_bad_upload_to_a_new_folder_does_not_take_away_another_s(live_server):
    answers = []

    def send(number: int) -> None:
        data = photo(number) if number % 2 else b"garbage"
        answers.append((number, live_server_upload(live_server, f"{number}.jpg", data)))

    threads = [threading.Thread(target=send, args=(number,)) for number in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {number: status for number, status in answers} == {
        number: 201 if number % 2 else 422 for number in range(16)
    }
    assert len(images_of(live_server, "new")) == 8


def live_server_upload(server: Program, name: str, data: bytes) -> int:
    import requests

    url = f"{server.url}/api/projects/new/images"
    return requests.post(url, files=[("files", (name, data))], timeout=30).status_code


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("images/mend", {"names": ["\ud800.png"]}),
        ("images/remove", {"names": ["\ud800.png"]}),
        ("import", {"path": "/x", "names": ["\ud800.png"]}),
        ("images/mend", {"names": ["x"] * 20_001}),
        ("captions/edit", {"edit": {"kind": "prefix", "text": "\ud800"}, "preview": True}),
    ],
)
def test_half_signs_and_endless_lists_are_refused_in_words(ball, path, body):
    answer = ball.call("POST", f"/api/projects/ball/{path}", data=json.dumps(body))
    assert answer.status_code in (404, 422), answer.text
    assert answer.json()["error"]
    assert "Traceback" not in ball.said.read_text()


def test_a_record_with_half_signs_does_not_take_the_folder_away(ball):
    hidden = ball.home / "output/ball/.musubitlx"
    change = {"name": "\ud800.png", "before": "a", "after": "b"}
    record = {"title": "\ud800", "at": 1, "changes": [change]}
    (hidden / "last_edit.json").write_text(json.dumps(record))
    assert len(images_of(ball)) == 3
    assert ball.call("POST", "/api/projects/ball/captions/undo", json={}).status_code == 200


def test_an_upload_that_breaks_off_leaves_nothing(ball):
    import socket

    folder = ball.home / "output/ball"
    before = tree(folder)
    head = (
        "POST /api/projects/ball/images HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 9000000\r\n"
        "Content-Type: multipart/form-data; boundary=x\r\n\r\n--x\r\n"
        'Content-Disposition: form-data; name="files"; filename="a.jpg"\r\n\r\n'
    )
    with socket.create_connection(("127.0.0.1", ball.record["port"])) as connection:
        connection.sendall(head.encode() + os.urandom(500_000))
        incoming = folder / ".musubitlx/incoming"
        wait_until(lambda: any(incoming.iterdir()), what="the first bytes on the disk")
    wait_until(lambda: not any(incoming.iterdir()), what="the scrap to be removed")
    assert tree(folder) == before


# -- captions --------------------------------------------------------------------------------------


def test_two_writers_of_a_caption_are_told_of_one_another(ball):
    path = "/api/projects/ball/images/ball 0.jpg/caption"
    base = images_of(ball)["ball 0.jpg"]["tag"]
    assert base == tag("")
    first = ball.put(path, {"text": "first", "base": base})
    answer = ball.call("PUT", path, json={"text": "second", "base": base})
    assert answer.status_code == 409
    told = answer.json()
    assert (told["caption"], told["tag"], told["field"]) == ("first", first["tag"], "text")
    assert (ball.home / "output/ball/ball 0.txt").read_text() == "first"
    assert ball.put(path, {"text": "second", "base": told["tag"]})["caption"] == "second"
    assert ball.put(path, {"text": "a script's"})["caption"] == "a script's"
    assert ball.call("PUT", path, json={"text": "x", "base": 7}).status_code == 422


def test_a_bulk_step_over_http_is_shown_done_and_undone(ball):
    url = "/api/projects/ball/captions/"
    for number, text in enumerate(["a red ball", "a blue ball", "a cube"]):
        ball.put(f"/api/projects/ball/images/ball {number}.jpg/caption", {"text": text})
    edit = {"kind": "replace", "find": "ball", "text": "globe"}
    shown = ball.post(url + "edit", {"edit": edit, "preview": True})
    assert [row["after"] for row in shown["changes"]] == ["a red globe", "a blue globe"]
    assert images_of(ball)["ball 0.jpg"]["caption"] == "a red ball"
    only = {"edit": edit, "names": ["ball 1.jpg", "ball 2.jpg"]}
    seen = ball.post(url + "edit", {**only, "preview": True})["seen"]
    assert ball.post(url + "edit", {**only, "seen": seen})["changed"] == ["ball 1.jpg"]
    assert ball.get("/api/projects/ball")["last_edit"]["count"] == 1
    assert ball.call("POST", url + "edit", json={**only, "seen": seen}).status_code == 409
    assert ball.post(url + "undo") == {"restored": ["ball 1.jpg"], "left": []}
    assert ball.call("POST", url + "undo", json={}).status_code == 404
    for body in ({}, {"edit": 1}, {"edit": edit, "names": "all"}, {"edit": edit, "names": []}):
        assert ball.call("POST", url + "edit", json=body).status_code == 422


def test_a_removed_image_can_be_brought_back(ball):
    folder = ball.home / "output/ball"
    ball.put("/api/projects/ball/images/ball 1.jpg/caption", {"text": "a ball"})
    told = ball.call("DELETE", "/api/projects/ball/images/ball 1.jpg").json()
    assert told["removed"] == "ball 1.jpg"
    assert not (folder / "ball 1.jpg").exists() and not (folder / "ball 1.txt").exists()
    back = ball.post(f"/api/projects/ball/trash/{told['undo']}/restore")["restored"]
    assert [(image["name"], image["caption"]) for image in back] == [("ball 1.jpg", "a ball")]
    url = f"/api/projects/ball/trash/{told['undo']}/restore"
    assert ball.call("POST", url, json={}).status_code == 404
    many = ball.post("/api/projects/ball/images/remove", {"names": ["ball 0.jpg", "ball 2.jpg"]})
    assert many["removed"] == ["ball 0.jpg", "ball 2.jpg"] and len(images_of(ball)) == 1
    ball.post(f"/api/projects/ball/trash/{many['undo']}/restore")
    assert len(images_of(ball)) == 3


def test_a_page_that_watches_a_folder_is_told_what_changes_in_it(ball):
    news = []

    def watch() -> None:
        url = f"{ball.url}/api/events?project=ball"
        import requests
        from support import parse_events

        with requests.get(url, stream=True, timeout=20) as answer:
            for event in parse_events(answer.iter_content(chunk_size=None)):
                if event.name in ("captions", "looks"):
                    news.append((event.name, event.data))
                if event.name == "captions" and event.data["removed"]:
                    return

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    time.sleep(1.5)
    (ball.home / "output/ball/ball 0.txt").write_text("from an editor")
    wait_until(lambda: any(data.get("captions") for _, data in news), what="the caption")
    good(ball.upload("ball", {"new.jpg": photo(1)}))
    wait_until(lambda: any(data.get("added") for _, data in news), what="the image")
    wait_until(lambda: any(name == "looks" for name, _ in news), what="what it looks like")
    ball.call("DELETE", "/api/projects/ball/images/new.jpg")
    thread.join(timeout=10)
    told = [data for name, data in news if name == "captions"]
    rows = [row for data in told for row in data["captions"]]
    row = next(row for row in rows if row["name"] == "ball 0.jpg")
    assert (row["caption"], row["tag"]) == ("from an editor", tag("from an editor"))
    assert any(data["added"] == ["new.jpg"] for data in told)
    assert told[-1]["removed"] == ["new.jpg"]


# -- health ----------------------------------------------------------------------------------------


def test_the_buckets_shown_are_those_of_the_resolution(ball):
    shown = images_of(ball, resolution="256x256")["ball 0.jpg"]["bucket"]
    assert (shown["width"], shown["height"], shown["kept"]) == (256, 256, [0, 0, 1, 1])
    assert shown["scale"] == 0.5
    assert images_of(ball)["ball 0.jpg"]["bucket"] is None
    report = ball.get("/api/projects/ball/health", params={"resolution": "1024x1024"})
    buckets = {(row["width"], row["height"]): row["images"] for row in report["buckets"]}
    assert buckets == {
        (880, 1184): ["ball 2.jpg"],
        (1024, 1024): ["ball 0.jpg"],
        (1184, 880): ["ball 1.jpg"],
    }
    assert any(finding["kind"] == "enlarged" for finding in report["findings"])


def test_copies_are_found_and_told(ball):
    good(ball.upload("ball", {"copy.jpg": pictures(1)["ball 0.jpg"]}))

    def found():
        report = ball.get("/api/projects/ball/health")
        done = report["looked"] == report["of"] == 4
        return done and {one["kind"]: one for one in report["findings"]}

    findings = wait_until(found, what="every image to be looked at")
    assert findings["duplicates"]["groups"] == [["ball 0.jpg", "copy.jpg"]]
    for one in findings.values():
        assert one["text"].endswith(".") and one["tone"] in ("danger", "warn", "note")
        assert one["hint"]


def test_few_images_and_few_steps_come_with_four_pieces_of_advice(ball):
    def advice(**settings):
        checked = ball.post("/api/check", {"project": "ball", "settings": {**SMALL, **settings}})
        return [row["points"] for row in checked["warnings"] if "points" in row]

    points = advice(epochs=2)[0]
    assert len(points) == 4
    assert "10 to 20 images" in points[0] and "epochs" in points[1]
    assert "learning rate" in points[2] and "captions" in points[3]
    assert advice(epochs=50, image_repeats=2) == []
    good(ball.upload("ball", {f"b{n}.jpg": photo(n) for n in range(5)}))
    assert advice(epochs=2) == []
