"""Binary networks with real shortcuts: Bi-Real, ReActNet, IR-Net, BBG, MeliusNet."""

from imcsim.quant.method import Method

METHODS: tuple[type[Method], ...] = ()
