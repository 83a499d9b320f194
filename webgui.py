"""The web app: routes and start. The only module that knows Flask; all else is in musubitlx/."""

from __future__ import annotations

import argparse
import gzip
import json
import os
import platform
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from urllib.parse import quote, urlencode, urlsplit

from flask import (
    Blueprint,
    Flask,
    Request,
    Response,
    current_app,
    g,
    redirect,
    render_template,
    request,
    send_file,
)
from werkzeug.exceptions import HTTPException
from werkzeug.local import LocalProxy

from musubitlx import (
    __version__,
    archives,
    autocaption,
    births,
    board,
    buckets,
    captioned,
    captioners,
    captions,
    checks,
    comparison,
    configs,
    curves,
    edits,
    events,
    health,
    history,
    logsearch,
    looks,
    metrics,
    models,
    musubi,
    notes,
    notify,
    outputs,
    presets,
    projects,
    queues,
    recipes,
    report,
    resources,
    samples,
    serving,
    settings,
    targets,
    trash,
    uploads,
)
from musubitlx.access import Access, Visit, addresses, is_loopback
from musubitlx.assets import Assets
from musubitlx.bell import Bell
from musubitlx.commands import QUEUE
from musubitlx.errors import (
    Conflict,
    DiskFull,
    Invalid,
    NotFound,
    TooLarge,
    UserError,
    disk_error,
)
from musubitlx.home import PACKAGE_ROOT, RESERVE_BYTES, Home, is_storable, read_json, write_json
from musubitlx.imports import Imports
from musubitlx.jobs import RUNNING, Job, Jobs, Plan
from musubitlx.lease import Lease
from musubitlx.logs import READ_BYTES, blocks, whole_size
from musubitlx.options import OptionTables
from musubitlx.projects import Image, Project
from musubitlx.surroundings import Machine
from musubitlx.uploads import Taken, Upload

