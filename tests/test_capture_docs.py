"""The documentation of the service: complete. That it renders in a browser: `test_capture_browser.py`."""

from copy import deepcopy
from pathlib import Path

import httpx2
import pytest

DOCS = Path(__file__).parent.parent / "docs" / "capture.md"


@pytest.fixture
def document(service):
    return httpx2.get(service.base_url + "/openapi.json", verify=False).json()


def test_every_operation_is_described_with_its_errors_and_their_shape(document):
    assert lacking(document) == []
    assert "ProblemDocument" in document["components"]["schemas"]
    assert "409" in document["paths"]["/api/training-metadata"]["post"]["responses"]


def test_control_whatever_is_taken_out_is_missed(document):
    path = "/api/training-metadata"

    def without(take_out):
        copy = deepcopy(document)
        take_out(copy["paths"][path]["post"])
        return lacking(copy)

    where = f"post {path}"
    assert without(lambda operation: operation.pop("description")) == [f"{where}: description"]
    assert without(lambda operation: operation["responses"].pop("503")) == [f"{where}: 503"]
    assert without(lambda operation: operation["responses"]["422"]["content"].clear()) == [f"{where}: body of 422"]
    body = ("requestBody", "content", "application/json", "schema")
    assert without(lambda operation: operation[body[0]][body[1]][body[2]][body[3]].pop("example")) == [f"{where}: example"]


READINESS = {"application/json": {"schema": {"$ref": "#/components/schemas/Readiness"}}}


def lacking(document):
    """What an operation's description leaves out."""
    missed = []
    for path, item in document["paths"].items():
        for method, operation in item.items():
            where = f"{method} {path}"
            missed += [f"{where}: {part}" for part in ("description", "summary") if not operation.get(part)]
            errors = {status: shown for status, shown in operation["responses"].items() if status >= "400"}
            wanted = {"422", "429", "500", "503"} | ({"401", "403"} if "x-scope" in operation else set())
            wanted |= {"400", "408", "413", "415"} if "requestBody" in operation and not path.endswith("/audio") else set()
            wanted |= {"404"} if "{generation_id}" in path else set()
            missed += [f"{where}: {status}" for status in sorted(wanted - set(errors))]
            if path == "/readyz" and errors["503"]["content"] == READINESS:
                errors.pop("503")  # it answers like its 200, and names the part that fails
            for status, shown in errors.items():
                problem = shown["content"].get("application/problem+json", {})
                if problem.get("schema") != {"$ref": "#/components/schemas/ProblemDocument"}:
                    missed.append(f"{where}: body of {status}")
                elif problem["example"]["status"] != int(status):
                    missed.append(f"{where}: example of {status}")
            for content in operation.get("requestBody", {}).get("content", {}).values():
                schema = content["schema"]
                if "example" not in schema and schema.get("format") != "binary":
                    missed.append(f"{where}: example")
    return missed


def test_the_page_about_the_service_names_every_operation(document):
    text = DOCS.read_text()
    for path, item in document["paths"].items():
        assert f"`{path}`" in text, path
        for method in item:
            assert method.upper() in text, (method, path)
