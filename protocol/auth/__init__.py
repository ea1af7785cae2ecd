"""Who a client is and what it may do: rights on channels, and the tokens that carry them."""
