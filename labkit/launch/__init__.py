"""What runs before user code in a kernel, and who watches over it."""
