"""Histograms and correlation heat map of the coefficients in a CSV file."""

from maskprism.cli.original import generate_visualizations, run

if __name__ == "__main__":
    run(generate_visualizations)
