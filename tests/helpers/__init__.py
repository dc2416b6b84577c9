"""What tests share: slow twins, tiny models, ways to run commands. Nothing here is a test."""
