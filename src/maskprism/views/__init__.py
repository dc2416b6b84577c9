"""Views: what there is to see of a prediction.

`sheets` decides what a picture shows; `raster` draws a sheet as an array (fast, for files) and
`figures` as a matplotlib figure (for notebooks).
"""
