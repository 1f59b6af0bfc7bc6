"""What people do with what is stored, as stories in a real browser: look for it, look at it, change it, delete it."""

from __future__ import annotations

import io
import os
import re
import wave
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

from django.contrib.auth.models import Permission, User
from django.db.models.functions import Now
from django.urls import reverse
from playwright.sync_api import Browser, Locator, Page, expect

from django_blobstore.managed import ManagedStorage, Namespace
from django_blobstore.models import Bucket, ManagedResource, Measurement, PendingFile, PutRequest, Resource, UpkeepRun
from example_project.loading import load_bucket
from tests.browser.chromium import WIDER_THAN_THE_WINDOW, visiting
from tests.browser.samples import PAGES, admin_url, fill
from tests.damage import flip
from tests.invariants import assert_settled, assert_sound
from tests.pictures import png
from tests.servers import Site
from tests.stored import Stored

BROWSE = "admin:django_blobstore_managedresource_browse"
# How an element looks, as far as to have the focus may change it.
LOOKS = """element => {
    const style = getComputedStyle(element);
    return ["outlineStyle", "outlineWidth", "boxShadow", "backgroundColor", "borderColor", "color",
        "textDecorationLine", "transform", "left", "top"].map(name => style[name]).join();
}"""
HOW_FOCUS_LOOKS = f"""() => {{
    const looks = {LOOKS}, element = document.activeElement, focused = looks(element);
    element.blur();
    const otherwise = looks(element);
    element.focus({{focusVisible: true}});
    const name = element.ariaLabel || element.labels?.[0]?.textContent || element.textContent;
    return [name.trim(), focused !== otherwise];
}}"""

# Keeps what the script of a page tells a screen reader.
REMEMBER_WHAT_IS_TOLD = """addEventListener("DOMContentLoaded", () => new MutationObserver(() => {
    const told = document.querySelector("#blobstore-spoken")?.textContent;
    const before = sessionStorage.getItem("told") ?? "";
    if (told && !before.endsWith(told)) {
        sessionStorage.setItem("told", `${before}\\n${told}`);
    }
}).observe(document.body, {subtree: true, childList: true}))"""


def browse(bucket: Bucket, folder: str = "") -> str:
    return f"{reverse(BROWSE)}?bucket={bucket.pk}&folder={folder}"


def button(page: Page, name: str) -> Locator:
    return page.get_by_role("button", name=name, exact=True)


def follow(page: Page, way: Locator, key: str = "") -> None:
    """Click on `way`, or press `key` on it, and wait for the page that it leads to."""
    with page.expect_navigation():
        way.press(key) if key else way.click()


def names(page: Page) -> list[str]:
    """Return the names that the browser lists, in order, once the whole page is there."""
    page.wait_for_load_state()
    return page.locator(".blobstore-entries th a").all_inner_texts()


def figures(page: Page) -> str:
    """Return the figures that a page tells, once the whole page is there."""
    page.wait_for_load_state()
    return " ".join(page.locator("dl.blobstore-figures").inner_text().split())


def open_object(page: Page, bucket: str, path: str) -> ManagedResource:
    managed = ManagedResource.objects.get(bucket__name=bucket, path=path)
    page.goto(admin_url(ManagedResource, "change", managed.pk))
    return managed


