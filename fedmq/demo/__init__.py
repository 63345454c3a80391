"""The demo: eight smartwatch wearers learn to tell seven shoulder exercises apart, and no recording leaves its wearer."""
