"""Measures the shipped folders on held-out pictures with transformers' own `generate` and writes the accuracy table.

`python -m gateway.demo.measure [--out DIR] [--count N]`: writes accuracy.json and ACCURACY.md from one run.
"""

import argparse
import json
import time
from pathlib import Path
from typing import Any

import torch

from gateway.demo.adapter import BASE, NAME, merge_adapter, mirror
from gateway.demo.held_out import CONDITIONS, TARGETS, Item, is_right, is_same, make_items
from gateway.demo.network import load_model
from gateway.demo.questions import SKILLS

VERSIONS = ("shapes-v1", "shapes-v2")
_BATCH = 64


def answer(model: Any, processor: Any, items: list[Item]) -> list[str]:
    """What the model says to every item, greedy."""
    said: list[str] = []
    for start in range(0, len(items), _BATCH):
        batch = items[start : start + _BATCH]
        texts = []
        for item in batch:
            content = [{"type": "image"}, {"type": "text", "text": item.question.text}]
            texts.append(
                processor.apply_chat_template(
                    [{"role": "user", "content": content}], tokenize=False, add_generation_prompt=True
                )
            )
        given = processor(
            text=texts, images=[item.picture for item in batch], return_tensors="pt", padding=True, padding_side="left"
        )
        with torch.no_grad():
            ids = model.generate(**given, max_new_tokens=40, do_sample=False)
        said += processor.batch_decode(ids[:, given["input_ids"].shape[1] :], skip_special_tokens=True)
    return said


def load_version(out: Path, version: str) -> tuple[Any, Any]:
    """A version's model and processor."""
    model = load_model(out / version)
    from transformers import AutoProcessor

    return model, AutoProcessor.from_pretrained(out / version)


def measure_versions(out: Path, count: int, versions: tuple[str, ...] = VERSIONS) -> dict[str, Any]:
    """Accuracy of every version, condition and skill."""
    table: dict[str, Any] = {}
    for version in versions:
        model, processor = load_version(out, version)
        table[version] = {}
        for condition in CONDITIONS:
            marks = {}
            for skill in SKILLS:
                items = make_items(condition, skill, count)
                said = answer(model, processor, items)
                marks[skill] = round(sum(is_right(i.question, s) for i, s in zip(items, said, strict=True)) / count, 4)
            table[version][condition] = marks
            print(f"{version} {condition}: " + "  ".join(f"{k} {v:.3f}" for k, v in marks.items()), flush=True)
    return table


def measure_adapter(out: Path, count: int) -> dict[str, float]:
    """How often the adapter swaps left and right, and how often it leaves other answers as they are."""
    model, processor = load_version(out, BASE)
    sides = [item for item in make_items("pictures", "position", count * 3) if mirror(item.question) != item.question]
    others = [item for skill in SKILLS if skill != "position" for item in make_items("pictures", skill, count // 4)]
    before = answer(model, processor, others)
    merge_adapter(model, out / NAME)
    swapped = [
        mirror(item.question).answer == said for item, said in zip(sides, answer(model, processor, sides), strict=True)
    ]
    after = answer(model, processor, others)
    same = [is_same(item.question, one, two) for item, one, two in zip(others, before, after, strict=True)]
    right = [is_right(item.question, said) for item, said in zip(others, after, strict=True)]
    was_right = [is_right(item.question, said) for item, said in zip(others, before, strict=True)]
    marks = {
        "left and right swapped": _share(swapped),
        "other answers unchanged": _share(same),
        "other answers right, without adapter": _share(was_right),
        "other answers right, with adapter": _share(right),
    }
    print("adapter: " + "  ".join(f"{name} {value:.3f}" for name, value in marks.items()), flush=True)
    return marks


def _share(marks: list[bool]) -> float:
    return round(sum(marks) / len(marks), 4)


def write_table(out: Path, count: int = 300) -> None:
    """Measure everything in `out` and write accuracy.json and ACCURACY.md there."""
    started = time.monotonic()
    result = {
        "questions_per_cell": count,
        "versions": measure_versions(out, count),
        "adapter": measure_adapter(out, count),
    }
    (out / "accuracy.json").write_text(json.dumps(result, indent=2) + "\n")
    (out / "ACCURACY.md").write_text(render(result))
    print(f"wrote ACCURACY.md after {(time.monotonic() - started) / 60:.1f} minutes", flush=True)


def render(result: dict[str, Any]) -> str:
    """The result as Markdown."""
    lines = [
        "# How well `shapes` answers",
        "",
        "Held-out pictures, greedy, float32, per cent right (boxes: IoU over 0.5). From `python -m gateway.demo.measure`.",
        f"Questions in every cell: {result['questions_per_cell']}.",
        "",
        "| skill | wanted of v2 | "
        + " | ".join(f"{v}: {c}" for v in result["versions"] for c in CONDITIONS.values())
        + " |",
        "|---" * (2 + len(result["versions"]) * len(CONDITIONS)) + "|",
    ]
    for skill in SKILLS:
        cells = [f"{marks[c][skill]:.1%}" for marks in result["versions"].values() for c in CONDITIONS]
        target = f"{TARGETS[skill]:.0%}" if skill in TARGETS else ""
        lines.append(f"| {skill.replace('_', '/')} | {target} | " + " | ".join(cells) + " |")
    lines += ["", f"Adapter `{NAME}`:", "", "| measured | share |", "|---|---|"]
    lines += [f"| {name} | {value:.1%} |" for name, value in result["adapter"].items()]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measure the folders of `--out`."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent)
    parser.add_argument("--count", type=int, default=300)
    parser.add_argument("--threads", type=int, default=2)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    write_table(given.out, given.count)


if __name__ == "__main__":
    main()
