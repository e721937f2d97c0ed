"""Earth: this program and its peers in one run."""
