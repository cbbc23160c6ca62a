"""Binary weights with scales: XNOR-Net and its kin."""

from imcsim.quant.method import Method

METHODS: tuple[type[Method], ...] = ()
