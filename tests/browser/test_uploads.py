"""Uploading in the bucket browser: many files and folders, at once or later, and what remains when it goes wrong."""

from __future__ import annotations

import hashlib
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.urls import reverse
from playwright.sync_api import Browser, Page, Route, expect

from django_blobstore.managed import ManagedStorage, Namespace
from django_blobstore.models import Bucket, ManagedResource, PendingFile, PutRequest, Resource, ResumableUpload
from django_blobstore.proof import RequestResponse, answer
from tests.browser.chromium import visiting
from tests.invariants import assert_empty, assert_settled, assert_sound
from tests.servers import Site
from tests.stored import Stored
from tests.streams import content_of

MEGABYTE = 1024 * 1024
LONG = 3 * MEGABYTE
PIECES = "**/upload/uploads/*/"

DATA = bytes(range(256)) * 16
VECTORS = {
    ((0, 4096),): "1b9a93578f3e6e015e1df2644361d7fa1708792e8b26a33992b7f7043c20aa304728d09a447f17fb00b0854772ab629a",
    ((10, 512), (3000, 100)): (
        "94022ab8db4e28b2762c5223eab21308cf62dced10babdd5f0c98eeac40e242af30f0ecd2c44247938236f08c4c3db9e"
    ),
}
PROVE = """async ([bytes, challenge]) => {
    const {hash, prove, forget} = await import("/static/django_blobstore/upload-hashing.js");
    const file = new File([Uint8Array.from(bytes)], "file");
    const sha384 = await hash("held", file);
    const proofs = [await prove("held", file, sha384, challenge)];
    forget("held");
    return [sha384, ...proofs, await prove("held", file, sha384, challenge)];
}"""


@pytest.fixture
def bucket(database: str) -> Bucket:
    """An empty bucket."""
    return Bucket.objects.create(name="uploads")


@pytest.fixture
def panel(page: Page, bucket: Bucket) -> Page:
    """The page of the bucket's folder "in", with its panel ready."""
    return opened(page, bucket)


def opened(page: Page, bucket: Bucket, folder: str = "in/") -> Page:
    page.goto(f"{reverse('admin:django_blobstore_managedresource_browse')}?bucket={bucket.pk}&folder={folder}")
    ready(page)
    return page


def ready(page: Page) -> None:
    expect(page.locator("[data-blobstore-upload][data-state=ready]")).to_be_visible()


def choose(page: Page, *files: Path | dict[str, Any], part: str = "files") -> None:
    page.set_input_files(f"[data-part={part}]", list(files) if len(files) != 1 else files[0])


def drop(page: Page, *paths: Path) -> None:
    """Drop `paths`, files or folders of this machine, in the middle of the page."""
    session = page.context.new_cdp_session(page)
    data = {"items": [], "files": [str(path) for path in paths], "dragOperationsMask": 1}
    for step in ("dragEnter", "dragOver", "drop"):
        session.send("Input.dispatchDragEvent", {"type": step, "x": 640, "y": 500, "data": data})


def over(page: Page, outcome: str) -> None:
    """Wait until everything that was chosen has an end, and compare with the `outcome` that is told."""
    expect(page.locator("[data-blobstore-upload]")).to_have_attribute("data-state", "over", timeout=120_000)
    expect(page.locator("[data-part=summary]")).to_have_text(f"Done. {outcome}")


def row(page: Page, path: str) -> Any:
    return page.locator("[data-part=rows] li", has_text=path)


def stored_contents(bucket: Bucket) -> dict[str, str]:
    objects = ManagedResource.objects.filter(bucket=bucket).select_related("resource")
    return {managed.path: managed.resource.sha384 for managed in objects}


def sha384(content: bytes) -> str:
    return hashlib.sha384(content).hexdigest()


def make(folder: Path, contents: dict[str, bytes]) -> Path:
    for name, content in contents.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return folder


