"""Plain float networks to networks of few bits, without training: post-training quantization by calibration samples.

`source` finds the model and its samples; `prepare` brings the model into a form in which each layer has weights and a
bias; `layerwise` goes from layer to layer; `weights` and `activations` say what becomes of numbers; `evaluate` runs
models on samples; `command` is the whole of it, to a file that `imcsim run` takes.
"""

from imcsim.post_training.command import Quantized, quantize_file
from imcsim.post_training.layerwise import LayerRecord, quantize
from imcsim.post_training.settings import Settings

__all__ = ["LayerRecord", "Quantized", "Settings", "quantize", "quantize_file"]
