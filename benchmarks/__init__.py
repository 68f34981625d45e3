"""Side-by-side measurements of this project and of what it is compared with."""
