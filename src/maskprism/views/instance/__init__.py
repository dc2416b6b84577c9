"""Why a mask is as it is: the pictures and tables of `analysis.instance`.

`explain` writes all of them for an image, `roles` draws what each prototype does, `attribution` what decides a pixel or
a region, `tables` has the same as rows of text.
"""
