"""For applications on both ends of a link. May import the contract; never the core or the operator."""
