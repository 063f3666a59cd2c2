"""Group the requests of single images into micro-batches."""

from collections.abc import Iterable, Iterator
from itertools import chain

from unclip.requests.fields import FIELDS_OF, PRIOR_FIELDS
from unclip.requests.request import Request

BATCH = 16
"""Default number of images in a micro-batch."""
_SHARED = {"resample", "strength", *PRIOR_FIELDS}
OWN_FIELDS = {"prompt", "negative_prompt", "seed", "id", *chain.from_iterable(FIELDS_OF.values())} - _SHARED
"""Fields in which the images of one micro-batch may differ."""


def micro_batches(requests: Iterable[Request], size: int) -> Iterator[list[Request]]:
    """Consecutive requests in batches of at most `size` that differ only in `OWN_FIELDS`."""
    batch: list[Request] = []
    for request in requests:
        if batch and (len(batch) == size or not can_share_batch(batch[-1], request)):
            yield batch
            batch = []
        batch.append(request)
    if batch:
        yield batch


def can_share_batch(one: Request, other: Request) -> bool:
    """Whether two requests agree in all fields that a micro-batch has in common."""
    shared = (name for name in Request.field_names() if name not in OWN_FIELDS)
    return one.inverts == other.inverts and all(getattr(one, name) == getattr(other, name) for name in shared)
