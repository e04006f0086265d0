"""What people see and press in the real Dagster UI, in headless Chromium; the pictures of docs/data-team.md are taken here."""

import io
import re
import shutil
from pathlib import Path

import pytest
from PIL import Image

from dagster_project.definitions import build_definitions
from keeptake.audio.analyze import PART_VERSIONS
from keeptake.ledger.analyses import versions_text

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = [
    pytest.mark.timeout(600),
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine: install the package chromium to run these tests"),
]
GROUPS = ("capture", "custody", "hearing", "embedding", "quality", "published")
HEARD_ANEW_WITHIN_S = 240


@pytest.fixture(scope="module")
def browser():
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]
        )
        yield browser
        browser.close()


def opened(browser, ui):
    """A page for the UI, and the list of what it asks of anywhere else."""
    page = browser.new_page(viewport={"width": 1400, "height": 900})
    page.set_default_timeout(120_000)
    elsewhere = []
    ours = (ui, ui.replace("http", "ws", 1), "data:", "blob:")
    page.on("request", lambda request: None if request.url.startswith(ours) else elsewhere.append(request.url))
    page.on("websocket", lambda socket: None if socket.url.startswith(ours) else elsewhere.append(socket.url))
    return page, elsewhere


@pytest.fixture
def page(browser, running):
    page, elsewhere = opened(browser, running.ui)
    yield page
    page.close()
    assert elsewhere == []


@pytest.fixture
def shoot(page, home_up):
    """Take a picture of the page for the docs, where somebody asked for them."""

    def shoot(name):
        if home_up.SCREENSHOTS:
            page.wait_for_timeout(1_500)  # layouts and fades come to rest
            picture = Image.open(io.BytesIO(page.screenshot())).convert("RGB")
            picture.quantize(128, dither=Image.Dither.NONE).save(Path(home_up.SCREENSHOTS) / f"{name}.png", optimize=True)

    return shoot


@pytest.fixture(scope="module")
def published(running, home_up, demo_takes):
    """A version of the home's policy, published by the gate before or now by hand."""
    if not list((running.home / "datasets" / home_up.POLICY).glob("v*/MANIFEST.json")):
        tags = [{"key": "dagster/partition", "value": home_up.POLICY}]
        home_up.wait_for_success(running, home_up.launch(running, "publish_dataset", tags))


def test_control_a_request_that_leaves_this_machine_is_seen(browser, running):
    page, elsewhere = opened(browser, running.ui)
    page.set_content("<img src='http://192.0.2.1/picture.png'>", wait_until="commit")
    page.wait_for_timeout(1_000)
    page.close()
    assert elsewhere == ["http://192.0.2.1/picture.png"]


def test_the_graph_opens_with_every_asset_in_its_group(page, running, published, shoot):
    page.goto(f"{running.ui}/asset-groups")
    for group in GROUPS:
        page.get_by_text(group, exact=True).first.wait_for()
    page.keyboard.press("Alt+e")  # opens all groups
    for key in build_definitions().resolve_asset_graph().get_all_asset_keys():
        page.get_by_text(key.to_user_string(), exact=True).first.wait_for()
    shoot("graph")


def test_an_asset_is_materialized_from_its_page_and_shows_its_plots(page, running, home_up, demo_takes, shoot):
    page.goto(f"{running.ui}/assets/quality_scores")
    before = page_runs(home_up, running)
    page.get_by_role("button", name="Materialize").first.click()
    page.get_by_text("Launched run").wait_for()
    home_up.waited_for(lambda: page_runs(home_up, running) > before)
    (newest,) = home_up.numbers(running, "SELECT run_id FROM dagster.runs ORDER BY id DESC LIMIT 1")
    home_up.wait_for_success(running, newest)

    page.goto(f"{running.ui}/assets/quality_scores")
    show_pictures(page, count=2)
    shoot("quality_scores")


def page_runs(home_up, running):
    return home_up.numbers(running, "SELECT count(*) FROM dagster.runs WHERE pipeline_name = '__ASSET_JOB'")[0]


def show_pictures(page, *, count):
    """Open an asset's pictures where it shows them, and see each drawn."""
    row(page, "pictures").get_by_text("[Show Markdown]").click()
    images = page.get_by_role("dialog").locator("img[src^='data:image/png']")
    images.first.wait_for()
    assert images.count() == count
    assert all(image.evaluate("image => image.naturalWidth") > 300 for image in images.all())


def row(page, label):
    """The row of the metadata table with this label."""
    return page.locator("tr", has=page.get_by_role("cell", name=label, exact=True)).first


def table_of(page, label):
    """A table that an asset shows under a label, as texts."""
    shown = row(page, label).locator("table")
    shown.wait_for()
    return [[cell.inner_text() for cell in line.locator("td").all()] for line in shown.locator("tbody tr").all()]


def counted(home_up, running, query, **values):
    return [[name, str(rows)] for name, rows in (text.split() for text in home_up.numbers(running, query, **values))]


