"""The service: HTTP in, JSON out. The only room that may import flask."""
