"""What runs, renders and reviews notebooks from outside; never imports torch."""