def test_a_bucket_is_walked_through_page_by_page_by_a_path_and_by_a_search(
    page: Page, stored: Stored, assert_accessible: Callable[[Page], None]
) -> None:
    load_bucket("archive", objects=4_500, contents=100)
    page.goto(admin_url(Bucket, "changelist"))
    follow(page, page.get_by_role("link", name="Browse"))
    expect(page.locator(".blobstore-totals")).to_contain_text("4,500 objects")
    assert names(page)[:3] == ["clients/", "inbox/", "logs/"]
    follow(page, page.get_by_role("link", name="inbox/"))
    pages = page.get_by_role("navigation", name="Pages")
    first = names(page)
    follow(page, pages.get_by_role("link", name="Next page"))
    second = names(page)
    follow(page, pages.get_by_role("link", name="Next page"))
    assert len({*first, *second, *names(page)}) == 224
    follow(page, pages.get_by_role("link", name="Previous page"))
    assert names(page) == second
    follow(page, pages.get_by_role("link", name="Previous page"))
    assert names(page) == first
    assert_accessible(page)

    search = page.get_by_role("searchbox", name="Search in this folder")
    search.fill("000009")
    follow(page, search, "Enter")
    found = names(page)
    assert found == sorted(path for path in found if path.startswith("inbox/") and "000009" in path)
    assert len(found) > 1
    follow(page, page.get_by_role("link", name="Clear the search"))
    assert names(page) == first

    go = page.get_by_label("Go to path")
    go.fill("/clients/07/projects")
    go.press("Enter")
    steps = page.get_by_role("navigation", name="Folders").get_by_role("listitem")
    expect(steps).to_have_text(["archive", "clients", "07", "projects"])
    follow(page, steps.get_by_role("link", name="clients"))
    assert "07/" in names(page)
    go.fill("nowhere/at/all")
    button(page, "Go").click()
    expect(page.locator(".messagelist")).to_contain_text("There is nothing at nowhere/at/all.")
    go.fill("notes-3.txt")
    button(page, "Go").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("notes-3.txt")


def test_a_bucket_is_deleted_with_all_of_its_objects_in_steps_that_are_told(
    page: Page, stored: Stored, assert_accessible: Callable[[Page], None]
) -> None:
    objects = int(os.environ.get("BLOBSTORE_DELETED_OBJECTS", "1000"))
    bucket = load_bucket("archive", objects=objects, contents=100)
    page.goto(admin_url(Bucket, "delete", bucket.pk))
    size = re.search("Bytes freed ([0-9.]+ KB)", figures(page).replace("\xa0", " "))
    assert size
    assert f"Objects {objects:,} Contents without a reference left 100" in figures(page)
    expect(page.locator("#content")).to_contain_text("For 5 minutes the bytes stay")
    page.add_init_script(REMEMBER_WHAT_IS_TOLD)
    button(page, "Yes, delete").click()
    expect(page.get_by_role("heading", level=1, name="Deleted", exact=True)).to_be_visible(timeout=200_000)
    assert page.title().startswith("Deleted |")
    told = page.evaluate("sessionStorage.getItem('told')").splitlines()
    assert any(f"of {objects:,} objects deleted" in step for step in told)
    assert f"archive: Deleted {objects:,} objects." in told[-1]
    expect(page.locator(".messagelist")).to_contain_text(f"archive: Deleted {objects:,} objects. That frees")
    expect(page.locator(".messagelist")).to_contain_text(size[1].replace(" ", "\xa0"))
    assert [model.objects.count() for model in (Bucket, ManagedResource, Resource)] == [0, 0, 0]
    assert_accessible(page)
    page.get_by_role("link", name="Back").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Select bucket to change")
    assert_settled(stored)


def test_an_object_is_renamed_copied_replaced_and_its_history_tells(
    page: Page, stored: Stored, tmp_path: Path, assert_accessible: Callable[[Page], None]
) -> None:
    fill()
    open_object(page, "photos", "2026/sunrise.png")
    with page.expect_download() as downloaded:
        page.get_by_role("link", name="Download").click()
    assert downloaded.value.suggested_filename == "sunrise.png"
    assert Path(downloaded.value.path()).read_bytes().startswith(b"\x89PNG")

    page.get_by_role("link", name="Rename").click()
    page.get_by_label("Path").fill("2026/forest.png")
    button(page, "Move").click()
    expect(page.locator(".errorlist")).to_have_text("There is an object at this path already.")
    assert_accessible(page)
    page.get_by_label("Path").fill("2026/dawn.png")
    button(page, "Move").click()
    expect(page.locator(".messagelist")).to_have_text("Moved from 2026/sunrise.png.")

    page.get_by_role("link", name="Copy", exact=True).click()
    page.get_by_label("Bucket").fill("nowhere")
    button(page, "Copy").click()
    expect(page.locator(".errorlist")).to_contain_text("There is no such bucket")
    page.get_by_label("Bucket").fill("website")
    page.get_by_label("Path").fill("dawn.png")
    button(page, "Copy").click()
    expect(page.locator(".messagelist")).to_have_text("Copied from 2026/dawn.png in photos.")
    expect(page.locator(".blobstore-breadcrumbs")).to_contain_text("website")
    assert ManagedResource.objects.filter(path__in=["dawn.png", "2026/dawn.png"]).count() == 2

    page.get_by_role("link", name="Replace").click()
    (tmp_path / "new.txt").write_bytes(b"Now text.\n")
    page.get_by_label("File").set_input_files(tmp_path / "new.txt")
    button(page, "Replace").click()
    expect(page.locator(".messagelist")).to_contain_text("Replaced the content that had the SHA-384")
    expect(page.locator(".blobstore-preview pre")).to_have_text("Now text.")
    page.get_by_label("Metadata").fill('["no object"]')
    button(page, "Save").click()
    expect(page.locator(".errorlist")).to_contain_text("Write a JSON object")
    page.get_by_label("Metadata").fill('{"author": "Ada"}')
    follow(page, button(page, "Save and continue editing"))
    page.get_by_role("link", name="History").click()
    told = page.locator("#change-history")
    for change in ("Copied from 2026/dawn.png in photos.", "Replaced the content", "Changed Metadata", "root"):
        expect(told).to_contain_text(change)
    assert_sound(stored)


