"""Check stored training data before a run: every header and every caption, and on request every pixel."""

from collections.abc import Callable

from unclip.errors import DataError
from unclip.training.data.stored import Listing, Track, find_faults, untracked


def check_listing(
    listing: Listing,
    where: str,
    on_fault: Callable[[str], None],
    *,
    skip_bad: bool = False,
    decode: bool = False,
    track: Track = untracked,
) -> Listing:
    """Read all captions and headers of a listing, and return it without what cannot be used.

    where: the recipe's file and table, for messages. on_fault: receives a line for each fault. decode: decode all
    pixels as well. Raises DataError if something cannot be used, unless `skip_bad`, and if nothing can be used.
    """
    first: str | None = None
    bad: set[int] = set()
    for line in listing.faults:
        first = line if first is None else first
        on_fault(line)
    for item, line in find_faults(listing.samples, decode=decode, track=track):
        first = line if first is None else first
        bad.add(item)
        on_fault(line)
    count = len(listing.faults) + len(bad)
    if count and not skip_bad:
        total = f"{count:,} bad file" + ("s" if count > 1 else "")
        raise DataError(f"{where}: {total} (first: {first}); mend or remove them, or add --skip-bad to pass over them")
    try:
        return listing.without(bad)
    except DataError as error:
        raise DataError(f"{where}: {error}") from None
