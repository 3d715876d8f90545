"""Pictures for tests, drawn with plain PIL, and questions about them."""

import base64
import io
from typing import Any

from PIL import Image, ImageDraw

Part = dict[str, Any]


def draw(shape: str, colour: str, *, side: int = 112, centre: tuple[float, float] = (0.5, 0.5)) -> Image.Image:
    """One shape of half the picture's width on white."""
    picture = Image.new("RGB", (side, side), "white")
    x, y, radius = centre[0] * side, centre[1] * side, side * 0.22
    box = (x - radius, y - radius, x + radius, y + radius)
    pen = ImageDraw.Draw(picture)
    if shape == "circle":
        pen.ellipse(box, fill=colour)
    elif shape == "square":
        pen.rectangle(box, fill=colour)
    else:
        pen.polygon([(x, box[1]), (box[2], box[3]), (box[0], box[3])], fill=colour)
    return picture


def encode(picture: Image.Image, kind: str = "PNG") -> bytes:
    """The picture as a file's bytes."""
    buffer = io.BytesIO()
    picture.save(buffer, kind)
    return buffer.getvalue()


def data_uri(picture: Image.Image) -> str:
    """The picture as a data URI."""
    return "data:image/png;base64," + base64.b64encode(encode(picture)).decode()


def image_part(url: str) -> Part:
    """A content part with a picture."""
    return {"type": "image_url", "image_url": {"url": url}}


def user(*parts: Part | str) -> list[Part]:
    """A chat of one user turn."""
    content = [{"type": "text", "text": part} if isinstance(part, str) else part for part in parts]
    return [{"role": "user", "content": content}]
