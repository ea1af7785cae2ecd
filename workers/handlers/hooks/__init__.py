"""The application's hooks: functions that receive events, and functions that answer clients."""
