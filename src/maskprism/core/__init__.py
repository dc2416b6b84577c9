"""What a prediction is, apart from how it is computed and shown: `archive` turns it into named arrays and back."""
