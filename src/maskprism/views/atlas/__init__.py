"""The atlas of `analysis.atlas`: a page of statistics and a map of all instances.

`files` writes everything, `report` is the page of statistics with the figures of `charts`, `map_page` the map, of which
`map_data` has the points and `thumbnails` the small pictures.
"""
