"""What a job reports, whatever it is, as what an event can hold. Nothing here raises because of a value."""
