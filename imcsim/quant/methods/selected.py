"""Choices among layers and kernels: CConv, LIE, FNBin, KTDet."""

from imcsim.quant.method import Method

METHODS: tuple[type[Method], ...] = ()
