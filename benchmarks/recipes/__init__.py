"""What files of other programs are, and how each is read: `benchmarks.files` makes tickets of them."""