def test_two_days_are_backfilled_from_an_assets_page(page, running, home_up, demo_takes, shoot):
    """A raised version of a part makes its takes stale, which no sensor does again: people do, at their own pace."""
    stale = "SELECT count(*) FROM features WHERE versions <> :now"
    raised = (
        "UPDATE features SET versions = regexp_replace(versions, 'loudness=\\S+', 'loudness=0') WHERE audio_sha256 IN"
        " (SELECT DISTINCT ON (captured_on) audio_sha256 FROM generations WHERE captured_on = ANY(CAST(:days AS date[]))"
        " AND status = 'scored') RETURNING audio_sha256"
    )
    files = home_up.numbers(running, raised, days=list(home_up.DAYS))
    lower = "UPDATE analyses SET version = '0' WHERE part = 'loudness' AND audio_sha256 = ANY(:files) RETURNING 1"
    assert len(home_up.numbers(running, lower, files=files)) == 2
    now = versions_text(PART_VERSIONS)
    assert home_up.numbers(running, stale, now=now) == [2]

    page.goto(f"{running.ui}/assets/analyzed_features")
    page.get_by_role("button", name="Materialize…").click()
    dialog = page.get_by_role("dialog")
    days = dialog.locator("input[placeholder*='ex:'], input[type=text]").first
    days.fill(f"[{'...'.join(home_up.DAYS)}]")
    days.press("Enter")
    dialog.get_by_text("2 partitions").first.wait_for()
    shoot("backfill")
    dialog.get_by_role("button", name="Launch backfill").click()
    page.get_by_text("Created backfill").wait_for()

    status = "SELECT status FROM dagster.bulk_actions ORDER BY id DESC LIMIT 1"
    ended = {"COMPLETED_SUCCESS", "COMPLETED_FAILED", "FAILED", "CANCELED"}
    home_up.waited_for(lambda: set(home_up.numbers(running, status)) & ended, within_s=HEARD_ANEW_WITHIN_S)
    assert home_up.numbers(running, status) == ["COMPLETED_SUCCESS"]
    assert home_up.numbers(running, stale, now=now) == [0]


def test_an_asset_says_what_it_is(page, running, home_up, demo_takes, shoot):
    page.goto(f"{running.ui}/assets/analyzed_features")
    for shown in (
        "One analysis for every audio file captured on this day.",
        "hearing",
        "data",
        "Python",
        "Postgres",
        "part=version of every part, sorted",  # what a column means
        "public.features",
    ):
        page.get_by_text(shown, exact=True).first.wait_for()
    shoot("analyzed_features")


def test_a_day_shows_counts_by_reason_and_examples(page, running, home_up, demo_takes, shoot):
    day = home_up.DAYS[0]
    page.goto(f"{running.ui}/assets/audio_files?view=partitions&partition={day}")
    counts = (
        "SELECT audio_reason || ' ' || count(*) FROM generations WHERE captured_on = :day AND audio_reason IS NOT NULL"
        " GROUP BY audio_reason ORDER BY count(*) DESC, audio_reason"
    )
    reasons = counted(home_up, running, counts, day=day)
    assert ["not-found", "1"] in reasons
    assert table_of(page, "reasons") == reasons
    newest = table_of(page, "newest")
    assert newest[0][:3] == ["demo-lost", "quarantined", "not-found"]
    assert len(newest) > 3
    row(page, "by_status").scroll_into_view_if_needed()
    shoot("audio_files")


def test_numbers_in_tables_are_rounded_for_people(page, running, home_up, demo_takes, shoot):
    """A tempo once read 121.00594634652224, and the terms of a score were JSON in a column one letter wide."""
    page.goto(f"{running.ui}/assets/analyzed_features?view=partitions&partition={home_up.DAYS[0]}")
    heard = table_of(page, "examples")
    assert len(heard) > 3
    assert [cell for line in heard for cell in line if re.fullmatch(r"-?\d+\.\d{4,}", cell) and not cell.startswith("0.0")] == []
    page.goto(f"{running.ui}/assets/quality_scores")
    page.get_by_role("columnheader", name="tempo_stability").wait_for()
    assert [cell for line in table_of(page, "best_and_worst") for cell in line if "{" in cell] == []


def test_a_dataset_shows_what_was_left_out_and_what_is_inside(page, running, home_up, published, shoot):
    page.goto(f"{running.ui}/assets/curated_dataset?view=partitions&partition={home_up.POLICY}")
    counts = (
        "SELECT coalesce(reason, 'kept') || ' ' || count(*) FROM selections WHERE policy = :policy GROUP BY reason"
        " ORDER BY (reason IS NOT NULL), count(*) DESC, reason"
    )
    left_out = counted(home_up, running, counts, policy=home_up.POLICY)
    assert left_out[0][0] == "kept"
    assert len(left_out) > 1
    assert table_of(page, "left_out") == left_out
    show_pictures(page, count=8)
    shoot("curated_dataset")


def test_blocking_checks_stand_beside_what_they_guard(page, running, published, shoot):
    page.goto(f"{running.ui}/assets/dataset_manifest?view=checks&checkDetail=readers_lose_no_row")
    page.get_by_text("nothing_leaks_between_splits").first.wait_for()
    page.get_by_text("This is a blocking asset check").wait_for()
    page.get_by_text("Passed", exact=True).first.wait_for()
    shoot("dataset_checks")
    page.goto(f"{running.ui}/assets/curated_dataset?view=checks")
    page.get_by_text("enough_for_a_first_fine_tuning").first.wait_for()
    page.get_by_text(re.compile("not ready: .* of 10,000 takes")).wait_for()