@pytest.mark.parametrize("ranges", VECTORS, ids=str)
def test_the_browser_proves_as_the_protocol_says(panel: Page, ranges: tuple[tuple[int, int], ...]) -> None:
    challenge = {"request_id": "r1", "nonce": "AQEB" * 10 + "AQE=", "ranges": ranges, "algorithm": "hmac-sha384"}
    assert panel.evaluate(PROVE, [list(DATA), challenge]) == [sha384(DATA), VECTORS[ranges], VECTORS[ranges]]


def test_the_browser_answers_in_the_protocol_of_the_seed_too(panel: Page) -> None:
    challenge = {"request_id": "r1", "nonce": "", "ranges": [(5, 1000)], "algorithm": "sha384"}
    told = answer(DATA, RequestResponse("r1", 5, 1000, ranges=((5, 1000),), algorithm="sha384"), sha384(DATA))
    assert panel.evaluate(PROVE, [list(DATA), challenge]) == [sha384(DATA), told.sha384, told.sha384]


def test_many_files_are_uploaded_into_the_folder(
    panel: Page, bucket: Bucket, tmp_path: Path, stored: Stored, assert_accessible: Callable[[Page], None]
) -> None:
    contents = {f"file {n} été?#%.txt": f"content {n}".encode() for n in range(20)} | {"empty": b""}
    choose(panel, *make(tmp_path, contents).iterdir())
    over(panel, "Stored: 21")
    assert stored_contents(bucket) == {f"in/{name}": sha384(content) for name, content in contents.items()}
    assert ManagedResource.objects.get(path="in/file 7 été?#%.txt").content_type == "text/plain"
    expect(panel.locator("[data-part=batch] .button:visible")).to_have_text(["Show the new objects"])
    assert_accessible(panel)
    panel.click("text=Show the new objects")
    expect(panel.locator("a:text-is('file 7 été?#%.txt')")).to_be_visible()
    assert_sound(stored)


@pytest.mark.parametrize("way", ["dropped", "chosen"])
def test_a_folder_is_uploaded_with_all_that_is_in_it(
    panel: Page, bucket: Bucket, tmp_path: Path, way: str, stored: Stored
) -> None:
    # A browser lists at most a hundred files at a time, of a folder that was dropped.
    files = 102 if way == "dropped" else 12
    contents = {f"deep/er/{n}": str(n).encode() for n in range(files)} | {"top": b"top"}
    folder = make(tmp_path / "photos", contents)
    if way == "dropped":
        drop(panel, folder)
    else:
        choose(panel, folder, part="folder")
    over(panel, f"Stored: {files + 1}")
    assert stored_contents(bucket) == {f"in/photos/{name}": sha384(content) for name, content in contents.items()}
    assert_sound(stored)


def test_what_is_dropped_may_be_files_and_folders(panel: Page, bucket: Bucket, tmp_path: Path) -> None:
    make(tmp_path, {"a": b"1", "b": b"2", "folder/c": b"3"})
    drop(panel, tmp_path / "a", tmp_path / "folder", tmp_path / "b")
    over(panel, "Stored: 3")
    assert sorted(stored_contents(bucket)) == ["in/a", "in/b", "in/folder/c"]


@pytest.mark.parametrize("length", [0, 1, 5 * MEGABYTE])
def test_content_that_is_there_is_linked_and_not_sent(
    panel: Page, bucket: Bucket, tmp_path: Path, stored: Stored, length: int
) -> None:
    content = content_of(length)
    ManagedStorage().put(Namespace(bucket="elsewhere"), "same", content)
    before, sent = stored.names(), []
    panel.on("request", lambda request: sent.append(request.url) if request.method in ("PUT", "PATCH") else None)
    choose(panel, make(tmp_path, {"copy": content, "other": b"new"}) / "copy", tmp_path / "other")
    over(panel, "Stored: 1 · Already stored, linked: 1")
    expect(row(panel, "in/copy")).to_contain_text("Already stored, linked")
    assert [url.rpartition("/")[2] for url in sent] == ["other"]
    assert Resource.objects.get(sha384=sha384(content)).reference_count == 2
    assert len(stored.names()) == len(before) + 1
    assert list(PutRequest.objects.values_list("state", flat=True)) == [PutRequest.State.USED]
    assert_sound(stored)


