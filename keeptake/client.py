"""A thin, typed client of the capture service, for Python programs.

One method an endpoint; answers are plain dictionaries as the service sends them, errors are `ApiError` with the fields of the
problem document. What can be repeated safely is repeated where the service was away or too busy: saves, reads and exports that
have not begun; feedback is not, since each call is an entry in the history. Belongs here: calling. Does not: the contract
(`docs/capture.md`).
"""

import json
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from types import TracebackType
from typing import Any, Self

import httpx2

from keeptake.errors import KeeptakeError, UnavailableError
from keeptake.retry_after import retry_after_s

PREFIX = "/api/training-metadata"
LONGEST_PAUSE_S = 30.0
_AGAIN = frozenset({429, 503})

JsonObject = dict[str, Any]


class ApiError(KeeptakeError):
    """The service refused a call.

    Parameters
    ----------
    status : int
        HTTP status.
    problem : Mapping
        The problem document (RFC 9457), or what of it there was.
    """

    def __init__(self, status: int, problem: Mapping[str, Any]) -> None:
        self.status = status
        self.code = str(problem.get("code", "unknown"))
        self.detail = str(problem.get("detail", ""))
        self.request_id = str(problem.get("requestId", ""))
        self.errors: list[JsonObject] = list(problem.get("errors", []))
        super().__init__(f"{status} {self.code}: {self.detail} (request {self.request_id})")


