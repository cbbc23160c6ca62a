"""Even grids of k bits: DoReFa, PACT, LSQ and others."""

from imcsim.quant.method import Method

METHODS: tuple[type[Method], ...] = ()
