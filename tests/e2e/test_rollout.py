"""The demo's versions in real engines, judged by the known right answers: the better one gets the traffic.

v2 answers about a quarter more of these questions rightly than v1 does.
"""

import base64
import io
import random
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import httpx
import pytest

from gateway.demo.held_out import Item, is_right, make_items
from tests.support.running_gateway import RunningGateway, run_gateway, wait_for

pytestmark = pytest.mark.engine

CHAT = "/v1/chat/completions"
SKILLS = ("count", "number", "describe", "yes_no")
THREADS = 6
# The state is the demo's own, in memory. What must be proven is little, so that it takes a minute and not an hour.
PLAN = {"steps": [20, 50, 100], "min_time_s": 2, "min_users": 40}


@dataclass(frozen=True)
class Asked:
    item: Item
    content: list[dict[str, Any]]


@pytest.fixture(scope="module")
def questions() -> list[Asked]:
    asked = []
    for skill in SKILLS:
        for item in make_items("pictures", skill, 40):
            file = io.BytesIO()
            item.picture.save(file, "PNG")
            url = f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"
            content = [{"type": "image_url", "image_url": {"url": url}}, {"type": "text", "text": item.question.text}]
            asked.append(Asked(item, content))
    return asked


@pytest.fixture(scope="module")
def gateway() -> Iterator[RunningGateway]:
    with run_gateway("--demo") as running:
        running.await_states(240, v1="ready", v2="ready")
        yield running


def admin(gateway: RunningGateway, method: str, path: str, body: object = None) -> dict[str, Any]:
    answer = httpx.request(method, f"{gateway.admin_url}/admin/v1/models/shapes/{path}", json=body, timeout=60)
    assert answer.status_code < 300, answer.text
    told: dict[str, Any] = answer.json()
    return told


class Crowd:
    """Users who ask once each, know the right answer and say whether they got it."""

    def __init__(self, gateway: RunningGateway, questions: list[Asked], name: str) -> None:
        self.failed: list[str] = []
        self._gateway, self._questions, self._name = gateway, questions, name
        self._is_over = threading.Event()
        self._threads = [threading.Thread(target=self._ask, args=(number,), daemon=True) for number in range(THREADS)]

    def __enter__(self) -> "Crowd":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *how: object) -> None:
        self._is_over.set()
        for thread in self._threads:
            thread.join()

    def _ask(self, number: int) -> None:
        luck, count = random.Random(f"{self._name}{number}"), 0
        with httpx.Client(base_url=self._gateway.url, timeout=60) as client:
            while not self._is_over.is_set():
                count += 1
                asked = luck.choice(self._questions)
                said = {"model": "shapes", "messages": [{"role": "user", "content": asked.content}], "max_tokens": 40}
                answer = client.post(CHAT, json=said | {"user": f"{self._name}-{number}-{count}"})
                if answer.status_code != 200:
                    self.failed.append(answer.text)
                    continue
                text = answer.json()["choices"][0]["message"]["content"]
                told = {"request_id": answer.headers["x-request-id"], "metric": "success"}
                kept = client.post("/v1/feedback", json=told | {"value": is_right(asked.item.question, text)})
                if kept.status_code != 200:
                    self.failed.append(kept.text)


def roll_out(gateway: RunningGateway, plan: dict[str, Any]) -> dict[str, Any]:
    name = admin(gateway, "POST", "rollouts", PLAN | plan)["id"]
    shown: dict[str, Any] = wait_for(
        lambda: (told := admin(gateway, "GET", f"rollouts/{name}"))["ended"] and told,
        240,
        lambda: str(admin(gateway, "GET", f"rollouts/{name}")),
    )
    return shown


def test_the_better_version_is_promoted_and_the_worse_one_goes_back(
    gateway: RunningGateway, questions: list[Asked]
) -> None:
    guards = {"error_rate": {"margin": 0.1}, "ttft_s": {"margin": 1.0, "needed": False}}
    admin(gateway, "PUT", "split", {"v1": 1})
    with Crowd(gateway, questions, "first") as crowd:
        shown = roll_out(gateway, {"candidate": "v2", "guards": guards, "goal": {"success": {"margin": 0.0}}})
    assert (shown["state"], crowd.failed) == ("promoted", []), shown
    assert admin(gateway, "GET", "split")["split"] == {"v1": 0.0, "v2": 1.0}
    found = {one["metric"]: one for one in shown["findings"]}
    assert found["success"]["harm"] < -0.1
    assert found["success"]["verdict"] == found["error_rate"]["verdict"] == "kept"

    with Crowd(gateway, questions, "second") as crowd:
        shown = roll_out(gateway, {"candidate": "v1", "guards": guards | {"success": {"margin": 0.02}}})
    assert (shown["state"], crowd.failed) == ("rolled_back", []), shown
    assert shown["reason"].startswith("success worse by +0."), shown
    assert admin(gateway, "GET", "split")["split"] == {"v1": 0.0, "v2": 1.0}
    assert shown["percent"] == 0


def wait_for_copies(gateway: RunningGateway, count: int) -> dict[str, Any]:
    """What is known of v1's answers and the shadow's, once so many are compared."""
    found: dict[str, Any] = wait_for(
        lambda: (
            (told := admin(gateway, "GET", "shadow")["shadow"]["against"].get("v1", {})).get("copies") == count and told
        ),
        60,
        lambda: str(admin(gateway, "GET", "shadow")),
    )
    return found


def test_a_shadow_is_compared_token_by_token_and_scored_by_both_engines(
    gateway: RunningGateway, questions: list[Asked]
) -> None:
    admin(gateway, "PUT", "split", {"v1": 1})
    shadow = {"version": "v2", "percent": 100, "cross_score": True, "keep_texts": True}
    admin(gateway, "PUT", "shadow", shadow)
    texts: dict[str, str] = {}
    with httpx.Client(base_url=gateway.url, timeout=60) as client:
        for number, asked in enumerate(questions[::4]):
            said = {"model": "shapes", "messages": [{"role": "user", "content": asked.content}], "max_tokens": 40}
            answer = client.post(CHAT, json=said | {"user": f"user-{number}", "stream": False})
            assert (answer.status_code, answer.headers["x-gateway-version"]) == (200, "v1")
            texts[answer.headers["x-request-id"]] = answer.json()["choices"][0]["message"]["content"]
            if number % 3 == 0:  # an engine with more to do than a shadow may ask for gives no scores
                wait_for_copies(gateway, len(texts))
    found = wait_for_copies(gateway, len(texts))
    answers, numbers = found["answers"], found["numbers"]
    assert 0.2 < answers["same_answer"]["mean"] < 0.95
    assert answers["same_answer"]["mean"] <= answers["agreement"]["mean"] < 1
    assert (answers["gap_of_primary"]["count"], answers["gap_of_shadow"]["count"]) == (len(texts), len(texts))
    assert answers["gap_of_primary"]["mean"] > 0 < answers["gap_of_shadow"]["mean"], "each prefers its own answers"
    assert (numbers["failed"]["primary"], numbers["failed"]["shadow"]) == (0, 0)
    assert numbers["tokens_out"]["shadow"] > 1
    for kept in admin(gateway, "GET", "shadow/texts")["texts"]:
        assert kept["texts"]["primary"] == texts[kept["request_id"]], "what the client got is what is compared"
        assert (kept["texts"]["primary"] == kept["texts"]["shadow"]) == (kept["values"]["same_answer"] == 1)
    admin(gateway, "DELETE", "shadow")
