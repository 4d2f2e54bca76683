"""What calls of every protocol share: the flow of one call, free of I/O, and the two drivers that run it."""