def test_previews_show_pictures_text_and_players_and_nothing_that_could_run(page: Page, stored: Stored) -> None:
    sound = io.BytesIO()
    with wave.open(sound, "wb") as written:
        written.setparams((1, 1, 8000, 800, "NONE", ""))
        written.writeframes(bytes(range(200)) * 4)
    script = b"<script>parent.hurt = 1</script>"
    store = ManagedStorage()
    for path, content_type, content in [
        ("a.png", "image/png", png(7)),
        ("a.txt", "text/plain", script + b"x" * 70_000 + b"END"),
        ("a.wav", "audio/wav", sound.getvalue()),
        ("a.webm", "video/webm", b"no film"),
        ("a.html", "text/html", script),
        ("a.svg", "image/svg+xml", b'<svg xmlns="http://www.w3.org/2000/svg">' + script + b"</svg>"),
        ("a.pdf", "application/pdf", b"%PDF-1.4\n"),
    ]:
        store.put(Namespace(bucket="kinds"), path, content, content_type=content_type)
    preview = page.get_by_role("region", name="Preview")

    open_object(page, "kinds", "a.png")
    expect(preview.get_by_role("img", name="a.png")).to_have_js_property("naturalWidth", 4)
    open_object(page, "kinds", "a.txt")
    assert preview.locator("pre").inner_text() == (script + b"x" * 70_000).decode()[: 64 * 1024]
    expect(preview).to_contain_text("These are the first 64 KiB.")
    open_object(page, "kinds", "a.wav")
    expect(preview.locator("audio[controls]")).to_have_js_property("duration", 0.1)
    open_object(page, "kinds", "a.webm")
    expect(preview.locator("video[controls]")).to_be_visible()
    for name in ("a.html", "a.svg", "a.pdf"):
        managed = open_object(page, "kinds", name)
        expect(preview).to_contain_text("This kind of content is not shown here.")
        assert page.locator("#content :is(img, iframe, embed, object, audio, video)").count() == 0
        # Nor by who knows the address that pictures come from.
        answer = page.request.get(admin_url(ManagedResource, "content", managed.pk))
        assert answer.headers["content-disposition"].startswith("attachment")
        assert "sandbox" in answer.headers["content-security-policy"]
    assert page.evaluate("window.hurt") is None


def test_hashes_are_copied_or_it_is_said_that_they_cannot_be(
    page: Page, browser: Browser, site: Site, root: User, stored: Stored
) -> None:
    ManagedStorage().put(Namespace(bucket="one"), "a.txt", b"a", content_type="text/plain")
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    managed = open_object(page, "one", "a.txt")
    sha384 = managed.resource.sha384
    button(page, "Copy the SHA-384").press("Enter")
    expect(page.locator("#sha384-status")).to_have_text("Copied")
    assert page.evaluate("navigator.clipboard.readText()") == sha384
    button(page, "Copy the integrity attribute").click()
    expect(page.locator("#sri-status")).to_have_text("Copied")
    assert page.evaluate("navigator.clipboard.readText()").startswith("sha384-")
    # A page that came without encryption has no clipboard.
    insecure = f"http://insecure.test:{site.url.rpartition(':')[2]}"
    with visiting(browser, insecure, root, []) as context:
        page = context.new_page()
        open_object(page, "one", "a.txt")
        button(page, "Copy the SHA-384").click()
        expect(page.locator("#sha384-status")).to_contain_text("Your browser does not let this page copy.")
        assert page.evaluate("String(window.getSelection())") == sha384


