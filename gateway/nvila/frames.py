"""Which frames of a video file are decoded: those that VILA takes, which rounds where vLLM cuts off."""

from typing import Any

from vllm.multimodal.video import VideoBackend

from gateway.nvila.tiles import spread_frames

FRAMES = "nvila"
"""The name under which vLLM knows this way of sampling (`video_backend` among its media arguments)."""


class NvilaFrames(VideoBackend):
    """vLLM's decoder of videos with VILA's choice of frames (llava/utils/media.py). No frame is decoded twice."""

    @classmethod
    def compute_frames_index_to_sample(cls, source: Any, target: Any, **_: Any) -> list[int]:
        """The frames to decode, in order; the processor repeats those of a short video."""
        wanted = target.num_frames if target.num_frames > 0 else source.total_frames_num
        return sorted(set(spread_frames(source.total_frames_num, wanted)))
