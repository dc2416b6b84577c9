"""Coefficients and prototype figures of all images of data/."""

from maskprism.cli.original import extract_features, run

if __name__ == "__main__":
    run(extract_features)
