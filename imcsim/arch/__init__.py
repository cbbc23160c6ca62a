"""The hardware: chip files and the frozen models that they become."""
