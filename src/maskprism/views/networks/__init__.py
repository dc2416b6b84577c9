"""How two networks differ: the figures and files of `analysis.networks`.

`comparison` writes what comparing found, `worst_pairs` shows pairs of masks, `reduction` what fewer prototypes cost.
"""
