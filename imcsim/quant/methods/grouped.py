"""Scales of groups of inputs: FGQ."""

from imcsim.quant.method import Method

METHODS: tuple[type[Method], ...] = ()
