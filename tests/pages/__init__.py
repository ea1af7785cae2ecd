"""README, the tutorial and the how-tos, followed literally by a newcomer who has installed the wheel."""