def test_a_content_says_who_refers_to_it_and_whether_it_is_sound(page: Page, stored: Stored) -> None:
    store = ManagedStorage()
    for namespace in [Namespace(bucket="one"), Namespace(bucket="two"), Namespace(user="7"), Namespace()]:
        store.put(namespace, "deep/er/file.txt", b"shared", content_type="text/plain")
    page.goto(reverse(BROWSE))
    page.get_by_role("link", name="User 7").click()
    for name in ("deep/", "er/", "file.txt"):
        follow(page, page.get_by_role("link", name=name))
    expect(page.locator(".blobstore-facts")).to_contain_text("4 objects have this content")
    follow(page, page.locator(".field-resource_link a"))
    assert "References 4 Stored 6 bytes Saved by sharing 18 bytes" in figures(page).replace("\xa0", " ")
    places = page.locator(".field-references .blobstore-place a")
    assert sorted(places.all_inner_texts()) == ["Global objects", "User 7", "one", "two"]
    button(page, "Verify now").click()
    expect(page.locator(".messagelist")).to_have_text("The stored bytes were read, and they are right.")
    flip(stored, Resource.objects.get().path, 0)
    button(page, "Verify now").click()
    expect(page.locator(".messagelist .error")).to_contain_text("The stored bytes are damaged.")
    expect(page.locator(".blobstore-facts .blobstore-tag-bad")).to_have_text("damaged")
    places.filter(has_text="Global objects").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Global objects")
    expect(page.locator(".blobstore-tag-bad")).to_have_text("damaged")


def test_one_some_and_a_folder_are_deleted_by_keyboard_alone(
    page: Page, stored: Stored, assert_accessible: Callable[[Page], None]
) -> None:
    fill()
    bucket = Bucket.objects.get(name="photos")
    page.goto(browse(bucket))
    page.keyboard.press("Tab")
    skip = page.get_by_role("link", name="Skip to main content")
    expect(skip).to_be_focused()
    expect(skip).to_be_in_viewport()
    page.keyboard.press("Enter")
    order = ["Go to path", "Choose files", "Select everything on this page", "2026/", "Select best/", "best/", "notes/"]
    assert [name for name in walk_by_tab(page) if name in order] == order

    page.get_by_role("link", name="2026/").focus()
    page.keyboard.press("Enter")
    for name in ("forest.png", "waves.raw"):
        page.get_by_role("checkbox", name=f"Select {name}").focus()
        page.keyboard.press("Space")
    expect(page.get_by_role("status").filter(has_text="2 selected")).to_be_visible()
    expect(button(page, "Delete selected…")).to_be_enabled()
    follow(page, button(page, "Delete selected…"), "Enter")
    assert figures(page).startswith("Objects 2 Contents without a reference left 0 Bytes freed 0 bytes")
    button(page, "Yes, delete").press("Enter")
    expect(page.locator(".messagelist")).to_have_text(
        "2 entries of photos: Deleted 2 objects. That frees nothing: other objects have the same contents."
    )
    follow(page, page.get_by_role("link", name="Back"), "Enter")
    assert names(page) == ["sunrise.png"]

    page.goto(browse(bucket, "best/"))
    follow(page, page.get_by_role("link", name="Delete this folder…"), "Enter")
    expect(page.locator(".blobstore-listed")).to_contain_text("best/waves.raw")
    assert "Bytes freed 1.9 MB Freed 5 minutes later" in figures(page).replace("\xa0", " ")
    assert_accessible(page)
    follow(page, page.get_by_role("link", name="No, take me back"), "Enter")
    follow(page, page.get_by_role("link", name="best/"), "Enter")
    follow(page, page.get_by_role("link", name="Delete this folder…"), "Enter")
    button(page, "Yes, delete").press("Space")
    expect(page.locator(".messagelist")).to_contain_text("That frees 1.9\xa0MB.")
    assert "by the first sweep after" in figures(page)

    open_object(page, "photos", "2026/sunrise.png")
    page.locator("a.deletelink").press("Enter")  # a link to Django 5.2, a button to 6.1
    button(page, "Yes, delete").press("Enter")
    expect(page.locator(".messagelist")).to_contain_text("2026/sunrise.png: Deleted 1 object.")
    page.get_by_role("link", name="Back").press("Enter")
    expect(page.get_by_text("There is nothing here.")).to_be_visible()
    assert list(ManagedResource.objects.filter(bucket=bucket).values_list("path", flat=True)) == [
        "notes/été à la mer.txt"
    ]


