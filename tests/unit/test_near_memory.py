"""Chips whose tiles are read row by row and computed beside: what they have, refuse, and take."""

from imcsim.arch.load import load_chip
from imcsim.costs.price import price
from tests.strategies import *  # noqa: F403

CHIP = load_chip("near-memory-iso-capacity")
COSTS = price(CHIP)
