"""One coefficient over all images of a folder."""

from maskprism.cli.original import extract_specific_feature, run

if __name__ == "__main__":
    run(extract_specific_feature)
