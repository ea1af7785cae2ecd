"""What other systems have and Fanline has not: ids of any form, and task boards."""