class Client:
    """Calls one service with one key.

    Parameters
    ----------
    base_url : str
        Such as `http://127.0.0.1:8002`.
    key : str, optional
        `kt_…`; none where the service runs without access control.
    attempts : int
        How often a repeatable call is sent before its failure is raised.
    timeout_s : float
        Of each attempt.

    Examples
    --------
    ::

        with Client("http://127.0.0.1:8002", key) as keeptake:
            keeptake.save({"userId": "u", "generationId": "g", "userPrompt": "p", "audioUrl": "https://…", "provider": "suno"})
            keeptake.give_feedback("g", rating=5)
    """

    def __init__(self, base_url: str, key: str | None = None, *, attempts: int = 4, timeout_s: float = 30.0) -> None:
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        self._attempts = attempts
        self._http = httpx2.Client(base_url=base_url, headers=headers, timeout=timeout_s)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def save(self, generation: Mapping[str, Any]) -> JsonObject:
        """Save a generation; durable when this returns."""
        return self._object("POST", PREFIX, json=dict(generation))

    def save_many(self, generations: Iterable[Mapping[str, Any]]) -> JsonObject:
        """Save up to 1,000 generations; `results` says what became of each."""
        lines = "".join(json.dumps(dict(generation), ensure_ascii=False) + "\n" for generation in generations)
        return self._object("POST", f"{PREFIX}/batch", content=lines.encode(), headers={"Content-Type": "application/x-ndjson"})

    def announce(self, provider: str, generation_ids: Iterable[str]) -> JsonObject:
        """Tell what a provider made, so that what is never saved is noticed."""
        return self._object("POST", f"{PREFIX}/expected", json={"provider": provider, "generationIds": list(generation_ids)})

    def give_feedback(self, generation_id: str, **changes: bool | int | str | None) -> JsonObject:
        """Merge feedback: any of liked, rating, feedback, used; None clears one."""
        return self._object("PUT", f"{PREFIX}/{generation_id}/feedback", is_repeatable=False, json=changes)

    def record(self, generation_id: str) -> JsonObject:
        """Everything that is known of a generation."""
        return self._object("GET", f"{PREFIX}/{generation_id}")

    def records(self, **filters: str) -> Iterator[JsonObject]:
        """Every record, newest first; filters are provider, status and userId."""
        cursor: str | None = None
        while True:
            page = self._object("GET", PREFIX, params={"limit": "200", **filters, **({"cursor": cursor} if cursor else {})})
            yield from page["items"]
            cursor = page["nextCursor"]
            if cursor is None:
                return

    def statistics(self) -> JsonObject:
        """Counts over everything, at most a minute old."""
        statistics: JsonObject = self._object("GET", f"{PREFIX}/statistics/overview")["statistics"]
        return statistics

    def similar(self, generation_id: str, k: int = 10, **filters: str | float) -> list[JsonObject]:
        """Takes that sound most like this one; filters are userId, provider, genre, key, tempoFromBpm and tempoToBpm.

        In the space of `model`, musicnn-msd by default.
        """
        params = {"k": k, **filters}
        items: list[JsonObject] = self._object("GET", f"{PREFIX}/{generation_id}/similar", params=params)["items"]
        return items

    def send_audio(self, generation_id: str, audio: bytes) -> JsonObject:
        """Send a take's audio."""
        headers = {"Content-Type": "application/octet-stream"}
        return self._object("PUT", f"{PREFIX}/{generation_id}/audio", content=audio, headers=headers)

    def audio(self, generation_id: str) -> bytes:
        """A take's audio as it was received."""
        return self._send("GET", f"{PREFIX}/{generation_id}/audio").content

    def export_lines(self, **filters: str | float) -> Iterator[JsonObject]:
        """Lines of the JSONL export as they come; filters are provider, minQualityScore and qualityScale.

        Raises
        ------
        UnavailableError
            If the export breaks off: what came until then is not all of it.
        """
        with self._stream(f"{PREFIX}/export/jsonl", filters) as answer:
            rest = b""
            for piece in answer.iter_bytes():  # `iter_lines` would also cut at U+2028, which a prompt may hold
                *lines, rest = (rest + piece).split(b"\n")
                yield from map(json.loads, lines)
            if rest:
                yield json.loads(rest)

    def export_csv(self, **filters: str | float) -> Iterator[bytes]:
        """Pieces of the CSV export as they come; filters are provider, minQualityScore, excelSafe and columns."""
        with self._stream(f"{PREFIX}/export/csv", filters) as answer:
            yield from answer.iter_bytes()

    @contextmanager
    def _stream(self, path: str, filters: Mapping[str, str | float]) -> Iterator[httpx2.Response]:
        request = self._http.build_request("GET", path, params=dict(filters), headers={"Accept-Encoding": "gzip"})
        answer = self._repeated(lambda: self._http.send(request, stream=True))
        try:
            yield answer
        except httpx2.TransportError as broken:
            raise UnavailableError(f"the export broke off: begin it again ({type(broken).__name__})") from broken
        finally:
            answer.close()

    def _object(self, method: str, path: str, *, is_repeatable: bool = True, **given: Any) -> JsonObject:  # noqa: ANN401 -- httpx2's
        answer: JsonObject = self._send(method, path, is_repeatable=is_repeatable, **given).json()
        return answer

    def _send(self, method: str, path: str, *, is_repeatable: bool = True, **given: Any) -> httpx2.Response:  # noqa: ANN401 -- as above
        return self._repeated(lambda: self._http.request(method, path, **given), attempts=self._attempts if is_repeatable else 1)

    def _repeated(self, send: Any, *, attempts: int | None = None) -> httpx2.Response:  # noqa: ANN401 -- () -> Response
        left = self._attempts if attempts is None else attempts
        pause_s = 0.2
        while True:
            left -= 1
            try:
                answer: httpx2.Response = send()
            except httpx2.TransportError as failure:
                if left <= 0:
                    raise UnavailableError(f"the service does not answer: {type(failure).__name__}") from failure
            else:
                if answer.is_success:
                    return answer
                answer.read()
                if answer.status_code not in _AGAIN or left <= 0:
                    raise ApiError(answer.status_code, _problem(answer))
                asked_s = retry_after_s(answer.headers.get("retry-after", ""))
                pause_s = pause_s if asked_s is None else asked_s
            time.sleep(min(pause_s, LONGEST_PAUSE_S))
            pause_s *= 2


def _problem(answer: httpx2.Response) -> Mapping[str, Any]:
    try:
        problem = answer.json()
    except ValueError:
        return {"detail": f"an answer of type {answer.headers.get('content-type', 'unknown')}"}
    return problem if isinstance(problem, dict) else {}
