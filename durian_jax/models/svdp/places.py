"""Where SVDP's pictures lie on the canvas: side by side, and attributes around them. Imports no jax."""

from durian_jax.errors import InputError
from durian_jax.models.mmdit.places import Place

NOISY, SOURCE_PLACE, DRIVING_PLACE, HISTORY_PLACE = Place(0, 0, 0), Place(-1, 0, 1), Place(1, 0, 2), Place(0, 0, 3)
ATTRIBUTE_PLACES = tuple(Place(column, row, 4) for column, row in ((0, -1), (0, 1), (-1, -1), (1, 1), (1, -1), (-1, 1)))
# Number of groups of places.
GROUPS = 5


def attribute_places(count: int, canvas: bool) -> tuple[Place, ...]:
    """The places of A attributes: cells of their own on a canvas, else one group.

    Raises:
        InputError: more attributes than cells.
    """
    if canvas and count > len(ATTRIBUTE_PLACES):
        raise InputError(f"the canvas has room for {len(ATTRIBUTE_PLACES)} attributes, found {count}")
    return ATTRIBUTE_PLACES[:count] if canvas else (ATTRIBUTE_PLACES[0],) * count
