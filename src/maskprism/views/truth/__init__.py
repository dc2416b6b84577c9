"""What each part of the network costs a mask: the pictures of `analysis.truth`.

`budget` draws the error budget, `thumbnails` masks against the ground truth.
"""
