"""What a notebook cell imports; the only side that may import torch."""
