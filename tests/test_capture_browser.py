"""Real pages in a real browser: which origins may send feedback, and that the documentation needs no network."""

import shutil
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import httpx2
import pytest

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no chromium on this machine: apt-get install chromium")

SEND = """async ([url, key]) => {
  try {
    const answer = await fetch(url, {method: "PUT", body: JSON.stringify({liked: true}),
      headers: {"Content-Type": "application/json", "Authorization": "Bearer " + key}});
    return [answer.status, (await answer.json()).success];
  } catch (refused) { return refused.name; }
}"""


@pytest.fixture
def page():
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        arguments = ["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=arguments)
        yield browser.new_page()
        browser.close()


@contextmanager
def studio():
    """A web page of somebody's, at an origin of its own."""

    class Page(BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.end_headers()
            self.wfile.write(b"<!doctype html><title>Studio</title>")

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Page)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()
    thread.join()


def send_feedback(page, origin, service, key):
    page.goto(origin)
    return page.evaluate(SEND, [f"{service.url}/g1/feedback", key])


def test_a_page_of_an_allowed_origin_sends_feedback_and_one_of_another_cannot(ledger, tmp_path, capture_service, page):
    with studio() as allowed, studio() as other, capture_service.running(ledger, tmp_path, cors_origins=allowed) as service:
        service.post(capture_service.take("g1"))
        key = service.key_for("feedback:write")
        assert send_feedback(page, other, service, key) == "TypeError"  # the preflight kept it from being sent
        assert service.query("SELECT liked, feedback_revision FROM generations") == [(None, 0)]
        assert send_feedback(page, allowed, service, key) == [200, True]
        assert service.query("SELECT liked, feedback_revision FROM generations") == [(True, 1)]
        assert send_feedback(page, allowed, service, service.key_for("metadata:read")) == [403, None]


def test_control_any_page_would_get_through_where_every_origin_is_allowed(ledger, tmp_path, capture_service, page):
    with studio() as other, capture_service.running(ledger, tmp_path, cors_origins="*") as service:
        service.post(capture_service.take("g1"))
        assert send_feedback(page, other, service, service.key_for("feedback:write")) == [200, True]


def asked_outside(page, service, html=None):
    """Addresses beyond the service that its documentation asks for, all of them cut off."""
    outside = []

    def pass_on(route):
        if html is not None and route.request.url == service.base_url + "/docs":
            route.fulfill(body=html, content_type="text/html")
        elif route.request.url.startswith((service.base_url, "data:")):
            route.continue_()
        else:
            outside.append(route.request.url)
            route.abort()

    page.route("**/*", pass_on)
    page.goto(service.base_url + "/docs")
    return outside


def test_docs_render_with_the_network_cut_off(service, page):
    document = httpx2.get(service.base_url + "/openapi.json", verify=False).json()
    outside = asked_outside(page, service)
    page.wait_for_selector("#operations-capture-save_generation_api_training_metadata_post", timeout=60_000)
    assert page.locator(".opblock").count() == sum(len(item) for item in document["paths"].values())
    assert "Keeptake" in page.title()
    assert outside == []


def test_control_fastapis_own_page_asks_a_cdn(service, page):
    from fastapi.openapi.docs import get_swagger_ui_html

    theirs = bytes(get_swagger_ui_html(openapi_url="/openapi.json", title="x").body).decode()
    assert any("swagger-ui" in url for url in asked_outside(page, service, theirs))
    assert page.locator(".opblock").count() == 0
