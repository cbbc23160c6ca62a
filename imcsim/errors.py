"""What goes wrong because of a person's file or argument: one finished line each.

Every message has the form ``<where>: <what must hold>, got <value>[; <help>]``. An exception takes that
message and nothing else.
"""


class ImcsimError(Exception):
    """A mistake in what a user gave to imcsim; the command line prints it as one line and exits with status 1."""


class ConfigError(ImcsimError, ValueError):
    """A chip file, an override or an argument does not hold what it must."""


class GraphError(ImcsimError, ValueError):
    """A module cannot be taken over into a graph, or a graph is inconsistent."""


class MappingError(ImcsimError, ValueError):
    """A graph does not fit a chip."""


class DataError(ImcsimError, ValueError):
    """A data set or a table of numbers is missing or broken."""


class OutputError(ImcsimError, OSError):
    """A result cannot be written where the user wants it."""


class SimulationError(ImcsimError, RuntimeError):
    """A program cannot run to its end."""


class ClusterError(ImcsimError, RuntimeError):
    """Processes that should evaluate points cannot be reached, do not fit, or are gone."""
