"""The modes by name."""

from unclip.modes.base import Mode
from unclip.modes.inpainting.inpaint import Inpainting, Outpainting
from unclip.modes.interpolation import Interpolation
from unclip.modes.reconstruction import Reconstruction
from unclip.modes.text_diff import TextDiff
from unclip.modes.text_to_image import TextToImage
from unclip.modes.variation import Variation
from unclip.requests.request import Request

MODES: dict[str, Mode] = {
    "generate": TextToImage(),
    "inpaint": Inpainting(),
    "outpaint": Outpainting(),
    "vary": Variation(),
    "interpolate": Interpolation(),
    "edit": TextDiff(),
    "reconstruct": Reconstruction(),
}


def mode_of(request: Request) -> Mode:
    """The mode of a request."""
    return MODES[request.mode]