def test_a_long_file_is_sent_in_pieces(panel: Page, bucket: Bucket, tmp_path: Path, stored: Stored) -> None:
    shorten(panel)
    content = content_of(LONG + 1)
    choose(panel, make(tmp_path, {"long.bin": content}) / "long.bin")
    over(panel, "Stored: 1")
    assert stored_contents(bucket) == {"in/long.bin": sha384(content)}
    assert remembered(panel) == []
    assert_settled(stored)


def test_a_long_file_goes_on_where_it_was_when_the_page_was_reloaded(
    panel: Page, bucket: Bucket, tmp_path: Path, stored: Stored
) -> None:
    shorten(panel)
    content = content_of(2 * LONG)
    file = make(tmp_path, {"long.bin": content}) / "long.bin"
    slow_down(panel)
    hold_at(panel, 4 * MEGABYTE)
    choose(panel, file)
    eventually(panel, lambda: ResumableUpload.objects.filter(offset__gte=2 * MEGABYTE).exists())
    panel.once("dialog", lambda dialog: dialog.accept())
    panel.reload()
    panel.unroute(PIECES)
    expect(panel.locator("[data-part=interrupted] li")).to_contain_text("in/long.bin")
    offsets = []
    panel.on("request", lambda request: offsets.append(request.headers.get("upload-offset")))
    speed_up(panel)
    choose(panel, file)
    over(panel, "Stored: 1")
    assert int(next(filter(None, offsets))) >= 2 * MEGABYTE
    assert stored_contents(bucket) == {"in/long.bin": sha384(content)}
    expect(panel.locator("[data-part=interrupted]")).to_be_hidden()
    assert remembered(panel) == []
    assert_settled(stored)


def test_an_upload_that_was_broken_off_is_given_up(panel: Page, tmp_path: Path, stored: Stored) -> None:
    shorten(panel)
    slow_down(panel)
    hold_at(panel, 4 * MEGABYTE)
    choose(panel, make(tmp_path, {"long.bin": content_of(2 * LONG)}) / "long.bin")
    eventually(panel, lambda: ResumableUpload.objects.filter(offset__gte=MEGABYTE).exists())
    panel.once("dialog", lambda dialog: dialog.accept())
    panel.reload()
    panel.click("button:text-is('Give up')")
    expect(panel.locator("[data-part=interrupted]")).to_be_hidden()
    assert remembered(panel) == []
    eventually(panel, lambda: assert_empty(stored))


