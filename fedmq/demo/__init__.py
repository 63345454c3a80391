"""The demo: eight smartwatch wearers learn to tell seven exercises apart, and no recording leaves its wearer."""
