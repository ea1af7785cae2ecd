"""The plain dialect: flat JSON objects, as the clients of the existing systems speak them."""