COOKIE = "musubitlx_token"
COOKIE_S = 365 * 24 * 3600
JSON_BYTES = 2_000_000  # the longest JSON body that is read
MOST_NAMES = 20_000  # in one request
RECONCILE_S = 2.0
TRASH_S = 60.0
HEADERS = {
    "Content-Security-Policy": "default-src 'self'; frame-ancestors 'none'; base-uri 'none'; "
    "form-action 'self'; object-src 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}
FORWARDING = ("X-Forwarded-For", "X-Forwarded-Host", "X-Real-IP", "Forwarded", "Via")


class ReceivedFile:
    """A file being received: after each piece others have their turn."""

    def __init__(self, file, nap):
        self._file, self._nap = file, nap

    def write(self, data: bytes) -> int:
        """Write a piece."""
        self._nap(0)
        return self._file.write(data)

    def __getattr__(self, name: str):
        return getattr(self._file, name)


class UploadRequest(Request):
    """A request whose files are written where they will be needed, not to a temporary folder."""

    max_form_parts = 50_000

    def _get_file_stream(
        self, total_content_length, content_type, filename=None, content_length=None
    ):
        if "project" not in g:
            raise Invalid("Files are not taken at this address.")
        path = uploads.incoming(g.project)
        g.received.append(path)
        return ReceivedFile(path.open("w+b"), house.server.nap)


@dataclass
class House:
    """What every request of one server works with."""

    home: Home
    server: serving.Server
    access: Access
    practice: bool
    jobs: Jobs
    tables: OptionTables
    bell: Bell
    poller: resources.Poller
    assets: Assets
    feed: events.Feed
    imports: Imports
    inspections: looks.Inspections
    history: history.History
    streams: set[object] = field(default_factory=set)  # one for each that is open

    def trainer(self) -> musubi.Trainer:
        """Musubi as it is found now, or the practice trainer."""
        return musubi.find(self.home, practice=self.practice)

    def place(self) -> checks.Place:
        """Where a run asked for now would take place. It waits for the driver: offload it."""
        trainer = self.trainer()
        jobs = [job for job in self.jobs.all() if not job.ended]
        busy = any(job.state == RUNNING and job.queue == QUEUE for job in jobs)
        machine = Machine(self.poller.snapshot(), busy)
        captioned = frozenset(
            job.project for job in jobs if job.kind == "caption" and not job.trial and job.project
        )
        return checks.Place(self.home, trainer, self.tables.get(trainer), machine, captioned)


house: House = LocalProxy(lambda: current_app.extensions["musubitlx"])
routes = Blueprint("musubitlx", __name__)


def create_app(
    home: Home,
    server: serving.Server,
    access: Access,
    *,
    practice: bool = False,
    import_roots: Iterable[str] = (),
) -> Flask:
    """The web app for one home folder; `server` says how waiting and heavy work are done.

    `import_roots` are folders of this machine from which images may be imported.
    """
    app = Flask(__name__, static_folder=None)
    app.request_class = UploadRequest
    app.json.sort_keys = False
    app.jinja_env.trim_blocks = app.jinja_env.lstrip_blocks = True
    jobs, bell, poller = Jobs(home), server.bell(), resources.Poller(home.output)
    app.extensions["musubitlx"] = House(
        home=home,
        server=server,
        access=access,
        practice=practice,
        jobs=jobs,
        tables=OptionTables(home.jobs),
        bell=bell,
        poller=poller,
        assets=Assets(PACKAGE_ROOT / "static"),
        imports=Imports(home, import_roots),
        inspections=looks.Inspections(),
        history=history.History(jobs),
        feed=events.Feed(
            home,
            jobs,
            bell,
            describe=describe_job,
            describe_sample=describe_sample,
            snapshot=lambda: server.offload(poller.snapshot),
        ),
    )
    app.register_blueprint(routes)
    return app


def open_project(name: str, *, must_exist: bool = True) -> Project:
    """The output folder of that name; NotFound if it is not there and must be."""
    project = Project(house.home, name)
    if must_exist and not project.exists:
        raise NotFound(f"There is no output folder called {name}.")
    return project


# -- every request --------------------------------------------------------------------------------


@routes.before_app_request
def let_in():
    """Refuse whoever may not come in; take the token of a link into a cookie."""
    g.received = []
    verdict = house.access.check(visit())
    if verdict.set_cookie and request.method == "GET" and not request.path.startswith("/api/"):
        rest = [(k, v) for k, v in request.args.items(multi=True) if k != "token"]
        target = request.path + ("?" + urlencode(rest) if rest else "")
        return with_cookie(redirect(target), request.args["token"])
    return None


@routes.after_app_request
def finish(response: Response) -> Response:
    """Headers every answer carries; text is compressed where that is worth it."""
    for name, value in HEADERS.items():
        response.headers.setdefault(name, value)
    if not request.path.startswith("/static/"):
        response.headers.setdefault("Cache-Control", "no-store")
    return compressed(response)


@routes.teardown_app_request
def forget_received(_error):
    """Whatever an upload left half received is removed."""
    for path in getattr(g, "received", ()):
        path.unlink(missing_ok=True)


@routes.app_errorhandler(UserError)
def show_user_error(error: UserError):
    """What a person can put right, in the one shape of errors."""
    return show_error(error.as_dict(), error.http_status)


@routes.app_errorhandler(HTTPException)
def show_http_error(error: HTTPException):
    """What Flask found wrong with a request, as a sentence."""
    if error.code and error.code < 400:
        return error
    text = SENTENCES.get(error.code) or error.description or error.name
    return show_error({"error": text, "field": None, "hint": None}, error.code or 500)


@routes.app_errorhandler(OSError)
def show_disk_error(error: OSError):
    """What the disk or the system refused, told in the log too; or a request that broke off."""
    if error.errno is None:
        text = "The request broke off before its end."
        return show_error({"error": text, "field": None, "hint": "Send it again."}, 400)
    print_error(error)
    told = disk_error(error)
    if isinstance(told, DiskFull):
        return show_error(told.as_dict(), told.http_status)
    text = f"The disk or the system refused: {error.strerror or error}."
    return show_error({"error": text, "field": None, "hint": None}, 500)


@routes.app_errorhandler(Exception)
def show_bug(error: Exception):
    """Our mistake: a line for the person, the traceback for the log."""
    print_error(error)
    text = f"MusubiTLX made a mistake here ({type(error).__name__})."
    hint = "The details are in the server's log (webgui.log). Please report them."
    return show_error({"error": text, "field": None, "hint": hint}, 500)


def print_error(error: Exception) -> None:
    """Put a traceback into the server's log, if it still has one."""
    with suppress(OSError, ValueError):
        traceback.print_exception(error)


def show_error(body: dict, status: int):
    """The one shape of an error for programs, a page for people."""
    if request.path.startswith("/api/") or request.path == "/healthz":
        return body, status
    if status == 401:
        return page("login.html", next=request.full_path.rstrip("?"), error=None), 401
    return page("error.html", error=body["error"], hint=body["hint"]), status


def page(template: str, **more) -> str:
    """A page from its template, with what all of them need."""
    return render_template(
        template,
        version=__version__,
        asset=lambda name: f"/static/{name}?v={house.assets.load(name).tag}",
        no_token=house.access.no_token,
        **more,
    )


# -- pages ----------------------------------------------------------------------------------------


@routes.get("/")
def index():
    """The page that does it all."""
    found = house.trainer()
    name = request.args.get("project", "")
    with suppress(UserError):
        return page("index.html", **page_facts(found, Project(house.home, name).name))
    return page("index.html", **page_facts(found, ""))


def page_facts(found: musubi.Trainer, project: str) -> dict:
    """What the training page is drawn from."""
    ready = all(state.path and not state.problem for state in models.find(house.home))
    return {
        "practice": found.practice,
        "practice_reason": found.reason,
        "rows": settings.form_rows(),
        "profiles": describe_profiles(found),
        "project": project,
        "models_ready": ready,
    }


@routes.get("/runs")
def runs():
    """Queue and history."""
    found = house.trainer()
    return page("runs.html", practice=found.practice, practice_reason=found.reason, project="")


@routes.get("/login")
def login():
    """Ask for the token."""
    return page("login.html", next=request.args.get("next", "/"), error=None)


@routes.post("/login")
def enter():
    """Take a typed token into the cookie; wrong ones count."""
    typed, target = request.form.get("token", ""), local_path(request.form.get("next"))
    try:
        verdict = house.access.check(visit(path="/", peer_only=True, query_token=typed))
    except UserError as error:
        return page("login.html", next=target, error=str(error)), error.http_status
    return with_cookie(redirect(target), typed) if verdict.set_cookie else redirect(target)


@routes.get("/static/<path:name>")
def static_file(name: str):
    """A file of the page itself."""
    return send_asset(name)


@routes.get("/favicon.ico")
def favicon():
    """Browsers ask for it whatever the page says."""
    return send_asset("icon.svg")


@routes.get("/healthz")
def healthz():
    """Whether the server answers."""
    return {"ok": True}


# -- state and configuration ----------------------------------------------------------------------


@routes.get("/api/state")
def state():
    """All the page needs to draw itself."""
    found, memory = house.trainer(), house.server.offload(house.poller.snapshot)
    return {
        "version": __version__,
        "server": house.server.name,
        "python": platform.python_version(),
        "practice": found.practice,
        "practice_reason": found.reason,
        "musubi": found.as_dict(),
        "gpus": memory["gpus"],
        "gpu_reason": memory["gpu_reason"],
        "no_token": house.access.no_token,
        "models": [row.as_dict() for row in models.find(house.home)],
        "projects": projects.all_projects(house.home),
        "jobs": [describe_job(job) for job in house.jobs.all() if not job.ended],
        "profiles": describe_profiles(found),
        "suggested": suggested_profile(memory["gpus"]),
        "settings": settings.defaults(),
    }


@routes.get("/api/resources")
def show_resources():
    """RAM, VRAM and disk."""
    return house.server.offload(house.poller.snapshot)


@routes.get("/api/config")
def load_config():
    """Saved settings, with what in them could not be used.

    `given` are the names whose values come from the file; the others are at their defaults.
    """
    held = house.server.offload(configs.content, house.home, request.args.get("name"))
    loaded, problems = settings.read(held)
    wrong = {problem.field for problem in problems}
    return {
        "name": request.args.get("name") or configs.LAST,
        "settings": loaded,
        "given": [name for name in loaded if name in held and name not in wrong],
        "problems": [problem.as_dict() for problem in problems],
    }


@routes.put("/api/config")
def save_config():
    """Check settings and save them as YAML; a name that a person made up comes as `new_name`."""
    body = json_body()
    name = configs.new_name(body["new_name"]) if "new_name" in body else body.get("name")
    path = configs.save(house.home, name, body.get("settings"))
    return {"saved": str(path)}


@routes.delete("/api/config")
def forget_config():
    """Delete saved settings."""
    name = request.args.get("name")
    configs.remove(house.home, name)
    return {"removed": name}


@routes.get("/api/configs")
def list_configs():
    """The names of saved settings, newest first."""
    return {"configs": configs.names(house.home)}


@routes.get("/api/recipes")
def list_recipes():
    """Recipes for a number of images, and what is wrong with files of the user's own."""
    found, problems = house.server.offload(recipes.all, recipes.folders(house.home))
    images = whole_number("images", 0)
    return {
        "recipes": [recipe.as_dict(images) for recipe in found],
        "problems": [problem.as_dict() for problem in problems],
    }


@routes.get("/api/models")
def show_models():
    """The state of each model file."""
    return {"models": [row.as_dict() for row in models.find(house.home)]}


@routes.put("/api/models/<model_id>")
def set_model(model_id: str):
    """Use a model file by its path."""
    return models.set_path(house.home, model_id, json_body().get("path")).as_dict()


# -- word of a run's end --------------------------------------------------------------------------


@routes.get("/api/notify")
def show_notify():
    """Where word of a run's end goes: the kind and the host, never the address."""
    return targets.describe(house.home)


@routes.put("/api/notify")
def save_notify():
    """Keep where it goes; without `url` the address stays, if it is one of that kind."""
    body = json_body()
    targets.save(house.home, body.get("kind"), body.get("url"))
    return targets.describe(house.home)


@routes.delete("/api/notify")
def forget_notify():
    """Send nothing any more."""
    targets.forget(house.home)
    return targets.describe(house.home)


@routes.post("/api/notify/test")
def test_notify():
    """Send a test message: to the address given, else to the one that is kept."""
    body = json_body()
    target = targets.chosen(house.home, body.get("kind"), body.get("url"))
    house.server.offload(notify.try_out, target)
    return {"sent": target.where}


# -- output folders -------------------------------------------------------------------------------


@routes.get("/api/projects")
def list_projects():
    """The output folders."""
    return {"projects": projects.all_projects(house.home)}


@routes.post("/api/projects")
def make_project():
    """Create an output folder; one that is there stays as it is."""
    project = Project(house.home, json_body().get("name", ""))
    return {"name": project.name}, 201 if project.make() else 200


@routes.get("/api/projects/<name>")
def show_project(name: str):
    """Images with captions and final texts, and what training made."""
    project = open_project(name)
    shown, images = View.asked(), house.server.offload(project.images)
    return {
        "name": project.name,
        "path": str(project.path),
        "images": [describe_image(project, image, shown) for image in images],
        "outputs": [describe_file(project, path) for path in project.outputs()],
        "last_edit": edits.last(project),
        "warnings": [],
    }


@routes.get("/api/projects/<name>/health")
def show_health(name: str):
    """What is wrong with the images and captions, as far as they have been looked at."""
    project = open_project(name)
    house.server.offload(house.inspections.ask, project)
    chosen, _ = settings.read({**request.args.to_dict(), "output_dir": project.name})
    return house.server.offload(health.report, project, chosen)


# -- images ---------------------------------------------------------------------------------------


@routes.post("/api/projects/<name>/images")
def add_images(name: str):
    """Take in uploaded images, the captions that come with them, and archives of both."""
    g.project = project = open_project(name, must_exist=False)
    check_room(project, request.content_length or 0)
    is_new = project.make()
    received = []
    try:
        for file in request.files.getlist("files"):
            file.stream.close()
            received.append(Upload(Path(file.stream.name), file.filename or ""))
        if not received:
            raise Invalid("No files came with the request.", field="files")
        taken = take_in(project, received)
    finally:
        if is_new:
            project.unmake()
    return answer_for(project, taken)


def take_in(project: Project, received: list[Upload]) -> Taken:
    """Unpack what is an archive, then admit everything; paths are noted, so that none stays."""
    files, rejected = [], []
    for upload in received:
        if not upload.is_archive:
            files.append(upload)
            continue
        fresh, free = fresh_paths(project, g.received), free_bytes(project)
        try:
            unpack = partial(archives.unpack, upload.received, fresh, free=free)
            unpacked = house.server.offload(unpack)
        except Invalid as error:
            rejected.append({"name": upload.name, "reason": str(error).rstrip(".")})
            continue
        finally:
            upload.received.unlink(missing_ok=True)
        files += [Upload(path, inner) for path, inner in unpacked.files]
        rejected += unpacked.rejected
    taken = house.server.offload(uploads.admit_all, project, files, serving.each)
    taken.rejected[:0] = rejected
    house.server.offload(house.inspections.ask, project)
    return taken


def answer_for(project: Project, taken: Taken):
    """What became of each file: 201 when something came in, 200 when all was there already.

    422 when none was of use, 507 when that was for a full disk; `full` says so in
    the other cases.
    """
    shown = View.asked()
    body = {
        "added": [describe_image(project, image, shown) for image in taken.added],
        "present": taken.present,
        "rejected": taken.rejected,
        "captions": taken.captioned,
        **({"full": f"{taken.full} {taken.full.hint}"} if taken.full else {}),
    }
    if taken.added or taken.captioned:
        return body, 201
    if taken.full:
        return {**taken.full.as_dict(), **body}, taken.full.http_status
    if taken.present:
        return body, 200
    if not taken.rejected:
        return {
            "error": "There is no image in it.",
            "field": "files",
            "hint": None,
            **body,
        }, 422
    reason = f"{taken.rejected[0]['name'][:100]}: {taken.rejected[0]['reason']}"
    many = len(taken.rejected) > 1
    text = f"None of the {len(taken.rejected)} files could be used" if many else "Not used"
    return {"error": f"{text}. {reason}.", "field": "files", "hint": None, **body}, 422


@routes.get("/api/import")
def browse_imports():
    """The folders of this machine that images may be taken from, or what is in one of them."""
    path = request.args.get("path")
    if path:
        return house.server.offload(house.imports.browse, path)
    return {"roots": house.imports.roots()}


@routes.post("/api/projects/<name>/import")
def import_images(name: str):
    """Copy files from a folder of this machine and take them in like uploads."""
    body = json_body()
    folder, names = body.get("path"), names_of(body)
    if not isinstance(folder, str):
        raise Invalid("Name the folder to import from.", field="path")
    project = open_project(name, must_exist=False)
    is_new = project.make()
    try:
        files, rejected = house.server.offload(
            house.imports.copy, folder, names, fresh_paths(project, g.received)
        )
        taken = take_in(project, [Upload(path, inner) for path, inner in files])
    finally:
        if is_new:
            project.unmake()
    taken.rejected[:0] = rejected
    return answer_for(project, taken)


def fresh_paths(project: Project, received: list[Path]) -> Callable[[], Path]:
    """A function that gives paths for files to come and notes them, so that none is left over."""

    def fresh() -> Path:
        received.append(uploads.incoming(project))
        return received[-1]

    return fresh


@routes.post("/api/projects/<name>/images/remove")
def remove_images(name: str):
    """Remove several images with captions and caches; all can be brought back together."""
    return remove(open_project(name), names_of(json_body()))


@routes.post("/api/projects/<name>/images/mend")
def mend_images(name: str):
    """Make files that were put into the folder by hand fit for training; originals are kept."""
    project, shown = open_project(name), View.asked()
    names = names_of(json_body())
    refuse_while_needed(project)
    mended, rejected = house.server.offload(uploads.mend_all, project, names)
    house.server.offload(house.inspections.ask, project)
    return {
        "mended": [describe_image(project, image, shown) for image in mended],
        "rejected": rejected,
    }


@routes.post("/api/projects/<name>/trash/<key>/restore")
def restore_images(name: str, key: str):
    """Bring back what was removed."""
    project, shown = open_project(name), View.asked()
    restored = house.server.offload(trash.restore, project, key)
    house.server.offload(house.inspections.ask, project)
    return {"restored": [describe_image(project, image, shown) for image in restored]}


@routes.get("/api/projects/<name>/images/<image>")
def show_image(name: str, image: str):
    """The image itself."""
    return send_stored(open_project(name).image(image).path)


@routes.get("/api/projects/<name>/images/<image>/thumb")
def show_thumb(name: str, image: str):
    """A thumbnail of at most 320 px."""
    return send_stored(house.server.offload(open_project(name).thumb, image))


@routes.delete("/api/projects/<name>/images/<image>")
def remove_image(name: str, image: str):
    """Remove an image with caption and caches, unless a run needs it."""
    told = remove(open_project(name), [image])
    return {"removed": image, "undo": told["undo"]}


def remove(project: Project, names: list[str]) -> dict:
    """Move images into the trash; the answer says how to bring them back."""
    refuse_while_needed(project)
    removed, key = house.server.offload(trash.throw_away, project, names)
    return {"removed": removed, "undo": key}


def refuse_while_needed(project: Project) -> None:
    """Conflict while a run that reads the folder's images is queued or under way."""
    if any(job.kind == "train" for job in house.jobs.of_project(project.name)):
        raise Conflict(
            "A run with this image is queued or under way.",
            hint="Stop it first, or do this afterwards.",
        )


# -- captions -------------------------------------------------------------------------------------


@routes.put("/api/projects/<name>/images/<image>/caption")
def save_caption(name: str, image: str):
    """Save a caption at once; 409 if it is not any more what its writer started from (`base`)."""
    project, body = open_project(name), json_body()
    base = body.get("base")
    if base is not None and not isinstance(base, str):
        raise Invalid("`base` is the tag of the caption it was typed over.", field="base")
    saved = project.set_caption(image, body.get("text"), base=base)
    house.bell.ring()
    return describe_image(project, saved, View.asked())


@routes.get("/api/captioners")
def list_captioners():
    """The caption models, and what can be chosen for each."""
    return {
        "models": [one.as_dict() for one in captioners.CAPTIONERS],
        "tokens": [captioners.TOKENS_LOW, captioners.TOKENS_HIGH],
        "details": [
            {"level": level, "label": one.label} for level, one in captioners.DETAILS.items()
        ],
        "detail": captioners.DETAIL,
        "instruction": captioners.INSTRUCTION,
        "modes": list(captioners.MODES),
    }


@routes.post("/api/projects/<name>/captions/check")
def check_captioning(name: str):
    """What would go wrong if a model were to write these captions, and what would run."""
    project = open_project(name)
    try:
        wish = captioners.Wish.parse(json_body())
    except Invalid as error:
        return autocaption.Found(errors=[error]).as_dict()
    own = house._get_current_object()
    found = house.server.offload(lambda: autocaption.check(own.place(), project, wish))
    return found.as_dict()


@routes.post("/api/projects/<name>/captions")
def start_captioning(name: str):
    """Queue a run in which a model writes captions, or tries one image."""
    project = open_project(name)
    wish = captioners.Wish.parse(json_body())
    own = house._get_current_object()
    plan = house.server.offload(lambda: autocaption.plan(own.place(), project, wish))
    job = house.jobs.submit(plan)
    house.bell.ring()
    return describe_job(job), 202


@routes.get("/api/jobs/<job>/captions")
def show_captioned(job: str):
    """What a captioning run has made so far, one row an image."""
    found = house.jobs.get(job)
    if found.kind != "caption" or not found.project:
        raise NotFound("This is no captioning run.")
    project = open_project(found.project)
    return {"rows": house.server.offload(captioned.read, project, found.id)}


@routes.post("/api/projects/<name>/captions/edit")
def edit_captions(name: str):
    """Show what a bulk step would change, or do it as it was shown."""
    project, body = open_project(name), json_body()
    edit = edits.Edit.parse(body.get("edit"))
    wanted = None if body.get("names") is None else set(names_of(body))
    images = house.server.offload(project.images)
    images = [image for image in images if wanted is None or image.name in wanted]
    found = house.server.offload(edits.changes, images, edit)
    if body.get("preview"):
        return {"changes": [change.as_dict() for change in found], "seen": edits.tag(found)}
    seen = body.get("seen")
    if seen is not None and not isinstance(seen, str):
        raise Invalid("`seen` is what the preview gave.", field="seen")
    refuse_while_captioned(project)
    changed, left = house.server.offload(edits.apply, project, edit, found, seen)
    house.bell.ring()
    return {"changed": changed, "left": left, "last_edit": edits.last(project)}


@routes.post("/api/projects/<name>/captions/undo")
def undo_captions(name: str):
    """Take the last bulk step back."""
    project, at = open_project(name), json_body().get("at")
    refuse_while_captioned(project)
    restored, left = house.server.offload(edits.undo, project, at)
    house.bell.ring()
    return {"restored": restored, "left": left}


def refuse_while_captioned(project: Project) -> None:
    """Conflict while a model writes captions: that is a step by itself, with one undo for all."""
    running = (job for job in house.jobs.of_project(project.name) if job.state == RUNNING)
    if any(job.kind == "caption" and not job.trial for job in running):
        raise Conflict(
            "Captions of this folder are still being written.",
            hint="Stop that first, or do this afterwards.",
        )


# -- results --------------------------------------------------------------------------------------


@routes.get("/api/projects/<name>/samples")
def show_samples(name: str):
    """The sample images, the runs of the folder, how many LoRA files it holds and the best one."""
    project, jobs = open_project(name), house.jobs.all()
    drawn = house.server.offload(samples.listed, project, jobs)
    return {
        "samples": [describe_sample(project, sample) for sample in drawn],
        "runs": samples.runs(project, jobs),
        "loras": len(project.outputs()),
        "best": house.server.offload(outputs.best_of, project),
    }


@routes.get("/api/projects/<name>/samples.zip")
def download_samples(name: str):
    """The samples of a run (`?run=`), or all, in one file that is made while it is sent."""
    project, run = open_project(name), request.args.get("run")
    found = samples.chosen(samples.listed(project, house.jobs.all()), run)
    title = f"{project.name} samples.zip"
    headers = {"Content-Disposition": attachment(title), "Content-Type": "application/zip"}
    return streamed(lambda: samples.zipped(project, found), headers)


@routes.get("/api/projects/<name>/outputs")
def show_outputs(name: str):
    """The LoRA files with epoch, loss and samples, the runs that made them, the model cards."""
    project, jobs = open_project(name), house.jobs.all()
    told = house.server.offload(outputs.listed, project, jobs)
    for file in told["files"]:
        file["url"] = path_of("api", "projects", project.name, "files", file["name"])
    return told


@routes.post("/api/projects/<name>/outputs/<file>/best")
def mark_best(name: str, file: str):
    """Note a LoRA file as the best one of its folder, or (`best` false) not any more."""
    best = json_body().get("best", True)
    if not isinstance(best, bool):
        raise Invalid("`best` is true or false.", field="best")
    house.server.offload(partial(outputs.mark_best, open_project(name), file, best=best))
    return {"best": file if best else None}


@routes.delete("/api/projects/<name>/outputs/<file>")
def remove_output(name: str, file: str):
    """Move a LoRA file into the trash, unless a run needs it."""
    project, jobs = open_project(name), house.jobs.all()
    return {"removed": file, "undo": house.server.offload(outputs.remove, project, file, jobs)}


@routes.post("/api/projects/<name>/outputs/restore/<key>")
def restore_output(name: str, key: str):
    """Bring back a LoRA file that was removed."""
    return {"restored": house.server.offload(outputs.restore, open_project(name), key)}


@routes.get("/api/projects/<name>/files/<file>")
def show_file(name: str, file: str):
    """An output: LoRA and log as a download, a sample as an image."""
    project = open_project(name)
    if request.args.get("thumb"):
        return send_stored(house.server.offload(project.sample_thumb, file))
    path = project.result(file)
    return send_stored(path, download=path.suffix != ".png" or "download" in request.args)


# -- runs -----------------------------------------------------------------------------------------


@routes.post("/api/check")
def check():
    """What would go wrong, what would run, and how many steps."""
    body = json_body()
    given = settings_of(body, body.get("project"))
    own = house._get_current_object()  # in the thread that does it there is no request
    return house.server.offload(lambda: checks.check(own.place(), given)).as_dict()


@routes.post("/api/projects/<name>/train")
def train(name: str):
    """Queue a training run with the posted settings."""
    project = open_project(name)
    given = settings_of(json_body(), project.name)
    own = house._get_current_object()
    plan = house.server.offload(plan_run, project, own, given)
    job = house.jobs.submit(plan)
    with suppress(OSError, UserError):
        configs.save(house.home, None, plan.settings)
    house.bell.ring()
    return describe_job(job), 202


def plan_run(project: Project, own: House, given: object) -> Plan:
    """The job of a run; when all else is in order, its images are looked at to their end first."""
    place = own.place()
    if looks.missing(project) and not checks.check(place, given).errors:
        own.inspections.finish(project)
    return checks.plan_training(place, given)


@routes.get("/api/jobs")
def list_jobs():
    """All jobs, newest first; what the log says of a failure comes with the single job."""
    told = [describe_job(job) for job in house.jobs.all()]
    return [{**job, "diagnosis": without_lines(job["diagnosis"])} for job in told]


@routes.get("/api/jobs/<job>")
def show_job(job: str):
    """One job."""
    return describe_job(house.jobs.get(job))


@routes.post("/api/jobs/<job>/stop")
def stop_job(job: str):
    """Ask a job to stop; its state says when it has.

    With `{"after_epoch": true}` it stops once the epoch at hand is saved; false takes that back.
    """
    after_epoch = json_body(needed=False).get("after_epoch")
    if after_epoch is None:
        stopped = house.jobs.stop(job)
    elif isinstance(after_epoch, bool):
        stopped = house.jobs.stop_after_epoch(job, after_epoch)
    else:
        raise Invalid("`after_epoch` is true or false.", field="after_epoch")
    house.bell.ring()
    return describe_job(stopped), 202


@routes.post("/api/jobs/<job>/move")
def move_job(job: str):
    """Put a waiting job before another one (`before`: its id), or last (null)."""
    body = json_body()
    before = body.get("before")
    if "before" not in body or not (before is None or isinstance(before, str)):
        raise Invalid("Name the run it is put before, or null for the end.", field="before")
    order = queues.move(house.jobs, job, before)
    house.bell.ring()
    return {"order": [one.id for one in order]}


@routes.post("/api/jobs/<job>/put-back")
def put_job_back(job: str):
    """Let a job that was taken out of the queue wait again, where it was."""
    waiting = queues.put_back(house.jobs, job)
    house.bell.ring()
    return describe_job(waiting)


@routes.delete("/api/jobs/<job>")
def forget_job(job: str):
    """Forget an ended job; its results stay."""
    house.jobs.forget(job)
    house.bell.ring()
    return {"removed": job}


@routes.get("/api/jobs/<job>/details")
def show_details(job: str):
    """Settings, commands, notes and the last lines of the log."""
    found = house.jobs.get(job)
    return {"job": describe_job(found), **house.server.offload(history.details, found)}


@routes.put("/api/jobs/<job>/notes")
def save_notes(job: str):
    """Save the notes on a run; 409 if they are not what their writer started from (`base`)."""
    body = json_body()
    base = body.get("base")
    if base is not None and not isinstance(base, str):
        raise Invalid("`base` is the tag of the notes it was typed over.", field="base")
    text = notes.write(house.jobs.get(job).folder, body.get("text"), base=base)
    house.bell.ring()
    return {"text": text, "tag": notes.tag(text)}


@routes.get("/api/jobs/<job>/report")
def show_report(job: str):
    """The run as a zip for a bug report, without anything private."""
    found, own = house.jobs.get(job), house._get_current_object()
    trainer, secrets = own.trainer(), [own.access.token] if own.access.token else []
    packed = own.server.offload(
        lambda: report.build(found, own.home, trainer, own.poller.snapshot(), secrets)
    )
    response = Response(packed, mimetype="application/zip")
    response.headers["Content-Disposition"] = attachment(f"musubitlx-run-{found.id}.zip")
    return response


@routes.get("/api/jobs/<job>/log")
def show_log(job: str):
    """The log from a byte on, whole lines."""
    path = Path(house.jobs.get(job).log)
    if "download" in request.args:
        if not path.is_file():
            raise NotFound("This run has no log (any more).")
        return send_stored(path, download=True)
    if "limit" in request.args:
        return log_piece(path, whole_number("limit", 0))
    end = whole_size(path)
    start = min(whole_number("offset", 0), end)
    return log_response(part_of_file(path, start, end), path, start, end)


def part_of_file(path: Path, start: int, end: int):
    """The body of an answer: the bytes of a file from `start` to `end`.

    A server that sends files by itself (waitress) gets the file: a client that reads slowly
    would keep one of its threads.
    """
    wrapper = request.environ.get("wsgi.file_wrapper")
    if end <= start or wrapper is None:
        return blocks(path, start, end) if end > start else b""
    file = path.open("rb")
    file.seek(start)
    return wrapper(file)


def log_piece(path: Path, limit: int) -> Response:
    """At most `limit` bytes of a log: those that end at `before`, or those from `offset` on."""
    limit = min(max(limit, 1), READ_BYTES)
    look = logsearch.before if "before" in request.args else logsearch.after
    where = whole_number("before" if "before" in request.args else "offset", 0)
    piece = house.server.offload(look, path, where, limit)
    return log_response(piece.text, path, piece.start, piece.end)


def log_response(body, path: Path, start: int, end: int) -> Response:
    """A part of a log, and between which bytes of how many it lies."""
    response = Response(body, mimetype="text/plain", direct_passthrough=not isinstance(body, str))
    if not isinstance(body, str):
        response.content_length = end - start
    response.headers["X-Log-Size"] = str(path.stat().st_size if path.is_file() else 0)
    response.headers["X-Log-Start"] = str(start)
    response.headers["X-Log-Offset"] = str(end)
    return response


@routes.get("/api/jobs/<job>/log/search")
def search_log(job: str):
    """The lines of a log that hold a text: how many, and where the first of them begin."""
    path = Path(house.jobs.get(job).log)
    found = house.server.offload(logsearch.search, path, request.args.get("q", ""))
    return {"count": found.count, "offsets": found.offsets, "size": found.size}


@routes.get("/api/jobs/<job>/metrics")
def show_metrics(job: str):
    """Loss and the rest, step by step: thinned, a range `from`–`to` of them, or all as CSV."""
    found = house.jobs.get(job)
    if request.args.get("format") == "csv":
        response = Response(house.server.offload(curves.as_csv, found), mimetype="text/csv")
        response.headers["Content-Disposition"] = attachment(f"{curves.name_of(found)}.csv")
        return response
    first, last = (
        whole_number(name, 0) if name in request.args else None for name in ("from", "to")
    )
    points = whole_number("points", metrics.POINTS)
    return house.server.offload(curves.columns, found, first, last, points)


@routes.get("/api/runs")
def list_runs():
    """Every run with its key settings, newest first, and the order of what waits."""
    return house.server.offload(house.history.look)


@routes.get("/api/runs/events")
def stream_runs():
    """The same as an event stream: at first all, then what is new."""
    gone = partial(house.server.gone, request.environ)
    nap, snapshot = house.server.nap, house.feed.snapshot
    told = partial(board.stream, house.history, house.bell, gone, nap, snapshot)
    return streamed(told, EVENT_STREAM)


@routes.get("/api/runs/compare")
def compare_runs():
    """What differs between two runs, named by `a` and `b`."""
    first, second = (house.jobs.get(request.args.get(name, "")) for name in "ab")
    return house.server.offload(comparison.compare, first, second)


@routes.post("/api/runs/delete")
def delete_runs():
    """Forget several ended runs; the answer lists those that could not be, with the reason."""
    removed, kept = house.server.offload(history.forget, house.jobs, names_of(json_body()))
    house.bell.ring()
    return {"removed": removed, "kept": kept}


@routes.get("/api/events")
def stream():
    """The event stream of the training page."""
    job = request.args.get("job") or None
    if job:
        house.jobs.get(job)
    last_id = request.headers.get("Last-Event-ID") or request.args.get("last_event_id")
    gone = partial(house.server.gone, request.environ)
    project = request.args.get("project") or None
    if project:
        open_project(project, must_exist=False)
    told = partial(house.feed.stream, job, last_id, gone, house.server.nap, project)
    return streamed(told, EVENT_STREAM)


EVENT_STREAM = {
    "Content-Type": "text/event-stream; charset=utf-8",
    "Cache-Control": "no-cache",
    "X-Accel-Buffering": "no",
}


def streamed(told: Callable[[], Iterable[bytes]], headers: dict[str, str]):
    """An answer that is made while it is sent; 503 when a server can bear no further one."""
    most, streams = house.server.streams, house.streams
    if most is not None and len(streams) >= most:
        hint = "Try again in a moment, or close other tabs."
        body = {
            "error": "Too many live views and downloads are under way.",
            "field": None,
            "hint": hint,
        }
        return body, 503, {"Retry-After": "15"}
    ticket = object()
    streams.add(ticket)
    response = Response(told(), headers=headers)
    response.call_on_close(lambda: streams.discard(ticket))
    return response


# -- what requests say ----------------------------------------------------------------------------

SENTENCES = {
    400: "The request can't be understood.",
    404: "There is nothing at this address.",
    405: "This address can't be used that way.",
    413: "The request is too large.",
}


def visit(
    *, path: str | None = None, peer_only: bool = False, query_token: str | None = None
) -> Visit:
    """The facts of this request that decide whether it may come in.

    `peer_only` leaves out the cookie and whatever else would let it in without
    the token given.
    """
    header = request.headers.get
    scheme, _, bearer = (header("Authorization") or "").partition(" ")
    return Visit(
        method=request.method,
        path=path or request.path,
        peer=request.remote_addr or "",
        host=header("Host"),
        origin=header("Origin"),
        sec_fetch_site=header("Sec-Fetch-Site"),
        forwarded=any(header(name) for name in FORWARDING),
        cookie=None if peer_only else request.cookies.get(COOKIE),
        query_token=query_token if peer_only else request.args.get("token"),
        bearer=bearer.strip() if scheme.lower() == "bearer" and not peer_only else None,
    )


def with_cookie(response: Response, token: str) -> Response:
    """Let the browser keep the token, out of reach of scripts and other sites."""
    response.set_cookie(COOKIE, token, max_age=COOKIE_S, httponly=True, samesite="Strict")
    return response


def local_path(target: str | None) -> str:
    """A path on this server to go on to; `/` for anything that leads elsewhere."""
    parts = urlsplit(target or "/")
    plain = not parts.scheme and not parts.netloc and parts.path.startswith("/")
    safe = plain and not (target or "").startswith("//") and "\\" not in (target or "")
    return (target or "/") if safe else "/"


def json_body(*, needed: bool = True) -> dict:
    """The JSON object of a request; UserError if it is something else.

    Where none is `needed`, a request without a body is one with an empty object.
    """
    data = request.stream.read(JSON_BYTES + 1)
    if len(data) > JSON_BYTES:
        raise TooLarge(f"The request is longer than {JSON_BYTES // 1_000_000} MB.")
    if not data and not needed:
        return {}
    try:
        body = json.loads(data)
    except (ValueError, RecursionError):
        raise UserError("The request is no valid JSON.") from None
    if not isinstance(body, dict):
        raise UserError("The request must be a JSON object.")
    return body


def settings_of(body: dict, project: object) -> object:
    """The settings posted, with the folder filled in where the URL or the body names it."""
    given = body.get("settings")
    if isinstance(given, dict) and project is not None:
        return {**given, "output_dir": project}
    return given


@dataclass(frozen=True)
class View:
    """What the query says images are to be shown with: words for final texts, area for buckets."""

    trigger: str
    prompt: str
    area: tuple[int, int] | None

    @classmethod
    def asked(cls) -> View:
        """Read trigger word, subject description and resolution; without the last no buckets."""
        chosen, _ = settings.read({"resolution": request.args.get("resolution", "")})
        area = buckets.area_of(chosen["resolution"]) if "resolution" in request.args else None
        return cls(request.args.get("trigger_word", ""), request.args.get("prompt", ""), area)


def names_of(body: dict) -> list[str]:
    """The file names in a body; Invalid if there are none."""
    names = body.get("names")
    if not isinstance(names, list) or not 0 < len(names) <= MOST_NAMES:
        raise Invalid(f"Name 1 to {MOST_NAMES} files.", field="names")
    if not all(isinstance(one, str) and is_storable(one) for one in names):
        raise Invalid("Each name must be text.", field="names")
    return names


def whole_number(name: str, default: int) -> int:
    """A whole number of the query, 0 or more; Invalid otherwise."""
    text = request.args.get(name, str(default))
    if not text.isdecimal() or len(text) > 15:
        raise Invalid(f"{name} must be a whole number, 0 or more.", field=name)
    return int(text)


def free_bytes(project: Project) -> int:
    """What is free of the disk an output folder lies on; a great deal where that is not known."""
    free = resources.disk(project.home.output)["free"]
    return 2**62 if free is None else free


def check_room(project: Project, size: int) -> None:
    """Raise DiskFull if an upload of `size` bytes would not leave the disk its reserve."""
    room = max(0, free_bytes(project) - RESERVE_BYTES)
    if size > room:
        raise DiskFull(
            f"The upload has {size / 1e6:.0f} MB; the disk has room for {room / 1e6:.0f} MB only.",
            hint="Free some space, then try again.",
        )


# -- what answers hold ----------------------------------------------------------------------------


def attachment(name: str) -> str:
    """The header of a download called so; a name that is not ASCII in the form of RFC 6266 too."""
    plain = "".join(c if c.isascii() and c.isprintable() and c not in '"\\' else "_" for c in name)
    more = "" if plain == name else f"; filename*=UTF-8''{quote(name, safe='')}"
    return f'attachment; filename="{plain}"{more}'


def path_of(*parts: str) -> str:
    """A URL path of names, each percent-encoded."""
    return "/" + "/".join(quote(part, safe="") for part in parts)


def describe_image(project: Project, image: Image, shown: View) -> dict:
    """One image as the HTTP contract shows it, with its caption's tag and its bucket."""
    url = path_of("api", "projects", project.name, "images", image.name)
    facts = image.facts
    version = f"?v={projects.version(image.path)}"
    return {
        "name": image.name,
        "width": facts.width if facts else None,
        "height": facts.height if facts else None,
        "bytes": facts.bytes if facts else None,
        "caption": image.caption,
        "tag": captions.tag(image.caption),
        "has_trigger": captions.has_trigger(image.caption, shown.trigger),
        "final_text": image.final_text(shown.trigger, shown.prompt),
        "warnings": image.warnings,
        "bucket": describe_bucket(facts, shown.area),
        "url": url + version,
        "thumb": url + "/thumb" + version,
    }


def describe_bucket(facts, area: tuple[int, int] | None) -> dict | None:
    """The bucket of an image (px), the part of it that is kept (fractions), and the scale."""
    if facts is None or area is None:
        return None
    size = (facts.width, facts.height)
    bucket = buckets.bucket_of(size, area)
    crop = buckets.crop_of(size, bucket)
    kept = [round(edge, 4) for edge in (crop.left, crop.top, crop.right, crop.bottom)]
    return {"width": bucket[0], "height": bucket[1], "kept": kept, "scale": round(crop.scale, 3)}


def describe_profiles(trainer: musubi.Trainer) -> list[dict]:
    """The VRAM profiles with their flags, as far as this Musubi has them."""
    table = house.tables.get(trainer)
    return [
        {"id": one.id, "label": one.label, "flags": checks.profile_line(table, one.id)}
        for one in presets.PROFILES
    ]


def suggested_profile(gpus: list[dict]) -> dict | None:
    """The VRAM profile to begin with on the card a run would use, None without one."""
    card = resources.chosen_card(gpus)
    if card is None:
        return None
    return {
        "vram_profile": presets.for_vram(card["total"]).id,
        "gpu": card["name"],
        "vram": card["total"],
    }


def describe_file(project: Project, path: Path) -> dict:
    """One output file with its download address."""
    info = path.stat()
    url = path_of("api", "projects", project.name, "files", path.name)
    return {"name": path.name, "url": url, "bytes": info.st_size, "modified": info.st_mtime}


def describe_sample(project: Project, sample: dict) -> dict:
    """One sample image with its addresses."""
    url = path_of("api", "projects", project.name, "files", sample["name"])
    version = f"v={round(sample['modified'] * 1000):x}"
    return {**sample, "url": f"{url}?{version}", "thumb": f"{url}?thumb=1&{version}"}


def describe_job(job: Job) -> dict:
    """One job as the HTTP contract shows it, with addresses for its files."""
    told = job.as_dict()
    outputs = []
    for output in told["outputs"]:
        with suppress(OSError, ValueError):
            url = path_of("api", "projects", told["project"] or "", "files", Path(output).name)
            size = Path(output).stat().st_size
            outputs.append({"name": Path(output).name, "path": output, "url": url, "bytes": size})
    return {**told, "outputs": outputs, "log_url": path_of("api", "jobs", job.id, "log")}


def without_lines(diagnosis: dict | None) -> dict | None:
    """A diagnosis for lists: short, however many runs have failed."""
    return diagnosis and {key: value for key, value in diagnosis.items() if key != "lines"}


def send_stored(path: Path, *, download: bool = False) -> Response:
    """A file from an output folder; never run as a page, whatever is in it."""
    response = send_file(path, as_attachment=download, download_name=path.name, conditional=True)
    response.headers["Content-Security-Policy"] = "default-src 'none'; sandbox"
    response.headers["Cache-Control"] = (
        "private, max-age=31536000, immutable" if "v" in request.args else "private, no-cache"
    )
    return response


def send_asset(name: str) -> Response:
    """A file of the page, compressed where the browser takes that; for ever if asked by its tag."""
    asset = house.assets.load(name)
    response = Response(asset.plain, content_type=asset.content_type)
    if asset.packed and "gzip" in request.headers.get("Accept-Encoding", ""):
        response.set_data(asset.packed)
        response.headers["Content-Encoding"] = "gzip"
    lasting = request.args.get("v") == asset.tag
    response.headers["Vary"] = "Accept-Encoding"
    response.headers["Cache-Control"] = (
        "public, max-age=31536000, immutable" if lasting else "no-cache"
    )
    response.set_etag(asset.tag)
    return response.make_conditional(request)


def compressed(response: Response) -> Response:
    """Compress pages and JSON that are worth it; streams and files go as they are."""
    worth = response.mimetype in ("text/html", "application/json") and not response.is_streamed
    if (
        worth
        and "Content-Encoding" not in response.headers
        and "gzip" in request.headers.get("Accept-Encoding", "")
        and len(response.get_data()) > 1000
    ):
        response.set_data(gzip.compress(response.get_data(), 3))
        response.headers["Content-Encoding"] = "gzip"
        response.headers.add("Vary", "Accept-Encoding")
    return response


# -- start ----------------------------------------------------------------------------------------

STARTING = {
    "gevent": "Starting MusubiTLX with gevent...",
    "waitress": "Starting MusubiTLX with waitress...",
    "flask": "Starting MusubiTLX with Flask's development server...\n"
    "Warning: neither gevent nor waitress is installed; this server is slow with several pages "
    "open. Install one: pip install gevent",
}


def parse_arguments(argv: list[str] | None) -> argparse.Namespace:
    """The command line; each option also as an environment variable MUSUBITLX_…"""

    def told(name: str, default: str) -> str:
        return os.environ.get(f"MUSUBITLX_{name}") or default

    def yes(name: str) -> bool:
        return told(name, "").strip().lower() in ("1", "true", "yes", "on")

    parser = argparse.ArgumentParser(prog="webgui.py", description="The web GUI of MusubiTLX.")
    add = parser.add_argument
    add(
        "--home", default=told("HOME", str(PACKAGE_ROOT)), help="the home folder: output/, configs/"
    )
    add("--host", default=told("HOST", "0.0.0.0"), help="127.0.0.1 shuts the network out")
    add("--port", type=int, default=told("PORT", "5000"), help="0 takes a free one")
    add("--server", choices=["auto", *serving.NAMES], default=told("SERVER", "auto"))
    add("--token", default=told("TOKEN", "") or None, help="the access token to use")
    add("--no-token", action="store_true", default=yes("NO_TOKEN"), help="let everyone in")
    add("--allow-host", action="append", default=told("ALLOW_HOST", "").split(), metavar="NAME")
    add(
        "--import-root",
        action="append",
        default=[path for path in told("IMPORT_ROOT", "").split(os.pathsep) if path],
        metavar="DIR",
        help="a folder of this machine that images may be imported from",
    )
    add("--practice", action="store_true", default=yes("PRACTICE"), help="use the practice trainer")
    add("--open", action="store_true", default=yes("OPEN"), help="open the page in a browser")
    arguments = parser.parse_args(argv)
    if not 0 <= arguments.port <= 65535:
        parser.error("--port is a number from 0 to 65535")
    return arguments


def announce(access: Access, host: str, port: int) -> str:
    """Print the addresses to open, with the token where it is asked for; return the nearest."""
    found = addresses(port, host)
    for label, url in found:
        local = is_loopback(urlsplit(url).hostname or "")
        link = url + "/" if local or access.no_token else f"{url}/?token={access.token}"
        print(f"  {label}: {link}")
    if access.no_token:
        print(
            "Warning: started with --no-token. Everyone who reaches this port can use this machine."
        )
    sys.stdout.flush()
    return found[0][1] + "/"


def keep_house(home: Home, jobs: Jobs) -> None:
    """See to it, for ever, that queued jobs have a runner, broken ones their end, trash none."""
    trash_at = 0.0
    while True:
        with suppress(Exception):
            jobs.reconcile()
        if time.monotonic() >= trash_at:
            trash_at = time.monotonic() + TRASH_S
            with suppress(Exception):
                trash.empty(home)
        time.sleep(RECONCILE_S)


def run(arguments: argparse.Namespace) -> int:
    """Serve until told to end; returns the exit code."""
    home = open_home(arguments.home)
    lease = Lease(home.jobs / "server.lock")
    if not lease.take():
        where = (read_json(home.server_record) or {}).get("url", "see its window")
        print(f"MusubiTLX is running already for this folder: {where}")
        return 1
    uploads.clear_incoming(home)
    server = serving.choose(arguments.server)
    access = Access(
        home, token=arguments.token, no_token=arguments.no_token, allow_hosts=arguments.allow_host
    )
    found = musubi.find(home, practice=arguments.practice)
    app = create_app(
        home,
        server,
        access,
        practice=arguments.practice,
        import_roots=arguments.import_root,
    )
    port = server.bind(app, arguments.host, arguments.port)
    print(STARTING[server.name])
    if found.practice:
        print(f"Practice mode: {found.reason}. Its LoRAs are not for Qwen-Image.")
    url = announce(access, arguments.host, port)
    own = app.extensions["musubitlx"]
    write_json(home.server_record, record_of(arguments.host, port, url, own.bell))
    threading.Thread(target=keep_house, args=(home, own.jobs), daemon=True).start()
    if arguments.open:
        import webbrowser

        threading.Thread(target=webbrowser.open, args=(url,), daemon=True).start()
    end_on_signals(home)
    server.serve()
    return 0


def open_home(folder: str) -> Home:
    """The home folder, made if need be; UserError if that can't be done."""
    try:
        return Home(folder).make()
    except OSError as error:
        raise UserError(
            f"The home folder {folder} can't be used: {error.strerror}.",
            hint="Name another one with --home.",
        ) from error


def record_of(host: str, port: int, url: str, bell: Bell) -> dict:
    """What server.json says, for stop, status and the runners' bell."""
    return {
        "pid": os.getpid(),
        "birth": births.birth(os.getpid()),
        "started": time.time(),
        "host": host,
        "port": port,
        "url": url,
        "wake_port": bell.port,
    }


def end_on_signals(home: Home) -> None:
    """SIGTERM and Ctrl-C end the server at once; runs go on, they are processes of their own."""

    def end(*_):
        try:
            if (read_json(home.server_record) or {}).get("pid") == os.getpid():
                home.server_record.unlink(missing_ok=True)
            print("MusubiTLX has ended. Runs under way go on.", flush=True)
        finally:
            os._exit(0)

    with suppress(AttributeError):
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, end)
        if "gevent" in sys.modules:  # its loop looks at Python's handlers late
            import gevent

            gevent.signal_handler(number, end)


def main(argv: list[str] | None = None) -> int:
    """The program: an error a person can mend is a sentence, not a traceback."""
    try:
        return run(parse_arguments(argv))
    except UserError as error:
        print(f"{error} {error.hint or ''}".strip(), file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
