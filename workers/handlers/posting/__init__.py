"""Events for backends behind a URL: kept in a stream, signed, and posted until they are accepted."""