def walk_by_tab(page: Page) -> list[str]:
    """Press Tab until the page ends; return the names of what had the focus, each of which looked focused."""
    seen: list[str] = []
    for _ in range(100):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.matches('body, .skip-to-content-link')"):
            return seen
        name, differs = page.evaluate(HOW_FOCUS_LOOKS)
        assert differs, f"{name!r} does not look focused"
        seen.append(name)
    return seen


def test_the_operator_sees_what_is_under_way_and_runs_upkeep_from_there(
    page: Page, assert_accessible: Callable[[Page], None]
) -> None:
    fill()
    page.goto(admin_url(PendingFile, "changelist"))
    for state, shown in {"arriving": "arriving", "given up": "given-up", "due for deletion": "due"}.items():
        follow(page, page.locator("#changelist-filter").get_by_role("link", name=state, exact=True))
        expect(page.locator("#result_list tbody tr")).to_have_count(1)
        expect(page.locator("#result_list tbody tr")).to_contain_text(shown)
    button(page, "Sweep").click()
    expect(page.get_by_role("status")).to_contain_text("It took")
    assert "Files deleted" in figures(page)
    assert_accessible(page)
    assert not PendingFile.objects.filter(path__in=["due", "given-up"]).exists()

    for state in PutRequest.State:
        PutRequest.objects.update(state=state, expires_at=Now() + timedelta(days=1))
        page.goto(admin_url(PutRequest, "changelist"))
        follow(page, page.locator("#changelist-filter").get_by_role("link", name=str(state.label), exact=True))
        expect(page.locator("#result_list tbody tr")).to_have_count(1)

    page.goto(admin_url(Resource, "changelist"))
    follow(page, page.locator("#changelist-filter").get_by_role("link", name="damaged", exact=True))
    page.locator("#result_list input[type=checkbox]").first.check()
    page.locator("select[name=action]").select_option(label="Verify the bytes now")
    page.locator(".actions button[name=index]").click()
    expect(page.get_by_role("status")).to_contain_text("It took")
    assert not Resource.objects.damaged().exists()
    Resource.objects.filter(pk=Resource.objects.earliest("pk").pk).update(damaged_at=Now())
    page.goto(f"{admin_url(Resource, 'changelist')}?state=damaged")
    button(page, "Verify damaged contents").click()
    expect(page.get_by_role("status")).to_contain_text("It took")
    assert not Resource.objects.damaged().exists()
    assert UpkeepRun.objects.filter(origin=UpkeepRun.Origin.ADMIN).count() == 3


def test_a_dashboard_has_the_figures_of_its_charts_in_tables_beside_them(page: Page) -> None:
    fill()
    for address in (admin_url(Measurement, "changelist"), PAGES["dashboard of a bucket"]()):
        page.goto(address)
        chart = page.get_by_role("region", name="Growth")
        expect(chart.get_by_role("img")).to_have_accessible_name(re.compile("Logical and stored bytes"))
        rows = chart.get_by_role("table").locator("tbody tr")
        drawn, table = chart.get_by_role("img").bounding_box(), chart.get_by_role("table").bounding_box()
        assert drawn
        assert table
        assert drawn["x"] + drawn["width"] <= table["x"]
        whole = rows.count()
        periods = page.get_by_role("list", name="Period")
        follow(page, periods.get_by_role("link", name="30 days"))
        expect(periods.locator("[aria-current=true]")).to_have_text("30 days")
        assert 1 < rows.count() < whole


