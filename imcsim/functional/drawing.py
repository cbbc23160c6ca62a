"""Random numbers for compiled code: each depends on a key and its own place alone, whoever asks and when."""

import math

import numpy as np

from imcsim.functional.kernels import compiled


@compiled
def mixed(number):
    """Mix the bits of a 64-bit *number*: the finalizer of SplitMix64 (Steele, Lea and Flood, OOPSLA 2014)."""
    number = (number ^ (number >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    number = (number ^ (number >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return number ^ (number >> np.uint64(31))


@compiled
def _bits(key, place):
    """Return 64 random bits; SplitMix64 again, of which *place* is the number of the step."""
    return mixed(key + np.uint64(place) * np.uint64(0x9E3779B97F4A7C15))


@compiled
def uniform(key, place):
    """Return a number between 0 and 1, both excluded."""
    return _fraction(_bits(key, place))


@compiled
def _fraction(bits):
    return (np.float64(np.int64(bits >> np.uint64(12))) + 0.5) * 2.0**-52


_TAIL, _AREA, _N_LAYERS = 7.69711747013104972, 3.949659822581572e-3, 256
"""Where the tail of the exponential density begins, and the area of each layer, for so many layers."""


def _layers() -> tuple[np.ndarray, np.ndarray]:
    """Return the widths of the layers, from the lowest and widest (n + 1), and the density at them."""
    widths = np.zeros(_N_LAYERS + 1)
    widths[0], widths[1] = _AREA * math.exp(_TAIL), _TAIL
    for i in range(1, _N_LAYERS - 1):
        widths[i + 1] = -math.log(_AREA / widths[i] + math.exp(-widths[i]))
    return widths, np.exp(-widths)


_WIDTHS, _DENSITIES = _layers()


@compiled
def exponentials(key, first, out, bits, rare):
    """Fill *out* (n) with exponential numbers of mean 1, those of the places from *first* on.

    By the ziggurat, which takes no logarithm 99 times of 100; those that need one come last, so that the loop over the
    others does not branch. *bits* (n) uint64 and *rare* (n) int64 are room to work in.
    Source: Marsaglia and Tsang, "The Ziggurat Method for Generating Random Variables", J. Stat. Software 5(8), 2000.
    """
    for i in range(out.size):
        bits[i] = _bits(key, first + i)
    n_rare = 0
    for i in range(out.size):
        layer, out[i] = _candidate(bits[i])
        rare[n_rare] = i
        n_rare += out[i] >= _WIDTHS[layer + 1]
    for i in rare[:n_rare]:
        out[i] = _rare_exponential(bits[i], *_candidate(bits[i]))


@compiled
def _candidate(bits):
    """Return the layer that the low *bits* pick, and the place in it that the others do."""
    layer = np.int64(bits & np.uint64(_N_LAYERS - 1))
    return layer, _fraction(bits) * _WIDTHS[layer]


@compiled
def _rare_exponential(own_key, layer, x):
    """Go on where the first number is not below the next layer, with numbers of *own_key*."""
    place = 0
    while True:
        again = uniform(own_key, place)
        if layer == 0:
            return _TAIL - math.log(again)
        low, high = _DENSITIES[layer], _DENSITIES[layer + 1]
        if low + again * (high - low) < math.exp(-x):
            return x
        layer, x = _candidate(_bits(own_key, place + 1))
        place += 2
        if x < _WIDTHS[layer + 1]:
            return x


@compiled
def _poly(x, a, b, c, d, e, f, g, h):
    return ((((((h * x + g) * x + f) * x + e) * x + d) * x + c) * x + b) * x + a


@compiled
def normal(p):
    """Return the standard normal quantile of *p* (Wichura, Algorithm AS 241, PPND16, Applied Statistics 37, 1988)."""
    q = p - 0.5
    if abs(q) <= 0.425:
        r = 0.180625 - q * q
        above = _poly(r, 3.3871328727963666080, 133.14166789178437745, 1971.5909503065514427, 13731.693765509461125,
                      45921.953931549871457, 67265.770927008700853, 33430.575583588128105,
                      2509.0809287301226727)  # fmt: skip
        below = _poly(r, 1.0, 42.313330701600911252, 687.18700749205790830, 5394.1960214247511077,
                      21213.794301586595867, 39307.895800092710610, 28729.085735721942674,
                      5226.4952788528545610)  # fmt: skip
        return q * above / below
    r = math.sqrt(-math.log(min(p, 1 - p)))
    if r <= 5:
        r -= 1.6
        above = _poly(r, 1.42343711074968357734, 4.63033784615654529590, 5.76949722146069140550,
                      3.64784832476320460504, 1.27045825245236838258, 0.241780725177450611770,
                      0.0227238449892691845833, 7.74545014278341407640e-4)  # fmt: skip
        below = _poly(r, 1.0, 2.05319162663775882187, 1.67638483018380384940, 0.689767334985100004550,
                      0.148103976427480074590, 0.0151986665636164571966, 5.47593808499534494600e-4,
                      1.05075007164441684324e-9)  # fmt: skip
    else:
        r -= 5
        above = _poly(r, 6.65790464350110377720, 5.46378491116411436990, 1.78482653991729133580,
                      0.296560571828504891230, 0.0265321895265761230930, 1.24266094738807843860e-3,
                      2.71155556874348757815e-5, 2.01033439929228813265e-7)  # fmt: skip
        below = _poly(r, 1.0, 0.599832206555887937690, 0.136929880922735805310, 0.0148753612908506148525,
                      7.86869131145613259100e-4, 1.84631831751005468180e-5, 1.42151175831644588870e-7,
                      2.04426310338993978564e-15)  # fmt: skip
    return math.copysign(above / below, q)
