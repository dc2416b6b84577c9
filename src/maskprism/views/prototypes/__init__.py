"""What the prototypes are: the pictures of `analysis.prototypes`.

`cards` shows one prototype each, `basis` the canonical basis and the spectrum, `filmstrip` how they change from one
checkpoint to the next.
"""
