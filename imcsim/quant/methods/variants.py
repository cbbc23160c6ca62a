"""Methods that the list only names, as far as they are thin variants of others."""

from imcsim.quant.method import Method

METHODS: tuple[type[Method], ...] = ()