def test_a_quota_is_set_with_a_clear_error_first_and_shown_with_its_use(
    page: Page, assert_accessible: Callable[[Page], None], stored: Stored
) -> None:
    ManagedStorage().put(Namespace(bucket="small"), "a", b"x" * 512)
    bucket = Bucket.objects.get()
    page.goto(admin_url(Bucket, "change", bucket.pk))
    page.locator("#id_quota_bytes").fill("a lot")
    button(page, "Save").click()
    expect(page.locator(".errorlist").last).to_contain_text("Write a size such as 500 MB or 1.5 GB")
    assert_accessible(page)
    page.locator("#id_quota_bytes").fill("2 KB")
    button(page, "Save and continue editing").click()
    expect(page.locator(".field-quota_use")).to_contain_text("25\xa0% of 2.0\xa0KB")
    expect(page.locator("#id_quota_bytes")).to_have_value("2 KB")
    assert_accessible(page)
    page.goto(browse(bucket))
    expect(page.locator(".blobstore-totals")).to_contain_text("25\xa0% of 2.0\xa0KB, its quota")


def test_who_may_only_look_is_offered_nothing_else_and_counts_nothing_of_others(
    browser: Browser, site: Site, complaints: list[str], assert_accessible: Callable[[Page], None], database: str
) -> None:
    fill()
    reader = User.objects.create_user("reader", is_staff=True)
    reader.user_permissions.set(Permission.objects.filter(codename__in=["view_bucket", "view_managedresource"]))
    bucket = Bucket.objects.get(name="photos")
    with visiting(browser, site.url, reader, complaints) as context:
        page = context.new_page()
        page.goto("/admin/")
        expect(page.locator("#content-main .model-resource, #content-main .model-upkeeprun")).to_have_count(0)
        page.goto(browse(bucket, "2026/"))
        assert names(page) == ["forest.png", "sunrise.png", "waves.raw"]
        expect(page.locator("[data-blobstore-upload], input[type=checkbox], .blobstore-danger")).to_have_count(0)
        expect(page.locator(".blobstore-entries thead th")).to_have_text(["Name", "Size", "Modified"])
        assert_accessible(page)
        page.get_by_role("link", name="sunrise.png").click()
        expect(page.locator(".blobstore-tools a")).to_have_text(["Download", "History"])
        expect(page.locator(".blobstore-facts")).not_to_contain_text("References")
        expect(page.locator(".field-resource_link, input[type=submit]:not([name=_close])")).to_have_count(0)
        assert_accessible(page)
        for deed in ("delete object", "move object", "copy object", "replace object", "delete folder"):
            assert page.request.get(PAGES[deed]()).status == 403, deed
        for address in ("resource", "dashboard"):
            assert page.request.get(PAGES[address]()).status == 403, address
    assert complaints == []


def test_in_german_every_story_has_its_words(
    browser: Browser, site: Site, root: User, complaints: list[str], stored: Stored
) -> None:
    fill()
    narrow = {"width": 390, "height": 780}
    with visiting(browser, site.url, root, complaints, locale="de-DE", viewport=narrow) as context:
        page = context.new_page()
        for name, words in {
            "folder": "In diesem Ordner suchen",
            "object": "Herunterladen",
            "resource": "Jetzt prüfen",
            "dashboard": "Was gespeichert ist",
            "upkeep runs": "Jetzt ausführen",
            "pending files": "Aufräumen",
            "bucket": "Leer: keine Grenze.",
        }.items():
            page.goto(PAGES[name]())
            expect(page.locator("html")).to_have_attribute("lang", "de")
            expect(page.locator("#content")).to_contain_text(words)
            assert page.evaluate(WIDER_THAN_THE_WINDOW) == 0, name
        page.goto(PAGES["delete bucket"]())
        expect(page.locator("#content")).to_contain_text("5 Minuten lang bleiben die Bytes")
        page.locator(".blobstore-delete").click()
        expect(page.locator(".messagelist")).to_contain_text("photos: 6 Objekte gelöscht. Das gibt")
    assert complaints == []
