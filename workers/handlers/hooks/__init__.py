"""The application's hooks: functions that hear events, and that answer what clients ask."""
