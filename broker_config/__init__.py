"""How to run a broker, and how to reach one."""
