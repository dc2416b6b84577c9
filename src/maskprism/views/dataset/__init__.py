"""Where a network loses mask AP: the report of `analysis.dataset`.

`files` writes everything, `report` is the page that explains itself, `charts` are its figures.
"""
