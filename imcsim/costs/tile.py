"""The tile: how the energies and areas of a characterized tile follow to a tile of other measures.

Every function takes plain numbers, or arrays of them, and gives the characterized number back where the measures are
those of the characterization. The laws are our derivations, not the paper's.
"""


def column_read_energy(
    bitlines_pJ: float,
    n_columns_characterized: float,
    n_rows_ratio: float,
    rows_per_access_ratio: float,
) -> float:
    """Return the bitline energy of one column in one access.

    The capacitance grows with the length of the bitline, the number of discharges with the rows that are on (at equal
    sparsity). The ratios are those of the tile at hand to the characterized one.
    """
    return bitlines_pJ / n_columns_characterized * n_rows_ratio * rows_per_access_ratio


def wordline_energy(wordlines_pJ: float, n_columns_ratio: float, rows_per_access_ratio: float) -> float:
    """Return the wordline energy of one access: as many lines as rows are on, each as long as the columns are many."""
    return wordlines_pJ * n_columns_ratio * rows_per_access_ratio


def pcu_factor(adc_fraction: float, count_max_ratio: float) -> float:
    """Return the energy or area of a PCU relative to the characterized one.

    A flash ADC has a comparator for each count that it tells apart, so its share grows with count_max; the digital
    share stays.

    >>> pcu_factor(0.5, count_max_ratio=2.0)
    1.5
    """
    return 1 - adc_fraction + adc_fraction * count_max_ratio


def adc_share(adc_fraction: float, count_max_ratio: float) -> float:
    """Return the share of a PCU's energy that its two ADCs take, at the count_max at hand.

    >>> adc_share(0.5, count_max_ratio=1.0)
    0.5
    """
    return adc_fraction * count_max_ratio / pcu_factor(adc_fraction, count_max_ratio)


def convert_energy(
    pcus_pJ: float, n_columns_characterized: float, adc_fraction: float, count_max_ratio: float
) -> float:
    """Return the PCU energy of one column in one access, both counts."""
    return pcus_pJ / n_columns_characterized * pcu_factor(adc_fraction, count_max_ratio)


def write_row_energy(write_row_pJ: float, n_columns_ratio: float, n_rows_ratio: float) -> float:
    """Return the energy of writing a row: as many bitlines as columns, each as long as the rows are many."""
    return write_row_pJ * n_columns_ratio * n_rows_ratio


def array_area(array_um2: float, n_rows_ratio: float, n_columns_ratio: float) -> float:
    """Return the area (or leakage) of the array: proportional to its cells."""
    return array_um2 * n_rows_ratio * n_columns_ratio


def pcus_area(pcus_um2: float, n_pcus_ratio: float, adc_fraction: float, count_max_ratio: float) -> float:
    """Return the area (or leakage) of all PCUs of a tile."""
    return pcus_um2 * n_pcus_ratio * pcu_factor(adc_fraction, count_max_ratio)
