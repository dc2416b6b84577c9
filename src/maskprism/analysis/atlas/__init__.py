"""All instances of a table at once: what their coefficients say of classes, sizes, places, oddities and repetitions.

`points` reads any table; the other modules answer one question each; `atlas` asks them all.
"""
