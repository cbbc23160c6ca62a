"""What all figures share: colours that mean the same everywhere, units of axes, and names short enough to print."""

from collections.abc import Sequence

from imcsim.arch.spec import Basis
from imcsim.units import human

COLOUR_OF_GROUP = {
    "Tile array": "#4A3EB2",
    "PCUs": "#99B5FF",
    "NMC units": "#4080C8",
    "Tile writes": "#EE4D91",
    "Activation buffer": "#0E6B17",
    "Psum buffer": "#74E79A",
    "Reduce unit": "#B48D07",
    "SFU": "#FAD267",
    "Network": "#D77A58",
    "Main memory": "#7B2476",
    "Scheduler": "#6B6B6B",
    "Other": "#2E2E2E",
    "Leakage": "#C4C4C4",
}
"""Chosen so that any two lie at least 17 apart in CIE Lab for normal sight and for simulated protanopia, deuteranopia
and tritanopia (matrices of Machado, Oliveira, Fernandes, IEEE TVCG 2009), Scheduler and Other apart."""

COLOUR_OF_BASIS: dict[Basis, str] = {
    "published": "#2166AC",
    "recalled": "#67A9CF",
    "derived": "#C4DDEC",
    "fitted": "#FBD3AE",
    "assumed": "#E08A4B",
}
"""From sure, blue, to unsure, orange."""

MEANING_OF_BASIS: dict[Basis, str] = {
    "published": "read in the named source",
    "recalled": "attributed to the named source, but not read there",
    "derived": "computed from other numbers by the arithmetic that the source states",
    "fitted": "set so that a result agrees with a published one",
    "assumed": "a guess, with the reason for it",
}

_LAYER_COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#F0E442", "#7F7F7F")
"""Okabe and Ito, "Color Universal Design", 2008; grey for their black."""

_VIRIDIS = (
    "#440154",
    "#482878",
    "#3E4A89",
    "#31688E",
    "#26828E",
    "#1F9E89",
    "#35B779",
    "#6DCD59",
    "#B4DE2C",
    "#FDE725",
)

MOST_NAMED_COLOURS = len(_LAYER_COLOURS)
"""Up to so many layers have a colour of their own; more go from dark to light in their order."""


def layer_colours(n: int) -> list[str]:
    """Return a colour for each of *n* layers in order.

    >>> layer_colours(2), layer_colours(19)[9]
    (['#0072B2', '#E69F00'], '#22908C')
    """
    if n <= MOST_NAMED_COLOURS:
        return list(_LAYER_COLOURS[:n])
    return ordered_colours(n)


def ordered_colours(n: int) -> list[str]:
    """Return *n* colours from dark to light, for what has an order.

    >>> ordered_colours(1), ordered_colours(3)
    (['#440154'], ['#440154', '#22908C', '#FDE725'])
    """
    return [_between(_VIRIDIS, i / max(1, n - 1)) for i in range(n)]


def _between(colours: Sequence[str], place: float) -> str:
    """Return the colour at *place*, 0 to 1, of a scale."""
    step = place * (len(colours) - 1)
    i = min(int(step), len(colours) - 2)
    pair = zip(_rgb(colours[i]), _rgb(colours[i + 1]), strict=True)
    return "#" + "".join(f"{round(a + (b - a) * (step - i)):02X}" for a, b in pair)


def _rgb(colour: str) -> tuple[int, ...]:
    return tuple(int(colour[i : i + 2], 16) for i in (1, 3, 5))


def ink_on(colour: str) -> str:
    """Return black or white, whichever is read better on *colour*.

    >>> ink_on("#C4DDEC"), ink_on("#2166AC")
    ('#000000', '#FFFFFF')
    """
    red, green, blue = _rgb(colour)
    return "#000000" if 0.299 * red + 0.587 * green + 0.114 * blue > 140 else "#FFFFFF"


def axis_unit(greatest: float, unit: str) -> tuple[float, str]:
    """Return the size and the name of the unit that suits values up to *greatest*, which is in *unit*.

    >>> axis_unit(26148.0, "ns"), axis_unit(0.0, "pJ"), axis_unit(2.0e9, "pJ")
    ((1000.0, 'µs'), (1.0, 'pJ'), (1000000000.0, 'mJ'))
    """
    if greatest <= 0:
        return 1.0, unit
    number, name = human(greatest, unit, digits=12).split()
    size = greatest / float(number)
    exponent = 0
    while size >= 5:
        size, exponent = size / 10, exponent + 1
    while size < 0.5:
        size, exponent = size * 10, exponent - 1
    return float(10.0**exponent), name


def short(name: str, most: int = 30) -> str:
    """Return *name*, its middle left out where it is longer than *most*.

    >>> short("features.stage3.block5.convolution2", 20)
    'features.s…volution2'
    """
    if len(name) <= most:
        return name
    head = most // 2
    return f"{name[:head]}…{name[len(name) - (most - head - 1) :]}"