def test_one_is_cancelled_then_all_and_nothing_is_left(
    panel: Page, bucket: Bucket, tmp_path: Path, stored: Stored
) -> None:
    shorten(panel, piece=MEGABYTE // 16)
    slow_down(panel, MEGABYTE // 8)  # in less than a minute none of them is through
    contents = {f"{n}.bin": content_of(2 * MEGABYTE + n) for n in range(6)} | {"0 long.bin": content_of(2 * LONG)}
    choose(panel, *sorted(make(tmp_path, contents).iterdir()))
    expect(row(panel, "in/0.bin")).to_have_attribute("data-state", "sending")
    eventually(panel, lambda: ResumableUpload.objects.filter(offset__gt=0).exists())
    panel.click("button[aria-label='Cancel in/0.bin']")
    expect(row(panel, "in/0.bin")).to_contain_text("Cancelled")
    expect(row(panel, "in/2.bin")).to_have_attribute("data-state", "sending")
    panel.click("button:text-is('Cancel all')")
    over(panel, "Cancelled: 7")
    assert remembered(panel) == []
    eventually(panel, lambda: not (ResumableUpload.objects.exists() or PendingFile.objects.arriving().exists()))
    assert_settled(stored)
    assert_empty(stored)


def test_an_error_of_one_file_names_the_way_out_and_stops_no_other(
    panel: Page, bucket: Bucket, tmp_path: Path, stored: Stored, complaints: list[str]
) -> None:
    Bucket.objects.filter(pk=bucket.pk).update(quota_bytes=MEGABYTE)
    contents = {"a": b"1", "b": content_of(2 * MEGABYTE), "c": b"3", "d": b"4", "e": b"5"}
    choose(panel, *sorted(make(tmp_path, contents).iterdir()))
    over(panel, "Stored: 4 · Failed: 1")
    expect(row(panel, "in/b")).to_contain_text("the file is larger than what may be stored here")
    assert sorted(stored_contents(bucket)) == ["in/a", "in/c", "in/d", "in/e"]
    assert take_failed_requests(complaints) == 1
    assert_settled(stored)
    Bucket.objects.filter(pk=bucket.pk).update(quota_bytes=None)
    panel.click("button:text-is('Try the failed ones again')")
    over(panel, "Stored: 5")
    assert sorted(stored_contents(bucket)) == ["in/a", "in/b", "in/c", "in/d", "in/e"]


def test_a_name_that_no_object_can_have_is_told(
    panel: Page, bucket: Bucket, stored: Stored, complaints: list[str]
) -> None:
    choose(
        panel,
        {"name": "bad\u0085name", "mimeType": "", "buffer": b"x"},
        {"name": "y" * 1025, "mimeType": "", "buffer": b"x"},
    )
    over(panel, "Failed: 2")
    expect(row(panel, "yyy")).to_contain_text("Rename the file")
    assert take_failed_requests(complaints)
    assert_empty(stored)


def test_a_connection_that_breaks_is_tried_again(
    panel: Page, bucket: Bucket, tmp_path: Path, stored: Stored, complaints: list[str]
) -> None:
    refused: list[str] = []

    def refuse_once(route: Route) -> None:
        if route.request.method == "PUT" and not refused:
            refused.append(route.request.url)
            route.abort("connectionreset")
        else:
            route.continue_()

    panel.route("**/objects/**", refuse_once)
    choose(panel, make(tmp_path, {"a": b"content"}) / "a")
    over(panel, "Stored: 1")
    assert stored_contents(bucket) == {"in/a": sha384(b"content")}
    assert take_failed_requests(complaints) == 1


@pytest.mark.parametrize(
    ("answer", "outcome", "kept"),
    [
        ("Replace them", "Stored: 1 · Replaced: 2", b"new"),
        ("Upload only the others", "Stored: 1 · Left out: 2", b"old"),
        ("Upload nothing", "", b"old"),
    ],
)
def test_paths_that_are_taken_are_asked_about_once(
    panel: Page,
    bucket: Bucket,
    tmp_path: Path,
    stored: Stored,
    answer: str,
    outcome: str,
    kept: bytes,
    assert_accessible: Callable[[Page], None],
) -> None:
    for name in "ab":
        ManagedStorage().put(Namespace(bucket=bucket.pk), f"in/{name}", b"old" + name.encode())
    choose(panel, *make(tmp_path, {name: b"new" + name.encode() for name in "abc"}).iterdir())
    expect(panel.locator("dialog[open] li")).to_have_text(["in/a", "in/b"])
    assert_accessible(panel)
    panel.click(f"dialog button:text-is('{answer}')")
    if outcome:
        over(panel, outcome)
    expect(panel.locator("dialog[open]")).to_have_count(0)
    expected = {f"in/{name}": sha384(kept + name.encode()) for name in "ab"}
    assert stored_contents(bucket) == expected | ({"in/c": sha384(b"newc")} if outcome else {})
    assert_settled(stored)


def test_somebody_quicker_is_not_overwritten(
    panel: Page, bucket: Bucket, tmp_path: Path, complaints: list[str]
) -> None:
    def be_quicker(route: Route) -> None:
        ManagedStorage().put(Namespace(bucket=bucket.pk), "in/a", b"quicker")
        route.continue_()

    panel.route("**/put-requests/", be_quicker)
    choose(panel, make(tmp_path, {"a": b"slower"}) / "a")
    over(panel, "Failed: 1")
    expect(row(panel, "in/a")).to_contain_text("there is an object of this name by now")
    assert stored_contents(bucket) == {"in/a": sha384(b"quicker")}
    assert take_failed_requests(complaints) == 1


def test_a_link_does_not_take_the_place_of_what_came_meanwhile(
    panel: Page, bucket: Bucket, tmp_path: Path, stored: Stored, complaints: list[str]
) -> None:
    ManagedStorage().put(Namespace(bucket="elsewhere"), "same", b"same")

    def be_quicker(route: Route) -> None:
        ManagedStorage().put(Namespace(bucket=bucket.pk), "in/a", b"quicker")
        route.continue_()

    panel.route("**/upload/put-requests/*/", be_quicker)
    choose(panel, make(tmp_path, {"a": b"same"}) / "a")
    over(panel, "Failed: 1")
    expect(row(panel, "in/a")).to_contain_text("there is an object of this name by now")
    assert stored_contents(bucket) == {"in/a": sha384(b"quicker")}
    assert take_failed_requests(complaints) == 1
    assert_sound(stored)


def test_a_long_file_asks_before_it_takes_the_place_of_what_came_meanwhile(
    panel: Page, bucket: Bucket, tmp_path: Path, stored: Stored, complaints: list[str]
) -> None:
    shorten(panel)
    content = content_of(LONG)
    file = make(tmp_path, {"long.bin": content}) / "long.bin"
    offsets: list[str] = []

    def be_quicker(route: Route) -> None:
        if route.request.headers.get("upload-offset") == str(2 * MEGABYTE):
            ManagedStorage().put(Namespace(bucket=bucket.pk), "in/long.bin", b"quicker")
        route.continue_()

    panel.route(PIECES, be_quicker)
    choose(panel, file)
    over(panel, "Failed: 1")
    expect(row(panel, "in/long.bin")).to_contain_text("there is an object of this name by now")
    assert stored_contents(bucket) == {"in/long.bin": sha384(b"quicker")}
    panel.unroute(PIECES)
    panel.on("request", lambda request: offsets.append(request.headers.get("upload-offset", "")))
    choose(panel, file)
    panel.click("dialog button:text-is('Replace them')")
    over(panel, "Replaced: 1 · Failed: 1")
    assert list(filter(None, offsets)) == [str(2 * MEGABYTE)], "What had been sent was sent again."
    assert stored_contents(bucket) == {"in/long.bin": sha384(content)}
    assert take_failed_requests(complaints) == 1
    assert_settled(stored)


def test_a_long_file_that_was_stored_already_is_told_of(
    panel: Page, bucket: Bucket, tmp_path: Path, stored: Stored
) -> None:
    shorten(panel)
    content = content_of(LONG)
    ManagedStorage().put(Namespace(bucket="elsewhere"), "same", content)
    choose(panel, make(tmp_path, {"long.bin": content}) / "long.bin")
    over(panel, "Already stored, linked: 1")
    assert Resource.objects.get().reference_count == 2
    assert_settled(stored)


def test_all_is_done_by_keyboard(panel: Page, bucket: Bucket, tmp_path: Path) -> None:
    ManagedStorage().put(Namespace(bucket=bucket.pk), "in/a", b"old")
    with panel.expect_file_chooser() as chooser:
        panel.focus("button:text-is('Choose files')")
        panel.keyboard.press("Enter")
    chooser.value.set_files(make(tmp_path, {"a": b"new"}) / "a")
    expect(panel.locator("dialog button[value=replace]")).to_be_focused()
    panel.keyboard.press("Enter")
    over(panel, "Replaced: 1")
    expect(panel.locator("[role=status][data-part=spoken]")).to_have_text("Done. Replaced: 1")
    assert stored_contents(bucket) == {"in/a": sha384(b"new")}


def test_where_no_worker_starts_the_page_hashes_itself(
    panel: Page, bucket: Bucket, tmp_path: Path, stored: Stored
) -> None:
    ManagedStorage().put(Namespace(bucket="elsewhere"), "same", b"same")
    panel.add_init_script(
        "window.Worker = class { constructor() { throw new DOMException('elsewhere', 'SecurityError'); } }"
    )
    panel.reload()
    ready(panel)
    choose(panel, *make(tmp_path, {"copy": b"same", "other": b"new"}).iterdir())
    over(panel, "Stored: 1 · Already stored, linked: 1")
    assert_sound(stored)


def test_without_encryption_files_are_sent_as_they_are(
    browser: Browser, site: Site, root: User, bucket: Bucket, tmp_path: Path, stored: Stored, complaints: list[str]
) -> None:
    ManagedStorage().put(Namespace(bucket="elsewhere"), "same", b"same")
    # A name that stands for this machine, and that browsers do not trust as they do its number.
    port = site.url.rpartition(":")[2]
    with visiting(browser, f"http://insecure.test:{port}", root, complaints) as context:
        panel = opened(context.new_page(), bucket)
        expect(panel.locator("[data-part=insecure]")).to_be_visible()
        choose(panel, *make(tmp_path, {"copy": b"same", "other": b"new"}).iterdir())
        over(panel, "Stored: 1 · Already stored, linked: 1")
    assert stored_contents(bucket) == {"in/copy": sha384(b"same"), "in/other": sha384(b"new")}
    assert Resource.objects.get(sha384=sha384(b"same")).reference_count == 2
    # Django sends this header to everybody.
    assert [complaint for complaint in complaints if "Cross-Origin-Opener-Policy" not in complaint] == []


@pytest.mark.parametrize(("place", "namespace"), [("namespace=global", {}), ("user={root.pk}", {"user": "{root.pk}"})])
def test_outside_buckets_too(
    page: Page, root: User, tmp_path: Path, place: str, namespace: dict[str, str], stored: Stored
) -> None:
    kept = Namespace(**{name: key.format(root=root) for name, key in namespace.items()})
    ManagedStorage().put(kept, "there", b"same")
    page.goto(f"{reverse('admin:django_blobstore_managedresource_browse')}?{place.format(root=root)}")
    shorten(page)
    contents = {"a": b"same", "b": b"other", "long": content_of(LONG)}
    choose(page, *make(tmp_path, contents).iterdir())
    over(page, "Stored: 2 · Already stored, linked: 1")
    objects = ManagedResource.objects.within(kept).values_list("path", flat=True)
    assert sorted(objects) == ["a", "b", "long", "there"]
    assert_settled(stored)


def shorten(page: Page, piece: int = MEGABYTE) -> None:
    """Have the panel take files for long from `LONG` on, and send them in pieces of `piece` bytes."""
    changed = {"data-long": LONG, "data-piece": piece}

    def rewrite(route: Route) -> None:
        answer = route.fetch()
        text = answer.text()
        for name, value in changed.items():
            text = re.sub(f'{name}="[0-9]+"', f'{name}="{value}"', text)
        route.fulfill(response=answer, body=text)

    page.route("**/browse/**", rewrite)
    page.reload()
    ready(page)


def slow_down(page: Page, bytes_per_second: int = MEGABYTE) -> None:
    conditions = {"offline": False, "latency": 0, "downloadThroughput": -1, "uploadThroughput": bytes_per_second}
    page.context.new_cdp_session(page).send("Network.emulateNetworkConditions", conditions)


def speed_up(page: Page) -> None:
    slow_down(page, -1)


def hold_at(page: Page, offset: int) -> None:
    """Let no piece from `offset` on come to the server, however long the test takes to look."""

    def hold(route: Route) -> None:
        if int(route.request.headers.get("upload-offset", 0)) < offset:
            route.continue_()

    page.route(PIECES, hold)


def remembered(page: Page) -> list[str]:
    return page.evaluate("Object.keys(localStorage).filter(key => key.startsWith('blobstore-upload:'))")


def take_failed_requests(complaints: list[str]) -> int:
    """Take out of `complaints` what the console says of requests that were refused, and return how many they were."""
    before = len(complaints)
    complaints[:] = [complaint for complaint in complaints if "Failed to load resource" not in complaint]
    return before - len(complaints)


def eventually(page: Page, check: Callable[[], Any], seconds: float = 120) -> None:
    """Wait until `check` neither returns False nor fails; the server is still at what the browser has given up."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            if check() is not False:
                return
        except AssertionError:
            if time.monotonic() > deadline:
                raise
        assert time.monotonic() < deadline, "it took too long"
        page.wait_for_timeout(100)  # unlike sleep it lets what was routed go on
