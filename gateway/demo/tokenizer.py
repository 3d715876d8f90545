"""The model's own small byte-level tokenizer: trained on the questions and answers, digits one by one, corners of boxes whole."""

import json
import random
from pathlib import Path
from typing import Any

from gateway.demo.questions import BOX_SCALE, BOX_STEP, SKILLS, ask, chat
from gateway.demo.scenes import imagine
from gateway.demo.wordings import SYSTEMS

SPECIAL = (
    "<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>", "<|vision_pad|>", "<|image_pad|>",
    "<|video_pad|>",
)  # fmt: skip
END, PAD = "<|im_end|>", "<|endoftext|>"
BOX_PIECES = ('{"bbox_2d": [', "]}")
CORNERS = tuple(str(value) for value in range(2 * BOX_STEP, BOX_SCALE + 1, BOX_STEP))
"""Corners that are one token each, in order. Digit by digit the likeliest first digit would decide about all the rest."""
VOCABULARY = 640 + len(CORNERS)


def train_tokenizer(seed: int) -> Any:
    """A `tokenizers.Tokenizer` that writes any text and gives the demo's own words few tokens."""
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            # A box piece ends before the first corner and starts after the last one.
            pre_tokenizers.Split(
                Regex(r"\A\d{2,4}(?=,)|(?<=,)\d{2,4}(?=,|\z)|\d| ?[A-Za-z]+|\s+|[^\sA-Za-z\d]"), "isolated"
            ),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    pieces = len(SPECIAL) + len(BOX_PIECES) + len(CORNERS)
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY - pieces,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_sample_texts(random.Random(seed)), trainer)
    tokenizer = _with_corners(tokenizer)
    tokenizer.add_special_tokens([AddedToken(name, special=True, normalized=False) for name in SPECIAL])
    tokenizer.add_tokens([AddedToken(piece, special=False, normalized=False) for piece in BOX_PIECES])
    return tokenizer


def _with_corners(tokenizer: Any) -> Any:
    """The same tokenizer with a token for each corner, taken whole instead of merged from digits."""
    from tokenizers import Tokenizer

    written = json.loads(tokenizer.to_str())
    vocabulary = written["model"]["vocab"]
    vocabulary |= {corner: len(vocabulary) + index for index, corner in enumerate(CORNERS)}
    written["model"]["ignore_merges"] = True
    return Tokenizer.from_str(json.dumps(written))


def _sample_texts(rng: random.Random) -> list[str]:
    texts = ["user", "assistant", "system"] * 50 + list(SYSTEMS) * 20
    for _ in range(1500):
        scene = imagine(rng, 112, 112)
        questions = [ask(scene, skill, rng) for skill in SKILLS] + [chat(rng)]
        texts += [part for question in questions if question for part in (question.text, question.answer)]
    return [text for text in texts if not text.startswith("{")]


def save_tokenizer(tokenizer: Any, folder: Path) -> None:
    """Write the tokenizer as `transformers` and vLLM read it."""
    from transformers import PreTrainedTokenizerFast

    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token=END,
        pad_token=PAD,
        additional_special_tokens=list(SPECIAL[3:]),
        model_max_length=2048,
        clean_up_tokenization_spaces=False,
    )
    fast.save_pretrained(folder)
