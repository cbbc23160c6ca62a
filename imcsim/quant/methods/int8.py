"""Eight-bit integers."""

from imcsim.quant.method import Method

METHODS: tuple[type[Method], ...] = ()
