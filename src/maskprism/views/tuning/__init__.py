"""What tuning gains: charts, all numbers, and the page that explains them."""
