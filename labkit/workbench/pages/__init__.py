"""Reports: executed notebooks as single offline pages, and the index of them."""
