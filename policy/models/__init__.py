"""Model files: finding, downloading and checking them."""
