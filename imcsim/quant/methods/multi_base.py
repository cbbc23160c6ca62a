"""Sums of several bases: ReBNet, ABC-Net, LS-BQNN, LQ-Nets, HWGQ."""

from imcsim.quant.method import Method

METHODS: tuple[type[Method], ...] = ()
