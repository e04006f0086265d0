"""The documentation of the service: complete, and rendered in a browser that reaches nothing else."""

import shutil
from pathlib import Path

import httpx2
import pytest

DOCS = Path(__file__).parent.parent / "docs" / "capture.md"
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")


@pytest.fixture
def document(service):
    return httpx2.get(service.base_url + "/openapi.json", verify=False).json()


def test_every_operation_is_described_with_its_errors_and_their_shape(document):
    for path, item in document["paths"].items():
        for method, operation in item.items():
            where = f"{method} {path}"
            assert operation["description"], where
            assert operation["summary"], where
            errors = {status: shown for status, shown in operation["responses"].items() if status >= "400"}
            wanted = {"422", "429", "500", "503"} | ({"401", "403"} if "x-scope" in operation else set())
            wanted |= {"400", "408", "413", "415"} if "requestBody" in operation and not path.endswith("/audio") else set()
            wanted |= {"404"} if "{generation_id}" in path else set()
            assert wanted <= set(errors), where
            for status, shown in errors.items():
                problem = shown["content"]["application/problem+json"]
                assert problem["schema"] == {"$ref": "#/components/schemas/ProblemDocument"}, where
                assert problem["example"]["status"] == int(status), where
            for content in operation.get("requestBody", {}).get("content", {}).values():
                schema = content["schema"]
                assert "example" in schema or schema.get("format") == "binary", where
    assert "ProblemDocument" in document["components"]["schemas"]
    assert "409" in document["paths"]["/api/training-metadata"]["post"]["responses"]


def test_the_page_about_the_service_names_every_operation(document):
    text = DOCS.read_text()
    for path, item in document["paths"].items():
        assert f"`{path}`" in text, path
        for method in item:
            assert method.upper() in text, (method, path)


@pytest.mark.skipif(CHROMIUM is None, reason="no chromium on this machine: apt-get install chromium")
def test_docs_render_with_the_network_cut_off(service, document):
    from playwright.sync_api import sync_playwright

    outside = []
    with sync_playwright() as playwright:
        arguments = ["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=arguments)
        page = browser.new_page()

        def pass_on(route):
            if route.request.url.startswith((service.base_url, "data:")):
                route.continue_()
            else:
                outside.append(route.request.url)
                route.abort()

        page.route("**/*", pass_on)
        page.goto(service.base_url + "/docs")
        page.wait_for_selector("#operations-capture-save_generation_api_training_metadata_post", timeout=60_000)
        assert page.locator(".opblock").count() == sum(len(item) for item in document["paths"].values())
        assert "Keeptake" in page.title()
        browser.close()
    assert outside == []


def test_control_another_origin_would_be_noticed(service):
    """FastAPI's own page names a CDN; ours names nothing outside."""
    from fastapi.openapi.docs import get_swagger_ui_html

    theirs = bytes(get_swagger_ui_html(openapi_url="/openapi.json", title="x").body).decode()
    ours = httpx2.get(service.base_url + "/docs", verify=False).text
    assert "https://" in theirs
    assert "//" not in ours
